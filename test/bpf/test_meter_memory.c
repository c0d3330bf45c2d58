/* Memory as the programs measure it: peaks of what is resident, and who goes for want of it. */

#include <check.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/bpf/meter_world.h"
#include "test/lib/suite.h"

static const uint64_t second_nsec = 1000000000;

static struct meter_world w;

static void setup(void)
{
        meter_world_init(&w, METER_SLOTS, METER_THREADS);
}

static void teardown(void)
{
        meter_world_deinit(&w);
}

static uint64_t own_peak_bytes(void)
{
        FILE *file = fopen("/proc/self/status", "re");
        static const char name[] = "VmHWM:";
        uint64_t kibibytes = 0;
        char line[128];

        while (file && kibibytes == 0 && fgets(line, sizeof(line), file))
                if (strncmp(line, name, strlen(name)) == 0)
                        kibibytes = strtoull(line + strlen(name), NULL, 10);
        if (file)
                (void)fclose(file);
        return kibibytes << 10;
}

/* What a process that is on a CPU has now may not have been looked at. */
static void await_sleep(pid_t pid)
{
        char path[32], line[128], state = '?';

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        while (state != 'S') {
                FILE *file = fopen(path, "re");

                ck_assert_ptr_nonnull(file);
                ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
                (void)fclose(file);
                ck_assert_int_eq(sscanf(strrchr(line, ')'), ") %c", &state), 1);
                (void)sched_yield();
        }
}

static char *touch(size_t n_bytes)
{
        char *bytes =
                mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        for (size_t i = 0; bytes != MAP_FAILED && i < n_bytes; i += 4096)
                bytes[i] = 1;
        return bytes == MAP_FAILED ? NULL : bytes;
}

static int touch_and_free(size_t n_bytes)
{
        char *bytes = touch(n_bytes);

        return bytes ? munmap(bytes, n_bytes) : 1;
}

/* Tells its peak, and has less when the parent has spoken: until it speaks again. */
static int touch_twice(const void *data)
{
        const struct talk *talk = data;
        uint64_t peak;
        char *bytes;

        if (touch_and_free(MIB(300)))
                return 1;
        peak = own_peak_bytes();
        if (write(talk->to_parent[1], &peak, sizeof(peak)) != sizeof(peak))
                return 1;
        hear(talk->to_child[0]);
        bytes = touch(MIB(100));
        if (!bytes || write(talk->to_parent[1], &peak, sizeof(peak)) != sizeof(peak))
                return 1;
        hear(talk->to_child[0]);
        return munmap(bytes, MIB(100));
}

static void check_same_memory(uint64_t ours, uint64_t theirs)
{
        uint64_t difference = MAX(ours, theirs) - MIN(ours, theirs);

        ck_assert_msg(difference <= MAX(theirs / 20, MIB(2)), "%llu and %llu bytes",
                      (unsigned long long)ours, (unsigned long long)theirs);
}

START_TEST(the_peak_of_resident_memory_is_that_of_the_process)
{
        struct talk talk;
        uint64_t peak;
        pid_t pid;

        make_talk(&talk);
        pid = leaf_start(&w.leaves[0], touch_twice, &talk);
        ck_assert_int_eq(read(talk.to_parent[0], &peak, sizeof(peak)), sizeof(peak));
        ck_assert_uint_ge(peak, MIB(300));
        await_sleep(pid);
        check_same_memory(world_read(&w, 0).rss_peak_bytes, peak);
        meter_begin_epoch(w.meter, w.slots[0], MIB(1));
        ck_assert_uint_eq(world_read(&w, 0).rss_peak_bytes, MIB(1));
        tell(talk.to_child[1]);
        ck_assert_int_eq(read(talk.to_parent[0], &peak, sizeof(peak)), sizeof(peak));
        await_sleep(pid);
        tell(talk.to_child[1]);
        ck_assert_int_eq(leaf_wait(pid), 0);
        check_same_memory(world_read(&w, 0).rss_peak_bytes, MIB(101));
        close_talk(&talk);
}
END_TEST

/* What it has now, of which the kernel notes nothing yet. */
static int share_memory(const void *data)
{
        const struct talk *talk = data;
        char *bytes =
                mmap(NULL, MIB(50), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (bytes == MAP_FAILED)
                return 1;
        for (size_t i = 0; i < MIB(50); i += 4096)
                bytes[i] = 1;
        tell(talk->to_parent[1]);
        hear(talk->to_child[0]);
        return 0;
}

START_TEST(memory_that_is_shared_is_resident)
{
        struct talk talk;
        pid_t pid;

        make_talk(&talk);
        pid = leaf_start(&w.leaves[0], share_memory, &talk);
        hear(talk.to_parent[0]);
        await_sleep(pid);
        check_same_memory(world_read(&w, 0).rss_peak_bytes, MIB(51));
        tell(talk.to_child[1]);
        ck_assert_int_eq(leaf_wait(pid), 0);
        close_talk(&talk);
}
END_TEST

/* Children are gone before anything but the kernel has seen what they had. */
static int have_a_child_that_touches(const void *data)
{
        const struct talk *talk = data;
        int status = 1;
        pid_t pid;

        if (touch_and_free(MIB(50)))
                return 1;
        tell(talk->to_parent[1]);
        hear(talk->to_child[0]);
        pid = fork();
        if (pid == 0)
                _exit(touch_and_free(MIB(80)));
        (void)waitpid(pid, &status, 0);
        return status;
}

START_TEST(a_peak_is_seen_however_short_it_is)
{
        struct talk talk;
        pid_t pid;

        make_talk(&talk);
        pid = leaf_start(&w.leaves[0], have_a_child_that_touches, &talk);
        hear(talk.to_parent[0]);
        await_sleep(pid);
        check_same_memory(world_read(&w, 0).rss_peak_bytes, MIB(51));
        meter_begin_epoch(w.meter, w.slots[0], MIB(1));
        tell(talk.to_child[1]);
        ck_assert_int_eq(leaf_wait(pid), 0);
        check_same_memory(world_read(&w, 0).rss_peak_bytes, MIB(81));
        close_talk(&talk);
}
END_TEST

/* --- what is over, or has not ended, before anybody else is on the CPU --- */

enum { ATTEMPTS = 100000, UNSEEN_MAX = 50 };

/* Each has pages already, so that to have them takes no time. */
static int common_fd;

static char *have_common(void)
{
        char *bytes = mmap(NULL, MIB(24), PROT_READ, MAP_SHARED | MAP_POPULATE, common_fd, 0);

        return bytes == MAP_FAILED ? NULL : bytes;
}

static void make_common(void)
{
        char *bytes;

        common_fd = memfd_create("common", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(common_fd, (off_t)MIB(24)), 0);
        bytes = mmap(NULL, MIB(24), PROT_WRITE, MAP_SHARED, common_fd, 0);
        ck_assert_ptr_ne(bytes, MAP_FAILED);
        memset(bytes, 1, MIB(24));
        ck_assert_int_eq(munmap(bytes, MIB(24)), 0);
}

/* Before Linux 6.2 a thread keeps the last of its page faults to itself while it is on its CPU: at
 * 16 pages each these are some MiB. */
static bool has_seen_common(void)
{
        return world_read(&w, 0).rss_peak_bytes >= MIB(16);
}

static long own_switches(void)
{
        struct rusage usage;

        (void)getrusage(RUSAGE_SELF, &usage);
        return usage.ru_nvcsw + usage.ru_nivcsw;
}

/* Only while it is on its CPU can nobody but a tick have seen it. A host may take the CPU away, and
 * the ticks with it. */
static int wait_to_be_seen(const void *data)
{
        unsigned n_unseen = 0;

        (void)data;
        for (unsigned i = 0; i < ATTEMPTS && n_unseen < UNSEEN_MAX; i++) {
                long n_switches = own_switches();
                uint64_t end_usec = clock_monotonic_usec() + 100 * 1000;
                bool is_seen;
                char *bytes;

                meter_begin_epoch(w.meter, w.slots[0], 0);
                bytes = have_common();
                while (!has_seen_common() && own_switches() == n_switches &&
                       clock_monotonic_usec() < end_usec)
                        ;
                is_seen = has_seen_common();
                if (own_switches() == n_switches) {
                        if (is_seen)
                                return 0;
                        n_unseen++;
                }
                if (!bytes || munmap(bytes, MIB(24)))
                        return 2;
        }
        return 1;
}

START_TEST(the_peak_of_who_stays_on_its_cpu_is_seen)
{
        make_common();
        leaf_run(&w.leaves[0], wait_to_be_seen, NULL);
        (void)close(common_fd);
}
END_TEST

/* 0: nobody has seen it when it ends. */
static int have_and_end(void)
{
        return !have_common() || has_seen_common();
}

static int have_short_children(const void *data)
{
        (void)data;
        for (unsigned i = 0; i < ATTEMPTS; i++) {
                int status = 1;
                pid_t pid;

                meter_begin_epoch(w.meter, w.slots[0], 0);
                pid = fork();
                if (pid == 0)
                        _exit(have_and_end());
                (void)waitpid(pid, &status, 0);
                if (status == 0 && !has_seen_common())
                        return 1;
                if (status == 0 && i > 20)
                        return 0;
        }
        return 3;
}

START_TEST(an_end_tells_the_peak_that_nobody_saw)
{
        make_common();
        leaf_run(&w.leaves[0], have_short_children, NULL);
        (void)close(common_fd);
}
END_TEST

static int be_greedy(const void *data)
{
        (void)data;
        (void)prctl(PR_SET_NAME, "greedy one");
        return touch_and_free(MIB(1024));
}

static int have_a_greedy_child(const void *data)
{
        pid_t pid = fork();
        int status;

        if (pid == 0)
                _exit(be_greedy(data));
        (void)waitpid(pid, &status, 0);
        return 0;
}

START_TEST(the_victim_of_a_want_of_memory_is_named)
{
        struct meter_victim victim;

        (void)leaf_wait(leaf_start(&w.leaves[0], have_a_greedy_child, NULL));
        /* In cgroup v2 all are killed together, and who was waited for may be the first to go. */
        while (cgroup_is_populated(&w.leaves[0]))
                (void)sched_yield();
        victim = world_read(&w, 0).victim;
        ck_assert_uint_ne(victim.pid, 0);
        ck_assert_str_eq(victim.command, "greedy one");
        ck_assert_uint_ge(victim.rss_bytes, MIB(400));
        ck_assert_uint_le(victim.rss_bytes, MIB(520));
        ck_assert_uint_eq(world_read(&w, 1).victim.pid, 0);
}
END_TEST

START_TEST(who_is_killed_otherwise_is_no_victim)
{
        pid_t pid = leaf_start(&w.leaves[0], spin_alone, &second_nsec);

        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert(WIFSIGNALED(leaf_wait(pid)));
        ck_assert_uint_eq(world_read(&w, 0).victim.pid, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("meter_memory");
        TCase *tc = meter_case("leaves", setup, teardown);

        tcase_add_test(tc, the_peak_of_resident_memory_is_that_of_the_process);
        tcase_add_test(tc, memory_that_is_shared_is_resident);
        tcase_add_test(tc, a_peak_is_seen_however_short_it_is);
        tcase_add_test(tc, the_peak_of_who_stays_on_its_cpu_is_seen);
        tcase_add_test(tc, an_end_tells_the_peak_that_nobody_saw);
        tcase_add_test(tc, the_victim_of_a_want_of_memory_is_named);
        tcase_add_test(tc, who_is_killed_otherwise_is_no_victim);
        suite_add_tcase(suite, tc);
        return suite_main(suite);
}
