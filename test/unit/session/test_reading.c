/* Readers: replay, gaps, back-pressure, retention. */
#include <check.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

static bool execution_has_ended(void *userdata)
{
        return get_execution(userdata).execution.state == EXECUTION_ENDED;
}

static bool execution_runs(void *userdata)
{
        return get_execution(userdata).execution.state == EXECUTION_RUNNING;
}

START_TEST(events_can_be_replayed_from_any_sequence)
{
        struct answer sandbox = new_sandbox();
        struct seen seen =
                run_code(sandbox.sandbox.sandbox_id, "out a\nbarrier\nout b\nresult text/plain 1");
        struct seen from;

        for (int64_t i = 0; i <= seen.last_sequence; i++) {
                memset(&from, 0, sizeof(from));
                attach(seen.ended.execution_id, i, &from);
                from.stdout_bytes = i < 3 ? 0 : i < 4 ? 1 : 2;
                wait_for_end(&from);
                ck_assert_int_eq(from.n_events, seen.n_events - i);
                ck_assert_int_eq(from.last_sequence, seen.last_sequence);
        }
        ck_assert_int_eq(session_first_sequence(f.session, seen.ended.execution_id), 1);
}
END_TEST

START_TEST(a_second_client_sees_the_same)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out a\nbarrier\nerr b\nsleep");
        struct seen first = { 0 };
        struct seen second = { 0 };
        struct answer answer = execute(&request, &first);

        wait_for_text(&first, "stderr:b");
        attach(answer.execution.execution_id, 0, &second);
        wait_for_text(&second, "stderr:b");
        session_interrupt_execution(f.session, "uid:1", answer.execution.execution_id, false,
                                    CAUSE_CLIENT, on_execution_answer, &answer);
        wait_for_end(&first);
        wait_for_end(&second);
        ck_assert_str_eq(first.text, second.text);
}
END_TEST

START_TEST(a_reader_that_reads_gets_every_byte)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id,
                                    "outbytes 50000000\nerrbytes 50000000\noutbytes 1");

        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_int_eq(seen.stdout_bytes, 50000001);
        ck_assert_int_eq(seen.stderr_bytes, 50000000);
        ck_assert_int_eq(seen.gap_events, 0);
}
END_TEST

START_TEST(a_reader_that_pauses_blocks_the_program_and_loses_nothing)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request = execute_request(sandbox.sandbox.sandbox_id,
                                                         "outbytes 5000000\nresult text/plain 1");
        struct seen seen = { .is_paused = true };
        struct answer answer = execute(&request, &seen);

        run_until(execution_runs, answer.execution.execution_id);
        run_turns(200);
        ck_assert(execution_runs(answer.execution.execution_id));
        seen.is_paused = false;
        read_all(&seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_int_eq(seen.stdout_bytes, 5000000);
        ck_assert_ptr_nonnull(strstr(seen.text, "result:text/plain=1 ended"));
}
END_TEST

START_TEST(the_slowest_of_two_readers_loses_nothing)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request = execute_request(sandbox.sandbox.sandbox_id,
                                                         "outbytes 5000000\nresult text/plain 1");
        struct seen slow = { .is_paused = true };
        struct seen fast = { 0 };
        struct answer answer = execute(&request, &slow);

        attach(answer.execution.execution_id, 0, &fast);
        run_until(execution_runs, answer.execution.execution_id);
        run_turns(300);
        ck_assert(!fast.is_over);
        slow.is_paused = false;
        read_all(&slow);
        wait_for_end(&slow);
        wait_for_end(&fast);
        ck_assert_int_eq(slow.gap_events, 0);
        ck_assert_int_eq(slow.stdout_bytes, 5000000);
        ck_assert_int_eq(fast.gap_events, 0);
        ck_assert_int_eq(fast.stdout_bytes, 5000000);
}
END_TEST

START_TEST(without_a_client_the_oldest_go_and_a_gap_counts_them)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "outbytes 20000000\nerr last");
        struct seen first = { 0 };
        struct seen later = { 0 };
        struct answer answer;

        request.goes_on_without_client = true;
        answer = execute(&request, &first);
        detach(&first);
        run_until(execution_has_ended, answer.execution.execution_id);
        ck_assert_int_gt(session_first_sequence(f.session, answer.execution.execution_id), 1);
        attach(answer.execution.execution_id, 0, &later);
        wait_for_end(&later);
        ck_assert_int_eq(later.ended.outcome, OUTCOME_OK);
        ck_assert_int_gt(later.gap_events, 0);
        ck_assert_int_eq(later.gap_stdout_bytes + later.stdout_bytes, 20000000);
        ck_assert_int_eq(later.gap_events + later.n_events - 1, later.last_sequence);
        ck_assert_int_eq(strncmp(later.text, "gap ", 4), 0);
}
END_TEST

START_TEST(within_the_grace_nothing_is_dropped)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "outbytes 5000000");
        struct seen first = { 0 };
        struct seen again = { 0 };
        struct answer answer = execute(&request, &first);

        wait_for_text(&first, "started");
        detach(&first);
        run_turns(300);
        attach(answer.execution.execution_id, first.last_sequence, &again);
        again.stdout_bytes = first.stdout_bytes;
        wait_for_end(&again);
        ck_assert_int_eq(again.ended.outcome, OUTCOME_OK);
        ck_assert_int_eq(again.gap_events, 0);
        ck_assert_int_eq(again.stdout_bytes, 5000000);
}
END_TEST

START_TEST(a_blocked_program_goes_on_when_its_client_is_gone)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "outbytes 5000000");
        struct seen seen = { .is_paused = true };
        struct answer answer;

        request.goes_on_without_client = true;
        answer = execute(&request, &seen);
        run_turns(200);
        detach(&seen);
        run_until(execution_has_ended, answer.execution.execution_id);
        ck_assert_int_eq(get_execution(answer.execution.execution_id).execution.outcome,
                         OUTCOME_OK);
}
END_TEST

START_TEST(a_crash_waits_for_a_slow_reader)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "outbytes 1040000\nout last\nexit 3");
        struct seen seen = { .is_paused = true };

        execute(&request, &seen);
        run_turns(100);
        seen.is_paused = false;
        read_all(&seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_EXITED);
        ck_assert_int_eq(seen.stdout_bytes, 1040004);
}
END_TEST

START_TEST(the_oldest_are_forgotten_first)
{
        struct answer sandbox;
        struct seen first;
        struct seen last;
        struct session_result result;
        struct execution_reader *reader;

        stop_session();
        f.config.shares.total[SESSION_SHARE_RINGS] = 20 * 1000;
        start_session();
        run_until(session_serves, NULL);
        sandbox = new_sandbox();
        first = run_code(sandbox.sandbox.sandbox_id, "out first");
        for (unsigned i = 0; i < 30; i++)
                last = run_code(sandbox.sandbox.sandbox_id, "out last");
        ck_assert_int_eq(session_first_sequence(f.session, first.ended.execution_id), 0);
        ck_assert_int_eq(session_first_sequence(f.session, last.ended.execution_id), 1);
        ck_assert_int_eq(execution_reader_new(f.session, "uid:1", first.ended.execution_id, 0, NULL,
                                              NULL, &reader, &result),
                         SESSION_E_EXECUTION_NOT_FOUND);
        /* Its record is not forgotten. */
        ck_assert_int_eq(get_execution(first.ended.execution_id).execution.outcome, OUTCOME_OK);
}
END_TEST

START_TEST(others_cannot_attach)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        struct execution_reader *reader;
        struct session_result result;
        struct answer answer = { 0 };

        ck_assert_int_eq(execution_reader_new(f.session, "uid:2", seen.ended.execution_id, 0, NULL,
                                              NULL, &reader, &result),
                         SESSION_E_EXECUTION_NOT_FOUND);
        session_get_execution(f.session, "uid:2", seen.ended.execution_id, on_execution_answer,
                              &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EXECUTION_NOT_FOUND);
        answer.is_done = false;
        session_interrupt_execution(f.session, "uid:2", seen.ended.execution_id, false,
                                    CAUSE_CLIENT, on_execution_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EXECUTION_NOT_FOUND);
}
END_TEST

START_TEST(readers_are_told_when_the_server_stops)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct seen seen = { 0 };

        execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        stop_session();
        ck_assert(seen.is_over);
        ck_assert_ptr_nonnull(strstr(seen.text, "ended"));
        detach(&seen);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &events_can_be_replayed_from_any_sequence,
                &a_second_client_sees_the_same,
                &a_reader_that_reads_gets_every_byte,
                &a_reader_that_pauses_blocks_the_program_and_loses_nothing,
                &the_slowest_of_two_readers_loses_nothing,
                &without_a_client_the_oldest_go_and_a_gap_counts_them,
                &within_the_grace_nothing_is_dropped,
                &a_blocked_program_goes_on_when_its_client_is_gone,
                &a_crash_waits_for_a_slow_reader,
                &the_oldest_are_forgotten_first,
                &others_cannot_attach,
                &readers_are_told_when_the_server_stops,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("reading", all, ARRAY_SIZE(all));
}
