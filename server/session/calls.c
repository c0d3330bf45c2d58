#include "server/session/calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"

struct call *call_new(struct session *session, const char *owner, const char *id,
                      void (*fail)(struct call *call, const struct session_result *result))
{
        struct call *call = calloc(1, sizeof(*call));

        if (!call)
                return NULL;
        call->session = session;
        (void)snprintf(call->owner, sizeof(call->owner), "%s", owner);
        (void)snprintf(call->id, sizeof(call->id), "%s", id);
        call->fail = fail;
        session->n_pending++;
        return call;
}

void call_free(struct call *call)
{
        struct session *session = call->session;

        sandbox_record_deinit(&call->before);
        pairs_deinit(&call->wanted_labels);
        (void)egress_release(call->wanted.egress);
        (void)sd_event_source_disable_unref(call->retry);
        free(call);
        session->n_pending--;
        session_check_stopped(session);
}

void call_fail(struct call *call, const struct session_result *result)
{
        call->fail(call, result);
        call_free(call);
}

static void on_looked_up(void *userdata, int result, const struct sandbox_record *record)
{
        struct call *call = userdata;
        struct session_result failure;

        if (result == 0 && record->state == SANDBOX_ENDED)
                failure = result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s has ended.", call->id);
        else if (result == 0)
                failure = result_of(SESSION_E_RUNTIME_UNAVAILABLE,
                                    "Sandbox %s cannot be reached without the runtime.", call->id);
        else if (result == STORE_E_NOT_FOUND)
                failure =
                        result_of(SESSION_E_SANDBOX_NOT_FOUND, "There is no sandbox %s.", call->id);
        else
                failure = result_of(SESSION_E_STORE_UNAVAILABLE, "The database cannot be read.");
        call_fail(call, &failure);
}

void call_fail_without_sandbox(struct call *call)
{
        store_get_sandbox(call->session->store, call->owner, call->id, on_looked_up, call);
}

struct sandbox *session_find_sandbox(struct session *session, const char *owner,
                                     const char *sandbox_id)
{
        struct map_node *node = map_find(&session->sandboxes, sandbox_id, strlen(sandbox_id));
        struct sandbox *sandbox = MAP_ITEM(node, struct sandbox, by_id);

        if (sandbox && owner && strcmp(sandbox->record.owner, owner) != 0)
                return NULL;
        return sandbox;
}

struct execution *session_find_execution(struct session *session, const char *owner,
                                         const char *execution_id)
{
        struct map_node *node = map_find(&session->executions, execution_id, strlen(execution_id));
        struct execution *execution = MAP_ITEM(node, struct execution, by_id);

        if (execution && owner && strcmp(execution->record.owner, owner) != 0)
                return NULL;
        return execution;
}
