/*
 * The end reads the meters, has the runtime destroy everything, lets the executions come to theirs,
 * and writes the row last: a sandbox that is recorded as ended has nothing left.
 */
#include "runtime/base/clock.h"
#include "server/session/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/billing.h"
#include "server/session/meters.h"
#include "server/session/queue_safe.h"
#include "server/session/session_private.h"

/* Until what failed is tried again, doubled each time. */
enum { RETRY_FIRST_USEC = 50 * 1000, RETRY_LAST_USEC = 1000 * 1000 };

static void on_end_recorded(void *userdata, int result, const struct usage *total);

static void try_later(struct sandbox *sandbox, sd_event_time_handler_t handler)
{
        uint64_t usec = (uint64_t)RETRY_FIRST_USEC << MIN(sandbox->n_end_tries, 10U);

        sandbox->n_end_tries++;
        (void)session_arm(sandbox->session, &sandbox->idle_timer,
                          MIN(usec, (uint64_t)RETRY_LAST_USEC), handler, sandbox);
}

static void record_end(struct sandbox *sandbox)
{
        struct sandbox_record record = sandbox->record;

        sandbox->is_end_recording = true;
        if (sandbox->record.end_time_usec == 0)
                sandbox->record.end_time_usec = time_now_usec();
        record = sandbox->record;
        record.state = SANDBOX_ENDED;
        record.environment = (struct pairs){ 0 };
        sandbox->n_pending++;
        store_end_sandbox(sandbox->session->store, &record, on_end_recorded, sandbox);
}

static int on_retry_end(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        record_end(userdata);
        return 0;
}

static void finish_end(struct sandbox *sandbox)
{
        struct session *session = sandbox->session;
        char owner[OWNER_BUFFER];
        struct session_result result = { 0 };

        (void)snprintf(owner, sizeof(owner), "%s", sandbox->record.owner);
        log_info_of(
                &sandbox->holder->log, "a sandbox ended sandbox=%s owner=%s cause=%d cpu_usec=%lld",
                sandbox->record.sandbox_id, sandbox->record.owner, (int)sandbox->record.end_cause,
                (long long)sandbox->record.usage.total.cpu_usec);
        sandbox_enter(sandbox, SANDBOX_ENDED);
        pairs_deinit(&sandbox->record.environment);
        session_on_sandbox_event(session, sandbox->record.owner);
        sandbox_answer(sandbox, &sandbox->end_waiters, &result);
        egress_intake_remember(session, sandbox);
        (void)sandbox_free(sandbox);
        room_wake(session, owner);
        session_check_stopped(session);
}

/* Tried until it works: until then the sandbox counts as ending, though nothing of it is left. */
static void on_end_recorded(void *userdata, int result, const struct usage *total)
{
        struct sandbox *sandbox = userdata;

        sandbox->n_pending--;
        if (total)
                sandbox->record.usage.total = *total;
        if (result && result != STORE_E_NOT_FOUND && !sandbox->session->is_stopping) {
                log_warning("a sandbox's end was not recorded, trying again sandbox=%s",
                            sandbox->record.sandbox_id);
                try_later(sandbox, on_retry_end);
                return;
        }
        finish_end(sandbox);
}

static bool is_all_over(const struct sandbox *sandbox)
{
        const struct context *context;

        if (!sandbox->is_destroyed || sandbox->n_active > 0 || sandbox->n_pending > 0)
                return false;
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (!context_is_quiet(context))
                        return false;
        }
        return true;
}

void sandbox_check(struct sandbox *sandbox)
{
        if (sandbox->record.state == SANDBOX_RUNNING &&
            sandbox_is_idle(sandbox) != sandbox->is_idle)
                sandbox_arm_idle(sandbox);
        if (sandbox->record.state != SANDBOX_ENDING || sandbox->is_end_recording ||
            !is_all_over(sandbox))
                return;
        if (sandbox->is_in_store)
                record_end(sandbox);
        else {
                sandbox->is_end_recording = true;
                sandbox->n_pending++;
                on_end_recorded(sandbox, 0, NULL);
        }
}

static void everything_is_gone(struct sandbox *sandbox, enum process_end_kind kind)
{
        struct context *context, *next;

        if (kind == PROCESS_END_RUNTIME_LOST)
                sandbox->has_usage = false;
        sandbox->record.usage = sandbox->last_read;
        if (!sandbox->has_usage) {
                sandbox->record.usage.total.wall_usec = 0; /* it went on after that reading */
                sandbox->record.usage.total.missing |= BIT(USAGE_PART_REST);
        }
        sandbox->is_destroyed = true;
        sandbox->n_pending++; /* stays until all were told */
        TAILQ_FOREACH_SAFE(context, &sandbox->contexts, link, next)
        {
                kernel_on_gone(context, kind);
        }
        sandbox->n_pending--;
        sandbox_check(sandbox);
}

static void on_egress_heard(void *userdata, const struct egress_answer *answer)
{
        struct sandbox *sandbox = userdata;

        (void)answer;
        sandbox->n_pending--;
        sandbox_check(sandbox);
}

/* What was refused in it last, and how often in all, is recorded with its end. */
static void hear_egress(struct sandbox *sandbox)
{
        struct egress_request *request;

        if (egress_client_sync(sandbox->session->egress_client, sandbox->record.sandbox_id,
                               on_egress_heard, sandbox, &request) == 0)
                sandbox->n_pending++;
}

static void on_destroyed(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                         struct runtime_fds *fds)
{
        struct sandbox *sandbox = userdata;

        (void)fds;
        sandbox->n_pending--;
        if (!answer)
                sandbox->has_usage = false; /* it may have used more since that reading */
        else if (answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_DONE &&
                 answer->done->usage)
                sandbox_take_meters(sandbox, answer->done->usage);
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE &&
            answer->failure->reason !=
                    HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_NOT_FOUND)
                log_error("the runtime could not destroy a sandbox sandbox=%s message=\"%s\"",
                          sandbox->record.sandbox_id, answer->failure->message);
        hear_egress(sandbox);
        everything_is_gone(sandbox, PROCESS_END_SANDBOX);
}

static int on_retry_destroy(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        sandbox_destroy(userdata);
        return 0;
}

void sandbox_destroy(struct sandbox *sandbox)
{
        int r = session_destroy_sandbox(sandbox->session, sandbox->record.sandbox_id, on_destroyed,
                                        sandbox);

        if (r == SESSION_E_RUNTIME_UNAVAILABLE)
                everything_is_gone(sandbox, PROCESS_END_RUNTIME_LOST);
        else if (r)
                /* It still runs. Nothing is short for ever. */
                try_later(sandbox, on_retry_destroy);
        else
                sandbox->n_pending++;
}

static void record_ending(struct sandbox *sandbox);

/* First what it used until now, then the record of that. */
static void reading_over(struct sandbox *sandbox)
{
        sandbox->n_pending--;
        if (--sandbox->n_readings > 0)
                return;
        if (sandbox->is_ending_recorded)
                sandbox_destroy(sandbox);
        else
                record_ending(sandbox);
}

void sandbox_take_meters(struct sandbox *sandbox, const Hotcell__Runtime__V1__Usage *meters)
{
        sandbox_usage_from_meters(meters, &sandbox->last_read);
        sandbox->record.usage = sandbox->last_read;
        sandbox->has_usage = true;
}

static void on_sandbox_read(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                            struct runtime_fds *fds)
{
        struct sandbox *sandbox = userdata;

        (void)fds;
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE)
                sandbox_take_meters(sandbox, answer->usage);
        reading_over(sandbox);
}

/* The last look at the leaf of what runs: it goes with the sandbox. */
static void on_leaf_read(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                         struct runtime_fds *fds)
{
        struct context *context = userdata;
        struct execution *execution = context->current;

        (void)fds;
        context->n_pending--;
        if (execution && execution->phase == PHASE_RUNNING && answer &&
            answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE) {
                execution_take_meters(execution, answer->usage);
        }
        reading_over(context->sandbox);
}

static void on_ending_recorded(void *userdata, int result)
{
        struct sandbox *sandbox = userdata;

        if (result)
                log_warning("the beginning of a sandbox's end was not recorded sandbox=%s",
                            sandbox->record.sandbox_id);
        reading_over(sandbox);
}

/*
 * Before anything of it is destroyed: a successor that no longer finds it in the runtime is to know
 * why, and what it used.
 */
static void record_ending(struct sandbox *sandbox)
{
        sandbox->is_ending_recorded = true;
        sandbox->n_readings++;
        sandbox->n_pending++;
        store_update_sandbox(sandbox->session->store, &sandbox->record, 0, on_ending_recorded,
                             sandbox);
}

static void read_last(struct sandbox *sandbox)
{
        struct session *session = sandbox->session;
        const char *id = sandbox->record.sandbox_id;
        struct context *context;

        sandbox->n_readings = 1; /* held while the readings are sent */
        sandbox->n_pending++;
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (!context->current || context->current->phase != PHASE_RUNNING ||
                    session_read_usage(session, id, context->kernel.process_id, on_leaf_read,
                                       context))
                        continue;
                context->n_pending++;
                sandbox->n_pending++;
                sandbox->n_readings++;
        }
        if (session_read_usage(session, id, "", on_sandbox_read, sandbox) == 0) {
                sandbox->n_pending++;
                sandbox->n_readings++;
        }
        reading_over(sandbox);
}

static void begin_end(struct sandbox *sandbox, enum cause cause, const char *message)
{
        struct sandbox_record *record = &sandbox->record;
        struct context *context, *next;

        sandbox_enter(sandbox, SANDBOX_ENDING);
        record->end_cause = cause;
        if (message != record->end_message)
                (void)snprintf(record->end_message, sizeof(record->end_message), "%s", message);
        sandbox_arm_idle(sandbox); /* disarms: it is not idle but ending */
        sandbox->expire_timer = sd_event_source_disable_unref(sandbox->expire_timer);
        billing_stop(sandbox);
        sandbox->n_pending++; /* stays until all were told */
        enforcement_cancel(sandbox);
        TAILQ_FOREACH_SAFE(context, &sandbox->contexts, link, next)
        {
                context_sandbox_ends(context, cause);
        }
        sandbox->n_pending--;
}

void sandbox_end(struct sandbox *sandbox, enum cause cause, const char *message)
{
        struct sandbox_record *record = &sandbox->record;

        if (record->state == SANDBOX_CREATING && !sandbox->is_end_wanted) {
                sandbox->is_end_wanted = true;
                record->end_cause = cause;
                (void)snprintf(record->end_message, sizeof(record->end_message), "%s", message);
        }
        if (record->state != SANDBOX_RUNNING)
                return;
        begin_end(sandbox, cause, message);
        read_last(sandbox);
}

void sandbox_end_with_runtime(struct sandbox *sandbox)
{
        begin_end(sandbox, CAUSE_RUNTIME_LOST, "The runtime went away.");
        everything_is_gone(sandbox, PROCESS_END_RUNTIME_LOST);
}
