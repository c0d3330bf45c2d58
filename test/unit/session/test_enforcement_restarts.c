/* Policies after a restart of hotcell-egress or of hotcelld. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/egress_rules.h"
#include "server/session/session_private.h"
#include "test/lib/suite.h"
#include "test/unit/session/enforcement.h"
#include "test/unit/session/fixture.h"

static bool is_asked(void *userdata)
{
        return fake_egress_n_requests(f.egress) >= *(const size_t *)userdata;
}

static void wait_for_requests(size_t n)
{
        run_until(is_asked, &n);
}

static bool is_not_in_force(void *userdata)
{
        return !is_in_force(userdata);
}

/* Once it is in force. */
static void expect_policy_of(const char *id, const struct egress *egress, int64_t version)
{
        (void)strcpy(sandbox_id, id);
        wait_for_force();
        expect_policy(egress, version);
}

/* --- restarts of hotcell-egress --- */

START_TEST(a_relay_that_was_started_anew_gets_all_policies_again)
{
        char ids[3][ID_BUFFER];
        struct egress *policies[] = { NULL, tight, loose };

        start_with_egress();
        for (size_t i = 0; i < 3; i++) {
                make_sandbox(policies[i]);
                (void)strcpy(ids[i], sandbox_id);
        }
        fake_egress_restart(f.egress);
        run_until(is_not_in_force, ids[0]);
        ck_assert_int_eq(get_sandbox(ids[2]).sandbox.enforcement.version, 0);
        fake_runtime_egress_ready(f.runtime);
        for (size_t i = 0; i < 3; i++) {
                expect_policy_of(ids[i], policies[i], 1);
        }
        ck_assert(session_is_ready(f.session));
}
END_TEST

START_TEST(a_relay_that_is_lost_while_it_gets_them_gets_them_again)
{
        char ids[4][ID_BUFFER];

        start_with_egress();
        for (size_t i = 0; i < 4; i++) {
                make_sandbox(loose);
                (void)strcpy(ids[i], sandbox_id);
        }
        fake_egress_restart(f.egress);
        script()->lose_in = (unsigned)_i / 2 + 1;
        script()->lose_after = _i & 1;
        fake_runtime_egress_ready(f.runtime);
        wait_for_requests(4 + (size_t)_i / 2 + 1);
        run_turns(20);
        fake_runtime_egress_ready(f.runtime);
        for (size_t i = 0; i < 4; i++) {
                expect_policy_of(ids[i], loose, 1);
        }
}
END_TEST

/* Large ones one in a turn of the loop; small ones together. */
START_TEST(large_policies_are_restored_in_turns)
{
        enum { SANDBOXES = 4, LARGE = 256 };
        static const struct egress_rule rule = { .action = POLICY_ALLOW,
                                                 .protocol = POLICY_TCP,
                                                 .destination = "93.184.216.34" };
        static struct egress_rule rules[LARGE];
        struct egress *policy;
        unsigned most = 0, before = 0;

        for (size_t i = 0; i < LARGE; i++)
                rules[i] = rule;
        policy = make_egress(POLICY_DEFAULT_DENY, rules, _i ? LARGE : 1);
        start_with_egress();
        for (size_t i = 0; i < SANDBOXES; i++)
                make_sandbox(policy);
        fake_egress_restart(f.egress);
        run_until(is_not_in_force, sandbox_id);
        script()->hold = true;
        fake_runtime_egress_ready(f.runtime);
        while (f.session->restoration.n_asked < SANDBOXES) {
                run_turns(1);
                most = MAX(most, f.session->restoration.n_asked - before);
                before = f.session->restoration.n_asked;
        }
        ck_assert_uint_eq(most, _i ? 1 : SANDBOXES);
        script()->hold = false;
        fake_egress_release(f.egress);
        run_until(is_in_force, sandbox_id);
        egress_release(policy);
}
END_TEST

START_TEST(an_update_that_is_being_recorded_is_put_in_force_by_itself)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(tight);
        is_store_held = true;
        begin_update(loose, &answer);
        run_until_true(&held_answer.is_held);
        fake_egress_restart(f.egress);
        fake_runtime_egress_ready(f.runtime);
        run_turns(20);
        ck_assert_ptr_null(fake_egress_policy(f.egress, sandbox_id));
        if (_i)
                held_answer.result = -EIO;
        store_go_on();
        run_until_true(&answer.is_done);
        wait_for_force();
        if (_i)
                expect_policy(tight, 1);
        else
                expect_policy(loose, 2);
}
END_TEST

START_TEST(what_cannot_be_restored_lets_nothing_out_and_is_tried_again)
{
        const struct fake_policy *policy;

        start_with_egress();
        make_sandbox(loose);
        script()->fail = REASON(TOO_COMPLEX);
        script()->fail_rules = true;
        fake_runtime_egress_ready(f.runtime); /* the same process: it has the policy */
        do {
                run_turns(1);
                policy = fake_egress_policy(f.egress, sandbox_id);
        } while (policy->n_rules > 0);
        ck_assert_int_eq(policy->default_action, POLICY_DEFAULT_DENY);
        run_turns(10);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.state, SANDBOX_RUNNING);
        script()->fail = 0;
        wait_for_force();
        expect_policy(loose, 1);
}
END_TEST

static bool has_ended(void *userdata)
{
        return get_sandbox(userdata).sandbox.state == SANDBOX_ENDED;
}

START_TEST(a_sandbox_that_cannot_even_be_shut_ends)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        script()->fail = REASON(NOT_PROVEN);
        fake_runtime_egress_ready(f.runtime);
        run_until(has_ended, sandbox_id);
        answer = get_sandbox(sandbox_id);
        ck_assert_int_eq(answer.sandbox.end_cause, CAUSE_POLICY);
        ck_assert_str_ne(answer.sandbox.end_message, "");
        expect_nothing_left();
}
END_TEST

START_TEST(what_is_not_answered_is_restored_later)
{
        restart_with_patience(500 * 1000);
        make_sandbox(loose);
        fake_egress_restart(f.egress);
        script()->hold = true;
        fake_runtime_egress_ready(f.runtime);
        wait_for_held(1);
        wait_for_held(2); /* after a second */
        fake_egress_release(f.egress);
        wait_for_force();
        expect_policy(loose, 1);
        ck_assert_int_eq(change_policy(tight).result.outcome, 0);
        expect_policy(tight, 2);
}
END_TEST

/* --- restarts of hotcelld --- */

static void serve_again(void)
{
        start_session();
        run_until(session_serves, NULL);
}

/* hotcell-egress does not answer the successor, which has asked it for @n policies. */
static void begin_takeover(size_t n)
{
        script()->hold = true;
        crash_server();
        start_session();
        wait_for_held(n);
}

START_TEST(a_successor_is_ready_once_all_policies_are_in_force)
{
        start_with_egress();
        make_sandbox(_i ? loose : NULL);
        begin_takeover(1);
        run_turns(50);
        ck_assert(!session_is_ready(f.session));
        fake_egress_release(f.egress);
        run_until(session_serves, NULL);
        expect_policy(_i ? loose : NULL, 1);
}
END_TEST

START_TEST(many_are_restored_a_few_at_a_time)
{
        enum { N = 40 };
        char ids[N][ID_BUFFER];

        f.config.shares.total[SESSION_SHARE_SANDBOXES] = 2 * N;
        f.config.shares.total[SESSION_SHARE_MEMORY] = INT64_C(1) << 40;
        start_with_egress();
        for (size_t i = 0; i < N; i++) {
                make_sandbox(i & 1 ? loose : tight);
                (void)strcpy(ids[i], sandbox_id);
        }
        script()->hold = true;
        crash_server();
        fake_egress_restart(f.egress);
        start_session();
        wait_for_held(32);
        run_turns(50);
        ck_assert_uint_eq(fake_egress_n_held(f.egress), 32);
        fake_egress_release(f.egress);
        run_until(session_serves, NULL);
        for (size_t i = 0; i < N; i++) {
                (void)strcpy(sandbox_id, ids[i]);
                expect_policy(i & 1 ? loose : tight, 1);
        }
}
END_TEST

static bool is_past(void *userdata)
{
        return clock_monotonic_usec() >= *(const uint64_t *)userdata;
}

/* There are answers all the time, though all of them take longer than one may. */
START_TEST(a_successor_waits_as_long_as_there_are_answers)
{
        enum { N = 40, PATIENCE_USEC = 2000 * 1000, HALF_USEC = 1200 * 1000 };
        uint64_t until_usec;

        f.config.shares.total[SESSION_SHARE_SANDBOXES] = 2 * (int64_t)N;
        f.config.shares.total[SESSION_SHARE_MEMORY] = INT64_C(1) << 40;
        restart_with_patience(PATIENCE_USEC);
        for (size_t i = 0; i < N; i++)
                make_sandbox(loose);
        begin_takeover(32);
        until_usec = clock_monotonic_usec() + HALF_USEC;
        run_until(is_past, &until_usec);
        fake_egress_release(f.egress);
        script()->hold = true;
        wait_for_held(N - 32);
        until_usec += HALF_USEC;
        run_until(is_past, &until_usec);
        ck_assert(!session_is_ready(f.session));
        fake_egress_release(f.egress);
        run_until(session_serves, NULL);
        expect_policy(loose, 1);
}
END_TEST

/* Killed while it was changed: nobody was told, and what is recorded comes in force. */
START_TEST(a_successor_puts_in_force_what_its_predecessor_had_begun)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        script()->hold = true;
        is_store_held = _i;
        begin_update(tight, &answer);
        if (_i)
                run_until_true(&held_answer.is_held);
        else
                wait_for_held(1);
        ck_assert(!answer.is_done);
        script()->hold = false;
        crash_server();
        serve_again();
        expect_policy(tight, 2);
}
END_TEST

/* Killed while it took a change back: one of both counts, everywhere. */
START_TEST(a_successor_of_one_that_took_back_holds_to_one_of_both)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        script()->lose_in = 1;
        script()->lose_after = true;
        begin_update(tight, &answer);
        wait_for_requests(2);
        run_turns((unsigned)_i);
        crash_server();
        serve_again();
        if (get_sandbox(sandbox_id).sandbox.egress_version == 1)
                expect_policy(loose, 1);
        else
                expect_policy(tight, 2);
}
END_TEST

START_TEST(a_creation_of_a_killed_server_is_undone)
{
        struct answer answer;

        start_with_egress();
        script()->hold = true;
        begin_creation(loose, &answer);
        wait_for_held(1);
        script()->hold = false;
        crash_server();
        serve_again();
        expect_nothing_left();
}
END_TEST

START_TEST(a_successor_waits_for_the_relay_that_a_policy_needs)
{
        restart_with_patience(1000 * 1000);
        make_sandbox(loose);
        fake_runtime_script(f.runtime)->egress = NULL;
        fake_runtime_script(f.runtime)->protocol = 3;
        crash_server();
        start_session();
        if (_i) {
                run_turns(50);
                ck_assert(!session_is_ready(f.session));
                fake_runtime_script(f.runtime)->egress = f.egress;
                fake_egress_restart(f.egress);
                fake_runtime_egress_ready(f.runtime);
                run_until(session_serves, NULL);
        } else {
                /* But not for ever. */
                run_until(session_serves, NULL);
                ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
                fake_runtime_script(f.runtime)->egress = f.egress;
                fake_runtime_egress_ready(f.runtime);
                wait_for_force();
        }
        expect_policy(loose, 1);
}
END_TEST

START_TEST(a_successor_waits_for_no_relay_that_nothing_needs)
{
        f.config.egress_answer_usec = INT64_C(3600) * 1000 * 1000;
        start_with_egress();
        make_sandbox(tight);
        fake_runtime_script(f.runtime)->egress = NULL;
        crash_server();
        serve_again();
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
}
END_TEST

START_TEST(a_successor_does_not_wait_for_ever_for_answers)
{
        restart_with_patience(500 * 1000);
        make_sandbox(loose);
        script()->hold = true;
        crash_server();
        serve_again();
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
        wait_for_held(2);
        fake_egress_release(f.egress);
        wait_for_force();
        expect_policy(loose, 1);
}
END_TEST

START_TEST(a_relay_that_is_lost_during_a_takeover_is_waited_for)
{
        start_with_egress();
        make_sandbox(loose);
        script()->lose_in = 1;
        script()->lose_after = _i;
        crash_server();
        start_session();
        wait_for_requests(2);
        run_turns(20);
        ck_assert(!session_is_ready(f.session));
        fake_runtime_egress_ready(f.runtime);
        run_until(session_serves, NULL);
        expect_policy(loose, 1);
}
END_TEST

START_TEST(the_runtime_goes_away_during_a_takeover)
{
        start_with_egress();
        make_sandbox(loose);
        begin_takeover(1);
        script()->hold = false;
        fake_runtime_break(f.runtime);
        run_until(session_serves, NULL);
        run_until(has_ended, sandbox_id);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.end_cause, CAUSE_RUNTIME_LOST);
        make_sandbox(loose);
}
END_TEST

START_TEST(a_stop_during_a_takeover_comes_to_its_end)
{
        start_with_egress();
        make_sandbox(loose);
        begin_takeover(1);
        stop_session();
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("enforcement_restarts");
        TCase *tests = tcase_create("enforcement_restarts");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_test(tests, a_relay_that_was_started_anew_gets_all_policies_again);
        tcase_add_loop_test(tests, a_relay_that_is_lost_while_it_gets_them_gets_them_again, 0, 8);
        tcase_add_loop_test(tests, large_policies_are_restored_in_turns, 0, 2);
        tcase_add_loop_test(tests, an_update_that_is_being_recorded_is_put_in_force_by_itself, 0,
                            2);
        tcase_add_test(tests, what_cannot_be_restored_lets_nothing_out_and_is_tried_again);
        tcase_add_test(tests, a_sandbox_that_cannot_even_be_shut_ends);
        tcase_add_test(tests, what_is_not_answered_is_restored_later);
        tcase_add_loop_test(tests, a_successor_is_ready_once_all_policies_are_in_force, 0, 2);
        tcase_add_test(tests, many_are_restored_a_few_at_a_time);
        tcase_add_test(tests, a_successor_waits_as_long_as_there_are_answers);
        tcase_add_loop_test(tests, a_successor_puts_in_force_what_its_predecessor_had_begun, 0, 2);
        tcase_add_loop_test(tests, a_successor_of_one_that_took_back_holds_to_one_of_both, 0, 8);
        tcase_add_test(tests, a_creation_of_a_killed_server_is_undone);
        tcase_add_loop_test(tests, a_successor_waits_for_the_relay_that_a_policy_needs, 0, 2);
        tcase_add_test(tests, a_successor_waits_for_no_relay_that_nothing_needs);
        tcase_add_test(tests, a_successor_does_not_wait_for_ever_for_answers);
        tcase_add_loop_test(tests, a_relay_that_is_lost_during_a_takeover_is_waited_for, 0, 2);
        tcase_add_test(tests, the_runtime_goes_away_during_a_takeover);
        tcase_add_test(tests, a_stop_during_a_takeover_comes_to_its_end);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
