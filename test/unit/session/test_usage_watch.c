/* What is used now: one measurement for all watches, page by page, of one's own only. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/usage_watch.h"
#include "test/unit/session/fixture.h"

#define PERIOD_USEC 100000

/* A watch, and what it told at its last measurement. */
struct told {
        struct usage_watch *watch;
        unsigned n_measured; /* measurements */
        int result;
        bool is_waiting; /* for the test to take it */
        size_t n;
        struct sandbox_now sandboxes[8];
        char ids[8][ID_BUFFER];
};

static void on_sandbox(void *userdata, const struct sandbox_now *now)
{
        struct told *told = userdata;

        ck_assert_uint_lt(told->n, ARRAY_SIZE(told->sandboxes));
        (void)snprintf(told->ids[told->n], ID_BUFFER, "%s", now->record->sandbox_id);
        told->sandboxes[told->n++] = *now;
}

static void on_measured(void *userdata)
{
        struct told *told = userdata;

        told->n_measured++;
        told->is_waiting = true;
        told->n = 0;
        told->result = usage_watch_each(told->watch, on_sandbox, told);
}

static void watch_each(struct told *told, const char *owner, const char *sandbox_id,
                       uint64_t period_usec)
{
        *told = (struct told){ 0 };
        ck_assert_int_eq(usage_watch_new(f.session, owner, sandbox_id, period_usec, on_measured,
                                         told, &told->watch),
                         0);
        ck_assert_uint_eq(told->n_measured, 0);
}

static void watch(struct told *told, const char *owner, const char *sandbox_id)
{
        watch_each(told, owner, sandbox_id, PERIOD_USEC);
}

/* The next measurement. */
static void take_next(struct told *told)
{
        told->is_waiting = false;
        ck_assert_int_eq(usage_watch_go_on(told->watch), 0);
        run_until_true(&told->is_waiting);
}

static void end(struct told *told)
{
        told->watch = usage_watch_free(told->watch);
}

static void start_with_meters(void)
{
        stop_session();
        fake_runtime_script(f.runtime)->protocol = 4;
        start_session();
        run_until(session_serves, NULL);
}

START_TEST(one_measurement_serves_all_watches_of_a_moment)
{
        struct told told[5];

        start_with_meters();
        new_sandbox();
        for (size_t i = 0; i < ARRAY_SIZE(told); i++)
                watch(&told[i], "uid:1", NULL);
        for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
                run_until_true(&told[i].is_waiting);
                ck_assert_uint_eq(told[i].n, 1);
                ck_assert(told[i].sandboxes[0].is_measured);
                ck_assert_int_eq(told[i].sandboxes[0].usage.total.cpu_usec,
                                 told[0].sandboxes[0].usage.total.cpu_usec);
                ck_assert_int_eq(usage_watch_time_usec(told[i].watch),
                                 usage_watch_time_usec(told[0].watch));
        }
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 1);
        for (size_t i = 0; i < ARRAY_SIZE(told); i++)
                end(&told[i]);
}
END_TEST

START_TEST(a_period_later_it_is_measured_anew)
{
        struct told told;
        int64_t before, time_before;

        start_with_meters();
        new_sandbox();
        watch(&told, "uid:1", NULL);
        run_until_true(&told.is_waiting);
        before = told.sandboxes[0].usage.total.cpu_usec;
        time_before = usage_watch_time_usec(told.watch);
        take_next(&told);
        ck_assert_int_gt(told.sandboxes[0].usage.total.cpu_usec, before);
        ck_assert_int_ge(usage_watch_time_usec(told.watch) - time_before, PERIOD_USEC - 5000);
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 2);
        end(&told);
}
END_TEST

START_TEST(no_measurement_is_told_twice)
{
        struct told told;

        start_with_meters();
        new_sandbox();
        watch_each(&told, "uid:1", NULL, 1);
        run_until_true(&told.is_waiting);
        for (unsigned i = 2; i <= 5; i++) {
                take_next(&told);
                ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), i);
        }
        end(&told);
}
END_TEST

static bool is_old(void *userdata)
{
        return clock_monotonic_usec() > *(const uint64_t *)userdata;
}

START_TEST(who_comes_later_is_not_told_of_what_was)
{
        struct told first, second;
        uint64_t late_usec;

        start_with_meters();
        new_sandbox();
        watch(&first, "uid:1", NULL);
        run_until_true(&first.is_waiting);
        late_usec = clock_monotonic_usec() + 110000;
        run_until(is_old, &late_usec);
        watch(&second, "uid:1", NULL);
        run_until_true(&second.is_waiting);
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 2);
        end(&first);
        end(&second);
}
END_TEST

START_TEST(who_does_not_go_on_hears_nothing)
{
        struct told slow, quick;

        start_with_meters();
        new_sandbox();
        watch(&slow, "uid:1", NULL);
        watch(&quick, "uid:1", NULL);
        run_until_true(&slow.is_waiting);
        run_until_true(&quick.is_waiting);
        for (int i = 0; i < 3; i++)
                take_next(&quick);
        ck_assert_uint_eq(slow.n_measured, 1);
        ck_assert_uint_eq(quick.n_measured, 4);
        take_next(&slow);
        ck_assert_uint_eq(slow.n_measured, 2);
        end(&slow);
        end(&quick);
}
END_TEST

START_TEST(all_pages_are_read_and_told_by_id)
{
        struct told told;

        start_with_meters();
        fake_runtime_script(f.runtime)->meters_page = 2;
        for (int i = 0; i < 4; i++)
                new_sandbox();
        watch(&told, "uid:1", NULL);
        run_until_true(&told.is_waiting);
        ck_assert_uint_eq(told.n, 4);
        for (size_t i = 0; i < told.n; i++) {
                ck_assert(told.sandboxes[i].is_measured);
                ck_assert_int_eq(told.sandboxes[i].usage.memory_bytes, 1 << 20);
                ck_assert(i == 0 || strcmp(told.ids[i - 1], told.ids[i]) < 0);
        }
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 2);
        end(&told);
}
END_TEST

START_TEST(what_runs_is_told_with_what_it_used_since_it_started)
{
        struct answer sandbox;
        struct execute_request request;
        struct seen seen = { 0 };
        struct told told;
        const struct execution_now *now;

        start_with_meters();
        sandbox = new_sandbox();
        run_code(sandbox.sandbox.sandbox_id, "out x");
        request = execute_request(sandbox.sandbox.sandbox_id, "out hello\nsleep");
        execute(&request, &seen);
        wait_for_text(&seen, "stdout:hello");
        watch(&told, "uid:1", NULL);
        run_until_true(&told.is_waiting);
        ck_assert_uint_eq(told.sandboxes[0].n_executions, 1);
        now = &told.sandboxes[0].executions[0];
        ck_assert_int_eq(now->memory_bytes, 1 << 20);
        ck_assert_int_eq(now->usage.cpu_usec,
                         1000); /* a reading is 1,000 more than the one before */
        ck_assert_int_eq(now->usage.stdout_bytes, 5);
        ck_assert_int_gt(now->usage.wall_usec, 0);
        ck_assert_int_ge(told.sandboxes[0].usage.total.wall_usec, now->usage.wall_usec);
        end(&told);
        detach(&seen);
}
END_TEST

static bool is_pressed(void *userdata)
{
        struct told *told = userdata;

        if (told->is_waiting && told->sandboxes[0].n_pressures == 0) {
                told->is_waiting = false;
                ck_assert_int_eq(usage_watch_go_on(told->watch), 0);
        }
        return told->is_waiting;
}

START_TEST(what_is_short_is_told_with_it)
{
        struct answer sandbox;
        struct told told;

        start_with_meters();
        sandbox = new_sandbox();
        watch(&told, "uid:1", NULL);
        fake_runtime_press(f.runtime, sandbox.sandbox.sandbox_id,
                           HOTCELL__RUNTIME__V1__PRESSURE_KIND__PRESSURE_KIND_PROCESSES, 250, 256);
        run_until(is_pressed, &told);
        ck_assert_uint_eq(told.sandboxes[0].n_pressures, 1);
        ck_assert_int_eq(told.sandboxes[0].pressures[0].kind, PRESSURE_PROCESSES);
        ck_assert_int_eq(told.sandboxes[0].pressures[0].used, 250);
        end(&told);
}
END_TEST

START_TEST(what_belongs_to_others_is_not_told)
{
        struct answer sandbox;
        struct told told, one;

        start_with_meters();
        sandbox = new_sandbox();
        watch(&told, "uid:2", NULL);
        watch(&one, "uid:2", sandbox.sandbox.sandbox_id);
        run_until_true(&told.is_waiting);
        run_until_true(&one.is_waiting);
        ck_assert_uint_eq(told.n, 0);
        ck_assert_int_eq(told.result, 0);
        ck_assert_uint_eq(one.n, 0);
        ck_assert_int_eq(one.result, USAGE_WATCH_E_OVER);
        end(&told);
        end(&one);
}
END_TEST

/* Whoever watches pays nobody's meters but those that are told. */
START_TEST(only_what_is_watched_is_read)
{
        struct answer sandbox;
        struct told told[3];

        start_with_meters();
        for (int i = 0; i < 4; i++)
                sandbox = new_sandbox();
        watch(&told[0], "uid:2", NULL);
        run_until_true(&told[0].is_waiting);
        ck_assert_uint_eq(fake_runtime_n_metered(f.runtime), 0);
        watch(&told[1], "uid:1", sandbox.sandbox.sandbox_id);
        run_until_true(&told[1].is_waiting);
        ck_assert(told[1].sandboxes[0].is_measured);
        ck_assert_uint_eq(fake_runtime_n_metered(f.runtime), 1);
        /* Those that were not read for another one are read for who wants them, too. */
        watch(&told[2], "uid:1", NULL);
        run_until_true(&told[2].is_waiting);
        ck_assert_uint_eq(told[2].n, 4);
        for (size_t i = 0; i < told[2].n; i++)
                ck_assert(told[2].sandboxes[i].is_measured);
        ck_assert_uint_eq(fake_runtime_n_metered(f.runtime), 5);
        take_next(&told[1]);
        ck_assert(told[1].sandboxes[0].is_measured);
        for (size_t i = 0; i < ARRAY_SIZE(told); i++)
                end(&told[i]);
}
END_TEST

/* One that comes while others are read waits for its own. */
START_TEST(who_comes_meanwhile_is_told_of_what_was_not_asked_for)
{
        struct answer first, second;
        struct told told[2];

        start_with_meters();
        first = new_sandbox();
        second = new_sandbox();
        watch(&told[0], "uid:1", first.sandbox.sandbox_id);
        watch(&told[1], "uid:1", second.sandbox.sandbox_id);
        for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
                run_until_true(&told[i].is_waiting);
                ck_assert_uint_eq(told[i].n, 1);
                ck_assert(told[i].sandboxes[0].is_measured);
        }
        ck_assert_uint_eq(fake_runtime_n_metered(f.runtime), 2);
        for (size_t i = 0; i < ARRAY_SIZE(told); i++)
                end(&told[i]);
}
END_TEST

START_TEST(a_watch_of_one_is_over_with_it)
{
        struct answer sandbox;
        struct told told;

        start_with_meters();
        new_sandbox();
        sandbox = new_sandbox();
        watch(&told, "uid:1", sandbox.sandbox.sandbox_id);
        run_until_true(&told.is_waiting);
        ck_assert_uint_eq(told.n, 1);
        ck_assert_str_eq(told.ids[0], sandbox.sandbox.sandbox_id);
        ck_assert(!usage_watch_is_over(told.watch));
        delete_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert(usage_watch_is_over(told.watch));
        take_next(&told);
        ck_assert_int_eq(told.result, USAGE_WATCH_E_OVER);
        end(&told);
}
END_TEST

START_TEST(an_older_runtime_measures_nothing)
{
        struct told told;

        stop_session();
        fake_runtime_script(f.runtime)->protocol = 3;
        start_session();
        run_until(session_serves, NULL);
        new_sandbox();
        watch(&told, "uid:1", NULL);
        run_until_true(&told.is_waiting);
        ck_assert_uint_eq(told.n, 1);
        ck_assert(!told.sandboxes[0].is_measured);
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 0);
        end(&told);
}
END_TEST

static bool is_asked(void *userdata)
{
        (void)userdata;
        return fake_runtime_n_read_meters(f.runtime) > 0;
}

START_TEST(a_runtime_that_is_lost_meanwhile_is_not_waited_for)
{
        struct told told, gone;

        start_with_meters();
        fake_runtime_script(f.runtime)->hold_meters = true;
        new_sandbox();
        watch(&told, "uid:1", NULL);
        watch(&gone, "uid:1", NULL);
        run_until(is_asked, NULL);
        end(&gone); /* while it waits */
        fake_runtime_disconnect(f.runtime);
        run_until_true(&told.is_waiting);
        ck_assert_uint_eq(told.n, 1);
        ck_assert(!told.sandboxes[0].is_measured);
        ck_assert_uint_eq(gone.n_measured, 0);
        end(&told);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &one_measurement_serves_all_watches_of_a_moment,
                &a_period_later_it_is_measured_anew,
                &no_measurement_is_told_twice,
                &who_comes_later_is_not_told_of_what_was,
                &who_does_not_go_on_hears_nothing,
                &all_pages_are_read_and_told_by_id,
                &what_runs_is_told_with_what_it_used_since_it_started,
                &what_is_short_is_told_with_it,
                &what_belongs_to_others_is_not_told,
                &only_what_is_watched_is_read,
                &who_comes_meanwhile_is_told_of_what_was_not_asked_for,
                &a_watch_of_one_is_over_with_it,
                &an_older_runtime_measures_nothing,
                &a_runtime_that_is_lost_meanwhile_is_not_waited_for,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("usage_watch", all, ARRAY_SIZE(all));
}
