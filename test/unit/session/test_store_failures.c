/*
 * The database refuses: what was asked is answered so, and nothing is left running unrecorded. The
 * store's functions are wrapped by the linker (meson.build).
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

enum wrapped {
        INSERT_SANDBOX,
        UPDATE_SANDBOX,
        END_SANDBOX,
        INSERT_CONTEXT,
        FIND_CONTEXT,
        INSERT_EXECUTION,
        END_EXECUTION,
        GET_REQUEST,
        _WRAPPED_N,
};

static unsigned n_failures[_WRAPPED_N]; /* how often each still fails */

struct failure {
        sd_event_source *source;
        store_on_done on_done; /* NULL: the other one */
        store_on_sandbox_end on_end;
        void *userdata;
};

static int on_failure(sd_event_source *source, void *userdata)
{
        struct failure failure = *(struct failure *)userdata;

        (void)source;
        free(userdata);
        (void)sd_event_source_disable_unref(failure.source);
        if (failure.on_done)
                failure.on_done(failure.userdata, -EIO);
        else
                failure.on_end(failure.userdata, -EIO, NULL);
        return 0;
}

static struct failure *make_failure(enum wrapped function, void *userdata)
{
        struct failure *failure;

        if (n_failures[function] == 0)
                return NULL;
        n_failures[function]--;
        failure = calloc(1, sizeof(*failure));
        failure->userdata = userdata;
        ck_assert_int_ge(sd_event_add_defer(f.loop, &failure->source, on_failure, failure), 0);
        return failure;
}

static bool fails(enum wrapped function, store_on_done on_done, void *userdata)
{
        struct failure *failure = make_failure(function, userdata);

        if (failure)
                failure->on_done = on_done;
        return failure;
}

void __real_store_insert_sandbox(struct store *store, const struct sandbox_record *record,
                                 store_on_done on_done, void *userdata);
void __wrap_store_insert_sandbox(struct store *store, const struct sandbox_record *record,
                                 store_on_done on_done, void *userdata);
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
void __real_store_insert_context_for(struct store *store, const struct request_record *request,
                                     const struct context_record *record, store_on_done on_done,
                                     void *userdata);
void __wrap_store_insert_context_for(struct store *store, const struct request_record *request,
                                     const struct context_record *record, store_on_done on_done,
                                     void *userdata);
void __real_store_insert_execution_for(struct store *store, const struct request_record *request,
                                       const struct execution_record *record,
                                       const struct store_blob *kept, store_on_done on_done,
                                       void *userdata);
void __wrap_store_insert_execution_for(struct store *store, const struct request_record *request,
                                       const struct execution_record *record,
                                       const struct store_blob *kept, store_on_done on_done,
                                       void *userdata);
void __real_store_find_context(struct store *store, const char *owner, const char *sandbox_id,
                               const char *context_id, store_on_done on_done, void *userdata);
void __wrap_store_find_context(struct store *store, const char *owner, const char *sandbox_id,
                               const char *context_id, store_on_done on_done, void *userdata);
void __real_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);
void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);

void __real_store_end_sandbox(struct store *store, const struct sandbox_record *record,
                              store_on_sandbox_end on_done, void *userdata);
void __wrap_store_end_sandbox(struct store *store, const struct sandbox_record *record,
                              store_on_sandbox_end on_done, void *userdata);

void __wrap_store_end_sandbox(struct store *store, const struct sandbox_record *record,
                              store_on_sandbox_end on_done, void *userdata)
{
        struct failure *failure = make_failure(END_SANDBOX, userdata);

        if (failure)
                failure->on_end = on_done;
        else
                __real_store_end_sandbox(store, record, on_done, userdata);
}

void __wrap_store_insert_sandbox(struct store *store, const struct sandbox_record *record,
                                 store_on_done on_done, void *userdata)
{
        if (!fails(INSERT_SANDBOX, on_done, userdata))
                __real_store_insert_sandbox(store, record, on_done, userdata);
}

void __wrap_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata)
{
        if (!fails(UPDATE_SANDBOX, on_done, userdata))
                __real_store_update_sandbox(store, record, event, on_done, userdata);
}

void __wrap_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata)
{
        if (!fails(UPDATE_SANDBOX, on_done, userdata))
                __real_store_update_sandbox_for(store, request, record, event, on_done, userdata);
}

void __wrap_store_insert_context_for(struct store *store, const struct request_record *request,
                                     const struct context_record *record, store_on_done on_done,
                                     void *userdata)
{
        if (!fails(INSERT_CONTEXT, on_done, userdata))
                __real_store_insert_context_for(store, request, record, on_done, userdata);
}

void __wrap_store_find_context(struct store *store, const char *owner, const char *sandbox_id,
                               const char *context_id, store_on_done on_done, void *userdata)
{
        if (!fails(FIND_CONTEXT, on_done, userdata))
                __real_store_find_context(store, owner, sandbox_id, context_id, on_done, userdata);
}

void __wrap_store_insert_execution_for(struct store *store, const struct request_record *request,
                                       const struct execution_record *record,
                                       const struct store_blob *kept, store_on_done on_done,
                                       void *userdata)
{
        if (!fails(INSERT_EXECUTION, on_done, userdata))
                __real_store_insert_execution_for(store, request, record, kept, on_done, userdata);
}

void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata)
{
        if (!fails(END_EXECUTION, on_done, userdata))
                __real_store_end_execution(store, record, output, on_done, userdata);
}

static bool nothing_lives(void *userdata)
{
        struct session_info info;

        (void)userdata;
        session_info(f.session, "uid:1", &info);
        return info.sandboxes_active == 0 && fake_runtime_n_sandboxes(f.runtime) == 0;
}

START_TEST(a_sandbox_that_is_not_recorded_is_destroyed)
{
        struct sandbox_request request = sandbox_request();

        request.name = "mine";
        n_failures[INSERT_SANDBOX] = 1;
        n_failures[UPDATE_SANDBOX] = 1;
        ck_assert_int_eq(create_sandbox(&request).result.outcome, SESSION_E_STORE_UNAVAILABLE);
        run_until(nothing_lives, NULL);

        n_failures[UPDATE_SANDBOX] = 1; /* that it runs */
        ck_assert_int_eq(create_sandbox(&request).result.outcome, SESSION_E_STORE_UNAVAILABLE);
        run_until(nothing_lives, NULL);
        ck_assert_int_eq(create_sandbox(&request).result.outcome, 0);
}
END_TEST

START_TEST(the_end_of_a_sandbox_is_recorded_once_the_database_works_again)
{
        struct answer sandbox = new_sandbox();
        struct answer answer;

        n_failures[UPDATE_SANDBOX] = 1;
        n_failures[END_SANDBOX] = 2;
        answer = delete_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_uint_eq(n_failures[UPDATE_SANDBOX], 0);
        ck_assert_uint_eq(n_failures[END_SANDBOX], 0);
        answer = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_ENDED);
}
END_TEST

START_TEST(an_update_that_is_not_recorded_does_not_count)
{
        struct answer sandbox = new_sandbox();
        struct sandbox_update update = { .set_idle_timeout = true, .idle_timeout_usec = 1 };
        struct answer answer = { 0 };

        n_failures[UPDATE_SANDBOX] = 1;
        session_update_sandbox(f.session, "uid:1", sandbox.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_STORE_UNAVAILABLE);
        answer = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.idle_timeout_usec, 0);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_RUNNING);
}
END_TEST

START_TEST(a_policy_that_is_not_recorded_does_not_count)
{
        struct sandbox_request request = sandbox_request();
        struct egress *old = egress_new(8), *new = egress_new(16);
        struct sandbox_update update = { .set_egress = true, .egress = new };
        struct session_info info;
        struct answer sandbox, answer;

        request.egress = old;
        sandbox = create_sandbox(&request);
        n_failures[UPDATE_SANDBOX] = 1;
        answer = update_sandbox(sandbox.sandbox.sandbox_id, &update);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_STORE_UNAVAILABLE);
        answer = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_ptr_eq(answer.sandbox.egress, old);
        ck_assert_int_eq(answer.sandbox.egress_version, 1);
        ck_assert_uint_eq(new->n_holds, 1);
        session_info(f.session, "uid:1", &info);
        ck_assert_int_eq(info.quotas[SESSION_SHARE_EGRESS].used, (int64_t)egress_memory(old));

        /* Somebody may have seen the second version: it is not given again. */
        answer = update_sandbox(sandbox.sandbox.sandbox_id, &update);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.egress_version, 3);
        stop_session();
        ck_assert_uint_eq(old->n_holds + new->n_holds, 2);
        (void)egress_release(old);
        (void)egress_release(new);
}
END_TEST

START_TEST(a_context_that_cannot_be_looked_up_is_not_said_to_be_deleted)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;

        n_failures[FIND_CONTEXT] = 1;
        ck_assert_int_eq(delete_context(id, "ctx-none").result.outcome,
                         SESSION_E_STORE_UNAVAILABLE);
        ck_assert_int_eq(delete_context(id, "ctx-none").result.outcome,
                         SESSION_E_CONTEXT_NOT_FOUND);
}
END_TEST

START_TEST(code_that_is_not_recorded_does_not_run)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        char path[128];
        char code[192];
        struct execute_request request;
        struct seen seen;

        (void)snprintf(path, sizeof(path), "%s/ran", f.folder);
        (void)snprintf(code, sizeof(code), "touch %s", path);
        run_code(id, "out warm");
        request = execute_request(id, code);
        n_failures[INSERT_EXECUTION] = 1;
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_STORE_UNAVAILABLE);
        seen = run_code(id, "out next");
        ck_assert_str_eq(seen.text, "queued:0 started:1.2 stdout:next ended");
        ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(a_context_that_is_not_recorded_is_not_kept)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;
        struct answer answer;

        n_failures[INSERT_CONTEXT] = 1;
        answer = create_context(id, "", "");
        ck_assert_int_eq(answer.result.outcome, SESSION_E_STORE_UNAVAILABLE);
        do
                answer = list_contexts(id), run_turns(1);
        while (answer.n > 0 || fake_runtime_n_processes(f.runtime) > 0);
        ck_assert_int_eq(create_context(id, "", "").result.outcome, 0);
}
END_TEST

START_TEST(the_end_of_code_is_shown_once_it_is_recorded)
{
        struct answer sandbox = new_sandbox();
        struct seen seen;
        struct answer answer;

        run_code(sandbox.sandbox.sandbox_id, "out warm");
        n_failures[END_EXECUTION] = 2;
        seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        ck_assert_uint_eq(n_failures[END_EXECUTION], 0);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        answer = get_execution(seen.ended.execution_id);
        ck_assert_int_eq(answer.execution.state, EXECUTION_ENDED);
}
END_TEST

START_TEST(a_one_shot_that_is_not_recorded_leaves_nothing)
{
        static const enum wrapped functions[] = { INSERT_SANDBOX, INSERT_CONTEXT,
                                                  INSERT_EXECUTION };
        struct sandbox_request spec = sandbox_request();
        struct execute_request request = execute_request("", "out x");

        request.one_shot = &spec;
        for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
                n_failures[functions[i]] = 1;
                ck_assert_int_eq(execute(&request, NULL).result.outcome,
                                 SESSION_E_STORE_UNAVAILABLE);
                run_until(nothing_lives, NULL);
        }
}
END_TEST

void __real_store_get_request(struct store *store, const struct request_record *request,
                              store_on_request on_done, void *userdata);
void __wrap_store_get_request(struct store *store, const struct request_record *request,
                              store_on_request on_done, void *userdata);

void __wrap_store_get_request(struct store *store, const struct request_record *request,
                              store_on_request on_done, void *userdata)
{
        if (n_failures[GET_REQUEST] > 0) {
                n_failures[GET_REQUEST]--;
                on_done(userdata, -EIO, NULL);
                return;
        }
        __real_store_get_request(store, request, on_done, userdata);
}

struct claimed {
        bool is_done;
        int result;
};

static void on_claimed(void *userdata, int result, const struct request_record *known)
{
        struct claimed *claimed = userdata;

        ck_assert_ptr_null(known);
        claimed->is_done = true;
        claimed->result = result;
}

START_TEST(a_request_is_not_run_while_it_is_unknown_whether_it_was)
{
        const struct request_record request = { .owner = "uid:1", .method = "Execute" };
        struct session_claim *first = NULL, *second = NULL;
        struct claimed a = { 0 }, b = { 0 };

        n_failures[GET_REQUEST] = 1;
        ck_assert_int_eq(session_claim_new(f.session, &request, on_claimed, &a, &first), 0);
        ck_assert_int_eq(session_claim_new(f.session, &request, on_claimed, &b, &second), 0);
        run_until_true(&a.is_done);
        ck_assert_int_eq(a.result, CLAIM_E_UNAVAILABLE);
        run_until_true(&b.is_done);
        ck_assert_int_eq(b.result, 0);
        (void)session_claim_free(first);
        (void)session_claim_free(second);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &a_sandbox_that_is_not_recorded_is_destroyed,
                &the_end_of_a_sandbox_is_recorded_once_the_database_works_again,
                &an_update_that_is_not_recorded_does_not_count,
                &a_policy_that_is_not_recorded_does_not_count,
                &a_context_that_cannot_be_looked_up_is_not_said_to_be_deleted,
                &code_that_is_not_recorded_does_not_run,
                &a_context_that_is_not_recorded_is_not_kept,
                &the_end_of_code_is_shown_once_it_is_recorded,
                &a_one_shot_that_is_not_recorded_leaves_nothing,
                &a_request_is_not_run_while_it_is_unknown_whether_it_was,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("store_failures", all, ARRAY_SIZE(all));
}
