/* The calls about executions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/session/admission.h"
#include "server/session/calls.h"

static void fail_execution(struct call *call, const struct session_result *result)
{
        call->on_execution(call->userdata, result, NULL);
}

static struct call *execution_call(struct session *session, const char *owner, const char *id,
                                   session_on_execution on_done, void *userdata)
{
        struct call *call = call_new(session, owner, id, fail_execution);

        if (!call) {
                struct session_result failure = result_of(-ENOMEM, "There is no memory.");

                on_done(userdata, &failure, NULL);
                return NULL;
        }
        call->on_execution = on_done;
        call->userdata = userdata;
        return call;
}

/* Makes the execution and puts it in its context's queue; its row comes with execution_accept. */
static struct session_result enqueue(struct sandbox *sandbox, const struct execute_request *request,
                                     struct execution **ret_execution)
{
        struct context *context = find_context(sandbox, request->context_id, request->language);
        struct session_result result = { 0 };

        if (context)
                result = admit_execution(context, request);
        else if (!request->context_id[0])
                result = admit_first_execution(sandbox->session, request);
        if (result.outcome)
                return result;
        result = admit_context(sandbox, request->context_id, request->language, &context);
        if (result.outcome)
                return result;
        if (execution_new(context, request, ret_execution))
                return result_of(-ENOMEM, "There is no memory for an execution.");
        context_enqueue(context, *ret_execution);
        return result;
}

static void execute_in(struct sandbox *sandbox, const struct execute_request *request,
                       session_on_execution on_done, void *userdata)
{
        struct session_result result = admit_work(sandbox);
        struct execution *execution = NULL;

        if (result.outcome == 0)
                result = enqueue(sandbox, request, &execution);
        if (!execution) {
                on_done(userdata, &result, NULL);
                return;
        }
        execution->on_accepted = on_done;
        execution->on_accepted_userdata = userdata;
        execution_accept(execution);
        context_pump(execution->context);
}

/* The sandbox of a one-shot execution runs, or it does not. */
static void on_one_shot_created(void *userdata, const struct session_result *result,
                                const struct sandbox_record *record, bool created)
{
        struct execution *execution = userdata;

        (void)record;
        (void)created;
        if (result->outcome) {
                execution_refuse(execution, result);
                return;
        }
        execution_accept(execution);
        context_pump(execution->context);
}

static void execute_one_shot(struct session *session, const struct execute_request *request,
                             session_on_execution on_done, void *userdata)
{
        struct session_result result = admit_sandbox(session, request->one_shot);
        struct execution *execution = NULL;
        struct sandbox *sandbox = NULL;

        if (result.outcome == 0)
                result = admit_name(session, request->one_shot);
        if (result.outcome == 0)
                result = admit_first_execution(session, request);
        if (result.outcome == 0 && sandbox_new(session, request->one_shot, true, &sandbox))
                result = result_of(-ENOMEM, "There is no memory for a sandbox.");
        if (result.outcome == 0) {
                sandbox_create(sandbox);
                result = enqueue(sandbox, request, &execution);
                if (result.outcome)
                        sandbox_end(sandbox, CAUSE_CLIENT, "Its execution was refused.");
        }
        if (!execution) {
                on_done(userdata, &result, NULL);
                return;
        }
        execution->on_accepted = on_done;
        execution->on_accepted_userdata = userdata;
        execution->ends_sandbox = true;
        if (sandbox_wait(&sandbox->create_waiters, on_one_shot_created, execution, true)) {
                result = result_of(-ENOMEM, "There is no memory for an execution.");
                execution_refuse(execution, &result);
        }
}

void session_execute(struct session *session, const struct execute_request *request,
                     session_on_execution on_done, void *userdata)
{
        struct sandbox *sandbox;
        struct call *call;

        if (request->one_shot) {
                execute_one_shot(session, request, on_done, userdata);
                return;
        }
        sandbox = session_find_sandbox(session, request->owner, request->sandbox_id);
        if (sandbox) {
                execute_in(sandbox, request, on_done, userdata);
                return;
        }
        call = execution_call(session, request->owner, request->sandbox_id, on_done, userdata);
        if (call)
                call_fail_without_sandbox(call);
}

static struct session_result explain_missing(int result, const char *execution_id)
{
        if (result == STORE_E_NOT_FOUND)
                return result_of(SESSION_E_EXECUTION_NOT_FOUND, "There is no execution %s.",
                                 execution_id);
        return result_of(SESSION_E_STORE_UNAVAILABLE, "The database cannot be read.");
}

static void on_too_late(void *userdata, int result, const struct execution_record *record)
{
        struct call *call = userdata;
        struct session_result failure =
                result == 0 ? result_of(SESSION_E_EXECUTION_ENDED, "Execution %s has ended.",
                                        record->execution_id)
                            : explain_missing(result, call->id);

        call_fail(call, &failure);
}

void session_interrupt_execution(struct session *session, const char *owner,
                                 const char *execution_id, bool is_kill, enum cause cause,
                                 session_on_execution on_done, void *userdata)
{
        struct execution *execution = session_find_execution(session, owner, execution_id);
        const struct session_result success = { 0 };
        struct session_result failure;
        struct call *call;

        if (!execution) {
                call = execution_call(session, owner, execution_id, on_done, userdata);
                if (call)
                        store_get_execution(session->store, owner, execution_id, on_too_late, call);
                return;
        }
        if (execution_is_over(execution)) {
                failure = result_of(SESSION_E_EXECUTION_ENDED, "Execution %s has ended.",
                                    execution_id);
                on_done(userdata, &failure, NULL);
                return;
        }
        execution_stop(execution, is_kill ? OUTCOME_KILLED : OUTCOME_INTERRUPTED, cause, is_kill);
        on_done(userdata, &success, &execution->record);
}

static void on_found(void *userdata, int result, const struct execution_record *record)
{
        struct call *call = userdata;
        const struct session_result success = { 0 };
        struct session_result failure;

        if (result) {
                failure = explain_missing(result, call->id);
                call_fail(call, &failure);
                return;
        }
        call->on_execution(call->userdata, &success, record);
        call_free(call);
}

void session_get_execution(struct session *session, const char *owner, const char *execution_id,
                           session_on_execution on_done, void *userdata)
{
        struct execution *execution = session_find_execution(session, owner, execution_id);
        const struct session_result success = { 0 };
        struct call *call;

        /* One that is closing is shown as what it was: its end counts once it is recorded. */
        if (execution && execution->phase != PHASE_CLOSING) {
                on_done(userdata, &success, &execution->record);
                return;
        }
        call = execution_call(session, owner, execution_id, on_done, userdata);
        if (call)
                store_get_execution(session->store, owner, execution_id, on_found, call);
}
