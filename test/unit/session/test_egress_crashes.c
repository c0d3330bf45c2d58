/* Egress events after the server was killed, at any point: none is lost, and none comes twice. */
#include <check.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/session/egress_events.h"
#include "test/unit/session/fixture.h"

START_TEST(they_are_replayed_by_a_successor)
{
        struct seen seen, again = { 0 };
        char id[ID_BUFFER];

        (void)strcpy(id, begin(&seen).execution.execution_id);
        tell_denial(1);
        tell_denial(1);
        tell_denial(2);
        go();
        wait_for_end(&seen);
        detach(&seen);
        crash_server();
        start_session();
        run_until(session_serves, NULL);
        attach(id, 0, &again);
        wait_for_end(&again);
        ck_assert_str_eq(again.text, seen.text);
        ck_assert_int_eq(again.n_egress, 3);
}
END_TEST

/* The source tells again what it does not know to be stored, all of it, and no more. */
static const int ports[] = { 1, 1, 1, 2, 3, 3 };

struct telling {
        char execution_id[ID_BUFFER];
        struct seen seen;
        struct egress_record records[ARRAY_SIZE(ports)];
        size_t n_told;
        bool was_crashed;
};

static struct telling telling;

static void start_again(void)
{
        crash_server();
        telling.seen.reader = NULL;
        start_session();
        run_until(session_serves, NULL);
        telling.n_told = 0;
        if (!telling.seen.is_over)
                attach(telling.execution_id, telling.seen.last_sequence, &telling.seen);
}

static void tell_next(void)
{
        size_t i = telling.n_told++;

        ck_assert_int_eq(tell(&telling.records[i]), 0);
        if (telling.n_told == ARRAY_SIZE(ports))
                go();
}

/* Tells all of it until the execution is over, with a crash at crash_point if that comes. */
static void live_through(void)
{
        time_t end = time(NULL) + PATIENCE_SEC;

        while (!telling.seen.is_over || telling.n_told < ARRAY_SIZE(ports)) {
                if (setjmp(at_point)) {
                        telling.was_crashed = true;
                        crash_point = 0;
                        start_again();
                }
                if (telling.n_told < ARRAY_SIZE(ports))
                        tell_next();
                ck_assert_int_ge(sd_event_run(f.loop, 100000), 0);
                ck_assert_msg(time(NULL) < end, "not over: %s", telling.seen.text);
        }
}

START_TEST(a_crash_at_any_point_loses_and_doubles_nothing)
{
        for (unsigned point = 1; point == 1 || telling.was_crashed; point++) {
                memset(&telling, 0, sizeof(telling));
                (void)strcpy(telling.execution_id, begin(&telling.seen).execution.execution_id);
                for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
                        telling.records[i] = denial(ports[i]);
                        telling.records[i].event_time_usec = time_now_usec();
                }
                crash_point = point;
                n_points = 0;
                live_through();
                crash_point = 0;
                ck_assert_msg(telling.seen.n_egress == (int64_t)ARRAY_SIZE(ports),
                              "point %u: %lld in \"%s\"", point, (long long)telling.seen.n_egress,
                              telling.seen.text);
                ck_assert_int_eq(telling.seen.gap_events, 0);
                ck_assert_int_eq(telling.seen.ended.last_sequence, telling.seen.last_sequence);
                detach(&telling.seen);
                wait_for_stored((size_t)sequence - 1);
                come_back();
        }
        ck_assert_uint_gt(n_points, 20);
}
END_TEST

/* With a restart in between what is held goes on to be counted. */
START_TEST(what_is_held_outlives_the_server)
{
        memset(&telling, 0, sizeof(telling));
        (void)strcpy(telling.execution_id, begin(&telling.seen).execution.execution_id);
        for (int i = 0; i < 5; i++)
                tell_denial(1);
        wait_for_text(&telling.seen, "egress:192.0.2.1:1*1");
        crash_server();
        telling.seen.reader = NULL;
        start_session();
        run_until(session_serves, NULL);
        attach(telling.execution_id, telling.seen.last_sequence, &telling.seen);
        tell_denial(1);
        wait_for_text(&telling.seen, "egress:192.0.2.1:1*5"); /* in its second, without an end */
        tell_denial(2);
        go();
        wait_for_end(&telling.seen);
        ck_assert_ptr_nonnull(
                strstr(telling.seen.text,
                       "egress:192.0.2.1:1*1 egress:192.0.2.1:1*5 egress:192.0.2.1:2*1 ended"));
}
END_TEST

/* A successor that does not know any more what ran before does not take it for what runs now. */
START_TEST(an_old_one_is_not_shown_to_what_runs_now)
{
        struct egress_record old = denial(1);
        struct seen first, second;

        begin(&first);
        old.event_time_usec = time_now_usec();
        go();
        wait_for_end(&first);
        detach(&first);
        crash_server();
        start_session();
        run_until(session_serves, NULL);
        come_back();
        begin(&second);
        ck_assert_int_eq(tell(&old), 0);
        tell_denial(2);
        go();
        wait_for_end(&second);
        ck_assert_int_eq(second.n_egress, 1);
        ck_assert_int_eq(second.egress.port, 2);
        wait_for_stored(2);
        ck_assert_str_eq(stored.records[0].execution_id, "");
}
END_TEST

START_TEST(before_what_lives_is_known_it_is_to_be_told_again)
{
        struct egress_record record = denial(1);

        crash_server();
        start_session();
        ck_assert_int_eq(tell(&record), SESSION_E_RUNTIME_UNAVAILABLE);
        run_until(session_serves, NULL);
        ck_assert_int_eq(tell(&record), 0);
        wait_for_stored(1);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                they_are_replayed_by_a_successor,
                a_crash_at_any_point_loses_and_doubles_nothing,
                what_is_held_outlives_the_server,
                an_old_one_is_not_shown_to_what_runs_now,
                before_what_lives_is_known_it_is_to_be_told_again,
        };
        Suite *suite = suite_create("egress_crashes");
        TCase *tcase = tcase_create("egress_crashes");

        tcase_set_timeout(tcase, 120);
        tcase_add_checked_fixture(tcase, set_up, fixture_teardown);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
