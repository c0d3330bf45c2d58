/* The calls about sandboxes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/admission.h"
#include "server/session/calls.h"
#include "server/session/meters.h"

static void fail_sandbox(struct call *call, const struct session_result *result)
{
        call->on_sandbox(call->userdata, result, NULL, false);
}

struct call *sandbox_call(struct session *session, const char *owner, const char *id,
                          session_on_sandbox on_done, void *userdata)
{
        struct call *call = call_new(session, owner, id, fail_sandbox);

        if (!call) {
                struct session_result failure = result_of(-ENOMEM, "There is no memory.");

                on_done(userdata, &failure, NULL, false);
                return NULL;
        }
        call->on_sandbox = on_done;
        call->userdata = userdata;
        return call;
}

/* What may be asked of it depends on the state; each state has its own reason. */
static struct session_result refuse_work(const struct sandbox *sandbox)
{
        if (sandbox->record.state == SANDBOX_CREATING)
                return result_of(SESSION_E_SANDBOX_NOT_FOUND, "Sandbox %s is still being made.",
                                 sandbox->record.sandbox_id);
        return result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s is ending.",
                         sandbox->record.sandbox_id);
}

struct session_result admit_work(const struct sandbox *sandbox)
{
        if (sandbox->record.state != SANDBOX_RUNNING)
                return refuse_work(sandbox);
        if (sandbox->session->is_stopping)
                return result_of(SESSION_E_SHUTTING_DOWN, "The service is being stopped.");
        if (sandbox->session->phase != SESSION_SERVING)
                return result_of(SESSION_E_RUNTIME_UNAVAILABLE, "The runtime is not available.");
        return (struct session_result){ 0 };
}

struct session_result admit_sandbox(struct session *session, const struct sandbox_request *request)
{
        const char *missing = NULL;
        struct session_result result;

        if (session->is_stopping)
                return result_of(SESSION_E_SHUTTING_DOWN, "The service is being stopped.");
        if (session->phase != SESSION_SERVING)
                return result_of(SESSION_E_RUNTIME_UNAVAILABLE, "The runtime is not available.");
        if (!session_walls_hold(session, &missing))
                return result_of(
                        strcmp(missing, "egress") == 0 ? SESSION_E_EGRESS : SESSION_E_WALL_MISSING,
                        "The wall %s does not hold on this host; see `hotcell doctor`.", missing);
        if (!session_find_template(session, request->template_name))
                return result_of(SESSION_E_UNKNOWN_TEMPLATE, "There is no template %s.",
                                 request->template_name[0] ? request->template_name : "at all");
        result = admit_egress(session, request->owner, request->egress, NULL);
        return result.outcome ? result : admit_room(session, request);
}

static struct sandbox *find_name(struct session *session, const char *owner, const char *name)
{
        char key[OWNER_BUFFER + ID_BUFFER];
        struct map_node *node;

        if (!name[0])
                return NULL;
        (void)snprintf(key, sizeof(key), "%s/%s", owner, name);
        node = map_find(&session->names, key, strlen(key));
        return MAP_ITEM(node, struct sandbox, by_name);
}

static struct session_result refuse_name(const struct sandbox *existing)
{
        bool is_ending = existing->record.state == SANDBOX_ENDING;
        struct session_result result =
                result_of(SESSION_E_NAME_IN_USE, "There is a sandbox named %s already%s.",
                          existing->record.name, is_ending ? ", which is ending" : "");

        (void)snprintf(result.quota, sizeof(result.quota), "%s", existing->record.owner);
        result.may_pass = is_ending;
        return result;
}

struct session_result admit_name(struct session *session, const struct sandbox_request *request)
{
        const struct sandbox *existing = find_name(session, request->owner, request->name);

        return existing ? refuse_name(existing) : (struct session_result){ 0 };
}

/* Get-or-create joins what is there or being made. */
static void join_existing(struct sandbox *sandbox, const struct sandbox_request *request,
                          session_on_sandbox on_done, void *userdata)
{
        struct session_result result = { 0 };
        enum sandbox_state state = sandbox->record.state;

        if (request->get_or_create && state == SANDBOX_RUNNING) {
                on_done(userdata, &result, &sandbox->record, false);
                return;
        }
        if (request->get_or_create && state == SANDBOX_CREATING &&
            sandbox_wait(&sandbox->create_waiters, on_done, userdata, false) == 0)
                return;
        result = refuse_name(sandbox);
        on_done(userdata, &result, NULL, false);
}

void session_create_sandbox(struct session *session, const struct sandbox_request *request,
                            session_on_sandbox on_done, void *userdata)
{
        struct sandbox *existing = find_name(session, request->owner, request->name);
        struct sandbox *sandbox = NULL;
        struct session_result result;

        if (existing && !session->is_stopping) {
                join_existing(existing, request, on_done, userdata);
                return;
        }
        result = admit_sandbox(session, request);
        if (result.outcome == 0 &&
            (sandbox_new(session, request, false, &sandbox) ||
             sandbox_wait(&sandbox->create_waiters, on_done, userdata, true)))
                result = result_of(-ENOMEM, "There is no memory for a sandbox.");
        if (result.outcome) {
                (void)sandbox_free(sandbox);
                on_done(userdata, &result, NULL, false);
                return;
        }
        sandbox_create(sandbox);
}

static void on_found(void *userdata, int result, const struct sandbox_record *record)
{
        struct call *call = userdata;
        struct session_result success = { 0 };
        struct session_result failure;

        if (result == 0) {
                call->on_sandbox(call->userdata, &success, record, false);
                call_free(call);
                return;
        }
        failure = result == STORE_E_NOT_FOUND
                          ? result_of(SESSION_E_SANDBOX_NOT_FOUND, "There is no sandbox %s.",
                                      call->id)
                          : result_of(SESSION_E_STORE_UNAVAILABLE, "The database cannot be read.");
        call_fail(call, &failure);
}

static void answer_from_store(struct call *call)
{
        store_get_sandbox(call->session->store, call->owner, call->id, on_found, call);
}

/* A borrowed copy: the record itself holds only what is measured at the end. */
static void answer_living(struct call *call, const struct sandbox *sandbox,
                          const Hotcell__Runtime__V1__Usage *meters)
{
        const struct session_result success = { 0 };
        struct sandbox_record measured = sandbox->record;

        if (meters)
                sandbox_usage_from_meters(meters, &measured.usage);
        measured.usage.total.wall_usec =
                sandbox_wall_usec(sandbox, &measured.usage.total, time_now_usec());
        call->on_sandbox(call->userdata, &success, &measured, false);
        call_free(call);
}

static void on_usage(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                     struct runtime_fds *fds)
{
        struct call *call = userdata;
        struct sandbox *sandbox = session_find_sandbox(call->session, call->owner, call->id);

        (void)fds;
        if (!sandbox)
                answer_from_store(call);
        else if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE)
                answer_living(call, sandbox, answer->usage);
        else
                answer_living(call, sandbox, NULL);
}

void session_get_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                         session_on_sandbox on_done, void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, owner, sandbox_id);
        struct call *call = sandbox_call(session, owner, sandbox_id, on_done, userdata);

        if (!call)
                return;
        if (!sandbox) {
                answer_from_store(call);
                return;
        }
        if (sandbox->record.state == SANDBOX_RUNNING &&
            session_read_usage(session, sandbox_id, "", on_usage, call) == 0)
                return;
        answer_living(call, sandbox, NULL);
}

struct session_result admit_etag(const struct sandbox *sandbox, const char *etag)
{
        char present[ETAG_BUFFER];

        sandbox_etag(&sandbox->record, present);
        if (!etag || !*etag || strcmp(etag, present) == 0)
                return (struct session_result){ 0 };
        return result_of(SESSION_E_CONFLICT,
                         "Sandbox %s was changed meanwhile, its etag is %s now; read it and try "
                         "again.",
                         sandbox->record.sandbox_id, present);
}

void session_delete_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                            const char *etag, enum cause cause, session_on_sandbox on_done,
                            void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, owner, sandbox_id);
        struct session_result failure = { 0 };
        struct call *call;

        if (!sandbox) {
                call = sandbox_call(session, owner, sandbox_id, on_done, userdata);
                if (call)
                        answer_from_store(call);
                return;
        }
        if (sandbox->record.state < SANDBOX_ENDING)
                failure = admit_etag(sandbox, etag);
        if (failure.outcome == 0 && sandbox_wait(&sandbox->end_waiters, on_done, userdata, false))
                failure =
                        result_of(-ENOMEM, "There is no memory to delete sandbox %s.", sandbox_id);
        if (failure.outcome) {
                on_done(userdata, &failure, NULL, false);
                return;
        }
        sandbox_end(sandbox, cause,
                    cause == CAUSE_OPERATOR ? "The operator deleted it." : "A client deleted it.");
}

size_t session_delete_sandboxes_of(struct session *session, const char *owner)
{
        struct map_node *node, *next;
        size_t n = 0;

        for (node = map_first(&session->sandboxes); node; node = next) {
                struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                next = map_next(node);
                if (strcmp(sandbox->record.owner, owner) != 0 ||
                    sandbox->record.state == SANDBOX_ENDING)
                        continue;
                n++;
                sandbox_end(sandbox, CAUSE_OPERATOR, "The operator revoked its key.");
        }
        return n;
}
