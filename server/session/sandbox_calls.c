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
#include "server/session/usage.h"

enum { TAKE_BACK_USEC = 1000 * 1000 }; /* until what failed is tried again */

static void fail_sandbox(struct call *call, const struct session_result *result)
{
        call->on_sandbox(call->userdata, result, NULL, false);
}

static struct call *sandbox_call(struct session *session, const char *owner, const char *id,
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
        result = result_of(SESSION_E_NAME_IN_USE, "There is a sandbox named %s already%s.",
                           request->name, state == SANDBOX_ENDING ? ", which is ending" : "");
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

static void on_usage(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                     struct runtime_fds *fds)
{
        struct call *call = userdata;
        struct sandbox *sandbox = session_find_sandbox(call->session, call->owner, call->id);
        const struct session_result success = { 0 };
        struct sandbox_record measured;

        (void)fds;
        if (!sandbox) {
                answer_from_store(call);
                return;
        }
        /* A borrowed copy: the record itself holds only what is measured at the end. */
        measured = sandbox->record;
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE)
                sandbox_usage_from_meters(answer->usage, &measured.usage);
        measured.usage.total.wall_usec = MAX(time_now_usec() - measured.create_time_usec, 0);
        call->on_sandbox(call->userdata, &success, &measured, false);
        call_free(call);
}

void session_get_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                         session_on_sandbox on_done, void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, owner, sandbox_id);
        struct call *call = sandbox_call(session, owner, sandbox_id, on_done, userdata);
        const struct session_result success = { 0 };

        if (!call)
                return;
        if (!sandbox) {
                answer_from_store(call);
                return;
        }
        if (sandbox->record.state == SANDBOX_RUNNING &&
            session_read_usage(session, sandbox_id, "", false, on_usage, call) == 0)
                return;
        on_done(userdata, &success, &sandbox->record, false);
        call_free(call);
}

/* Whether it is still as the client saw it; empty: it does not care. */
static struct session_result admit_etag(const struct sandbox *sandbox, const char *etag)
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

/* Update. */

static bool has_pair(const struct pairs *pairs, const struct pair *wanted)
{
        for (size_t i = 0; i < pairs->n; i++)
                if (strcmp(pairs->items[i].name, wanted->name) == 0)
                        return strcmp(pairs->items[i].value, wanted->value) == 0;
        return false;
}

static bool are_same(const struct pairs *a, const struct pairs *b)
{
        for (size_t i = 0; i < a->n; i++)
                if (!has_pair(b, &a->items[i]))
                        return false;
        return a->n == b->n;
}

static bool replaces_egress(const struct sandbox_record *record,
                            const struct sandbox_update *update)
{
        return update->set_egress && !egress_is_same(record->egress, update->egress);
}

/* Whether there is anything to tell those who watch. */
static bool changes_something(const struct sandbox_record *record,
                              const struct sandbox_update *update)
{
        return (update->set_labels && !are_same(&record->labels, update->labels)) ||
               (update->set_expire_time && record->expire_time_usec != update->expire_time_usec) ||
               (update->set_idle_timeout &&
                record->idle_timeout_usec != update->idle_timeout_usec) ||
               replaces_egress(record, update);
}

static void set_egress(struct sandbox *sandbox, struct egress *egress, int64_t version)
{
        struct sandbox_record *record = &sandbox->record;
        struct egress *old = record->egress;

        take_egress_shares(sandbox->holder, egress, old);
        record->egress = egress_hold(egress);
        record->egress_version = version;
        (void)egress_release(old);
}

/* One at a time: the next one goes by what came of this one. */
static struct session_result admit_new_egress(const struct sandbox *sandbox,
                                              const struct sandbox_update *update)
{
        const struct sandbox_record *record = &sandbox->record;
        struct session_result result;

        if (update->set_egress && sandbox->is_egress_pending)
                return result_of(SESSION_E_CONFLICT,
                                 "Another egress policy of sandbox %s is just being put in force; "
                                 "read it and try again.",
                                 record->sandbox_id);
        if (!replaces_egress(record, update))
                return (struct session_result){ 0 };
        result = admit_rules_on_way(sandbox, update->egress);
        if (result.outcome)
                return result;
        return admit_egress(sandbox->session, record->owner, update->egress, record->egress);
}

static int apply_labels(struct sandbox *sandbox, const struct sandbox_update *update)
{
        struct pairs labels = { 0 };

        if (!update->set_labels)
                return 0;
        if (pairs_copy(update->labels, &labels))
                return error_origin(-ENOMEM);
        pairs_deinit(&sandbox->record.labels);
        sandbox->record.labels = labels;
        sandbox->updates.labels = sandbox->updates.last;
        return 0;
}

static int apply(struct sandbox *sandbox, const struct sandbox_update *update)
{
        struct sandbox_record *record = &sandbox->record;
        int r;

        sandbox->updates.last++;
        r = apply_labels(sandbox, update);
        if (r)
                return error_fold(r);
        if (update->set_expire_time) {
                record->expire_time_usec = update->expire_time_usec;
                sandbox->updates.expire_time = sandbox->updates.last;
        }
        if (update->set_idle_timeout) {
                record->idle_timeout_usec = update->idle_timeout_usec;
                sandbox->updates.idle_timeout = sandbox->updates.last;
        }
        if (update->set_egress)
                sandbox->is_egress_pending = true;
        if (replaces_egress(record, update)) {
                sandbox_set_rules_on_way(sandbox, update->egress ? update->egress->n_rules : 0);
                sandbox->is_egress_recording = true;
                set_egress(sandbox, update->egress, ++sandbox->last_egress_version);
        }
        return 0;
}

/* It does not count: but for what was changed by others since. */
static void go_back(struct sandbox *sandbox, struct call *call)
{
        struct sandbox_record *record = &sandbox->record, *before = &call->before;
        struct pairs labels = record->labels;

        if (sandbox->updates.labels == call->update) {
                record->labels = before->labels;
                before->labels = labels;
        }
        if (sandbox->updates.expire_time == call->update)
                record->expire_time_usec = before->expire_time_usec;
        if (sandbox->updates.idle_timeout == call->update)
                record->idle_timeout_usec = before->idle_timeout_usec;
        if (call->has_new_egress)
                set_egress(sandbox, before->egress, before->egress_version);
}

/* @sandbox may be NULL. */
static void answer_update(struct call *call, struct sandbox *sandbox,
                          const struct session_result *result)
{
        if (sandbox && call->sets_egress) {
                sandbox->is_egress_pending = false;
                sandbox_set_rules_on_way(sandbox, 0);
        }
        call->on_sandbox(call->userdata, result, result->outcome ? NULL : &sandbox->record, false);
        call_free(call);
}

/*
 * A policy is recorded, then put in force, then it is answered for. When it cannot be put in force
 * the whole update is taken back: what was before is in force, or being restored, and in the
 * database before that is answered. A successor restores what is recorded, so what a killed server
 * had begun comes in force, though nobody was told.
 */

static void take_back(struct call *call);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        take_back(userdata);
        return 0;
}

static struct sandbox *sandbox_of(const struct call *call)
{
        return session_find_sandbox(call->session, call->owner, call->id);
}

static void on_request_forgotten(void *userdata, int result)
{
        struct call *call = userdata;

        if (result)
                log_warning("a request whose change was taken back is still remembered result=%d",
                            result);
        answer_update(call, sandbox_of(call), &call->failure);
}

static void on_taken_back(void *userdata, int result)
{
        struct call *call = userdata;
        struct sandbox *sandbox = sandbox_of(call);

        if (result && sandbox && sandbox->record.state == SANDBOX_RUNNING &&
            !call->session->is_stopping &&
            session_arm(call->session, &call->retry, TAKE_BACK_USEC, on_retry, call) == 0)
                return;
        session_on_sandbox_event(call->session, call->owner);
        if (call->request.request_id[0])
                store_forget_request(call->session->store, &call->request, on_request_forgotten,
                                     call);
        else
                answer_update(call, sandbox, &call->failure);
}

/* Tried until it is recorded: of what is told to have failed nothing must come in force later. */
static void take_back(struct call *call)
{
        struct sandbox *sandbox = sandbox_of(call);

        if (sandbox)
                store_update_sandbox(call->session->store, &sandbox->record, SANDBOX_EVENT_UPDATED,
                                     on_taken_back, call);
        else
                answer_update(call, sandbox, &call->failure);
}

static void on_update_in_force(struct sandbox *sandbox, const struct session_result *result)
{
        struct call *call = sandbox->enforcement.update;

        sandbox->enforcement.update = NULL;
        if (result->outcome == 0 || result->outcome == SESSION_E_SANDBOX_ENDED) {
                answer_update(call, sandbox, result);
                return;
        }
        call->failure = *result;
        go_back(sandbox, call);
        sandbox_arm_timers(sandbox);
        enforcement_restore(sandbox);
        take_back(call);
}

static void put_in_force(struct sandbox *sandbox, struct call *call)
{
        struct session_result result;

        sandbox->enforcement.update = call;
        result = enforcement_begin(sandbox, on_update_in_force);
        if (result.outcome)
                on_update_in_force(sandbox, &result);
}

static void on_recorded(struct sandbox *sandbox, struct call *call)
{
        struct session_result answer = { 0 };

        session_on_sandbox_event(call->session, call->owner);
        sandbox_arm_timers(sandbox);
        if (call->sets_egress && sandbox->record.state != SANDBOX_RUNNING)
                answer = result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s is ending.", call->id);
        else if (call->sets_egress && enforcement_is_needed(sandbox)) {
                put_in_force(sandbox, call);
                return;
        }
        answer_update(call, sandbox, &answer);
}

static void on_updated(void *userdata, int result)
{
        struct call *call = userdata;
        struct sandbox *sandbox = sandbox_of(call);
        struct session_result answer = result_of_store(result, "the change");

        if (!sandbox) {
                answer = result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s has ended.", call->id);
                call_fail(call, &answer);
                return;
        }
        if (call->has_new_egress)
                sandbox->is_egress_recording = false;
        if (result == 0) {
                on_recorded(sandbox, call);
                return;
        }
        go_back(sandbox, call);
        sandbox_arm_timers(sandbox);
        enforcement_restore(sandbox); /* that may have waited for this */
        answer_update(call, sandbox, &answer);
}

void session_update_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                            const struct sandbox_update *update, session_on_sandbox on_done,
                            void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, owner, sandbox_id);
        struct call *call = sandbox_call(session, owner, sandbox_id, on_done, userdata);
        enum sandbox_event event = 0;
        struct session_result result;

        if (!call)
                return;
        if (!sandbox) {
                call_fail_without_sandbox(call);
                return;
        }
        result = admit_work(sandbox);
        if (result.outcome == 0)
                result = admit_etag(sandbox, update->etag);
        if (result.outcome == 0)
                result = admit_new_egress(sandbox, update);
        if (result.outcome == 0)
                result = admit_update(sandbox);
        call->sets_egress = update->set_egress;
        call->has_new_egress = replaces_egress(&sandbox->record, update);
        if (update->request)
                call->request = *update->request;
        if (changes_something(&sandbox->record, update))
                event = SANDBOX_EVENT_UPDATED;
        if (result.outcome == 0 &&
            (sandbox_record_copy(&sandbox->record, &call->before) || apply(sandbox, update)))
                result = result_of(-ENOMEM, "There is no memory for the change.");
        if (result.outcome) {
                call_fail(call, &result);
                return;
        }
        call->update = sandbox->updates.last;
        store_update_sandbox_for(session->store, update->request, &sandbox->record, event,
                                 on_updated, call);
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
