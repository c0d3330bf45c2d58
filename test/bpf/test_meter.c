/* The programs that measure CPU time of leaves, against what the kernel's files say of it. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/bpf/meter_world.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

static const uint64_t second_nsec = 1000000000;
static const uint64_t slack_nsec = 100000000; /* what a thread needs to begin and to end */

static struct meter_world w;

static void setup(void)
{
        meter_world_init(&w, METER_SLOTS, METER_THREADS);
}

static void teardown(void)
{
        meter_world_deinit(&w);
}

/* --- CPU time --------------------------------------------------------------------------------- */

static void *spin_in_thread(void *data)
{
        spin(*(const uint64_t *)data);
        return NULL;
}

static int spin_in_two_threads(const void *data)
{
        uint64_t nsec = *(const uint64_t *)data;
        pthread_t thread;

        if (pthread_create(&thread, NULL, spin_in_thread, &nsec))
                return 1;
        spin(nsec);
        return pthread_join(thread, NULL);
}

static int exec_chain(const void *data)
{
        (void)data;
        (void)execl(
                "/bin/sh", "sh", "-c",
                "i=0; while [ $i -lt 100 ]; do i=$((i+1)); /bin/true & done; wait; exec /bin/true",
                NULL);
        return 1;
}

static void *exec_in_thread(void *data)
{
        (void)data;
        (void)execl("/bin/sh", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
                    NULL);
        return NULL;
}

/* The first thread is gone then, and the other one has its number and its time of birth. */
static int exec_from_another_thread(const void *data)
{
        pthread_t thread;

        spin(*(const uint64_t *)data);
        if (pthread_create(&thread, NULL, exec_in_thread, NULL))
                return 1;
        (void)pthread_join(thread, NULL);
        return 1;
}

static int sleep_shortly(const void *data)
{
        (void)data;
        return usleep(50000);
}

/* Who waits for a process hears of its end before its last switch. */
static struct meter_reading read_after_end(size_t leaf)
{
        struct meter_reading reading;

        while ((reading = world_read(&w, leaf)).is_running)
                (void)sched_yield();
        return reading;
}

START_TEST(a_thread_that_spins_costs_what_cpu_stat_says)
{
        struct meter_reading reading;

        leaf_run(&w.leaves[0], spin_alone, &second_nsec);
        reading = read_after_end(0);
        check_same_time(reading.cpu_nsec, world_file_nsec(&w, 0));
        ck_assert_uint_ge(reading.cpu_nsec, second_nsec);
}
END_TEST

START_TEST(two_threads_cost_twice_as_much)
{
        leaf_run(&w.leaves[0], spin_in_two_threads, &second_nsec);
        check_same_time(world_read(&w, 0).cpu_nsec, world_file_nsec(&w, 0));
        ck_assert_uint_ge(world_read(&w, 0).cpu_nsec, 2 * second_nsec);
}
END_TEST

START_TEST(children_are_counted_to_the_leaf_that_they_are_born_in)
{
        leaf_run(&w.leaves[0], fork_children, NULL);
        leaf_run(&w.leaves[0], exec_chain, NULL);
        check_same_time(world_read(&w, 0).cpu_nsec, world_file_nsec(&w, 0));
        ck_assert_uint_ge(world_read(&w, 0).n_switches, METER_CHILDREN);
        ck_assert_uint_eq(world_read(&w, 1).cpu_nsec, 0);
        ck_assert_uint_eq(world_read(&w, 1).n_switches, 0);
}
END_TEST

START_TEST(another_program_by_another_thread_takes_nothing_back)
{
        uint64_t nsec = second_nsec / 2;
        struct meter_reading reading;

        meter_begin_epoch(w.meter, w.slots[0], 0);
        for (int i = 0; i < 3; i++)
                leaf_run(&w.leaves[0], exec_from_another_thread, &nsec);
        reading = world_read(&w, 0);
        check_same_time(reading.cpu_nsec, world_file_nsec(&w, 0));
        ck_assert_uint_ge(reading.cpu_nsec, 3 * nsec);
        ck_assert_uint_eq(reading.earlier_nsec, 0);
}
END_TEST

START_TEST(sleep_costs_next_to_nothing)
{
        struct meter_reading reading;

        leaf_run(&w.leaves[1], sleep_shortly, NULL);
        reading = read_after_end(1);
        check_same_time(reading.cpu_nsec, world_file_nsec(&w, 1));
        ck_assert_uint_lt(reading.cpu_nsec, (uint64_t)10000000 * (unsigned)test_patience());
        ck_assert_uint_ge(reading.n_switches, 2);
}
END_TEST

START_TEST(a_reading_has_the_current_slice_and_never_falls)
{
        uint64_t last_nsec = 0;
        unsigned n_running = 0;
        unsigned n_risen = 0;
        pid_t pid = leaf_start(&w.leaves[0], spin_on_first_cpu, &second_nsec);

        /* Who reads must not take the CPU. */
        ck_assert_int_eq(stay_on(1), 0);
        while (waitpid(pid, NULL, WNOHANG) == 0) {
                struct meter_reading reading = world_read(&w, 0);

                ck_assert_uint_ge(reading.cpu_nsec, last_nsec);
                n_running += reading.is_running;
                n_risen += reading.is_running && reading.cpu_nsec > last_nsec;
                last_nsec = reading.cpu_nsec;
                (void)usleep(500);
        }
        /* Without the slice there would be steps only. Where time is stolen, a slice may have been
         * taken for longer than it was. */
        ck_assert_uint_gt(n_running, 0);
        ck_assert_uint_gt(2 * n_risen, n_running);
        check_same_time(world_read(&w, 0).cpu_nsec, world_file_nsec(&w, 0));
}
END_TEST

static bool has_run(void)
{
        meter_look(w.meter);
        return meter_has_run(w.meter, w.slots[0]);
}

START_TEST(a_look_sees_who_was_on_a_cpu_since_the_one_before)
{
        uint64_t nsec = second_nsec / 2;
        unsigned n_staying = 0; /* looks that saw it on its CPU, which it had not left */
        pid_t pid;

        ck_assert(!has_run());
        leaf_run(&w.leaves[0], spin_alone, &slack_nsec);
        ck_assert(has_run());
        ck_assert(!has_run());
        pid = leaf_start(&w.leaves[0], spin_on_first_cpu, &nsec);
        ck_assert_int_eq(stay_on(1), 0);
        while (waitpid(pid, NULL, WNOHANG) == 0) {
                uint64_t n_switches = world_read(&w, 0).n_switches;

                (void)has_run();
                n_staying += has_run() && world_read(&w, 0).n_switches == n_switches;
                (void)usleep(500);
        }
        ck_assert_uint_gt(n_staying, 0);
        (void)has_run();
        ck_assert(!has_run());
}
END_TEST

/* Run on one CPU, so that none is moved to another one while it waits. */
static int wait_for_each_other(const void *data)
{
        const int *pipe_fds = data;
        unsigned long long waited;
        char text[64];
        char *end;
        FILE *file;

        if (stay_on(0))
                return 1;
        for (int i = 0; i < 3; i++)
                if (fork() == 0)
                        break;
        spin(second_nsec / 5);
        file = fopen("/proc/thread-self/schedstat", "re");
        if (!file || !fgets(text, sizeof(text), file))
                return 1;
        (void)strtoull(text, &end, 10); /* what it used */
        waited = strtoull(end, NULL, 10);
        if (write(pipe_fds[1], &waited, sizeof(waited)) != sizeof(waited))
                return 1;
        while (wait(NULL) > 0)
                ;
        return 0;
}

START_TEST(waits_are_those_of_all_threads)
{
        unsigned long long theirs = 0;
        unsigned long long one;
        uint64_t ours;
        int fds[2];

        ck_assert(meter_knows_wait());
        ck_assert_int_eq(pipe(fds), 0);
        leaf_run(&w.leaves[0], wait_for_each_other, fds);
        (void)close(fds[1]);
        while (read(fds[0], &one, sizeof(one)) == sizeof(one))
                theirs += one;
        (void)close(fds[0]);
        ours = world_read(&w, 0).wait_nsec;
        /* Four on one CPU: each waits for three others most of the time. */
        ck_assert_uint_ge(theirs, second_nsec / 2);
        ck_assert_msg(ours >= theirs - theirs / 20 && ours <= theirs + theirs / 20 + 20000000,
                      "%llu ns and %llu ns", (unsigned long long)ours, theirs);
}
END_TEST

/* --- earlier work ----------------------------------------------------------------------------- */

/* A thread that lasts longer than the cell it was made in, and then a new one of the next cell. */
static int outlive(const void *data)
{
        const struct talk *talk = data;
        uint64_t nsec = second_nsec / 2;
        pthread_t older;
        pthread_t newer;

        if (pthread_create(&older, NULL, spin_in_thread, &nsec))
                return 1;
        tell(talk->to_parent[1]);
        hear(talk->to_child[0]);
        if (pthread_create(&newer, NULL, spin_in_thread, &nsec))
                return 1;
        spin(nsec);
        return pthread_join(newer, NULL) || pthread_join(older, NULL);
}

START_TEST(only_threads_from_before_the_epoch_are_earlier_and_not_the_main_one)
{
        struct meter_reading before;
        struct meter_reading after;
        struct talk talk;
        pid_t pid;

        make_talk(&talk);
        pid = leaf_start(&w.leaves[0], outlive, &talk);
        hear(talk.to_parent[0]);
        ck_assert_uint_eq(world_read(&w, 0).earlier_nsec, 0);
        meter_begin_epoch(w.meter, w.slots[0], 0);
        before = world_read(&w, 0);
        tell(talk.to_child[1]);
        ck_assert_int_eq(leaf_wait(pid), 0);
        after = world_read(&w, 0);
        /* Nor is what it had used before of the epoch, or what the other two used at least. */
        ck_assert_uint_le(after.earlier_nsec + 2 * (second_nsec / 2),
                          after.cpu_nsec - before.cpu_nsec + slack_nsec);
        ck_assert_uint_ge(after.earlier_nsec + before.cpu_nsec + slack_nsec, second_nsec / 2);
        ck_assert_uint_ge(after.cpu_nsec, 3 * (second_nsec / 2));
        close_talk(&talk);
}
END_TEST

/* So that nothing takes its CPU. Where groups have shares of such time, only the first one has any;
 * where it cannot be had, others may divide what is to be one stint. */
static void come_first(void)
{
        const struct sched_param first = { .sched_priority = 1 };
        int fd = open("/sys/fs/cgroup/cpu/tasks", O_WRONLY | O_CLOEXEC);

        if (fd >= 0) {
                (void)!write(fd, "0", 1);
                (void)close(fd);
        }
        (void)sched_setscheduler(0, SCHED_FIFO, &first);
}

struct stint {
        bool has_begun;
        bool is_divided;
};

static int spin_undisturbed(const void *data)
{
        struct stint *stint = *(struct stint *const *)data;

        if (stay_on(0))
                return 1;
        come_first();
        spin(second_nsec / 5);
        __atomic_store_n(&stint->has_begun, true, __ATOMIC_RELEASE);
        while (!__atomic_load_n(&stint->is_divided, __ATOMIC_ACQUIRE))
                ;
        spin(second_nsec / 5);
        return 0;
}

/* What CPU time there was before it is no earlier work of it; also as long as the stint lasts. */
START_TEST(an_epoch_divides_a_stint)
{
        struct stint *stint = mmap(NULL, sizeof(*stint), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        struct meter_reading before, during, after;
        uint64_t start_nsec;
        pid_t pid;

        ck_assert_ptr_ne(stint, MAP_FAILED);
        leaf_run(&w.leaves[0], sleep_shortly, NULL); /* the main one's work is never earlier */
        ck_assert_int_eq(stay_on(1), 0);
        pid = leaf_start(&w.leaves[0], spin_undisturbed, &stint);
        while (!__atomic_load_n(&stint->has_begun, __ATOMIC_ACQUIRE))
                (void)sched_yield();
        before = world_read(&w, 0);
        start_nsec = clock_monotonic_nsec();
        meter_begin_epoch(w.meter, w.slots[0], 0);
        during = world_read(&w, 0);
        ck_assert_uint_le(during.earlier_nsec, clock_monotonic_nsec() - start_nsec);
        __atomic_store_n(&stint->is_divided, true, __ATOMIC_RELEASE);
        ck_assert_int_eq(leaf_wait(pid), 0);
        after = world_read(&w, 0);
        ck_assert_uint_ge(after.earlier_nsec, second_nsec / 5);
        ck_assert_uint_le(after.earlier_nsec, after.cpu_nsec - before.cpu_nsec + 10000000);
        (void)munmap(stint, sizeof(*stint));
}
END_TEST

static int begin_work_later(const void *data)
{
        const struct talk *talk = data;
        uint64_t nsec = second_nsec / 2;
        pid_t pid;

        hear(talk->to_child[0]);
        pid = fork();
        if (pid == 0) {
                spin(nsec);
                _exit(0);
        }
        return pid < 0 || waitpid(pid, NULL, 0) != pid;
}

/* A child that begins work when the next cell runs, by a child of its own; and one of that cell. */
static int have_grandchildren(const void *data)
{
        const struct talk *talk = data;
        uint64_t nsec = second_nsec / 4;
        pid_t older = fork();

        if (older == 0)
                _exit(begin_work_later(data));
        tell(talk->to_parent[1]);
        if (older < 0 || waitpid(older, NULL, 0) != older)
                return 1;
        if (fork() == 0) {
                spin(nsec);
                _exit(0);
        }
        return wait(NULL) < 0;
}

START_TEST(children_of_what_is_earlier_are_earlier)
{
        struct meter_reading reading;
        struct talk talk;
        pid_t pid;

        make_talk(&talk);
        pid = leaf_start(&w.leaves[0], have_grandchildren, &talk);
        hear(talk.to_parent[0]);
        meter_begin_epoch(w.meter, w.slots[0], 0);
        tell(talk.to_child[1]);
        ck_assert_int_eq(leaf_wait(pid), 0);
        reading = world_read(&w, 0);
        ck_assert_uint_ge(reading.earlier_nsec, second_nsec / 2);
        ck_assert_uint_le(reading.earlier_nsec, second_nsec / 2 + slack_nsec);
        ck_assert_uint_ge(reading.cpu_nsec, 3 * (second_nsec / 4));
        close_talk(&talk);
}
END_TEST

/* --- without programs ------------------------------------------------------------------------- */

START_TEST(a_program_that_is_refused_is_named_and_the_others_count)
{
        const struct meter_config config = { .n_slots = 1,
                                             .n_threads = METER_THREADS,
                                             .without = BIT(METER_RSS) };
        struct meter *meter = NULL;
        struct meter_reading reading;
        char why[METER_WHY_BUFFER];
        uint32_t slot;

        ck_assert_int_eq(meter_new(&config, &meter, why), 0);
        ck_assert(meter_has(meter, METER_SWITCH) && meter_has(meter, METER_EXIT));
        ck_assert(!meter_has(meter, METER_RSS));
        ck_assert_ptr_nonnull(strstr(why, "meter_rss: "));
        ck_assert_int_eq(meter_take_slot(meter, w.leaves[0].id, &slot), 0);
        leaf_run(&w.leaves[0], fork_children, NULL);
        meter_read(meter, slot, &reading);
        check_same_time(reading.cpu_nsec, world_file_nsec(&w, 0));
        ck_assert_uint_eq(reading.rss_peak_bytes, 0);
        meter_release_slot(meter, slot);
        (void)meter_free(meter);
}
END_TEST

START_TEST(without_the_first_program_there_is_no_meter)
{
        const struct meter_config config = { .n_slots = 1,
                                             .n_threads = METER_THREADS,
                                             .without = BIT(METER_SWITCH) };
        struct meter *meter = NULL;
        char why[METER_WHY_BUFFER];

        ck_assert_int_lt(meter_new(&config, &meter, why), 0);
        ck_assert_ptr_nonnull(strstr(why, "meter_switch: "));
        ck_assert_ptr_null(meter);
}
END_TEST

/* Check runs each test in a process of its own. */
START_TEST(a_kernel_that_takes_no_programs_is_survived)
{
        const struct meter_config config = { .n_slots = 1, .n_threads = METER_THREADS };
        struct meter *meter = NULL;
        char why[METER_WHY_BUFFER];

        ck_assert_int_eq(setuid(65534), 0);
        ck_assert_int_lt(meter_new(&config, &meter, why), 0);
        ck_assert_ptr_nonnull(strstr(why, strerrordesc_np(EPERM)));
        ck_assert_ptr_null(meter);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("meter");
        TCase *tc = meter_case("leaves", setup, teardown);

        tcase_add_test(tc, a_thread_that_spins_costs_what_cpu_stat_says);
        tcase_add_test(tc, two_threads_cost_twice_as_much);
        tcase_add_test(tc, children_are_counted_to_the_leaf_that_they_are_born_in);
        tcase_add_test(tc, another_program_by_another_thread_takes_nothing_back);
        tcase_add_test(tc, sleep_costs_next_to_nothing);
        tcase_add_test(tc, a_reading_has_the_current_slice_and_never_falls);
        tcase_add_test(tc, a_look_sees_who_was_on_a_cpu_since_the_one_before);
        tcase_add_test(tc, waits_are_those_of_all_threads);
        tcase_add_test(tc, children_of_what_is_earlier_are_earlier);
        tcase_add_test(tc, only_threads_from_before_the_epoch_are_earlier_and_not_the_main_one);
        tcase_add_test(tc, an_epoch_divides_a_stint);
        tcase_add_test(tc, a_program_that_is_refused_is_named_and_the_others_count);
        suite_add_tcase(suite, tc);
        tc = meter_case("refused", NULL, NULL);
        tcase_add_test(tc, without_the_first_program_there_is_no_meter);
        tcase_add_test(tc, a_kernel_that_takes_no_programs_is_survived);
        suite_add_tcase(suite, tc);
        return suite_main(suite);
}
