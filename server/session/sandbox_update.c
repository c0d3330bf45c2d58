/*
 * Updates of a sandbox. Limits are put in force, then recorded; an egress policy is recorded, then
 * put in force; whatever fails takes the whole update back.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/admission.h"
#include "server/session/calls.h"
#include "server/session/limiting.h"

enum { TAKE_BACK_USEC = 1000 * 1000 }; /* until what failed is tried again */

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

static bool changes_limits(const struct sandbox_record *record, const struct sandbox_update *update)
{
        struct sandbox_limits limits = limits_merge(&record->limits, update);

        return !limits_are_same(&record->limits, &limits);
}

/* Whether there is anything to tell those who watch. */
static bool changes_something(const struct sandbox_record *record,
                              const struct sandbox_update *update)
{
        return (update->set_labels && !are_same(&record->labels, update->labels)) ||
               (update->set_expire_time && record->expire_time_usec != update->expire_time_usec) ||
               (update->set_idle_timeout &&
                record->idle_timeout_usec != update->idle_timeout_usec) ||
               changes_limits(record, update) || replaces_egress(record, update);
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
        if (update->set_limits) {
                record->limits = limits_merge(&record->limits, update);
                sandbox->updates.limits = sandbox->updates.last;
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
        if (sandbox->updates.limits == call->update)
                record->limits = before->limits;
        if (call->has_new_egress)
                set_egress(sandbox, before->egress, before->egress_version);
}

/* @sandbox may be NULL. What was put in force and does not count is put back in the background. */
static void limits_over(struct call *call, struct sandbox *sandbox)
{
        if (!sandbox || !call->sets_limits)
                return;
        call->sets_limits = false;
        limiting_end(sandbox);
}

/* @sandbox may be NULL. */
static void answer_update(struct call *call, struct sandbox *sandbox,
                          const struct session_result *result)
{
        if (sandbox && call->sets_egress) {
                sandbox->is_egress_pending = false;
                sandbox_set_rules_on_way(sandbox, 0);
        }
        limits_over(call, sandbox);
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

/* All that depends on its state, but for limits. */
static struct session_result admit_changes(struct sandbox *sandbox,
                                           const struct sandbox_update *update)
{
        struct session_result result = admit_work(sandbox);

        if (result.outcome == 0)
                result = admit_etag(sandbox, update->etag);
        return result.outcome ? result : admit_new_egress(sandbox, update);
}

/* What need not be put in force before it is recorded. */
static void record_changes(struct sandbox *sandbox, struct call *call,
                           const struct sandbox_update *update)
{
        enum sandbox_event event =
                changes_something(&sandbox->record, update) ? SANDBOX_EVENT_UPDATED : 0;
        struct session_result result;

        call->sets_egress = update->set_egress;
        call->has_new_egress = replaces_egress(&sandbox->record, update);
        if (sandbox_record_copy(&sandbox->record, &call->before) || apply(sandbox, update)) {
                result = result_of(-ENOMEM, "There is no memory for the change.");
                limits_over(call, sandbox);
                call_fail(call, &result);
                return;
        }
        call->update = sandbox->updates.last;
        store_update_sandbox_for(call->session->store, update->request, &sandbox->record, event,
                                 on_updated, call);
}

/* The rest was admitted before, and may have changed since. */
static void on_limits_in_force(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                               struct runtime_fds *fds)
{
        struct call *call = userdata;
        struct sandbox *sandbox = sandbox_of(call);
        struct session_result result;

        (void)fds;
        if (!sandbox) {
                call_fail_without_sandbox(call);
                return;
        }
        result = limiting_on_answer(sandbox, &call->limits, answer);
        if (result.outcome == 0)
                result = admit_changes(sandbox, &call->wanted);
        if (result.outcome == 0) {
                record_changes(sandbox, call, &call->wanted);
                return;
        }
        limits_over(call, sandbox);
        call_fail(call, &result);
}

/* The caller's structs are good only until it returns. */
static int keep_update(struct call *call, const struct sandbox_update *update)
{
        call->wanted = *update;
        if (update->set_labels && pairs_copy(update->labels, &call->wanted_labels))
                return -ENOMEM;
        (void)snprintf(call->etag, sizeof(call->etag), "%s", update->etag ? update->etag : "");
        call->wanted.etag = call->etag;
        call->wanted.labels = &call->wanted_labels;
        call->wanted.egress = egress_hold(update->egress);
        call->wanted.request = update->request ? &call->request : NULL;
        return 0;
}

/* First in force, then recorded: most refusals are the runtime's, and nobody is to see what was
 * refused. */
static void put_limits_in_force(struct sandbox *sandbox, struct call *call,
                                const struct sandbox_update *update)
{
        struct session_result result = { 0 };

        call->limits = limits_merge(&sandbox->record.limits, update);
        if (keep_update(call, update))
                result = result_of(-ENOMEM, "There is no memory for the change.");
        if (result.outcome == 0)
                result = limiting_begin(sandbox, &call->limits, on_limits_in_force, call);
        if (result.outcome) {
                call_fail(call, &result);
                return;
        }
        call->sets_limits = true;
}

void session_update_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                            const struct sandbox_update *update, session_on_sandbox on_done,
                            void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, owner, sandbox_id);
        struct call *call = sandbox_call(session, owner, sandbox_id, on_done, userdata);
        struct session_result result;

        if (!call)
                return;
        if (!sandbox) {
                call_fail_without_sandbox(call);
                return;
        }
        result = admit_changes(sandbox, update);
        if (result.outcome == 0)
                result = admit_limits(sandbox, update);
        if (result.outcome == 0)
                result = admit_update(sandbox);
        if (result.outcome) {
                call_fail(call, &result);
                return;
        }
        if (update->request)
                call->request = *update->request;
        if (changes_limits(&sandbox->record, update))
                put_limits_in_force(sandbox, call, update);
        else
                record_changes(sandbox, call, update);
}
