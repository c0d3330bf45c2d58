/* Contexts: the queue, generations, restarts, and interpreters that do not start. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name

START_TEST(a_context_is_answered_when_it_is_ready)
{
        struct answer sandbox = new_sandbox();
        struct answer context = create_context(sandbox.sandbox.sandbox_id, "", "");
        struct answer list;

        ck_assert_int_eq(context.result.outcome, 0);
        ck_assert_int_eq(context.context_state, CONTEXT_IDLE);
        ck_assert_int_eq(context.context.generation, 1);
        ck_assert_str_eq(context.context.language, "fake");
        ck_assert_str_eq(context.context.working_directory, "/home/user");
        ck_assert(!context.context.is_default);
        run_code(sandbox.sandbox.sandbox_id, "out x");
        list = list_contexts(sandbox.sandbox.sandbox_id);
        ck_assert_uint_eq(list.n, 2);
}
END_TEST

START_TEST(refusals_of_a_context)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct execute_request request = execute_request(id, "out x");
        struct answer answer;

        answer = create_context(id, "cobol", "");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_UNKNOWN_LANGUAGE);
        request.context_id = "ctx-none";
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_CONTEXT_NOT_FOUND);
        answer = restart_context(id, "ctx-none");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_CONTEXT_NOT_FOUND);
        ck_assert_int_eq(delete_context(id, "ctx-none").result.outcome,
                         SESSION_E_CONTEXT_NOT_FOUND);

        for (unsigned i = 0; i < 16; i++)
                ck_assert_int_eq(create_context(id, "", "").result.outcome, 0);
        answer = create_context(id, "", "");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_CONTEXT_LIMIT);
}
END_TEST

START_TEST(a_context_that_does_not_start_is_not_left_behind)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct fake_runtime_script *script = fake_runtime_script(f.runtime);
        struct answer answer;

        script->fail_start = REASON(EXEC);
        script->fail_message = "/bin/fake: no such file";
        answer = create_context(id, "", "");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_KERNEL_FAILED);
        ck_assert_ptr_nonnull(strstr(answer.result.message, "no such file"));
        /* By the reason alone: the text is for people. */
        script->fail_message = "the working directory has no interpreter";
        answer = create_context(id, "", "");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_KERNEL_FAILED);
        script->fail_start = REASON(WORKING_DIRECTORY);
        script->fail_message = "refused";
        answer = create_context(id, "", "/nowhere");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_WORKING_DIRECTORY);
        ck_assert_ptr_nonnull(strstr(answer.result.message, "/nowhere"));
        script->fail_start = 0;
        script->kernel_mode = "dies";
        answer = create_context(id, "", "");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_KERNEL_FAILED);
        ck_assert_ptr_nonnull(strstr(answer.result.message, "code 7"));
        ck_assert_ptr_nonnull(strstr(answer.result.message, "No module named fake"));
        do
                answer = list_contexts(id), run_turns(1);
        while (answer.n > 0 || fake_runtime_n_processes(f.runtime) > 0);
}
END_TEST

START_TEST(code_whose_interpreter_does_not_start_never_ran)
{
        struct answer sandbox = new_sandbox();
        struct seen seen;

        fake_runtime_script(f.runtime)->kernel_mode = "dies";
        seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_NOT_STARTED);
        ck_assert_int_eq(seen.ended.cause, CAUSE_PROGRAM);
        ck_assert_ptr_nonnull(strstr(seen.ended.message, "No module named fake"));
        fake_runtime_script(f.runtime)->kernel_mode = "";
        seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
}
END_TEST

START_TEST(an_interpreter_that_is_never_ready_is_given_up)
{
        struct answer sandbox;
        struct seen seen;

        stop_session();
        f.config.kernel_start_timeout_usec = 100 * 1000;
        start_session();
        run_until(session_serves, NULL);
        sandbox = new_sandbox();
        fake_runtime_script(f.runtime)->kernel_mode = "silent";
        seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_NOT_STARTED);
        ck_assert_int_eq(seen.ended.cause, CAUSE_LIMIT);
}
END_TEST

START_TEST(executions_wait_in_order_and_the_queue_is_bounded)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct execute_request sleeping = execute_request(id, "out x\nsleep");
        struct execute_request next = execute_request(id, "out y");
        struct seen a = { 0 };
        struct seen b = { 0 };
        struct seen c = { 0 };
        struct answer first;
        struct answer answer = { 0 };

        first = execute(&sleeping, &a);
        wait_for_text(&a, "stdout:x");
        execute(&next, &b);
        execute(&next, &c);
        ck_assert_int_eq(execute(&next, NULL).result.outcome, SESSION_E_QUEUE_FULL);
        answer = list_contexts(id);
        ck_assert_int_eq(answer.context_state, CONTEXT_BUSY);
        session_interrupt_execution(f.session, "uid:1", first.execution.execution_id, false,
                                    CAUSE_CLIENT, on_execution_answer, &answer);
        wait_for_end(&a);
        wait_for_end(&b);
        wait_for_end(&c);
        ck_assert_str_eq(b.text, "queued:1 started:1.2 stdout:y ended");
        ck_assert_str_eq(c.text, "queued:2 started:1.3 stdout:y ended");
}
END_TEST

START_TEST(a_queued_execution_can_be_cancelled)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct execute_request sleeping = execute_request(id, "out x\nsleep");
        struct execute_request next = execute_request(id, "out y");
        struct seen a = { 0 };
        struct seen b = { 0 };
        struct answer second;
        struct answer answer = { 0 };

        execute(&sleeping, &a);
        wait_for_text(&a, "stdout:x");
        second = execute(&next, &b);
        session_interrupt_execution(f.session, "uid:1", second.execution.execution_id, false,
                                    CAUSE_OPERATOR, on_execution_answer, &answer);
        wait_for_end(&b);
        ck_assert_int_eq(b.ended.outcome, OUTCOME_NOT_STARTED);
        ck_assert_int_eq(b.ended.cause, CAUSE_OPERATOR);
        detach(&a);
}
END_TEST

/* The fixture allows 3 MiB in a sandbox and 4 MiB in all. */
START_TEST(code_that_waits_is_bounded_by_its_bytes)
{
        static char code[(1 << 20) - 64];
        struct answer one = new_sandbox();
        struct answer two = new_sandbox();
        const char *id = one.sandbox.sandbox_id;
        struct answer context = create_context(id, "", "");
        struct execute_request sleeping = execute_request(id, "out x\nsleep");
        struct execute_request waiting = execute_request(id, code);
        struct seen a = { 0 };
        struct seen b = { 0 };
        struct seen c = { 0 };

        memset(code, '#', sizeof(code) - 1);
        waiting.code = code;
        waiting.n_code = sizeof(code) - 1;
        execute(&sleeping, &a);
        wait_for_text(&a, "stdout:x");
        sleeping.context_id = context.context.context_id;
        execute(&sleeping, &b);
        wait_for_text(&b, "stdout:x");
        sleeping.sandbox_id = two.sandbox.sandbox_id;
        sleeping.context_id = "";
        execute(&sleeping, &c);
        wait_for_text(&c, "stdout:x");

        for (unsigned i = 0; i < 2; i++)
                ck_assert_int_eq(execute(&waiting, NULL).result.outcome, 0);
        waiting.context_id = context.context.context_id;
        ck_assert_int_eq(execute(&waiting, NULL).result.outcome, 0);
        ck_assert_int_eq(execute(&waiting, NULL).result.outcome, SESSION_E_QUEUE_FULL);
        waiting.sandbox_id = two.sandbox.sandbox_id;
        waiting.context_id = "";
        ck_assert_int_eq(execute(&waiting, NULL).result.outcome, 0);
        ck_assert_int_eq(execute(&waiting, NULL).result.outcome, SESSION_E_QUEUE_LIMIT);
        detach(&a);
        detach(&b);
        detach(&c);
}
END_TEST

START_TEST(two_contexts_run_at_the_same_time)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct answer context = create_context(id, "", "");
        struct execute_request sleeping = execute_request(id, "out x\nsleep");
        struct execute_request other = execute_request(id, "out y");
        struct seen a = { 0 };
        struct seen b = { 0 };

        execute(&sleeping, &a);
        wait_for_text(&a, "stdout:x");
        other.context_id = context.context.context_id;
        execute(&other, &b);
        wait_for_end(&b);
        ck_assert_str_eq(b.text, "queued:0 started:1.1 stdout:y ended");
        detach(&a);
}
END_TEST

START_TEST(a_restart_kills_and_raises_the_generation)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct execute_request sleeping = execute_request(id, "out x\nsleep");
        struct seen a = { 0 };
        struct seen b;
        struct answer first;
        struct answer restarted;

        first = execute(&sleeping, &a);
        wait_for_text(&a, "stdout:x");
        restarted = restart_context(id, first.execution.context_id);
        ck_assert_int_eq(restarted.result.outcome, 0);
        ck_assert_int_eq(restarted.context.generation, 2);
        ck_assert_int_eq(restarted.context_state, CONTEXT_IDLE);
        wait_for_end(&a);
        ck_assert_int_eq(a.ended.outcome, OUTCOME_KILLED);
        ck_assert_int_eq(a.ended.cause, CAUSE_CLIENT);
        b = run_code(id, "out y");
        ck_assert_str_eq(b.text, "queued:0 started:2.1 stdout:y ended");
        restarted = restart_context(id, first.execution.context_id);
        ck_assert_int_eq(restarted.context.generation, 3);
}
END_TEST

/* Turns of the loop after which a start is not answered yet, just answered, or long answered. */
static const unsigned moments[] = { 0, 1, 2, 3, 4, 6, 10, 50 };

/* A sandbox whose code waits for an interpreter that will never be ready. */
static struct answer wait_for_start(struct seen *seen, unsigned n_turns)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request = execute_request(sandbox.sandbox.sandbox_id, "out x");
        struct answer answer;

        fake_runtime_script(f.runtime)->kernel_mode = "silent";
        answer = execute(&request, seen);
        run_turns(n_turns);
        return answer;
}

START_TEST(a_restart_of_a_starting_interpreter_starts_the_next)
{
        for (size_t i = 0; i < ARRAY_SIZE(moments); i++) {
                struct seen seen = { 0 };
                struct answer first = wait_for_start(&seen, moments[i]);
                struct answer restarted;

                fake_runtime_script(f.runtime)->kernel_mode = "";
                restarted = restart_context(first.execution.sandbox_id, first.execution.context_id);
                ck_assert_int_eq(restarted.result.outcome, 0);
                ck_assert_int_eq(restarted.context.generation, 2);
                wait_for_end(&seen);
                ck_assert_str_eq(seen.text, "queued:0 started:2.1 stdout:x ended");
        }
}
END_TEST

START_TEST(a_context_deleted_while_its_interpreter_starts_leaves_nothing)
{
        for (size_t i = 0; i < ARRAY_SIZE(moments); i++) {
                struct seen seen = { 0 };
                struct answer first = wait_for_start(&seen, moments[i]);
                const char *id = first.execution.sandbox_id;

                ck_assert_int_eq(delete_context(id, first.execution.context_id).result.outcome, 0);
                wait_for_end(&seen);
                ck_assert_int_eq(seen.ended.outcome, OUTCOME_NOT_STARTED);
                while (fake_runtime_n_processes(f.runtime) > 0)
                        run_turns(1);
        }
}
END_TEST

START_TEST(a_runtime_that_goes_while_an_interpreter_starts_takes_it_along)
{
        for (size_t i = 0; i < ARRAY_SIZE(moments); i++) {
                struct seen seen = { 0 };
                struct answer first = wait_for_start(&seen, moments[i]);

                fake_runtime_break(f.runtime);
                wait_for_end(&seen);
                ck_assert_int_eq(seen.ended.outcome, OUTCOME_NOT_STARTED);
                ck_assert_int_eq(seen.ended.cause, CAUSE_RUNTIME_LOST);
                ck_assert_int_eq(list_contexts(first.execution.sandbox_id).result.outcome,
                                 SESSION_E_SANDBOX_ENDED);
                run_until(session_serves, NULL);
        }
}
END_TEST

START_TEST(a_deleted_context_takes_its_executions_with_it)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct execute_request sleeping = execute_request(id, "out x\nsleep");
        struct execute_request next = execute_request(id, "out y");
        struct seen a = { 0 };
        struct seen b = { 0 };
        struct answer first;

        first = execute(&sleeping, &a);
        wait_for_text(&a, "stdout:x");
        execute(&next, &b);
        ck_assert_int_eq(delete_context(id, first.execution.context_id).result.outcome, 0);
        wait_for_end(&a);
        wait_for_end(&b);
        ck_assert_int_eq(a.ended.outcome, OUTCOME_KILLED);
        ck_assert_int_eq(b.ended.outcome, OUTCOME_NOT_STARTED);
        ck_assert_uint_eq(list_contexts(id).n, 0);
        ck_assert_int_eq(delete_context(id, first.execution.context_id).result.outcome, 0);
        b = run_code(id, "out z"); /* a new default context */
        ck_assert_str_eq(b.text, "queued:0 started:1.1 stdout:z ended");
}
END_TEST

START_TEST(output_after_the_end_belongs_to_no_execution)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct seen seen;

        /* What is still on its way when the next code is sent cannot be told apart: so wait for it.
         */
        for (unsigned i = 0; i < 20; i++) {
                char path[64], code[128];

                (void)snprintf(path, sizeof(path), "/tmp/hotcell-late.%d.%u", (int)getpid(), i);
                (void)snprintf(code, sizeof(code), "background %s\nout now", path);
                seen = run_code(id, code);
                ck_assert_ptr_null(strstr(seen.text, "late"));
                while (access(path, F_OK) < 0)
                        run_turns(1);
                (void)unlink(path);
        }
        seen = run_code(id, "out last");
        ck_assert_ptr_null(strstr(seen.text, "late"));
}
END_TEST

START_TEST(an_execution_has_its_environment_and_may_combine)
{
        struct answer sandbox = new_sandbox();
        struct execute_request request = execute_request(sandbox.sandbox.sandbox_id,
                                                         "variable GREETING\nbarrier\nerr -oops");
        struct pair pair = { (char *)"GREETING", (char *)"good day" };
        struct pairs environment = { &pair, 1 };
        struct seen seen = { 0 };

        request.environment = &environment;
        request.combine_output = true;
        execute(&request, &seen);
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:good day stdout:-oops ended");
}
END_TEST

START_TEST(barriers_keep_the_order_of_the_streams)
{
        static char code[32768];
        static char expected[32768];
        struct answer sandbox = new_sandbox();
        struct seen seen;

        (void)strcpy(expected, "queued:0 started:1.1");
        for (unsigned i = 0; i < 200; i++) {
                (void)strcat(code, i % 2 ? "err e\nbarrier\n" : "out o\nbarrier\n");
                (void)strcat(expected, i % 2 ? " stderr:e" : " stdout:o");
        }
        (void)strcat(expected, " ended");
        seen = run_code(sandbox.sandbox.sandbox_id, code);
        ck_assert_str_eq(seen.text, expected);
}
END_TEST

START_TEST(a_megabyte_of_code_is_sent)
{
        static char code[1 << 20];
        struct answer sandbox = new_sandbox();
        struct seen seen;

        memset(code, '\n', sizeof(code) - 1);
        memcpy(code, "out x", 5);
        seen = run_code(sandbox.sandbox.sandbox_id, code);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:x ended");
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &a_context_is_answered_when_it_is_ready,
                &refusals_of_a_context,
                &a_context_that_does_not_start_is_not_left_behind,
                &code_whose_interpreter_does_not_start_never_ran,
                &an_interpreter_that_is_never_ready_is_given_up,
                &executions_wait_in_order_and_the_queue_is_bounded,
                &a_queued_execution_can_be_cancelled,
                &code_that_waits_is_bounded_by_its_bytes,
                &two_contexts_run_at_the_same_time,
                &a_restart_kills_and_raises_the_generation,
                &a_restart_of_a_starting_interpreter_starts_the_next,
                &a_context_deleted_while_its_interpreter_starts_leaves_nothing,
                &a_runtime_that_goes_while_an_interpreter_starts_takes_it_along,
                &a_deleted_context_takes_its_executions_with_it,
                &output_after_the_end_belongs_to_no_execution,
                &an_execution_has_its_environment_and_may_combine,
                &barriers_keep_the_order_of_the_streams,
                &a_megabyte_of_code_is_sent,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("contexts", all, ARRAY_SIZE(all));
}
