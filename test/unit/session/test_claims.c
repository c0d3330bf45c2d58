/* Requests with a request_id: each runs once, whoever asks how often, also over a crash. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name

struct attempt {
        bool is_done;
        int result;
        struct request_record known;
        struct session_claim *claim;
};

static struct request_record request_of(const char *method, const char *fields)
{
        struct request_record request = { .owner = "uid:1", .request_id = "r-1" };

        (void)snprintf(request.method, sizeof(request.method), "%s", method);
        (void)snprintf((char *)request.request_sha256, sizeof(request.request_sha256), "%s",
                       fields);
        return request;
}

static void on_claimed(void *userdata, int result, const struct request_record *known)
{
        struct attempt *attempt = userdata;

        ck_assert(!attempt->is_done);
        attempt->is_done = true;
        attempt->result = result;
        if (known)
                attempt->known = *known;
}

static void try(const struct request_record *request, struct attempt *attempt)
{
        *attempt = (struct attempt){ 0 };
        ck_assert_int_eq(
                session_claim_new(f.session, request, on_claimed, attempt, &attempt->claim), 0);
}

static int wait_for(struct attempt *attempt)
{
        run_until_true(&attempt->is_done);
        return attempt->result;
}

static void leave(struct attempt *attempt)
{
        attempt->claim = session_claim_free(attempt->claim);
}

/* What one that comes later is told. */
static struct attempt look_up(const struct request_record *request)
{
        struct attempt attempt;

        try(request, &attempt);
        (void)wait_for(&attempt);
        leave(&attempt);
        return attempt;
}

static struct answer create_for(const struct request_record *request)
{
        struct sandbox_request create = sandbox_request();

        create.request = request;
        return create_sandbox(&create);
}

START_TEST(a_request_is_known_once_it_was_taken)
{
        struct request_record request = request_of("CreateSandbox", "a");
        struct attempt attempt;
        struct answer made;

        ck_assert_int_eq(look_up(&request).result, 0);
        ck_assert_int_eq(look_up(&request).result, 0); /* nothing came of the first */
        made = create_for(&request);
        attempt = look_up(&request);
        ck_assert_int_eq(attempt.result, CLAIM_E_KNOWN);
        ck_assert_str_eq(attempt.known.object_id, made.sandbox.sandbox_id);
        ck_assert(attempt.known.created);
}
END_TEST

START_TEST(other_fields_are_another_request)
{
        struct request_record request = request_of("CreateSandbox", "a");
        struct request_record other = request_of("CreateSandbox", "b");

        create_for(&request);
        ck_assert_int_eq(look_up(&other).result, CLAIM_E_REUSED);
        other = request_of("Execute", "b");
        ck_assert_int_eq(look_up(&other).result, 0);
}
END_TEST

START_TEST(the_second_waits_for_what_the_first_makes)
{
        struct request_record request = request_of("CreateSandbox", "a");
        struct request_record other = request_of("CreateSandbox", "b");
        struct attempt first, second, third;
        struct answer made;

        try(&request, &first);
        try(&request, &second);
        try(&other, &third);
        ck_assert_int_eq(wait_for(&first), 0);
        made = create_for(&request);
        ck_assert(!second.is_done);
        leave(&first);
        ck_assert_int_eq(wait_for(&second), CLAIM_E_KNOWN);
        ck_assert_str_eq(second.known.object_id, made.sandbox.sandbox_id);
        ck_assert_int_eq(wait_for(&third), CLAIM_E_REUSED);
        leave(&second);
        leave(&third);
}
END_TEST

START_TEST(one_that_is_refused_leaves_the_id_to_the_next)
{
        struct request_record request = request_of("CreateSandbox", "a");
        struct attempt first, second;

        try(&request, &first);
        try(&request, &second);
        ck_assert_int_eq(wait_for(&first), 0);
        fake_runtime_script(f.runtime)->fail_create = REASON(EXHAUSTED);
        ck_assert_int_eq(create_for(&request).result.outcome, SESSION_E_HOST_EXHAUSTED);
        fake_runtime_script(f.runtime)->fail_create = 0;
        leave(&first);
        ck_assert_int_eq(wait_for(&second), 0);
        ck_assert_int_eq(create_for(&request).result.outcome, 0);
        leave(&second);
        ck_assert_int_eq(look_up(&request).result, CLAIM_E_KNOWN);
}
END_TEST

START_TEST(others_do_not_wait)
{
        struct request_record request = request_of("CreateSandbox", "a");
        struct request_record others = request, another = request;
        struct attempt first;

        (void)strcpy(others.owner, "uid:2");
        (void)strcpy(another.request_id, "r-2");
        try(&request, &first);
        ck_assert_int_eq(look_up(&others).result, 0);
        ck_assert_int_eq(look_up(&another).result, 0);
        ck_assert_int_eq(wait_for(&first), 0);
        leave(&first);
}
END_TEST

START_TEST(code_is_known_from_its_row_on)
{
        struct answer sandbox = new_sandbox();
        struct request_record request = request_of("Execute", "a");
        struct execute_request execution = execute_request(sandbox.sandbox.sandbox_id, "out once");
        struct seen seen = { 0 };
        struct answer accepted;

        execution.request = &request;
        accepted = execute(&execution, &seen);
        ck_assert_str_eq(look_up(&request).known.object_id, accepted.execution.execution_id);
        wait_for_end(&seen);
        detach(&seen);
        ck_assert_str_eq(look_up(&request).known.object_id, accepted.execution.execution_id);
}
END_TEST

START_TEST(a_one_shot_is_known_by_its_execution)
{
        struct request_record request = request_of("Execute", "a");
        struct sandbox_request spec = sandbox_request();
        struct execute_request execution = execute_request("", "out once");
        struct answer accepted;
        struct seen seen = { 0 };

        execution.one_shot = &spec;
        execution.request = &request;
        fake_runtime_script(f.runtime)->fail_create = REASON(EXHAUSTED);
        ck_assert_int_eq(execute(&execution, NULL).result.outcome, SESSION_E_HOST_EXHAUSTED);
        ck_assert_int_eq(look_up(&request).result, 0);

        fake_runtime_script(f.runtime)->fail_create = 0;
        accepted = execute(&execution, &seen);
        wait_for_end(&seen);
        detach(&seen);
        ck_assert_str_eq(look_up(&request).known.object_id, accepted.execution.execution_id);
}
END_TEST

static struct answer create_context_for(const struct request_record *request,
                                        const char *sandbox_id)
{
        const struct context_request create = {
                .request = request,
                .owner = "uid:1",
                .sandbox_id = sandbox_id,
                .language = "",
                .working_directory = "",
        };
        struct answer answer = { 0 };

        session_create_context(f.session, &create, on_contexts_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

START_TEST(a_context_is_known_unless_its_interpreter_does_not_start)
{
        struct answer sandbox = new_sandbox();
        struct request_record request = request_of("CreateContext", "a");
        struct answer made, awaited = { 0 };

        fake_runtime_script(f.runtime)->fail_start = REASON(EXEC);
        ck_assert_int_eq(create_context_for(&request, sandbox.sandbox.sandbox_id).result.outcome,
                         SESSION_E_KERNEL_FAILED);
        ck_assert_int_eq(look_up(&request).result, 0);

        fake_runtime_script(f.runtime)->fail_start = 0;
        made = create_context_for(&request, sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(made.result.outcome, 0);
        ck_assert_str_eq(look_up(&request).known.object_id, made.context.context_id);

        session_await_context(f.session, "uid:1", sandbox.sandbox.sandbox_id,
                              made.context.context_id, on_contexts_answer, &awaited);
        run_until_true(&awaited.is_done);
        ck_assert_int_eq(awaited.result.outcome, 0);
        ck_assert_int_eq(awaited.context_state, CONTEXT_IDLE);
}
END_TEST

START_TEST(a_restart_is_remembered_and_answered_with_the_next_generation)
{
        struct answer sandbox = new_sandbox();
        struct answer context = create_context(sandbox.sandbox.sandbox_id, "", "");
        struct request_record request = request_of("RestartContext", "a");
        struct answer answer = { 0 };

        (void)strcpy(request.object_id, context.context.context_id);
        session_restart_context(f.session, &request, "uid:1", sandbox.sandbox.sandbox_id,
                                context.context.context_id, on_contexts_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.context.generation, 2);
        ck_assert_int_eq(look_up(&request).result, CLAIM_E_KNOWN);
}
END_TEST

START_TEST(an_update_is_remembered_with_its_row)
{
        struct answer sandbox = new_sandbox();
        struct request_record request = request_of("UpdateSandbox", "a");
        struct sandbox_update update = {
                .request = &request,
                .set_idle_timeout = true,
                .idle_timeout_usec = INT64_C(3600) * 1000000,
        };
        struct answer answer = { 0 };

        (void)strcpy(request.object_id, sandbox.sandbox.sandbox_id);
        session_update_sandbox(f.session, "uid:1", sandbox.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_str_eq(look_up(&request).known.object_id, sandbox.sandbox.sandbox_id);
}
END_TEST

static void on_remembered(void *userdata, const struct session_result *result)
{
        struct answer *answer = userdata;

        answer->is_done = true;
        answer->result = *result;
}

START_TEST(one_without_a_change_is_remembered_by_itself)
{
        struct request_record request = request_of("DeleteSandbox", "a");
        struct answer answer = { 0 };

        (void)strcpy(request.object_id, "sbx-1");
        session_remember_request(f.session, &request, on_remembered, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_str_eq(look_up(&request).known.object_id, "sbx-1");
        ck_assert(!look_up(&request).known.created);

        /* A stop waits for it. */
        (void)strcpy(request.request_id, "r-2");
        answer = (struct answer){ 0 };
        session_remember_request(f.session, &request, on_remembered, &answer);
        stop_session();
        ck_assert(answer.is_done);
        start_session();
}
END_TEST

START_TEST(a_crash_forgets_nothing_that_was_committed)
{
        struct request_record create = request_of("CreateSandbox", "a");
        struct request_record run = request_of("Execute", "b");
        struct execute_request execution;
        struct answer made, accepted;

        made = create_for(&create);
        execution = execute_request(made.sandbox.sandbox_id, "out x");
        execution.request = &run;
        accepted = execute(&execution, NULL);
        crash();
        start_session();
        run_until(session_serves, NULL);
        ck_assert_str_eq(look_up(&create).known.object_id, made.sandbox.sandbox_id);
        ck_assert_str_eq(look_up(&run).known.object_id, accepted.execution.execution_id);
}
END_TEST

/* Nobody was told of the sandbox that was half made: the retry makes another. */
START_TEST(a_crash_half_way_through_a_creation_leaves_the_id_free)
{
        static struct answer lost; /* its callback never comes */
        struct request_record request = request_of("CreateSandbox", "a");
        struct sandbox_request create = sandbox_request();

        create.request = &request;
        create.name = "mine";
        fake_runtime_script(f.runtime)->hold_create = true;
        session_create_sandbox(f.session, &create, on_sandbox_answer, &lost);
        crash(); /* its first row is written */
        start_session();
        run_until(session_serves, NULL);
        ck_assert_int_eq(look_up(&request).result, 0);
        ck_assert_int_eq(create_sandbox(&create).result.outcome, 0);
        ck_assert(!lost.is_done);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &a_request_is_known_once_it_was_taken,
                &other_fields_are_another_request,
                &the_second_waits_for_what_the_first_makes,
                &one_that_is_refused_leaves_the_id_to_the_next,
                &others_do_not_wait,
                &code_is_known_from_its_row_on,
                &a_one_shot_is_known_by_its_execution,
                &a_context_is_known_unless_its_interpreter_does_not_start,
                &a_restart_is_remembered_and_answered_with_the_next_generation,
                &an_update_is_remembered_with_its_row,
                &one_without_a_change_is_remembered_by_itself,
                &a_crash_forgets_nothing_that_was_committed,
                &a_crash_half_way_through_a_creation_leaves_the_id_free,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("claims", all, ARRAY_SIZE(all));
}
