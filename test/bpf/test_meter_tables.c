/* Tables of the programs that are full: slots of leaves, and what is known of threads. */

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/bpf/meter_world.h"
#include "test/lib/suite.h"

enum {
        FEW_THREADS = 256,
        PATIENCE_MSEC = 60000,
};

static const uint64_t century_nsec = 3155760000ULL * 1000000000;

static struct meter_world w;

static void setup_with_one_slot(void)
{
        meter_world_init(&w, 1, METER_THREADS);
}

static void setup_with_few_threads(void)
{
        meter_world_init(&w, METER_SLOTS, FEW_THREADS);
}

static void teardown(void)
{
        meter_world_deinit(&w);
}

/* --- slots ------------------------------------------------------------------------------------ */

START_TEST(full_tables_are_counted_and_harm_nobody)
{
        struct meter_slots slots = meter_count_slots(w.meter);

        ck_assert_uint_eq(slots.n, 1);
        ck_assert_uint_eq(slots.n_used, 1);
        ck_assert_uint_eq(slots.n_refused, 1);
        ck_assert_uint_eq(w.slots[1], METER_NO_SLOT);
        leaf_run(&w.leaves[1], fork_children, NULL);
        ck_assert_uint_eq(world_read(&w, 0).cpu_nsec, 0);
        ck_assert_uint_gt(world_file_nsec(&w, 1), 0);
}
END_TEST

/* Another one gets the first CPU, if only for a moment. */
static void take_first_cpu(void)
{
        pid_t pid = fork();

        if (pid == 0)
                _exit(stay_on(0) ? 1 : 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(a_slot_has_nothing_of_the_leaf_that_had_it_before)
{
        uint64_t deadline_msec = clock_monotonic_msec() + PATIENCE_MSEC;
        pid_t pid = leaf_start(&w.leaves[0], spin_on_first_cpu, &century_nsec);
        int r;

        /* Who looks must not take its CPU. */
        ck_assert_int_eq(stay_on(1), 0);
        while (!world_read(&w, 0).is_running)
                ck_assert_uint_lt(clock_monotonic_msec(), deadline_msec);
        meter_release_slot(w.meter, w.slots[0]);
        w.slots[0] = METER_NO_SLOT;
        ck_assert_uint_eq(meter_count_slots(w.meter).n_used, 0);
        /* Not while the thread is on its CPU, which it may have for itself. */
        while ((r = meter_take_slot(w.meter, w.leaves[1].id, &w.slots[1])) == METER_E_FULL) {
                ck_assert_uint_lt(clock_monotonic_msec(), deadline_msec);
                take_first_cpu();
        }
        ck_assert_int_eq(r, 0);
        ck_assert(!world_read(&w, 1).is_running);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert(WIFSIGNALED(leaf_wait(pid)));
        ck_assert_uint_eq(world_read(&w, 1).cpu_nsec, 0);
        ck_assert_uint_eq(world_read(&w, 1).n_switches, 0);
        ck_assert_uint_eq(world_read(&w, 1).rss_peak_bytes, 0);
        leaf_run(&w.leaves[1], fork_children, NULL);
        check_same_time(world_read(&w, 1).cpu_nsec, world_file_nsec(&w, 1));
}
END_TEST

/* A thread may still be about to write to the one that was released last. */
START_TEST(a_slot_that_was_just_released_is_the_last_to_be_taken)
{
        uint32_t released = w.slots[0], slots[METER_SLOTS - 1];
        uint64_t no_leaf = UINT64_MAX;

        meter_release_slot(w.meter, w.slots[0]);
        w.slots[0] = METER_NO_SLOT;
        for (size_t i = 0; i < ARRAY_SIZE(slots); i++) {
                ck_assert_int_eq(meter_take_slot(w.meter, no_leaf--, &slots[i]), 0);
                ck_assert((slots[i] == released) == (i == ARRAY_SIZE(slots) - 1));
        }
        for (size_t i = 0; i < ARRAY_SIZE(slots); i++)
                meter_release_slot(w.meter, slots[i]);
        for (size_t i = 0; i < ARRAY_SIZE(slots); i++) {
                uint32_t slot;

                ck_assert_int_eq(meter_take_slot(w.meter, no_leaf--, &slot), 0);
                ck_assert_uint_eq(slot, slots[i]);
        }
}
END_TEST

/* What a thread adds that came before the release is nobody's. */
START_TEST(nothing_is_added_to_a_slot_that_was_released)
{
        uint64_t deadline_msec = clock_monotonic_msec() + PATIENCE_MSEC;
        pid_t pid = leaf_start(&w.leaves[0], spin_on_first_cpu, &century_nsec);
        uint32_t released = w.slots[0];
        struct meter_reading before, after;

        ck_assert_int_eq(stay_on(1), 0);
        while (!world_read(&w, 0).is_running)
                ck_assert_uint_lt(clock_monotonic_msec(), deadline_msec);
        meter_release_slot(w.meter, released);
        w.slots[0] = METER_NO_SLOT;
        (void)usleep(1); /* who was just about to add has done so */
        meter_read(w.meter, released, &before);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert(WIFSIGNALED(leaf_wait(pid)));
        meter_read(w.meter, released, &after);
        ck_assert_uint_eq(after.n_switches, before.n_switches);
        ck_assert_uint_eq(after.wait_nsec, before.wait_nsec);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------- */

static void *wait_twice(void *data)
{
        for (int i = 0; i < 2; i++)
                (void)pthread_barrier_wait(data);
        return NULL;
}

/* Each goes on after all of them were there at once. */
static int run_threads(const void *data)
{
        pthread_t threads[4 * FEW_THREADS];
        pthread_barrier_t barrier;

        (void)data;
        if (pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(threads)))
                return 1;
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                if (pthread_create(&threads[i], NULL, wait_twice, &barrier))
                        return 1;
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                if (pthread_join(threads[i], NULL))
                        return 1;
        return 0;
}

/* Threads that sleep while many others come and go. */
static int outlast_children(const void *data)
{
        pthread_t threads[FEW_THREADS / 8];
        pthread_barrier_t barrier;

        if (pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(threads) + 1))
                return 1;
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                if (pthread_create(&threads[i], NULL, wait_twice, &barrier))
                        return 1;
        (void)pthread_barrier_wait(&barrier);
        if (fork_children(data))
                return 1;
        (void)pthread_barrier_wait(&barrier);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                if (pthread_join(threads[i], NULL))
                        return 1;
        return 0;
}

START_TEST(who_is_over_takes_no_place_from_who_sleeps)
{
        leaf_run(&w.leaves[0], outlast_children, NULL);
        ck_assert_uint_lt(meter_count_forgotten(w.meter), FEW_THREADS / 64);
}
END_TEST

START_TEST(who_is_over_makes_room)
{
        uint64_t n_forgotten;

        leaf_run(&w.leaves[0], run_threads, NULL);
        n_forgotten = meter_count_forgotten(w.meter);
        leaf_run(&w.leaves[0], outlast_children, NULL);
        ck_assert_uint_lt(meter_count_forgotten(w.meter), n_forgotten + FEW_THREADS / 64);
}
END_TEST

START_TEST(what_is_forgotten_is_counted)
{
        leaf_run(&w.leaves[0], run_threads, NULL);
        ck_assert_uint_gt(meter_count_forgotten(w.meter), 0);
        check_same_time(world_read(&w, 0).cpu_nsec, world_file_nsec(&w, 0));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("meter_tables");
        TCase *tc = meter_case("one slot", setup_with_one_slot, teardown);

        tcase_add_test(tc, full_tables_are_counted_and_harm_nobody);
        tcase_add_test(tc, a_slot_has_nothing_of_the_leaf_that_had_it_before);
        suite_add_tcase(suite, tc);
        tc = meter_case("slots", setup_with_few_threads, teardown);
        tcase_add_test(tc, a_slot_that_was_just_released_is_the_last_to_be_taken);
        tcase_add_test(tc, nothing_is_added_to_a_slot_that_was_released);
        suite_add_tcase(suite, tc);
        tc = meter_case("few threads", setup_with_few_threads, teardown);
        tcase_add_test(tc, who_is_over_takes_no_place_from_who_sleeps);
        tcase_add_test(tc, who_is_over_makes_room);
        tcase_add_test(tc, what_is_forgotten_is_counted);
        suite_add_tcase(suite, tc);
        return suite_main(suite);
}
