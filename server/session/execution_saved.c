/* What of an execution outlives the server, on its way out and in again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/session/context.h"
#include "server/session/execution.h"
#include "server/session/journal.h"
#include "server/session/pressure.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

void execution_save(const struct execution *execution, struct execution_saved *ret_saved)
{
        *ret_saved = (struct execution_saved){
                .record = execution->record,
                .phase = execution->phase,
                .goes_on_without_client = execution->goes_on_without_client,
                .truncate_output = execution->truncate_output,
                .disconnect_grace_usec = execution->disconnect_grace_usec,
                .has_usage = execution->has_usage,
                .usage_before = execution->usage_before,
                .n_asked_before = execution->n_asked_before,
                .start_monotonic_usec = execution->start_monotonic_usec,
                .number = execution->number,
                .stop = execution->stop,
                .end = execution->end,
                .ladder_step = execution->ladder_step,
                .has_started = execution->has_started,
                .is_interrupt_due = execution->is_interrupt_due,
                .is_discarding = execution->is_discarding,
                .is_cut = execution->is_cut,
                .bundle_sequence = execution->bundle_sequence,
                .egress = execution->egress,
        };
}

static struct execution *allocate(struct context *context, const struct execution_record *record)
{
        struct session *session = context->session;
        struct execution *execution = calloc(1, sizeof(*execution));

        if (!execution)
                return NULL;
        execution->session = session;
        execution->context = context;
        execution->record = *record;
        execution->ends_sandbox = context->sandbox->record.is_one_shot;
        LIST_INIT(&execution->readers);
        return execution;
}

static void add(struct execution *execution, enum execution_phase phase)
{
        execution->phase = phase;
        execution->context->sandbox->n_active++;
        map_add(&execution->session->executions, &execution->by_id, execution->record.execution_id,
                strlen(execution->record.execution_id));
}

/* The ring is written before the journal is: it knows best how much came. */
static void count_output(struct execution *execution)
{
        struct ring_totals totals = ring_totals_now(execution->ring);
        struct usage *usage = &execution->record.usage;

        usage->stdout_bytes = MAX(usage->stdout_bytes, totals.stdout_bytes);
        usage->stderr_bytes = MAX(usage->stderr_bytes, totals.stderr_bytes);
        execution->record.last_sequence = ring_next_sequence(execution->ring) - 1;
}

int execution_restore(struct context *context, const struct execution_saved *saved,
                      struct journal *journal, int ring, struct execution **ret_execution)
{
        struct execution *execution = allocate(context, &saved->record);

        if (!execution)
                return error_origin(-ENOMEM);
        execution->goes_on_without_client = saved->goes_on_without_client;
        execution->truncate_output = saved->truncate_output;
        execution->disconnect_grace_usec = saved->disconnect_grace_usec;
        execution->has_usage = saved->has_usage;
        execution->usage_before = saved->usage_before;
        execution->n_asked_before = saved->n_asked_before;
        execution->start_monotonic_usec = saved->start_monotonic_usec;
        execution->number = saved->number;
        execution->stop = saved->stop;
        execution->end = saved->end;
        execution->ladder_step = saved->ladder_step;
        execution->has_started = saved->has_started;
        execution->is_interrupt_due = saved->is_interrupt_due;
        execution->is_discarding = saved->is_discarding;
        execution->is_cut = saved->is_cut;
        execution->bundle_sequence = saved->bundle_sequence;
        execution->egress = saved->egress;
        (void)snprintf(execution->process_id, sizeof(execution->process_id), "%s",
                       journal->state.process_id);
        execution->ring = journal->rings[ring];
        execution->journal = journal_ref(journal);
        execution->journal_ring = ring;
        journal->holders[ring] = execution;
        count_output(execution);
        execution_restore_egress(execution);
        execution_restore_pressures(execution);
        add(execution, saved->phase);
        if (saved->phase == PHASE_RUNNING)
                context->current = execution;
        else {
                context->n_closing++;
                egress_runs_note(&context->sandbox->egress_runs, journal->state.cgroup_id,
                                 &execution->record);
        }
        context_account(context);
        *ret_execution = execution;
        return 0;
}

/* Its ring and its request, again. */
static int fill_queued(struct execution *execution, const void *kept, size_t n_kept)
{
        _cleanup_(kept_message_freep) Hotcell__Server__V1__KeptRequest *message = NULL;
        int r = kept_request_copy(kept, n_kept, &execution->kept);

        if (r == 0)
                r = execution_make_ring(execution);
        if (r)
                return r;
        message = kept_request_open(&execution->kept);
        if (!message)
                return error_origin(-EBADMSG);
        execution->goes_on_without_client = message->goes_on_without_client;
        execution->truncate_output = message->truncate_output;
        execution->disconnect_grace_usec = message->disconnect_grace_usec;
        execution->queue_timeout_usec = message->queue_timeout_usec;
        execution->is_row_running = execution->record.state == EXECUTION_RUNNING;
        return 0;
}

int execution_requeue(struct context *context, const struct execution_record *record,
                      const void *kept, size_t n_kept, struct execution **ret_execution)
{
        struct execution *execution = allocate(context, record);
        int r;

        if (!execution)
                return error_origin(-ENOMEM);
        r = fill_queued(execution, kept, n_kept);
        if (r) {
                (void)execution_free(execution);
                return error_fold(r);
        }
        execution_count_request(execution, execution->kept.n);
        add(execution, PHASE_QUEUED);
        context_requeue(context, execution);
        execution_append_queued(execution);
        *ret_execution = execution;
        return 0;
}

void execution_go_on(struct execution *execution)
{
        switch (execution->phase) {
        case PHASE_QUEUED:
                execution_await_readers(execution);
                execution_arm_queue(execution);
                break;
        case PHASE_RUNNING:
                execution_await_readers(execution);
                execution_arm_egress(execution);
                if (execution->stop.outcome == OUTCOME_NONE)
                        (void)execution_arm_wall(execution);
                else
                        execution_climb_again(execution);
                break;
        case PHASE_CLOSING:
                execution_record_end(execution);
                break;
        case PHASE_ACCEPTING:
        case PHASE_ENDED:
        case _EXECUTION_PHASE_N:
                break;
        }
}
