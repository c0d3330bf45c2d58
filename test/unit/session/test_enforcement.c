/*
 * Egress policies of new sandboxes: nothing runs before hotcell-egress said that its policy is in
 * force, whatever breaks and whoever is killed on the way.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"
#include "test/lib/suite.h"
#include "test/unit/session/enforcement.h"
#include "test/unit/session/fixture.h"

static void expect_refused(struct answer answer, int outcome)
{
        ck_assert_int_eq(answer.result.outcome, outcome);
        ck_assert_str_ne(answer.result.message, "");
        expect_nothing_left();
}

/* --- the runtime's event --- */

static bool is_session_lost(void *userdata)
{
        (void)userdata;
        return !session_is_ready(f.session);
}

/* Two programs that do not understand each other must not go on. */
START_TEST(an_event_in_another_way_than_agreed_ends_the_connection)
{
        int fds[] = { dup(0), dup(0) };

        if (_i > 0) {
                f.egress = fake_egress_new();
                start_with_egress();
        }
        fake_runtime_send_egress_ready(f.runtime, fds, _i == 1 ? 2 : _i == 2 ? 0 : 1);
        run_until(is_session_lost, NULL);
        run_until(session_serves, NULL);
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

START_TEST(an_older_runtime_has_no_relay)
{
        struct answer answer = create_with(NULL), refused;

        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.enforcement.version, 0); /* nobody proved it */
        refused = create_with(loose);
        ck_assert_int_eq(refused.result.outcome, SESSION_E_EGRESS);
        ck_assert_int_eq(refused.result.retry_usec, 0); /* nobody will start one */
        ck_assert_int_eq(create_with(tight).result.outcome, 0);
        (void)strcpy(sandbox_id, answer.sandbox.sandbox_id);
        ck_assert_int_eq(change_policy(tight).result.outcome, 0);
        ck_assert_int_eq(change_policy(loose).result.outcome, SESSION_E_EGRESS);
}
END_TEST

/* --- whether it is there --- */

static void on_probed(void *userdata, const struct session_result *result)
{
        ck_assert_int_eq(result->outcome, 0);
        *(bool *)userdata = true;
}

static enum session_egress_state probe(void)
{
        struct session_info info;
        bool is_done = false;

        session_probe_walls(f.session, on_probed, &is_done);
        run_until_true(&is_done);
        session_info(f.session, "uid:1", &info);
        return info.egress;
}

START_TEST(a_probe_tells_whether_hotcell_egress_is_there)
{
        ck_assert_int_eq(probe(), SESSION_EGRESS_NONE);
        restart_with_patience(500 * 1000);
        ck_assert_int_eq(probe(), SESSION_EGRESS_THERE);
        script()->hold = true;
        ck_assert_int_eq(probe(), SESSION_EGRESS_SILENT);
        script()->hold = false;
        ck_assert_int_eq(probe(), SESSION_EGRESS_THERE);
        script()->fail = REASON(INVALID); /* an older one, which knows no such question */
        ck_assert_int_eq(probe(), SESSION_EGRESS_THERE);
        script()->fail = 0;
        fake_egress_disconnect(f.egress);
        run_turns(4);
        ck_assert_int_eq(probe(), SESSION_EGRESS_ENDED);
        fake_runtime_egress_ready(f.runtime);
        run_turns(4);
        ck_assert_int_eq(probe(), SESSION_EGRESS_THERE);
}
END_TEST

/* --- creation --- */

START_TEST(a_sandbox_runs_once_its_policy_is_in_force)
{
        struct egress *policies[] = { NULL, tight, loose };
        struct answer answer;
        const char *id;

        start_with_egress();
        script()->hold = true;
        begin_creation(policies[_i], &answer);
        wait_for_held(1);
        run_turns(20);
        ck_assert(!answer.is_done);
        fake_egress_release(f.egress);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_RUNNING);
        id = answer.sandbox.sandbox_id;
        (void)strcpy(sandbox_id, id);
        expect_policy(policies[_i], 1);
        ck_assert_uint_eq(answer.sandbox.enforcement.program_ids[0], 11);
        ck_assert_uint_eq(fake_egress_n_requests(f.egress), 1);
}
END_TEST

START_TEST(a_refused_policy_is_no_sandbox)
{
        struct answer answer;

        start_with_egress();
        script()->fail = refusals[_i].reason;
        script()->message = "rule 7";
        answer = create_with(loose);
        ck_assert_ptr_nonnull(strstr(answer.result.message, "rule 7"));
        expect_refused(answer, refusals[_i].outcome);
        script()->fail = 0;
        make_sandbox(loose);
}
END_TEST

START_TEST(a_relay_that_does_not_answer_is_no_sandbox)
{
        restart_with_patience(500 * 1000);
        script()->hold = true;
        expect_refused(create_with(NULL), SESSION_E_EGRESS);
        expect_refused(create_with(loose), SESSION_E_EGRESS);
}
END_TEST

/* The runtime starts it again. */
static void expect_refused_for_now(struct answer answer)
{
        expect_refused(answer, SESSION_E_EGRESS);
        ck_assert_int_gt(answer.result.retry_usec, 0);
}

START_TEST(a_relay_that_goes_away_is_no_sandbox)
{
        start_with_egress();
        script()->lose_in = 1;
        script()->lose_after = _i & 1;
        expect_refused_for_now(create_with(_i & 2 ? loose : NULL));
        expect_refused_for_now(create_with(loose));
        fake_runtime_egress_ready(f.runtime);
        run_turns(4);
        make_sandbox(loose);
}
END_TEST

/* The proof of the wall was told to the one before: that of another sandbox will not be. */
START_TEST(a_relay_that_is_started_anew_during_the_creation_may_lack_the_proof)
{
        static const struct {
                bool is_restarted;
                int reason;
                bool has_retry;
        } rows[] = {
                { true, REASON(NOT_PROVEN), true },
                { true, REASON(EXHAUSTED), false },
                { false, REASON(NOT_PROVEN), false }, /* nor would the next one be proven */
        };
        struct answer answer;

        start_with_egress();
        fake_runtime_script(f.runtime)->hold_create = true;
        begin_creation(loose, &answer);
        run_turns(20);
        if (rows[_i].is_restarted) {
                fake_egress_restart(f.egress);
                fake_runtime_egress_ready(f.runtime);
                run_turns(4);
        }
        script()->fail = rows[_i].reason;
        fake_runtime_release(f.runtime);
        run_until_true(&answer.is_done);
        expect_refused(answer, SESSION_E_EGRESS);
        ck_assert_int_eq(answer.result.retry_usec > 0, rows[_i].has_retry);
        /* The one after that is made while nothing is started anew. */
        answer = create_with(loose);
        expect_refused(answer, SESSION_E_EGRESS);
        ck_assert_int_eq(answer.result.retry_usec, 0);
        script()->fail = 0;
        make_sandbox(loose);
}
END_TEST

START_TEST(another_policy_in_force_is_no_sandbox)
{
        start_with_egress();
        script()->wrong_digest = true;
        expect_refused(create_with(_i ? loose : NULL), SESSION_E_EGRESS);
}
END_TEST

/* What it does not know would not be let through, but nobody could say what is in force. */
START_TEST(a_relay_that_knows_no_types_of_records_enforces_another_policy)
{
        const struct egress_rule rule = { .action = POLICY_ALLOW,
                                          .protocol = POLICY_TCP,
                                          .is_domain = true,
                                          .destination = "example.org" };
        struct egress *egress = make_egress(POLICY_DEFAULT_DENY, &rule, 1);
        struct policy policy = { .record_types = BIT(POLICY_RECORD_TXT) | BIT(POLICY_RECORD_ANY) };
        struct policy_rule same = { .action = POLICY_ALLOW,
                                    .protocol = POLICY_TCP,
                                    .is_domain = true };
        struct answer answer;

        (void)strcpy(same.domain, rule.destination);
        ck_assert_int_eq(policy_add(&policy, &same), 0);
        ck_assert_int_eq(policy_digest(&policy, egress->sha256), 0);
        policy_deinit(&policy);
        egress->record_types = BIT(POLICY_RECORD_TXT) | BIT(POLICY_RECORD_ANY);
        start_with_egress();
        script()->knows_no_types = true;
        expect_refused(create_with(egress), SESSION_E_EGRESS);
        script()->knows_no_types = false;
        answer = create_with(egress);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_uint_eq(fake_egress_policy(f.egress, answer.sandbox.sandbox_id)->record_types,
                          egress->record_types);
        (void)egress_release(egress);
}
END_TEST

START_TEST(garbage_instead_of_an_answer_is_no_sandbox)
{
        start_with_egress();
        script()->n_digest = 31;
        expect_refused(create_with(loose), SESSION_E_EGRESS);
}
END_TEST

START_TEST(one_shots_are_held_to_their_policy_too)
{
        struct sandbox_request spec = sandbox_request();
        struct execute_request request = execute_request("", "out x");
        struct seen seen = { 0 };

        start_with_egress();
        spec.egress = loose;
        request.one_shot = &spec;
        script()->fail = REASON(NOT_PROVEN);
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_EGRESS);
        script()->fail = 0;
        ck_assert_int_eq(execute(&request, &seen).result.outcome, 0);
        wait_for_end(&seen);
        detach(&seen);
}
END_TEST

START_TEST(a_relay_that_comes_during_the_creation_is_asked)
{
        struct answer answer;

        start_with_egress();
        fake_egress_disconnect(f.egress);
        run_turns(4);
        if (_i == 0) {
                fake_runtime_script(f.runtime)->hold_create = true;
                begin_creation(NULL, &answer);
                run_turns(20);
                fake_runtime_egress_ready(f.runtime);
                run_turns(4);
                fake_runtime_release(f.runtime);
        } else {
                /* It is being recorded as running. */
                is_store_held = true;
                begin_creation(NULL, &answer);
                run_until_true(&held_answer.is_held);
                ck_assert_uint_eq(fake_egress_n_requests(f.egress), 0);
                fake_runtime_egress_ready(f.runtime);
                run_turns(4);
                store_go_on();
        }
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        (void)strcpy(sandbox_id, answer.sandbox.sandbox_id);
        expect_policy(NULL, 1);
}
END_TEST

/* In force, and not yet recorded as running. */
START_TEST(a_relay_that_is_lost_before_the_end_of_the_creation)
{
        struct answer answer;

        start_with_egress();
        is_store_held = true;
        begin_creation(_i ? NULL : loose, &answer);
        run_until_true(&held_answer.is_held);
        fake_egress_restart(f.egress);
        run_turns(4);
        store_go_on();
        run_until_true(&answer.is_done);
        if (_i == 0) {
                expect_refused(answer, SESSION_E_EGRESS);
                return;
        }
        /* Nothing can leave it in any case. */
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.enforcement.version, 0);
        (void)strcpy(sandbox_id, answer.sandbox.sandbox_id);
        fake_runtime_egress_ready(f.runtime);
        wait_for_force();
        expect_policy(NULL, 1);
}
END_TEST

START_TEST(the_runtime_goes_away_while_a_policy_is_put_in_force)
{
        struct answer answer;

        restart_with_patience(INT64_C(3600) * 1000 * 1000);
        script()->hold = true;
        begin_creation(loose, &answer);
        wait_for_held(1);
        fake_runtime_script(f.runtime)->egress = NULL;
        fake_runtime_break(f.runtime);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_RUNTIME_UNAVAILABLE);
        script()->hold = false;
        fake_runtime_script(f.runtime)->egress = f.egress;
        fake_runtime_disconnect(f.runtime);
        run_until(is_session_lost, NULL);
        run_until(session_serves, NULL);
        expect_nothing_left();
        make_sandbox(loose);
}
END_TEST

START_TEST(a_creation_that_is_not_recorded_leaves_nothing)
{
        start_with_egress();
        n_failures = 1;
        expect_refused(create_with(loose), SESSION_E_STORE_UNAVAILABLE);
}
END_TEST

START_TEST(a_stop_does_not_wait_for_a_silent_relay)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        begin_held_update(tight, &answer);
        stop_session();
        ck_assert(answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_SANDBOX_ENDED);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("enforcement");
        TCase *tests = tcase_create("enforcement");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_loop_test(tests, an_event_in_another_way_than_agreed_ends_the_connection, 0, 3);
        tcase_add_test(tests, an_older_runtime_has_no_relay);
        tcase_add_test(tests, a_probe_tells_whether_hotcell_egress_is_there);
        tcase_add_loop_test(tests, a_sandbox_runs_once_its_policy_is_in_force, 0, 3);
        tcase_add_loop_test(tests, a_refused_policy_is_no_sandbox, 0, REFUSALS);
        tcase_add_test(tests, a_relay_that_does_not_answer_is_no_sandbox);
        tcase_add_loop_test(tests, a_relay_that_goes_away_is_no_sandbox, 0, 4);
        tcase_add_loop_test(
                tests, a_relay_that_is_started_anew_during_the_creation_may_lack_the_proof, 0, 3);
        tcase_add_loop_test(tests, another_policy_in_force_is_no_sandbox, 0, 2);
        tcase_add_test(tests, a_relay_that_knows_no_types_of_records_enforces_another_policy);
        tcase_add_test(tests, garbage_instead_of_an_answer_is_no_sandbox);
        tcase_add_test(tests, one_shots_are_held_to_their_policy_too);
        tcase_add_loop_test(tests, a_relay_that_comes_during_the_creation_is_asked, 0, 2);
        tcase_add_loop_test(tests, a_relay_that_is_lost_before_the_end_of_the_creation, 0, 2);
        tcase_add_test(tests, the_runtime_goes_away_while_a_policy_is_put_in_force);
        tcase_add_test(tests, a_creation_that_is_not_recorded_leaves_nothing);
        tcase_add_test(tests, a_stop_does_not_wait_for_a_silent_relay);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
