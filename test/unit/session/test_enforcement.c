/*
 * Egress policies in force: nothing runs and nothing is answered for before hotcell-egress said so,
 * whatever breaks and whoever is killed on the way. The store's changes of sandboxes are wrapped by
 * the linker (meson.build).
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

#define REASON(name) HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

/* What a killed server had in memory stays and is nobody's; see test_crashes.c. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
        return 1;
}

/* --- the store --- */

/* The next change waits until store_go_on; or so many fail. */
static bool is_store_held;
static unsigned n_failures;

static struct {
        bool is_held;
        store_on_done on_done;
        void *userdata;
        int result;
} held_answer;

void __real_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata);
void __wrap_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata);
void __real_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata);
void __wrap_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata);

struct failure {
        sd_event_source *source;
        store_on_done on_done;
        void *userdata;
};

static int on_failure(sd_event_source *source, void *userdata)
{
        struct failure failure = *(struct failure *)userdata;

        (void)source;
        free(userdata);
        (void)sd_event_source_disable_unref(failure.source);
        failure.on_done(failure.userdata, -EIO);
        return 0;
}

static bool fails(store_on_done on_done, void *userdata)
{
        struct failure *failure;

        if (n_failures == 0)
                return false;
        n_failures--;
        failure = calloc(1, sizeof(*failure));
        failure->on_done = on_done;
        failure->userdata = userdata;
        ck_assert_int_ge(sd_event_add_defer(f.loop, &failure->source, on_failure, failure), 0);
        return true;
}

void __wrap_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata)
{
        if (!fails(on_done, userdata))
                __real_store_update_sandbox(store, record, event, on_done, userdata);
}

static void on_held(void *userdata, int result)
{
        (void)userdata;
        held_answer.is_held = true;
        held_answer.result = result;
}

void __wrap_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata)
{
        if (fails(on_done, userdata))
                return;
        if (is_store_held) {
                is_store_held = false;
                held_answer.is_held = false;
                held_answer.on_done = on_done;
                held_answer.userdata = userdata;
                on_done = on_held;
        }
        __real_store_update_sandbox_for(store, request, record, event, on_done, userdata);
}

static void store_go_on(void)
{
        held_answer.on_done(held_answer.userdata, held_answer.result);
}

/* --- policies --- */

static const struct egress_rule allow = { .action = POLICY_ALLOW,
                                          .protocol = POLICY_TCP,
                                          .destination = "192.0.2.0/24" };
static const struct egress_rule deny = { .action = POLICY_DENY,
                                         .protocol = POLICY_TCP,
                                         .destination = "192.0.2.0/24" };
static struct egress *loose, *tight;

static void set_up(void)
{
        is_store_held = false;
        n_failures = 0;
        fixture_setup();
        loose = make_egress(POLICY_DEFAULT_DENY, &allow, 1);
        tight = make_egress(POLICY_DEFAULT_DENY, &deny, 1);
}

static void tear_down(void)
{
        fixture_teardown();
        loose = egress_release(loose);
        tight = egress_release(tight);
}

static struct fake_egress_script *script(void)
{
        return fake_egress_script(f.egress);
}

static void begin_creation(struct egress *egress, struct answer *answer)
{
        struct sandbox_request request = sandbox_request();

        *answer = (struct answer){ 0 };
        request.egress = egress;
        session_create_sandbox(f.session, &request, on_sandbox_answer, answer);
}

static struct answer create_with(struct egress *egress)
{
        struct answer answer;

        begin_creation(egress, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

static char sandbox_id[ID_BUFFER];

/* Runs, with @egress in force. */
static void make_sandbox(struct egress *egress)
{
        struct answer answer = create_with(egress);

        ck_assert_msg(answer.result.outcome == 0, "%s", answer.result.message);
        (void)strcpy(sandbox_id, answer.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.enforcement.version, 1);
}

static void begin_update(struct egress *egress, struct answer *answer)
{
        struct sandbox_update update = { .set_egress = true, .egress = egress };

        *answer = (struct answer){ 0 };
        session_update_sandbox(f.session, "uid:1", sandbox_id, &update, on_sandbox_answer, answer);
}

static struct answer change_policy(struct egress *egress)
{
        struct answer answer;

        begin_update(egress, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

static bool is_held(void *userdata)
{
        return fake_egress_n_held(f.egress) >= *(const size_t *)userdata;
}

static void wait_for_held(size_t n)
{
        run_until(is_held, &n);
}

static bool is_asked(void *userdata)
{
        return fake_egress_n_requests(f.egress) >= *(const size_t *)userdata;
}

static void wait_for_requests(size_t n)
{
        run_until(is_asked, &n);
}

static bool is_in_force(void *userdata)
{
        const struct sandbox_record record = get_sandbox(userdata).sandbox;

        return record.enforcement.version == record.egress_version;
}

static void wait_for_force(void)
{
        run_until(is_in_force, sandbox_id);
}

static bool is_not_in_force(void *userdata)
{
        return !is_in_force(userdata);
}

/* What hotcell-egress, the session and, after a restart, the database have. */
static void expect_policy(const struct egress *egress, int64_t version)
{
        const struct fake_policy *policy = fake_egress_policy(f.egress, sandbox_id);
        struct answer answer = get_sandbox(sandbox_id);

        ck_assert_int_eq(answer.sandbox.state, SANDBOX_RUNNING);
        ck_assert(egress_is_same(answer.sandbox.egress, egress));
        ck_assert_int_eq(answer.sandbox.egress_version, version);
        ck_assert_int_eq(answer.sandbox.enforcement.version, version);
        ck_assert_uint_eq(answer.sandbox.enforcement.n_program_ids, 2);
        ck_assert_ptr_nonnull(policy);
        ck_assert_int_eq(policy->version, version);
        ck_assert_uint_eq(policy->n_rules, egress ? 1 : 0);
        if (egress)
                ck_assert_mem_eq(policy->sha256, egress->sha256, 32);
}

static bool has_nothing(void *userdata)
{
        struct session_info info;

        (void)userdata;
        session_info(f.session, "uid:1", &info);
        return info.quotas[SESSION_SHARE_SANDBOXES].used == 0;
}

/* Once its end is recorded. */
static void expect_nothing_left(void)
{
        struct session_info info;

        run_until(has_nothing, NULL);
        session_info(f.session, "uid:1", &info);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
        ck_assert_uint_eq(info.sandboxes_active, 0);
        for (size_t i = 0; i < _SESSION_SHARE_N; i++)
                ck_assert_int_eq(info.quotas[i].used, 0);
}

static void expect_refused(struct answer answer, int outcome)
{
        ck_assert_int_eq(answer.result.outcome, outcome);
        ck_assert_str_ne(answer.result.message, "");
        expect_nothing_left();
}

static void restart_with_patience(int64_t usec)
{
        f.config.egress_answer_usec = usec;
        start_with_egress();
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
        struct answer answer = create_with(NULL);

        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.enforcement.version, 0); /* nobody proved it */
        ck_assert_int_eq(create_with(loose).result.outcome, SESSION_E_EGRESS);
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

static const struct {
        int reason, outcome;
} refusals[] = {
        { REASON(INVALID), SESSION_E_EGRESS },
        { REASON(NOT_FOUND), SESSION_E_EGRESS },
        { REASON(TOO_COMPLEX), SESSION_E_RULE_TOO_COMPLEX },
        { REASON(EXHAUSTED), SESSION_E_EGRESS },
        { REASON(NOT_PROVEN), SESSION_E_EGRESS },
};

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

START_TEST(a_relay_that_goes_away_is_no_sandbox)
{
        start_with_egress();
        script()->lose_in = 1;
        script()->lose_after = _i & 1;
        expect_refused(create_with(_i & 2 ? loose : NULL), SESSION_E_EGRESS);
        expect_refused(create_with(loose), SESSION_E_EGRESS);
        fake_runtime_egress_ready(f.runtime);
        run_turns(4);
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
        script()->hold = true;
        begin_update(tight, &answer);
        wait_for_held(1);
        stop_session();
        ck_assert(answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_SANDBOX_ENDED);
}
END_TEST

/* --- updates --- */

START_TEST(an_update_is_answered_once_it_is_in_force)
{
        struct answer answer;

        start_with_egress();
        make_sandbox(loose);
        script()->hold = true;
        begin_update(tight, &answer);
        wait_for_held(1);
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

START_TEST(an_update_whose_relay_goes_away_is_taken_back)
{
        start_with_egress();
        make_sandbox(tight);
        script()->lose_in = 1;
        script()->lose_after = _i;
        ck_assert_int_eq(change_policy(loose).result.outcome, SESSION_E_EGRESS);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.enforcement.version, 0);
        fake_runtime_egress_ready(f.runtime);
        wait_for_force();
        expect_taken_back(tight);
}
END_TEST

START_TEST(an_update_whose_answer_is_wrong_is_taken_back)
{
        start_with_egress();
        make_sandbox(tight);
        script()->wrong_digest = true;
        script()->hold = true;
        {
                struct answer answer;

                begin_update(loose, &answer);
                wait_for_held(1);
                script()->hold = false;
                fake_egress_release(f.egress);
                script()->wrong_digest = false;
                run_until_true(&answer.is_done);
                ck_assert_int_eq(answer.result.outcome, SESSION_E_EGRESS);
        }
        wait_for_force();
        expect_taken_back(tight);
}
END_TEST

/* It may be there and hold the sandbox to what was. */
START_TEST(without_the_relay_that_there_was_nothing_is_tightened)
{
        start_with_egress();
        make_sandbox(loose);
        fake_egress_disconnect(f.egress);
        run_turns(4);
        ck_assert_int_eq(change_policy(NULL).result.outcome, SESSION_E_EGRESS);
        ck_assert_int_eq(change_policy(tight).result.outcome, SESSION_E_EGRESS);
        ck_assert_int_eq(change_policy(loose).result.outcome, SESSION_E_EGRESS);
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
        script()->hold = true;
        begin_update(loose, &answer);
        wait_for_held(1);
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
        script()->hold = true;
        begin_update(loose, &first);
        wait_for_held(1);
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
        script()->hold = true;
        begin_update(tight, &answer);
        wait_for_held(1);
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
                (void)strcpy(sandbox_id, ids[i]);
                wait_for_force();
                expect_policy(policies[i], 1);
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
                (void)strcpy(sandbox_id, ids[i]);
                wait_for_force();
                expect_policy(loose, 1);
        }
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

START_TEST(a_successor_is_ready_once_all_policies_are_in_force)
{
        start_with_egress();
        make_sandbox(_i ? loose : NULL);
        script()->hold = true;
        crash_server();
        start_session();
        wait_for_held(1);
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
        script()->hold = true;
        crash_server();
        start_session();
        wait_for_held(32);
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
        script()->hold = true;
        crash_server();
        start_session();
        wait_for_held(1);
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
        script()->hold = true;
        crash_server();
        start_session();
        wait_for_held(1);
        stop_session();
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("enforcement");
        TCase *tests = tcase_create("enforcement");
        SRunner *runner;
        int n_failed;

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_loop_test(tests, an_event_in_another_way_than_agreed_ends_the_connection, 0, 3);
        tcase_add_test(tests, an_older_runtime_has_no_relay);
        tcase_add_test(tests, a_probe_tells_whether_hotcell_egress_is_there);
        tcase_add_loop_test(tests, a_sandbox_runs_once_its_policy_is_in_force, 0, 3);
        tcase_add_loop_test(tests, a_refused_policy_is_no_sandbox, 0, ARRAY_SIZE(refusals));
        tcase_add_test(tests, a_relay_that_does_not_answer_is_no_sandbox);
        tcase_add_loop_test(tests, a_relay_that_goes_away_is_no_sandbox, 0, 4);
        tcase_add_loop_test(tests, another_policy_in_force_is_no_sandbox, 0, 2);
        tcase_add_test(tests, garbage_instead_of_an_answer_is_no_sandbox);
        tcase_add_test(tests, one_shots_are_held_to_their_policy_too);
        tcase_add_loop_test(tests, a_relay_that_comes_during_the_creation_is_asked, 0, 2);
        tcase_add_loop_test(tests, a_relay_that_is_lost_before_the_end_of_the_creation, 0, 2);
        tcase_add_test(tests, the_runtime_goes_away_while_a_policy_is_put_in_force);
        tcase_add_test(tests, a_creation_that_is_not_recorded_leaves_nothing);
        tcase_add_test(tests, a_stop_does_not_wait_for_a_silent_relay);
        tcase_add_test(tests, an_update_is_answered_once_it_is_in_force);
        tcase_add_test(tests, an_update_is_recorded_before_it_is_put_in_force);
        tcase_add_test(tests, an_update_that_is_not_recorded_is_not_put_in_force);
        tcase_add_loop_test(tests, a_refused_update_leaves_what_was, 0, ARRAY_SIZE(refusals));
        tcase_add_test(tests, an_update_without_an_answer_is_taken_back);
        tcase_add_loop_test(tests, an_update_whose_relay_goes_away_is_taken_back, 0, 2);
        tcase_add_test(tests, an_update_whose_answer_is_wrong_is_taken_back);
        tcase_add_test(tests, without_the_relay_that_there_was_nothing_is_tightened);
        tcase_add_test(tests, the_same_policy_is_answered_for_once_it_is_in_force);
        tcase_add_test(tests, what_is_taken_back_is_tried_until_it_is_recorded);
        tcase_add_loop_test(tests, all_of_an_update_is_taken_back_but_not_what_others_changed_since,
                            0, 2);
        tcase_add_test(tests, policies_are_put_in_force_one_at_a_time);
        tcase_add_test(tests, a_sandbox_that_ends_does_not_wait_for_its_policy);
        tcase_add_loop_test(tests, the_request_of_an_update_that_was_taken_back_is_forgotten, 0, 2);
        tcase_add_test(tests, a_relay_that_was_started_anew_gets_all_policies_again);
        tcase_add_loop_test(tests, a_relay_that_is_lost_while_it_gets_them_gets_them_again, 0, 8);
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
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
