/* How an execution moves, from the request to the code that runs. */
#include "server/session/execution.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/billing.h"
#include "server/session/context.h"
#include "server/session/journal.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

static const struct {
        const char *name;
        unsigned next;
} phases[] = {
        [PHASE_ACCEPTING] = { "accepting", BIT(PHASE_QUEUED) | BIT(PHASE_ENDED) },
        [PHASE_QUEUED] = { "queued", BIT(PHASE_RUNNING) | BIT(PHASE_CLOSING) },
        [PHASE_RUNNING] = { "running", BIT(PHASE_CLOSING) },
        [PHASE_CLOSING] = { "closing", BIT(PHASE_ENDED) },
        [PHASE_ENDED] = { "ended", 0 },
};
static_assert(ARRAY_SIZE(phases) == _EXECUTION_PHASE_N, "every phase has a row");

void execution_enter(struct execution *execution, enum execution_phase next)
{
        assert(phases[execution->phase].next & BIT(next));

        log_debug("an execution moves execution=%s from=%s to=%s", execution->record.execution_id,
                  phases[execution->phase].name, phases[next].name);
        execution->phase = next;
}

bool execution_is_over(const struct execution *execution)
{
        return execution->phase >= PHASE_CLOSING;
}

size_t execute_request_size(const struct execute_request *request)
{
        const struct pairs *environment = request->environment;
        size_t n = request->n_code;

        for (size_t i = 0; environment && i < environment->n; i++)
                n += strlen(environment->items[i].name) + strlen(environment->items[i].value);
        return n;
}

void execution_count_request(struct execution *execution, size_t n)
{
        struct sandbox *sandbox = execution->context->sandbox;

        execution->n_request = n;
        sandbox->waiting_bytes += execution->n_request;
        share_owner_take(sandbox->holder, SESSION_SHARE_QUEUED_BYTES,
                         (int64_t)execution->n_request);
}

static int copy_request(struct execution *execution, const struct execute_request *request)
{
        const struct execution_limits *limits =
                &execution->context->sandbox->record.limits.execution;
        int r = kept_request_make(request, &execution->kept);

        if (r == 0)
                r = request_record_copy(request->request, &execution->request);
        if (r)
                return r;
        if (!context_runs_at_once(execution->context))
                execution_count_request(execution, execute_request_size(request));
        execution->goes_on_without_client = request->goes_on_without_client;
        execution->truncate_output = request->truncate_output;
        execution->disconnect_grace_usec = request->disconnect_grace_usec;
        execution->queue_timeout_usec = request->queue_timeout_usec;
        execution->record.limits.timeout_usec =
                request->has_timeout ? request->limits.timeout_usec : limits->timeout_usec;
        execution->record.limits.output_bytes =
                request->has_output_bytes ? request->limits.output_bytes : limits->output_bytes;
        return 0;
}

int execution_make_ring(struct execution *execution)
{
        struct session *session = execution->session;

        execution->ring = take(session->spare_ring);
        if (execution->ring)
                return 0;
        return ring_new(session->config.ring_bytes, &execution->ring);
}

int execution_new(struct context *context, const struct execute_request *request,
                  struct execution **ret_execution)
{
        struct execution *execution = calloc(1, sizeof(*execution));
        struct execution_record *record;
        int r;

        if (!execution)
                return error_origin(-ENOMEM);
        execution->session = context->session;
        execution->context = context;
        LIST_INIT(&execution->readers);
        record = &execution->record;
        r = id_generate("exe", record->execution_id);
        if (r == 0)
                r = copy_request(execution, request);
        if (r == 0)
                r = execution_make_ring(execution);
        if (r) {
                execution_free(execution);
                return error_fold(r);
        }
        (void)snprintf(record->sandbox_id, sizeof(record->sandbox_id), "%s",
                       context->record.sandbox_id);
        (void)snprintf(record->context_id, sizeof(record->context_id), "%s",
                       context->record.context_id);
        (void)snprintf(record->owner, sizeof(record->owner), "%s", context->record.owner);
        record->state = EXECUTION_QUEUED;
        record->create_time_usec = time_now_usec();
        *ret_execution = execution;
        return 0;
}

void execution_drop_request(struct execution *execution)
{
        if (execution->n_request > 0) {
                assert(execution->context);
                execution->context->sandbox->waiting_bytes -= execution->n_request;
                share_owner_take(execution->context->sandbox->holder, SESSION_SHARE_QUEUED_BYTES,
                                 -(int64_t)execution->n_request);
                execution->n_request = 0;
        }
        kept_request_drop(&execution->kept);
}

void execution_drop_timers(struct execution *execution)
{
        execution->queue_timer = sd_event_source_disable_unref(execution->queue_timer);
        execution->wall_timer = sd_event_source_disable_unref(execution->wall_timer);
        execution->ladder_timer = sd_event_source_disable_unref(execution->ladder_timer);
        execution->grace_timer = sd_event_source_disable_unref(execution->grace_timer);
        execution->egress_timer = sd_event_source_disable_unref(execution->egress_timer);
}

struct execution *execution_free(struct execution *execution)
{
        if (!execution)
                return NULL;
        assert(execution->n_pending == 0);

        while (!LIST_EMPTY(&execution->readers))
                execution_reader_orphan(LIST_FIRST(&execution->readers));
        if (execution->is_wake_pending)
                LIST_REMOVE(execution, wake_link);
        billing_drop(execution);
        execution_drop_timers(execution);
        execution_drop_request(execution);
        assert(!execution->journal);
        (void)ring_free(execution->ring);
        free(execution->request);
        free(execution);
        return NULL;
}

/* Its row was refused: nobody but the caller has heard of it. */
static void abandon(struct execution *execution)
{
        struct context *context = execution->context;
        struct sandbox *sandbox = context->sandbox;

        billing_drop(execution);
        execution_enter(execution, PHASE_ENDED);
        execution_drop_request(execution);
        execution->is_abandoned = true;
        execution->context = NULL;
        context_on_execution_left(context, execution);
        sandbox->n_active--;
        context_on_execution_recorded(context);
        if (execution->ends_sandbox)
                sandbox_end(sandbox, CAUSE_LIMIT, "Its execution could not be taken.");
        if (execution->n_pending == 0)
                (void)execution_free(execution);
        sandbox_check(sandbox);
}

static void answer_accepted(struct execution *execution, const struct session_result *result)
{
        session_on_execution on_accepted = execution->on_accepted;

        execution->on_accepted = NULL;
        if (on_accepted)
                on_accepted(execution->on_accepted_userdata, result,
                            result->outcome ? NULL : &execution->record);
}

void execution_refuse(struct execution *execution, const struct session_result *result)
{
        answer_accepted(execution, result);
        abandon(execution);
}

static int on_queue_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        execution_cancel(userdata, CAUSE_LIMIT,
                         "The execution waited for its context longer than its queue_timeout.");
        return 0;
}

/* Counted from its acceptance, whoever took it. */
void execution_arm_queue(struct execution *execution)
{
        int64_t left = execution->record.create_time_usec + execution->queue_timeout_usec -
                       time_now_usec();

        if (execution->context->current != execution && execution->queue_timeout_usec > 0)
                (void)session_arm(execution->session, &execution->queue_timer,
                                  (uint64_t)MAX(left, (int64_t)1), on_queue_timeout, execution);
}

void execution_append_queued(struct execution *execution)
{
        struct queued_payload payload = { .position = execution->position };
        struct ring_piece piece = { &payload, sizeof(payload) };

        execution_append(execution, EXECUTION_EVENT_QUEUED, 0, &piece, 1);
}

static void on_inserted(void *userdata, int result)
{
        struct execution *execution = userdata;
        struct session_result answer = result_of_store(result, "the execution");
        struct session *session = execution->session;
        struct context *context = execution->context;

        execution->n_pending--;
        if (result) {
                execution_refuse(execution, &answer);
                return;
        }
        execution_enter(execution, PHASE_QUEUED);
        map_add(&session->executions, &execution->by_id, execution->record.execution_id,
                strlen(execution->record.execution_id));
        execution_append_queued(execution);
        answer_accepted(execution, &answer);
        execution_on_readers_changed(execution);
        execution_arm_queue(execution);
        if (execution->stop.outcome != OUTCOME_NONE)
                execution_cancel(execution, execution->stop.cause, NULL);
        else if (execution->phase == PHASE_QUEUED)
                context_pump(context);
}

static void insert_row(struct execution *execution)
{
        _cleanup_(freep) struct request_record *request = take(execution->request);
        const struct store_blob kept = { execution->kept.bytes, execution->kept.n };

        if (request) {
                (void)snprintf(request->object_id, sizeof(request->object_id), "%s",
                               execution->record.execution_id);
                request->created = true;
        }
        execution->n_pending++;
        store_insert_execution_for(execution->session->store, request, &execution->record, &kept,
                                   on_inserted, execution);
}

void execution_accept(struct execution *execution)
{
        struct context *context = execution->context;

        /* It will run at once: then one row says all that a second one would. */
        if (context->kernel.state == KERNEL_READY && !context->current &&
            TAILQ_FIRST(&context->queue) == execution) {
                execution->record.state = EXECUTION_RUNNING;
                execution->record.start_time_usec = execution->record.create_time_usec;
                execution->record.context_generation = context->record.generation;
                execution->is_row_running = true;
        }
        insert_row(execution);
}

static void on_metered(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                       struct runtime_fds *fds)
{
        struct execution *execution = userdata;

        (void)fds;
        execution->n_pending--;
        execution->n_meter_pending--;
        if (!execution->context) {
                if (execution->is_abandoned && execution->n_pending == 0)
                        (void)execution_free(execution);
                return;
        }
        if (execution->n_meter_pending > 0 || execution_is_over(execution))
                return; /* of an interpreter that is gone */

        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE) {
                usage_from_meters(answer->usage, &execution->usage_before);
                billing_add(execution);
                execution->n_asked_before = answer->usage->n_asked;
        }
        if (execution->usage_before.oom_kills > 0) {
                /* The runtime is about to kill it for what ran before: this one takes the next. */
                kernel_kill(execution->context);
                return;
        }
        execution->is_metered = true;
        context_pump(execution->context);
}

void execution_prepare(struct execution *execution, const char *process_id)
{
        execution->queue_timer = sd_event_source_disable_unref(execution->queue_timer);
        (void)snprintf(execution->process_id, sizeof(execution->process_id), "%s", process_id);
        execution_unprepare(execution);
        execution->usage_before = (struct usage){ 0 };
        execution->n_asked_before = 0;
        if (session_begin_usage(execution->session, execution->record.sandbox_id, process_id,
                                on_metered, execution)) {
                execution->is_metered = true; /* the loss of the runtime will be heard of */
                return;
        }
        execution->n_pending++;
        execution->n_meter_pending++;
}

bool execution_is_prepared(const struct execution *execution)
{
        return execution->phase == PHASE_QUEUED && execution->is_metered &&
               execution->n_meter_pending == 0;
}

void execution_unprepare(struct execution *execution)
{
        billing_drop(execution);
        execution->is_metered = false;
}

static int on_wall_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct execution *execution = userdata;

        (void)source;
        (void)usec;
        execution_stop(execution, OUTCOME_TIMEOUT,
                       execution_is_blocked(execution) ? CAUSE_CLIENT_NOT_READING : CAUSE_LIMIT,
                       false);
        return 0;
}

static void on_row_running(void *userdata, int result)
{
        struct execution *execution = userdata;

        execution->n_pending--;
        if (result)
                log_warning("an execution's start was not recorded execution=%s",
                            execution->record.execution_id);
}

static void record_start(struct execution *execution)
{
        struct execution_record *record = &execution->record;

        record->state = EXECUTION_RUNNING;
        record->start_time_usec = time_now_usec();
        record->context_generation = execution->context->record.generation;
        execution->start_monotonic_usec = clock_monotonic_usec();
        if (execution->is_row_running)
                return;
        execution->n_pending++;
        store_update_execution(execution->session->store, record, on_row_running, execution);
}

static int queue_code(struct execution *execution, struct channel *channel)
{
        _cleanup_(kept_message_freep) Hotcell__Server__V1__KeptRequest *message =
                kept_request_open(&execution->kept);

        if (!message)
                return error_origin(-ENOMEM);
        return channel_queue_execute(channel, message->execute, &execution->number);
}

/*
 * From here on all output is this execution's: the pipes were drained before the code was sent. The
 * kernel's own count is the number of its frames, so nobody needs to wait for its word.
 */
static void append_started(struct execution *execution)
{
        struct started_payload payload = {
                .generation = execution->record.context_generation,
                .count = execution->number,
        };
        struct ring_piece piece = { &payload, sizeof(payload) };

        execution_append(execution, EXECUTION_EVENT_STARTED, 0, &piece, 1);
}

/* What is left of its time; it counts from its start, whoever saw that. */
int execution_arm_wall(struct execution *execution)
{
        int64_t timeout = execution->record.limits.timeout_usec;
        int64_t run = (int64_t)(clock_monotonic_usec() - execution->start_monotonic_usec);

        if (timeout <= 0)
                return 0;
        return session_arm(execution->session, &execution->wall_timer,
                           (uint64_t)MAX(timeout - run, (int64_t)1), on_wall_timeout, execution);
}

/* Its own ring goes back: from now on its output is where a successor finds it. */
static void move_to_journal(struct execution *execution, struct journal *journal)
{
        struct session *session = execution->session;
        int ring = journal_find_ring(journal);

        assert(ring >= 0);
        ring_copy(execution->ring, journal->rings[ring]);
        if (session->spare_ring)
                (void)ring_free(execution->ring);
        else
                session->spare_ring = execution->ring;
        if (session->spare_ring == execution->ring)
                ring_clear(session->spare_ring);
        execution->ring = journal->rings[ring];
        execution->journal = journal_ref(journal);
        execution->journal_ring = ring;
        journal->holders[ring] = execution;
}

int execution_run(struct execution *execution, struct channel *channel, struct journal *journal)
{
        int r;

        assert(!channel_is_handling(
                channel)); /* nothing is saved then, and the code is sent below */
        r = queue_code(execution, channel);
        if (r)
                return error_fold(r);
        execution_drop_request(execution);
        move_to_journal(execution, journal);
        record_start(execution);
        append_started(execution);
        execution_enter(execution, PHASE_RUNNING);
        /* A successor must know of it before the kernel does. */
        kernel_save(execution->context);
        channel_flush(channel);
        (void)execution_arm_wall(execution);
        return 0;
}

static void on_started(struct execution *execution)
{
        execution->has_started = true;
        if (execution->is_interrupt_due)
                kernel_interrupt(execution->context);
        execution->is_interrupt_due = false;
}

void execution_on_frame(struct execution *execution, const struct kernel_frame *frame,
                        bool is_too_large)
{
        if (frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_STARTED)
                on_started(execution);
        else if (frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DONE)
                execution_on_done(execution, frame->done);
        else
                execution_on_output_frame(execution, frame, is_too_large);
}
