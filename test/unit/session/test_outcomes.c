/* Every outcome of an execution, caused. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/execution.h"
#include "server/session/session_private.h"
#include "test/unit/session/fixture.h"

static struct seen run_limited(const char *sandbox_id, const char *code, int64_t timeout_usec,
                               int64_t output_bytes)
{
        struct execute_request request = execute_request(sandbox_id, code);
        static struct seen seen;

        memset(&seen, 0, sizeof(seen));
        request.has_timeout = true;
        request.has_output_bytes = true;
        request.limits.timeout_usec = timeout_usec;
        request.limits.output_bytes = output_bytes;
        ck_assert_int_eq(execute(&request, &seen).result.outcome, 0);
        wait_for_end(&seen);
        return seen;
}

static void check_end(const struct seen *seen, enum outcome outcome, enum cause cause,
                      bool state_lost)
{
        ck_assert_msg(seen->ended.outcome == outcome, "outcome %d (%s), not %d, after %s",
                      (int)seen->ended.outcome, seen->ended.message, (int)outcome, seen->text);
        ck_assert_int_eq(seen->ended.cause, cause);
        ck_assert_int_eq(seen->ended.state_lost, state_lost);
        ck_assert_str_ne(seen->ended.message, "");
        ck_assert_int_eq(seen->ended.state, EXECUTION_ENDED);
        ck_assert_int_eq(seen->ended.last_sequence, seen->last_sequence);
}

START_TEST(code_that_runs_to_its_end_is_ok)
{
        struct answer sandbox = new_sandbox();
        struct seen seen =
                run_code(sandbox.sandbox.sandbox_id, "out hello\nresult text/plain 42\nerr oops");

        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:hello result:text/plain=42 "
                                    "stderr:oops ended");
        check_end(&seen, OUTCOME_OK, CAUSE_PROGRAM, false);
        ck_assert_int_eq(seen.ended.usage.stdout_bytes, 5);
        ck_assert_int_eq(seen.ended.usage.stderr_bytes, 4);
        ck_assert_int_eq(seen.ended.usage.rich_bytes, 2);
        ck_assert_int_gt(seen.ended.usage.cpu_usec, 0);
        ck_assert_int_gt(seen.ended.usage.wall_usec, 0);
        ck_assert_int_eq(seen.ended.usage.memory_peak_bytes, 2 << 20);
}
END_TEST

START_TEST(an_error_is_raised)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "error NameError");

        ck_assert_str_eq(seen.text, "queued:0 started:1.1 error:NameError:2 ended");
        check_end(&seen, OUTCOME_RAISED, CAUSE_PROGRAM, false);
}
END_TEST

START_TEST(sys_exit_keeps_the_state)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "sysexit 3");

        check_end(&seen, OUTCOME_EXITED, CAUSE_PROGRAM, false);
        ck_assert(seen.ended.has_exit_code);
        ck_assert_int_eq(seen.ended.exit_code, 3);
        seen = run_code(sandbox.sandbox.sandbox_id, "out again");
        ck_assert_str_eq(seen.text, "queued:0 started:1.2 stdout:again ended");
}
END_TEST

START_TEST(an_exit_of_the_process_loses_the_state_and_keeps_the_output)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "out before\nexit 3");

        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:before ended");
        check_end(&seen, OUTCOME_EXITED, CAUSE_PROGRAM, true);
        ck_assert_int_eq(seen.ended.exit_code, 3);
        seen = run_code(sandbox.sandbox.sandbox_id, "out again");
        ck_assert_str_eq(seen.text, "queued:0 started:2.1 stdout:again ended");
}
END_TEST

START_TEST(a_signal_is_named)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "kill 11");

        check_end(&seen, OUTCOME_SIGNALLED, CAUSE_PROGRAM, true);
        ck_assert_int_eq(seen.ended.signal, SIGSEGV);
        ck_assert(!seen.ended.has_exit_code);
}
END_TEST

START_TEST(a_timeout_that_is_heard_keeps_the_state)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_limited(sandbox.sandbox.sandbox_id, "sleep", 50 * 1000, 1 << 20);

        check_end(&seen, OUTCOME_TIMEOUT, CAUSE_LIMIT, false);
        ck_assert_int_ge(seen.ended.usage.wall_usec, 50 * 1000);
        seen = run_code(sandbox.sandbox.sandbox_id, "out again");
        ck_assert_str_eq(seen.text, "queued:0 started:1.2 stdout:again ended");
}
END_TEST

struct armed {
        sd_event_source *timer;
        uint64_t armed_usec;
        uint64_t came_usec; /* zero: not yet */
};

static int on_came(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct armed *armed = userdata;

        (void)source;
        (void)usec;
        armed->came_usec = clock_monotonic_usec();
        return 0;
}

/* In a turn of the loop that has taken long already. */
static int on_busy(sd_event_source *source, void *userdata)
{
        struct armed *armed = userdata;
        uint64_t until_usec = clock_monotonic_usec() + 30 * 1000;

        (void)source;
        while (clock_monotonic_usec() < until_usec)
                ;
        armed->armed_usec = clock_monotonic_usec();
        return session_arm(f.session, &armed->timer, 10 * 1000, on_came, armed);
}

static bool has_come(void *userdata)
{
        return ((const struct armed *)userdata)->came_usec > 0;
}

START_TEST(no_timeout_comes_early_after_a_long_turn)
{
        struct armed armed = { 0 };

        ck_assert_int_ge(sd_event_add_defer(f.loop, NULL, on_busy, &armed), 0);
        run_until(has_come, &armed);
        ck_assert_uint_ge(armed.came_usec - armed.armed_usec, 10 * 1000);
        sd_event_source_unref(armed.timer);
}
END_TEST

START_TEST(a_timeout_that_is_not_heard_ends_in_a_kill)
{
        struct answer sandbox = new_sandbox();
        struct seen seen =
                run_limited(sandbox.sandbox.sandbox_id, "deaf\nhold", 50 * 1000, 1 << 20);

        check_end(&seen, OUTCOME_TIMEOUT, CAUSE_LIMIT, true);
        ck_assert_int_eq(seen.ended.signal, SIGKILL);
}
END_TEST

static bool is_blocked(void *userdata)
{
        return execution_is_blocked(userdata);
}

START_TEST(a_client_that_does_not_read_is_the_cause)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "outbytes 10000000");
        struct seen seen = { .is_paused = true };

        request.has_timeout = true;
        request.limits.timeout_usec = INT64_C(600) * 1000 * 1000;
        struct answer answer = execute(&request, &seen);
        struct seen other = { 0 };
        struct execution *execution =
                session_find_execution(f.session, NULL, answer.execution.execution_id);

        attach(answer.execution.execution_id, 0, &other);
        other.is_paused = true;
        run_until(is_blocked, execution);
        /* However long that took. */
        execution->record.limits.timeout_usec = 1;
        ck_assert_int_eq(execution_arm_wall(execution), 0);
        for (struct answer now = answer; now.execution.state != EXECUTION_ENDED;)
                now = get_execution(answer.execution.execution_id), run_turns(1);
        read_all(&seen);
        check_end(&seen, OUTCOME_TIMEOUT, CAUSE_CLIENT_NOT_READING, false);
        ck_assert_int_gt(seen.stdout_bytes, 500000);
        ck_assert_int_eq(seen.gap_events, 0);
        detach(&seen);
        detach(&other);
}
END_TEST

START_TEST(want_of_memory_is_oom)
{
        struct answer sandbox = new_sandbox();
        struct seen seen;

        fake_runtime_script(f.runtime)->oom = true;
        seen = run_code(sandbox.sandbox.sandbox_id, "kill 9");
        check_end(&seen, OUTCOME_OOM, CAUSE_LIMIT, true);
}
END_TEST

START_TEST(want_of_memory_is_told_with_its_limit_and_victim)
{
        struct answer sandbox = new_sandbox();
        struct seen seen;

        fake_runtime_script(f.runtime)->oom = true;
        fake_runtime_script(f.runtime)->has_victim = true;
        seen = run_code(sandbox.sandbox.sandbox_id, "kill 9");
        check_end(&seen, OUTCOME_OOM, CAUSE_LIMIT, true);
        ck_assert_msg(strstr(seen.ended.message, "limit ") &&
                              strstr(seen.ended.message,
                                     "peak 2 MiB; the kernel killed python3 (pid 4711 on the "
                                     "host, 480 MiB resident)."),
                      "%s", seen.ended.message);
}
END_TEST

/* The kernel took a child; the runtime will take the interpreter, which has said DONE by then. */
START_TEST(want_of_memory_of_a_child_is_oom_and_harms_no_later_code)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request;
        struct seen seen = { 0 };
        struct seen next;
        char go[128];
        char code[160];

        (void)snprintf(go, sizeof(go), "%s/go", f.home);
        (void)snprintf(code, sizeof(code), "out x\nawait %s", go);
        request = execute_request(sandbox.sandbox.sandbox_id, code);
        execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        fake_runtime_script(f.runtime)->oom_leaf = "-g1";
        ck_assert_int_eq(mkdir(go, 0700), 0);
        wait_for_end(&seen);
        check_end(&seen, OUTCOME_OOM, CAUSE_LIMIT, true);
        ck_assert_int_eq(seen.ended.signal, 0);
        ck_assert_ptr_nonnull(strstr(seen.ended.message, "It ran out of memory: limit "));

        next = run_code(sandbox.sandbox.sandbox_id, "out again");
        ck_assert_str_eq(next.text, "queued:0 started:2.1 stdout:again ended");
        check_end(&next, OUTCOME_OK, CAUSE_PROGRAM, false);
}
END_TEST

START_TEST(too_much_output_ends_the_code)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_limited(sandbox.sandbox.sandbox_id, "outbytes 3000000", 0, 1000000);

        check_end(&seen, OUTCOME_OUTPUT_LIMIT, CAUSE_LIMIT, false);
        ck_assert_int_eq(seen.stdout_bytes, 1000000);
        ck_assert_int_gt(seen.ended.truncated_bytes, 0);
}
END_TEST

START_TEST(output_may_be_truncated_instead)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "outbytes 3000000\nerr x\nclear");
        struct seen seen = { 0 };

        request.has_output_bytes = true;
        request.limits.output_bytes = 1000000;
        request.truncate_output = true;
        execute(&request, &seen);
        wait_for_end(&seen);
        check_end(&seen, OUTCOME_OK, CAUSE_PROGRAM, false);
        ck_assert_int_eq(seen.stdout_bytes, 1000000);
        ck_assert_int_eq(seen.ended.truncated_bytes, 2000001);
        ck_assert_int_eq(seen.ended.usage.stdout_bytes, 3000000);
}
END_TEST

START_TEST(rich_output_counts_and_large_parts_follow)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_limited(sandbox.sandbox.sandbox_id, "part 300000", 0, 1 << 20);

        check_end(&seen, OUTCOME_OK, CAUSE_PROGRAM, false);
        ck_assert_int_eq(seen.part_bytes, 300000);
        ck_assert_int_eq(seen.ended.usage.rich_bytes, 300000);
        seen = run_limited(sandbox.sandbox.sandbox_id, "part 300000", 0, 200000);
        check_end(&seen, OUTCOME_OUTPUT_LIMIT, CAUSE_LIMIT, false);
        ck_assert_int_eq(seen.part_bytes, 0);
        seen = run_limited(sandbox.sandbox.sandbox_id, "part 9000000", 0, 1 << 30);
        check_end(&seen, OUTCOME_OUTPUT_LIMIT, CAUSE_LIMIT, false);
}
END_TEST

static struct seen interrupt_code(const char *code, const char *wait_for, bool is_kill)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request = execute_request(sandbox.sandbox.sandbox_id, code);
        static struct seen seen;
        struct answer answer;
        struct answer interrupted = { 0 };

        memset(&seen, 0, sizeof(seen));
        answer = execute(&request, &seen);
        wait_for_text(&seen, wait_for);
        session_interrupt_execution(f.session, "uid:1", answer.execution.execution_id, is_kill,
                                    CAUSE_CLIENT, on_execution_answer, &interrupted);
        ck_assert_int_eq(interrupted.result.outcome, 0);
        wait_for_end(&seen);
        return seen;
}

START_TEST(an_interrupt_keeps_the_state)
{
        struct seen seen = interrupt_code("out x\nsleep", "stdout:x", false);

        check_end(&seen, OUTCOME_INTERRUPTED, CAUSE_CLIENT, false);
        ck_assert_ptr_nonnull(strstr(seen.text, "error:KeyboardInterrupt"));
}
END_TEST

START_TEST(an_interrupt_is_repeated_before_it_becomes_a_kill)
{
        struct seen seen = interrupt_code("out x\ndoze", "stdout:x", false);

        check_end(&seen, OUTCOME_INTERRUPTED, CAUSE_CLIENT, false);
        ck_assert_ptr_nonnull(strstr(seen.text, "error:KeyboardInterrupt"));
}
END_TEST

/* The fake's meter goes on by as much with each reading. */
START_TEST(usage_is_that_of_one_execution_alone)
{
        struct answer sandbox = new_sandbox();
        struct seen first = run_code(sandbox.sandbox.sandbox_id, "out a");

        ck_assert_int_gt(first.ended.usage.cpu_usec, 0);
        for (unsigned i = 0; i < 5; i++) {
                struct seen seen = run_code(sandbox.sandbox.sandbox_id, "out b");

                ck_assert_int_eq(seen.ended.usage.cpu_usec, first.ended.usage.cpu_usec);
        }
}
END_TEST

START_TEST(an_interrupt_that_is_not_heard_ends_in_a_kill)
{
        struct seen seen = interrupt_code("deaf\nout x\nhold", "stdout:x", false);

        check_end(&seen, OUTCOME_KILLED, CAUSE_CLIENT, true);
}
END_TEST

START_TEST(a_kill_loses_the_state)
{
        struct seen seen = interrupt_code("out x\nsleep", "stdout:x", true);

        check_end(&seen, OUTCOME_KILLED, CAUSE_CLIENT, true);
}
END_TEST

START_TEST(an_ended_execution_cannot_be_interrupted)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        struct answer answer = { 0 };

        session_interrupt_execution(f.session, "uid:1", seen.ended.execution_id, false,
                                    CAUSE_CLIENT, on_execution_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_EXECUTION_ENDED);
}
END_TEST

START_TEST(a_client_that_left_ends_the_code_after_the_grace)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct seen seen = { 0 };
        struct seen later = { 0 };
        struct answer answer;

        request.disconnect_grace_usec = 20 * 1000;
        answer = execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        detach(&seen);
        for (struct answer now = answer; now.execution.state != EXECUTION_ENDED;)
                now = get_execution(answer.execution.execution_id), run_turns(1);
        attach(answer.execution.execution_id, 0, &later);
        wait_for_end(&later);
        check_end(&later, OUTCOME_INTERRUPTED, CAUSE_CLIENT_GONE, false);
}
END_TEST

START_TEST(a_client_that_never_came_counts_as_left)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request = execute_request(sandbox.sandbox.sandbox_id, "sleep");
        struct answer answer;

        request.disconnect_grace_usec = 20 * 1000;
        answer = execute(&request, NULL);
        for (struct answer now = answer; now.execution.state != EXECUTION_ENDED; answer = now)
                now = get_execution(answer.execution.execution_id), run_turns(1);
        ck_assert_int_eq(answer.execution.cause, CAUSE_CLIENT_GONE);
}
END_TEST

START_TEST(an_execution_may_wait_only_so_long)
{
        struct answer sandbox = new_sandbox();
        struct execute_request first = execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct execute_request second = execute_request(sandbox.sandbox.sandbox_id, "out y");
        struct seen a = { 0 };
        struct seen b = { 0 };

        execute(&first, &a);
        wait_for_text(&a, "stdout:x");
        second.queue_timeout_usec = 30 * 1000;
        execute(&second, &b);
        wait_for_end(&b);
        ck_assert_str_eq(b.text, "queued:1 ended");
        check_end(&b, OUTCOME_NOT_STARTED, CAUSE_LIMIT, false);
        ck_assert_int_eq(b.ended.start_time_usec, 0);
        detach(&a);
}
END_TEST

START_TEST(the_end_of_a_sandbox_ends_its_executions)
{
        struct answer sandbox = new_sandbox();
        struct execute_request first = execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct execute_request second = execute_request(sandbox.sandbox.sandbox_id, "out y");
        struct seen a = { 0 };
        struct seen b = { 0 };
        struct answer deleted;

        execute(&first, &a);
        wait_for_text(&a, "stdout:x");
        execute(&second, &b);
        deleted = delete_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(deleted.result.outcome, 0);
        ck_assert_int_eq(deleted.sandbox.state, SANDBOX_ENDED);
        ck_assert_int_eq(deleted.sandbox.end_cause, CAUSE_CLIENT);
        wait_for_end(&a);
        wait_for_end(&b);
        check_end(&a, OUTCOME_SANDBOX_ENDED, CAUSE_CLIENT, true);
        ck_assert_int_gt(a.ended.usage.cpu_usec, 0);
        check_end(&b, OUTCOME_NOT_STARTED, CAUSE_CLIENT, false);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
}
END_TEST

/* The kernel kills its processes first, so their ends are told before that of the sandbox. */
static void check_death_of_init(bool is_oom, enum cause cause)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct seen seen = { 0 };

        execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        fake_runtime_end_sandbox(f.runtime, sandbox.sandbox.sandbox_id, is_oom);
        wait_for_end(&seen);
        check_end(&seen, OUTCOME_SANDBOX_ENDED, cause, true);
        ck_assert_int_gt(seen.ended.usage.cpu_usec, 0);
        ck_assert_int_eq(get_sandbox(sandbox.sandbox.sandbox_id).sandbox.end_cause, cause);
}

START_TEST(the_death_of_a_sandboxs_init_is_no_signal_to_the_code)
{
        check_death_of_init(false, CAUSE_PROGRAM);
        check_death_of_init(true, CAUSE_LIMIT);
}
END_TEST

START_TEST(the_loss_of_the_runtime_loses_the_execution)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request =
                execute_request(sandbox.sandbox.sandbox_id, "out x\nsleep");
        struct seen seen = { 0 };
        struct answer after;

        execute(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        fake_runtime_break(f.runtime);
        wait_for_end(&seen);
        check_end(&seen, OUTCOME_LOST, CAUSE_RUNTIME_LOST, true);
        run_until(session_serves, NULL);
        after = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(after.sandbox.state, SANDBOX_ENDED);
        ck_assert_int_eq(after.sandbox.end_cause, CAUSE_RUNTIME_LOST);
}
END_TEST

START_TEST(a_broken_protocol_is_a_kill)
{
        static const char *const codes[] = { "badheader\nhold", "badframe\nhold", "ready\nhold",
                                             "close" };
        struct answer sandbox = new_sandbox();

        for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
                struct seen seen = run_code(sandbox.sandbox.sandbox_id, codes[i]);

                check_end(&seen, OUTCOME_KILLED, CAUSE_KERNEL_PROTOCOL, true);
        }
}
END_TEST

START_TEST(foreign_and_unknown_frames_are_dropped)
{
        struct answer sandbox = new_sandbox();
        struct seen seen = run_code(sandbox.sandbox.sandbox_id, "foreign\nout x");

        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:x ended");
        check_end(&seen, OUTCOME_OK, CAUSE_PROGRAM, false);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &code_that_runs_to_its_end_is_ok,
                &an_error_is_raised,
                &sys_exit_keeps_the_state,
                &an_exit_of_the_process_loses_the_state_and_keeps_the_output,
                &a_signal_is_named,
                &a_timeout_that_is_heard_keeps_the_state,
                &no_timeout_comes_early_after_a_long_turn,
                &a_timeout_that_is_not_heard_ends_in_a_kill,
                &a_client_that_does_not_read_is_the_cause,
                &want_of_memory_is_oom,
                &want_of_memory_is_told_with_its_limit_and_victim,
                &want_of_memory_of_a_child_is_oom_and_harms_no_later_code,
                &too_much_output_ends_the_code,
                &output_may_be_truncated_instead,
                &rich_output_counts_and_large_parts_follow,
                &an_interrupt_keeps_the_state,
                &an_interrupt_is_repeated_before_it_becomes_a_kill,
                &usage_is_that_of_one_execution_alone,
                &an_interrupt_that_is_not_heard_ends_in_a_kill,
                &a_kill_loses_the_state,
                &an_ended_execution_cannot_be_interrupted,
                &a_client_that_left_ends_the_code_after_the_grace,
                &a_client_that_never_came_counts_as_left,
                &an_execution_may_wait_only_so_long,
                &the_end_of_a_sandbox_ends_its_executions,
                &the_death_of_a_sandboxs_init_is_no_signal_to_the_code,
                &the_loss_of_the_runtime_loses_the_execution,
                &a_broken_protocol_is_a_kill,
                &foreign_and_unknown_frames_are_dropped,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("outcomes", all, ARRAY_SIZE(all));
}
