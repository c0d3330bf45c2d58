/* A policy that cannot be restored is tried again: after which pauses, and until when. */
#include <check.h>
#include <stdlib.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/session/enforcement.h"

enum { ANSWER_USEC = 100 * 1000 };

static bool has_paused(void *userdata)
{
        return pauses.n >= *(const size_t *)userdata;
}

static void wait_for_pauses(size_t n)
{
        run_until(has_paused, &n);
}

/* A successor whose hotcell-egress holds the sandbox to @egress and does not say so. */
static void restore_in_vain(struct egress *egress)
{
        start_with_egress();
        make_sandbox(egress);
        f.config.egress_answer_usec = ANSWER_USEC;
        script()->hold = true;
        pauses.are_short = true;
        crash_server();
        start_session();
}

START_TEST(pauses_double_up_to_half_a_minute)
{
        static const uint64_t sec[] = { 1, 2, 4, 8, 16, 32, 32, 32 };

        restore_in_vain(loose);
        for (size_t i = 0; i < ARRAY_SIZE(sec); i++) {
                wait_for_pauses(i + 1);
                ck_assert_uint_eq(pauses.sec[i], sec[i]);
                /* It is asked for the policy, not to let nothing out. */
                ck_assert_uint_eq(fake_egress_policy(f.egress, sandbox_id)->n_rules, 1);
        }
        fake_egress_release(f.egress);
        wait_for_force();
        expect_policy(loose, 1);
}
END_TEST

START_TEST(another_relay_is_asked_as_often_as_the_first)
{
        restore_in_vain(loose);
        wait_for_pauses(3);
        fake_egress_restart(f.egress);
        script()->hold = true;
        pauses.n = 0;
        fake_runtime_egress_ready(f.runtime);
        wait_for_pauses(2);
        ck_assert_uint_eq(pauses.sec[0], 1);
        ck_assert_uint_eq(pauses.sec[1], 2);
}
END_TEST

/* It may be shut: so it does not end, and is not said to be in force. */
START_TEST(one_that_does_not_say_that_it_is_shut_is_tried_again)
{
        start_with_egress();
        make_sandbox(loose);
        f.config.egress_answer_usec = ANSWER_USEC;
        script()->fail = REASON(TOO_COMPLEX);
        script()->fail_rules = true;
        script()->hold = true;
        pauses.are_short = true;
        crash_server();
        start_session();
        wait_for_pauses(3);
        ck_assert_uint_eq(fake_egress_policy(f.egress, sandbox_id)->n_rules, 0);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.state, SANDBOX_RUNNING);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
        script()->fail = 0;
        fake_egress_release(f.egress);
        wait_for_force();
        expect_policy(loose, 1);
}
END_TEST

static bool is_past(void *userdata)
{
        return clock_monotonic_usec() >= *(const uint64_t *)userdata;
}

START_TEST(a_sandbox_that_ends_is_not_tried_again)
{
        uint64_t until_usec;
        size_t n_before;

        restore_in_vain(loose);
        run_until(session_serves, NULL);
        pauses.are_short = false;
        wait_for_pauses(1);
        wait_for_pauses(pauses.n + 1); /* a second at least, that has just begun */
        n_before = fake_egress_n_requests(f.egress);
        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        until_usec = clock_monotonic_usec() + pauses.sec[pauses.n - 1] * 1000000 + ANSWER_USEC;
        run_until(is_past, &until_usec);
        ck_assert_uint_eq(fake_egress_n_requests(f.egress), n_before);
        expect_nothing_left();
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("enforcement_retries");
        TCase *tests = tcase_create("enforcement_retries");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_test(tests, pauses_double_up_to_half_a_minute);
        tcase_add_test(tests, another_relay_is_asked_as_often_as_the_first);
        tcase_add_test(tests, one_that_does_not_say_that_it_is_shut_is_tried_again);
        tcase_add_test(tests, a_sandbox_that_ends_is_not_tried_again);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
