/* Sandboxes: creation and its refusals, names, ends, one-shot, restarts of either side. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/session_private.h"
#include "test/unit/session/fixture.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name

START_TEST(a_sandbox_runs_once_it_is_answered)
{
        struct answer answer = new_sandbox();

        ck_assert(answer.created);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_RUNNING);
        ck_assert_str_eq(answer.sandbox.template_name, "python");
        ck_assert_str_eq(answer.sandbox.boot_id, "boot-1");
        ck_assert_uint_eq(answer.sandbox.cgroup_id, 77);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
        answer = get_sandbox(answer.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.usage.processes, 2);
}
END_TEST

static void check_refusal(const struct sandbox_request *request, int outcome)
{
        struct answer answer = create_sandbox(request);
        struct session_info info;

        ck_assert_msg(answer.result.outcome == outcome, "outcome %d: %s", answer.result.outcome,
                      answer.result.message);
        ck_assert_str_ne(answer.result.message, "");
        while (session_info(f.session, "uid:1", &info), info.sandboxes_active > 0)
                run_turns(1);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
}

START_TEST(refusals_of_the_runtime_have_their_outcome)
{
        static const struct {
                int reason;
                int outcome;
        } cases[] = {
                { REASON(EXHAUSTED), SESSION_E_HOST_EXHAUSTED },
                { REASON(WALL_MISSING), SESSION_E_WALL_MISSING },
                { REASON(TEMPLATE_NOT_FOUND), SESSION_E_UNKNOWN_TEMPLATE },
                { REASON(SYSTEM), SESSION_E_RUNTIME_UNAVAILABLE },
                { REASON(TIMEOUT), SESSION_E_RUNTIME_UNAVAILABLE },
        };
        struct sandbox_request request = sandbox_request();

        request.name = "same";
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                fake_runtime_script(f.runtime)->fail_create = cases[i].reason;
                check_refusal(&request, cases[i].outcome);
        }
        fake_runtime_script(f.runtime)->fail_create = 0;
        ck_assert_int_eq(create_sandbox(&request).result.outcome, 0); /* the name is free again */
}
END_TEST

START_TEST(an_unknown_template_is_refused)
{
        struct sandbox_request request = sandbox_request();

        request.template_name = "cobol";
        check_refusal(&request, SESSION_E_UNKNOWN_TEMPLATE);
}
END_TEST

START_TEST(there_is_a_limit)
{
        struct sandbox_request request = sandbox_request();
        struct answer answer;

        for (int64_t i = 0; i < f.config.shares.total[SESSION_SHARE_SANDBOXES]; i++)
                new_sandbox();
        answer = create_sandbox(&request);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_SANDBOX_LIMIT);
}
END_TEST

START_TEST(a_missing_wall_is_named_until_it_holds)
{
        struct sandbox_request request = sandbox_request();
        struct answer answer;

        fake_runtime_script(f.runtime)->wall_missing = true;
        fake_runtime_break(f.runtime);
        do
                answer = create_sandbox(&request), run_turns(1);
        while (answer.result.outcome == SESSION_E_RUNTIME_UNAVAILABLE ||
               answer.result.outcome == 0);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_WALL_MISSING);
        ck_assert_ptr_nonnull(strstr(answer.result.message, "seccomp"));
        ck_assert(!session_is_ready(f.session));
}
END_TEST

static void on_probed(void *userdata, const struct session_result *result)
{
        struct answer *answer = userdata;

        answer->is_done = true;
        answer->result = *result;
}

START_TEST(a_probe_brings_new_walls)
{
        struct answer answer = { 0 };
        struct session_info info;

        fake_runtime_script(f.runtime)->wall_missing = true;
        session_probe_walls(f.session, on_probed, &answer);
        run_until_true(&answer.is_done);
        session_info(f.session, "uid:1", &info);
        ck_assert_uint_eq(info.n_walls, 1);
        ck_assert(!info.walls[0].holds);
        ck_assert_uint_eq(info.n_templates, 1);
        ck_assert_str_eq(info.templates[0].languages[0].language, "fake");
        ck_assert(!session_is_ready(f.session));
}
END_TEST

START_TEST(a_name_is_used_once_and_can_be_joined)
{
        struct sandbox_request request = sandbox_request();
        struct sandbox_request other = sandbox_request();
        struct answer a = { 0 };
        struct answer b = { 0 };
        struct answer c;

        request.name = "mine";
        other.name = "mine";
        other.get_or_create = true;
        fake_runtime_script(f.runtime)->hold_create = true;
        session_create_sandbox(f.session, &request, on_sandbox_answer, &a);
        session_create_sandbox(f.session, &other, on_sandbox_answer, &b);
        c = create_sandbox(&request);
        ck_assert_int_eq(c.result.outcome, SESSION_E_NAME_IN_USE);
        run_turns(3);
        fake_runtime_release(f.runtime);
        run_until_true(&a.is_done);
        run_until_true(&b.is_done);
        ck_assert(a.created);
        ck_assert(!b.created);
        ck_assert_str_eq(a.sandbox.sandbox_id, b.sandbox.sandbox_id);

        c = create_sandbox(&other);
        ck_assert_str_eq(a.sandbox.sandbox_id, c.sandbox.sandbox_id);
        other.owner = "uid:2";
        c = create_sandbox(&other);
        ck_assert(c.created);
        delete_sandbox(a.sandbox.sandbox_id);
        c = create_sandbox(&request);
        ck_assert_int_eq(c.result.outcome, 0);
}
END_TEST

START_TEST(what_belongs_to_others_is_not_found)
{
        struct answer sandbox = new_sandbox();
        struct answer answer = { 0 };

        session_get_sandbox(f.session, "uid:2", sandbox.sandbox.sandbox_id, on_sandbox_answer,
                            &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_SANDBOX_NOT_FOUND);
        answer.is_done = false;
        session_delete_sandbox(f.session, "uid:2", sandbox.sandbox.sandbox_id, NULL, CAUSE_CLIENT,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_SANDBOX_NOT_FOUND);
}
END_TEST

START_TEST(what_is_ending_has_lasted_for_some_time)
{
        struct answer sandbox = new_sandbox();
        struct answer deleted = { 0 }, answer = { 0 };

        session_delete_sandbox(f.session, "uid:1", sandbox.sandbox.sandbox_id, NULL, CAUSE_CLIENT,
                               on_sandbox_answer, &deleted);
        session_get_sandbox(f.session, "uid:1", sandbox.sandbox.sandbox_id, on_sandbox_answer,
                            &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_ENDING);
        ck_assert_int_gt(answer.sandbox.usage.total.wall_usec, 0);
        run_until_true(&deleted.is_done);
}
END_TEST

START_TEST(delete_succeeds_again_and_work_is_refused_after_it)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct execute_request request = execute_request(id, "out x");
        struct answer answer;

        run_code(id, "out x");
        ck_assert_int_eq(delete_sandbox(id).result.outcome, 0);
        answer = delete_sandbox(id);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_ENDED);
        ck_assert_int_eq(answer.sandbox.end_cause, CAUSE_CLIENT);
        ck_assert_int_gt(answer.sandbox.usage.total.cpu_usec, 0);
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_SANDBOX_ENDED);
        ck_assert_int_eq(list_contexts(id).result.outcome, SESSION_E_SANDBOX_ENDED);
        request.sandbox_id = "sbx-none";
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_SANDBOX_NOT_FOUND);
        ck_assert_int_eq(delete_sandbox("sbx-none").result.outcome, SESSION_E_SANDBOX_NOT_FOUND);
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 0);
}
END_TEST

static bool has_ended(void *userdata)
{
        return get_sandbox(userdata).sandbox.state == SANDBOX_ENDED;
}

START_TEST(a_lifetime_ends_the_sandbox)
{
        struct sandbox_request request = sandbox_request();
        struct answer answer;

        request.expire_time_usec = time_now_usec() + 200 * 1000;
        answer = create_sandbox(&request);
        run_until(has_ended, answer.sandbox.sandbox_id);
        ck_assert_int_eq(get_sandbox(answer.sandbox.sandbox_id).sandbox.end_cause, CAUSE_TTL);
}
END_TEST

START_TEST(an_idle_sandbox_ends_and_a_busy_one_does_not)
{
        struct sandbox_request request = sandbox_request();
        struct execute_request code;
        struct seen seen = { 0 };
        struct answer busy;
        struct answer idle;

        request.idle_timeout_usec = 100 * 1000;
        busy = create_sandbox(&request);
        code = execute_request(busy.sandbox.sandbox_id, "out x\nsleep");
        execute(&code, &seen);
        idle = create_sandbox(&request);
        run_until(has_ended, idle.sandbox.sandbox_id);
        ck_assert_int_eq(get_sandbox(idle.sandbox.sandbox_id).sandbox.end_cause, CAUSE_IDLE);
        ck_assert_int_eq(get_sandbox(busy.sandbox.sandbox_id).sandbox.state, SANDBOX_RUNNING);
        detach(&seen);
}
END_TEST

START_TEST(an_update_counts_at_once)
{
        struct answer sandbox = new_sandbox();
        struct sandbox_update update = { .set_expire_time = true, .set_labels = true };
        struct pair pair = { (char *)"a", (char *)"b" };
        struct pairs labels = { &pair, 1 };
        struct answer answer = { 0 };

        update.labels = &labels;
        update.expire_time_usec = time_now_usec() + 200 * 1000;
        session_update_sandbox(f.session, "uid:1", sandbox.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_uint_eq(answer.sandbox.labels.n, 1);
        run_until(has_ended, sandbox.sandbox.sandbox_id);
}
END_TEST

static void count(void *userdata)
{
        ++*(int *)userdata;
}

static bool is_counted(void *userdata)
{
        return *(int *)userdata > 0;
}

START_TEST(a_watch_hears_of_ones_own)
{
        struct session_watch *mine;
        struct session_watch *others;
        int n_mine = 0;
        int n_others = 0;
        struct answer sandbox;

        ck_assert_int_eq(session_watch_new(f.session, "uid:1", count, &n_mine, &mine), 0);
        ck_assert_int_eq(session_watch_new(f.session, "uid:2", count, &n_others, &others), 0);
        sandbox = new_sandbox();
        delete_sandbox(sandbox.sandbox.sandbox_id);
        run_until(is_counted, &n_mine);
        ck_assert_int_eq(n_others, 0);
        session_watch_free(mine);
        session_watch_free(others);
}
END_TEST

START_TEST(a_one_shot_sandbox_ends_with_its_execution)
{
        struct sandbox_request spec = sandbox_request();
        struct execute_request request = execute_request("", "out x");
        struct seen seen = { 0 };
        struct answer answer;

        request.one_shot = &spec;
        answer = execute(&request, &seen);
        ck_assert_int_eq(answer.result.outcome, 0);
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:x ended");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        run_until(has_ended, answer.execution.sandbox_id);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);

        fake_runtime_script(f.runtime)->fail_create = REASON(EXHAUSTED);
        answer = execute(&request, NULL);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_HOST_EXHAUSTED);
        request.language = "cobol";
        fake_runtime_script(f.runtime)->fail_create = 0;
        answer = execute(&request, NULL);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_UNKNOWN_LANGUAGE);
}
END_TEST

START_TEST(a_sandbox_that_ends_by_itself_is_noticed)
{
        struct answer a = new_sandbox();
        struct answer b = new_sandbox();

        fake_runtime_end_sandbox(f.runtime, a.sandbox.sandbox_id, true);
        fake_runtime_end_sandbox(f.runtime, b.sandbox.sandbox_id, false);
        run_until(has_ended, a.sandbox.sandbox_id);
        run_until(has_ended, b.sandbox.sandbox_id);
        ck_assert_int_eq(get_sandbox(a.sandbox.sandbox_id).sandbox.end_cause, CAUSE_LIMIT);
        ck_assert_int_eq(get_sandbox(b.sandbox.sandbox_id).sandbox.end_cause, CAUSE_PROGRAM);
}
END_TEST

START_TEST(a_stop_ends_and_records_everything)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct seen seen = { 0 };
        struct answer after;
        int n_stopped = 0;

        execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        session_stop(f.session, count, &n_stopped);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_SANDBOX_ENDED);
        ck_assert_int_eq(seen.ended.cause, CAUSE_SHUTDOWN);
        after = create_sandbox(&(struct sandbox_request){ .owner = "a", .name = "" });
        ck_assert_int_eq(after.result.outcome, SESSION_E_SHUTTING_DOWN);
        run_until(has_ended, sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(get_sandbox(sandbox.sandbox.sandbox_id).sandbox.end_cause, CAUSE_SHUTDOWN);
        run_turns(5);
        ck_assert_int_eq(n_stopped, 1);
        f.session = session_free(f.session);
        f.store = store_close(f.store);
}
END_TEST

START_TEST(a_restart_keeps_the_sandbox_and_loses_what_ran)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct seen seen = { 0 };
        struct answer execution;
        struct answer after;
        char process_id[ID_BUFFER + 8];

        execution = execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        crash();
        (void)snprintf(process_id, sizeof(process_id), "%s-g1", execution.execution.context_id);
        fake_runtime_add_sandbox(f.runtime, sandbox.sandbox.sandbox_id, process_id);
        fake_runtime_add_sandbox(f.runtime, "sbx-stranger", "p");
        start_session();
        run_until(session_serves, NULL);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
        after = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(after.sandbox.state, SANDBOX_RUNNING);
        after = get_execution(execution.execution.execution_id);
        ck_assert_int_eq(after.execution.state, EXECUTION_ENDED);
        ck_assert_int_eq(after.execution.outcome, OUTCOME_LOST);
        ck_assert_int_eq(after.execution.cause, CAUSE_HOST_LOST);
        seen = run_code(sandbox.sandbox.sandbox_id, "out again");
        ck_assert_str_eq(seen.text, "queued:0 started:2.1 stdout:again ended");
}
END_TEST

START_TEST(a_restart_of_the_machine_loses_the_sandboxes)
{
        struct answer gone = new_sandbox();
        struct answer sandbox;
        struct answer after;

        crash();
        start_session();
        run_until(session_serves, NULL);
        after = get_sandbox(gone.sandbox.sandbox_id);
        ck_assert_int_eq(after.sandbox.end_cause, CAUSE_RUNTIME_LOST);

        sandbox = new_sandbox();
        crash();
        fake_runtime_script(f.runtime)->boot_id = "boot-2";
        start_session();
        run_until(session_serves, NULL);
        after = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(after.sandbox.state, SANDBOX_ENDED);
        ck_assert_int_eq(after.sandbox.end_cause, CAUSE_HOST_LOST);
}
END_TEST

START_TEST(without_a_runtime_nothing_is_taken)
{
        struct sandbox_request request = sandbox_request();
        struct answer answer;

        f.runtime = fake_runtime_free(f.runtime);
        do
                answer = create_sandbox(&request), run_turns(1);
        while (session_is_ready(f.session));
        answer = create_sandbox(&request);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_RUNTIME_UNAVAILABLE);
}
END_TEST

START_TEST(how_the_runtime_measures_is_told)
{
        struct session_info info;

        run_until(session_serves, NULL);
        session_info(f.session, "uid:0", &info);
        ck_assert(info.metering->is_known);
        ck_assert(info.metering->has_programs);
        ck_assert_int_eq(info.metering->slots, 7);
        ck_assert_uint_eq(info.metering->missing, BIT(USAGE_PART_WAIT));
}
END_TEST

static void on_refreshed(void *userdata)
{
        *(bool *)userdata = true;
}

static int64_t slots_used_after_refresh(void)
{
        struct session_info info;
        bool is_done = false;

        session_refresh_metering(f.session, on_refreshed, &is_done);
        run_until_true(&is_done);
        session_info(f.session, "uid:0", &info);
        return info.metering->slots_used;
}

START_TEST(how_the_runtime_measures_is_asked_when_it_is_old)
{
        run_until(session_serves, NULL);
        f.session->metering_usec -= 10000000;
        ck_assert_int_eq(slots_used_after_refresh(), 1);
        ck_assert_int_eq(slots_used_after_refresh(), 1);
        f.session->metering_usec -= 10000000;
        ck_assert_int_eq(slots_used_after_refresh(), 2);
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 2);
}
END_TEST

START_TEST(a_runtime_that_hangs_is_not_waited_for_long)
{
        run_until(session_serves, NULL);
        fake_runtime_script(f.runtime)->hold_meters = true;
        f.session->metering_usec -= 10000000;
        ck_assert_int_eq(slots_used_after_refresh(), 0);
        ck_assert_uint_eq(fake_runtime_n_read_meters(f.runtime), 1);
        fake_runtime_disconnect(f.runtime);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &a_sandbox_runs_once_it_is_answered,
                &refusals_of_the_runtime_have_their_outcome,
                &an_unknown_template_is_refused,
                &there_is_a_limit,
                &a_missing_wall_is_named_until_it_holds,
                &a_probe_brings_new_walls,
                &a_name_is_used_once_and_can_be_joined,
                &what_belongs_to_others_is_not_found,
                &what_is_ending_has_lasted_for_some_time,
                &delete_succeeds_again_and_work_is_refused_after_it,
                &a_lifetime_ends_the_sandbox,
                &an_idle_sandbox_ends_and_a_busy_one_does_not,
                &an_update_counts_at_once,
                &a_watch_hears_of_ones_own,
                &a_one_shot_sandbox_ends_with_its_execution,
                &a_sandbox_that_ends_by_itself_is_noticed,
                &a_stop_ends_and_records_everything,
                &how_the_runtime_measures_is_told,
                &how_the_runtime_measures_is_asked_when_it_is_old,
                &a_runtime_that_hangs_is_not_waited_for_long,
                &a_restart_keeps_the_sandbox_and_loses_what_ran,
                &a_restart_of_the_machine_loses_the_sandboxes,
                &without_a_runtime_nothing_is_taken,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("sandboxes", all, ARRAY_SIZE(all));
}
