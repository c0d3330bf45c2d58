/* Policies that are replaced: nothing is answered for before it is in force, or taken back. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/suite.h"
#include "test/unit/session/enforcement.h"
#include "test/unit/session/fixture.h"

START_TEST(an_update_is_answered_once_it_is_in_force)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        begin_held_update(tight, &answer);
        run_turns(20);
        ck_assert(!answer.is_done);
        /* Meanwhile it is shown as what it is. */
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.egress_version, 2);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 1);
        fake_egress_release(f.egress);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.enforcement.version, 2);
        expect_policy(tight, 2);
        ck_assert_int_eq(change_policy(NULL).result.outcome, 0);
        expect_policy(NULL, 3);
}
END_TEST

START_TEST(an_update_is_recorded_before_it_is_put_in_force)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(tight);
        is_store_held = true;
        begin_update(loose, &answer);
        run_until_true(&held_answer.is_held);
        run_turns(20);
        ck_assert_uint_eq(fake_egress_n_requests(f.egress), 1);
        store_go_on();
        run_until_true(&answer.is_done);
        expect_policy(loose, 2);
}
END_TEST

START_TEST(an_update_that_is_not_recorded_is_not_put_in_force)
{
        start_with_egress();
        make_sandbox(tight);
        n_failures = 1;
        ck_assert_int_eq(change_policy(loose).result.outcome, SESSION_E_STORE_UNAVAILABLE);
        ck_assert_uint_eq(fake_egress_n_requests(f.egress), 1);
        expect_policy(tight, 1);
}
END_TEST

static void expect_taken_back(const struct egress *egress)
{
        expect_policy(egress, 1);
        crash_server();
        start_session();
        run_until(session_serves, NULL);
        expect_policy(egress, 1);
}

START_TEST(a_refused_update_leaves_what_was)
{
        char before[ETAG_BUFFER], after[ETAG_BUFFER];
        struct answer answer;

        start_with_egress();
        make_sandbox(tight);
        answer = get_sandbox(sandbox_id);
        sandbox_etag(&answer.sandbox, before);
        script()->fail = refusals[_i].reason;
        answer = change_policy(loose);
        ck_assert_int_eq(answer.result.outcome, refusals[_i].outcome);
        script()->fail = 0;
        answer = get_sandbox(sandbox_id);
        sandbox_etag(&answer.sandbox, after);
        ck_assert_str_eq(after, before);
        expect_taken_back(tight);
}
END_TEST

START_TEST(an_update_without_an_answer_is_taken_back)
{
        struct answer answer;

        restart_with_patience(500 * 1000);
        make_sandbox(tight);
        script()->hold = true; /* and yet it comes in force */
        answer = change_policy(loose);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EGRESS);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
        fake_egress_release(f.egress);
        wait_for_force();
        expect_taken_back(tight);
}
END_TEST

/* The runtime starts it again. */
static void expect_refused_for_now(struct answer answer)
{
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EGRESS);
        ck_assert_int_gt(answer.result.retry_usec, 0);
}

START_TEST(an_update_whose_relay_goes_away_is_taken_back)
{
        start_with_egress();
        make_sandbox(tight);
        script()->lose_in = 1;
        script()->lose_after = _i;
        expect_refused_for_now(change_policy(loose));
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
        fake_runtime_egress_ready(f.runtime);
        wait_for_force();
        expect_taken_back(tight);
}
END_TEST

START_TEST(an_update_whose_answer_is_wrong_is_taken_back)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(tight);
        script()->wrong_digest = true;
        begin_held_update(loose, &answer);
        script()->hold = false;
        fake_egress_release(f.egress);
        script()->wrong_digest = false;
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EGRESS);
        wait_for_force();
        expect_taken_back(tight);
}
END_TEST

static struct egress *make_long_egress(size_t n_rules)
{
        const struct egress_rule rule = { .action = POLICY_DENY,
                                          .protocol = POLICY_TCP,
                                          .destination = "8.8.8.8" };
        struct egress_rule *rules = calloc(n_rules, sizeof(*rules));
        struct egress *egress;

        ck_assert_ptr_nonnull(rules);
        for (size_t i = 0; i < n_rules; i++)
                rules[i] = rule;
        egress = make_egress(POLICY_DEFAULT_DENY, rules, n_rules);
        free(rules);
        return egress;
}

/* Five sandboxes of one owner; the policies of four are as long as may be. */
START_TEST(one_owners_policies_on_their_way_are_bounded)
{
        struct egress *longest = make_long_egress(POLICY_RULES_MAX);
        struct sandbox_update update = { .set_egress = true, .egress = longest };
        struct answer answers[5] = { 0 };
        char ids[5][ID_BUFFER];

        f.config.shares.total[SESSION_SHARE_EGRESS] = 64 << 20;
        start_with_egress();
        for (size_t i = 0; i < 5; i++) {
                make_sandbox(NULL);
                (void)strcpy(ids[i], sandbox_id);
        }
        script()->hold = true;
        for (size_t i = 0; i < 5; i++)
                session_update_sandbox(f.session, "uid:1", ids[i], &update, on_sandbox_answer,
                                       &answers[i]);
        run_until_true(&answers[4].is_done);
        ck_assert_int_eq(answers[4].result.outcome, SESSION_E_UPDATE_RATE);
        ck_assert_str_eq(answers[4].result.quota, "uid:1");
        ck_assert_int_gt(answers[4].result.retry_usec, 0);
        ck_assert(!answers[0].is_done);
        /* One that has none is let through, and ends also with its sandbox. */
        update.egress = NULL;
        ck_assert_int_eq(update_sandbox(ids[4], &update).result.outcome, 0);
        delete_sandbox(ids[0]);
        run_until_true(&answers[0].is_done);
        ck_assert_int_eq(answers[0].result.outcome, SESSION_E_SANDBOX_ENDED);
        update.egress = longest;
        answers[4] = (struct answer){ 0 };
        session_update_sandbox(f.session, "uid:1", ids[4], &update, on_sandbox_answer, &answers[4]);
        run_turns(20);
        fake_egress_release(f.egress);
        for (size_t i = 1; i < 5; i++) {
                run_until_true(&answers[i].is_done);
                ck_assert_int_eq(answers[i].result.outcome, 0);
        }
        /* What is in force is not on its way any more. */
        make_sandbox(NULL);
        ck_assert_int_eq(update_sandbox(sandbox_id, &update).result.outcome, 0);
        (void)egress_release(longest);
}
END_TEST

/* It may be there and hold the sandbox to what was. */
START_TEST(without_the_relay_that_there_was_nothing_is_tightened)
{
        start_with_egress();
        make_sandbox(loose);
        fake_egress_disconnect(f.egress);
        run_turns(4);
        expect_refused_for_now(change_policy(NULL));
        expect_refused_for_now(change_policy(tight));
        expect_refused_for_now(change_policy(loose));
        fake_runtime_egress_ready(f.runtime);
        wait_for_force();
        expect_taken_back(loose);
}
END_TEST

START_TEST(the_same_policy_is_answered_for_once_it_is_in_force)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(tight);
        ck_assert_int_eq(change_policy(tight).result.outcome, 0);
        ck_assert_uint_eq(fake_egress_n_requests(f.egress), 1);
        script()->hold = true;
        fake_egress_restart(f.egress);
        fake_runtime_egress_ready(f.runtime);
        wait_for_held(1);
        begin_update(tight, &answer);
        wait_for_held(2);
        run_turns(20);
        ck_assert(!answer.is_done);
        fake_egress_release(f.egress);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        expect_policy(tight, 1);
}
END_TEST

START_TEST(what_is_taken_back_is_tried_until_it_is_recorded)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(tight);
        begin_held_update(loose, &answer);
        n_failures = 1;
        fake_egress_disconnect(f.egress);
        run_turns(20);
        ck_assert(!answer.is_done); /* the database has what did not come in force */
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EGRESS);
        script()->hold = false;
        fake_runtime_egress_ready(f.runtime);
        wait_for_force();
        expect_taken_back(tight);
}
END_TEST

static struct pair label(const char *value)
{
        return (struct pair){ (char *)(uintptr_t) "a", (char *)(uintptr_t)value };
}

START_TEST(all_of_an_update_is_taken_back_but_not_what_others_changed_since)
{
        struct pair mine_label = label("mine"), other_label = label("other");
        struct pairs mine = { .items = &mine_label, .n = 1 },
                     other = { .items = &other_label, .n = 1 };
        struct sandbox_update update = { .set_egress = true,
                                         .egress = loose,
                                         .set_labels = true,
                                         .labels = &mine,
                                         .set_idle_timeout = true,
                                         .idle_timeout_usec = 7000000 };
        struct sandbox_update since = { .set_labels = true, .labels = &other };
        struct answer first = { 0 }, answer;

        start_with_egress();
        make_sandbox(tight);
        script()->hold = true;
        session_update_sandbox(f.session, "uid:1", sandbox_id, &update, on_sandbox_answer, &first);
        wait_for_held(1);
        if (_i)
                ck_assert_int_eq(update_sandbox(sandbox_id, &since).result.outcome, 0);
        fake_egress_disconnect(f.egress);
        run_until_true(&first.is_done);
        ck_assert_int_eq(first.result.outcome, SESSION_E_EGRESS);
        answer = get_sandbox(sandbox_id);
        ck_assert_int_eq(answer.sandbox.idle_timeout_usec, 0);
        ck_assert_uint_eq(answer.sandbox.labels.n, _i);
        if (_i)
                ck_assert_str_eq(answer.sandbox.labels.items[0].value, "other");
}
END_TEST

START_TEST(policies_are_put_in_force_one_at_a_time)
{
        struct answer first, second;

        start_with_egress();
        make_sandbox(NULL);
        begin_held_update(loose, &first);
        begin_update(tight, &second);
        ck_assert(second.is_done);
        ck_assert_int_eq(second.result.outcome, SESSION_E_CONFLICT);
        begin_update(loose, &second); /* the same, which is not known to be in force */
        ck_assert_int_eq(second.result.outcome, SESSION_E_CONFLICT);
        fake_egress_release(f.egress);
        run_until_true(&first.is_done);
        ck_assert_int_eq(change_policy(tight).result.outcome, 0);
        expect_policy(tight, 3);
}
END_TEST

START_TEST(a_sandbox_that_ends_does_not_wait_for_its_policy)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        begin_held_update(tight, &answer);
        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        ck_assert(answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_SANDBOX_ENDED);
        fake_egress_release(f.egress);
        make_sandbox(loose);
}
END_TEST

static void on_request(void *userdata, int result, const struct request_record *known)
{
        (void)known;
        *(int *)userdata = result;
}

static bool is_answered(void *userdata)
{
        return *(const int *)userdata != INT32_MIN;
}

START_TEST(the_request_of_an_update_that_was_taken_back_is_forgotten)
{
        struct request_record request = { .owner = "uid:1",
                                          .method = "UpdateSandbox",
                                          .request_id = "once" };
        struct sandbox_update update = { .set_egress = true, .egress = loose, .request = &request };
        int known = INT32_MIN;

        start_with_egress();
        make_sandbox(tight);
        script()->fail = _i ? 0 : REASON(EXHAUSTED);
        ck_assert_int_eq(update_sandbox(sandbox_id, &update).result.outcome,
                         _i ? 0 : SESSION_E_EGRESS);
        store_get_request(f.store, &request, on_request, &known);
        run_until(is_answered, &known);
        ck_assert_int_eq(known, _i ? 0 : STORE_E_NOT_FOUND);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("enforcement_updates");
        TCase *tests = tcase_create("enforcement_updates");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_test(tests, an_update_is_answered_once_it_is_in_force);
        tcase_add_test(tests, an_update_is_recorded_before_it_is_put_in_force);
        tcase_add_test(tests, an_update_that_is_not_recorded_is_not_put_in_force);
        tcase_add_loop_test(tests, a_refused_update_leaves_what_was, 0, REFUSALS);
        tcase_add_test(tests, an_update_without_an_answer_is_taken_back);
        tcase_add_loop_test(tests, an_update_whose_relay_goes_away_is_taken_back, 0, 2);
        tcase_add_test(tests, an_update_whose_answer_is_wrong_is_taken_back);
        tcase_add_test(tests, one_owners_policies_on_their_way_are_bounded);
        tcase_add_test(tests, without_the_relay_that_there_was_nothing_is_tightened);
        tcase_add_test(tests, the_same_policy_is_answered_for_once_it_is_in_force);
        tcase_add_test(tests, what_is_taken_back_is_tried_until_it_is_recorded);
        tcase_add_loop_test(tests, all_of_an_update_is_taken_back_but_not_what_others_changed_since,
                            0, 2);
        tcase_add_test(tests, policies_are_put_in_force_one_at_a_time);
        tcase_add_test(tests, a_sandbox_that_ends_does_not_wait_for_its_policy);
        tcase_add_loop_test(tests, the_request_of_an_update_that_was_taken_back_is_forgotten, 0, 2);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
