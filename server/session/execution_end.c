/*
 * How an execution comes to its end. What ended it is decided in outcome.c by what the host saw:
 * the meter, the timers, the parent that reaped. Only OK, RAISED and the exit code of `sys.exit`
 * are the kernel's word, which the code may forge: it can only falsify its own result.
 */
#include "runtime/base/clock.h"
#include "server/session/execution.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/billing.h"
#include "server/session/context.h"
#include "server/session/journal.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

static void finish(struct execution *execution);

static int on_retry_row(sd_event_source *source, uint64_t usec, void *userdata);

static void on_recorded(void *userdata, int result)
{
        struct execution *execution = userdata;

        execution->n_pending--;
        if (result && !execution->session->is_stopping && execution->n_row_tries < ROW_TRIES) {
                (void)session_arm(execution->session, &execution->ladder_timer, ROW_RETRY_USEC,
                                  on_retry_row, execution);
                return;
        }
        if (result)
                log_error("an execution's end was not recorded execution=%s outcome=%d",
                          execution->record.execution_id, (int)execution->record.outcome);
        finish(execution);
}

/* What is known by other means than meters stays. */
static void set_metered(struct execution *execution, const struct usage *metered)
{
        const struct usage known = execution->record.usage;
        struct usage *usage = &execution->record.usage;

        *usage = *metered;
        usage->wall_usec = known.wall_usec;
        usage->stdout_bytes = known.stdout_bytes;
        usage->stderr_bytes = known.stderr_bytes;
        usage->rich_bytes = known.rich_bytes;
}

static void take_last_known(struct execution *execution)
{
        set_metered(execution, &execution->usage_so_far);
        execution->record.usage.missing |= BIT(USAGE_PART_REST);
}

/* Its output goes with it, so that it can be replayed also by a successor. */
static void record_end(struct execution *execution)
{
        _cleanup_(freep) uint8_t *output = NULL;
        struct store_blob blob = { 0 };
        size_t n;

        execution_finish_egress(execution);
        n = ring_dump_size(execution->ring);
        output = n <= OUTPUT_KEPT_MAX ? malloc(n) : NULL;
        if (output) {
                ring_dump(execution->ring, output);
                blob = (struct store_blob){ .data = output, .n = n };
        }
        execution->record.last_sequence = ring_next_sequence(execution->ring);
        execution->record.state = EXECUTION_ENDED;
        if (execution->record.start_time_usec > 0 && !execution->has_usage)
                take_last_known(execution);
        execution->n_row_tries++;
        execution->n_pending++;
        store_end_execution(execution->session->store, &execution->record, &blob, on_recorded,
                            execution);
}

/* `ended` is only shown once its row is there; a full disk may pass. */
static int on_retry_row(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        record_end(userdata);
        return 0;
}

static void log_end(const struct execution *execution)
{
        const struct execution_record *record = &execution->record;

        log_debug("an execution ended execution=%s sandbox=%s outcome=%d cause=%d cpu_usec=%lld "
                  "wall_usec=%lld",
                  record->execution_id, record->sandbox_id, (int)record->outcome,
                  (int)record->cause, (long long)record->usage.cpu_usec,
                  (long long)record->usage.wall_usec);
}

/* What it says goes to the heap; the ring is for the next one. */
static void leave_ring(struct execution *execution)
{
        struct session *session = execution->session;
        struct journal *journal = execution->journal;
        struct ring *spare = NULL;

        ring_freeze(execution->ring, &spare);
        if (journal) {
                journal_release_ring(journal, execution->journal_ring, spare);
                execution->journal = journal_unref(journal);
        } else if (session->spare_ring)
                (void)ring_free(spare);
        else
                session->spare_ring = spare;
}

/* The row is there: now everybody may know. */
static void finish(struct execution *execution)
{
        struct context *context = execution->context;
        struct sandbox *sandbox = context->sandbox;
        bool ends_sandbox = execution->ends_sandbox;

        billing_drop(execution);
        execution_drop_timers(execution);
        execution_append(execution, EXECUTION_EVENT_ENDED, 0, NULL, 0);
        execution_enter(execution, PHASE_ENDED);
        log_end(execution);
        leave_ring(execution);
        execution->context = NULL;
        session_retain(execution->session, execution); /* there may be no room for it */

        sandbox->n_active--;
        if (ends_sandbox)
                sandbox_end(sandbox, CAUSE_PROGRAM, "Its execution is over.");
        context_on_execution_recorded(context);
        /* The context may be gone now, the sandbox not: it waits for this check. */
        sandbox_check(sandbox);
}

/* What did not come by now comes too late for its stream. */
static void egress_heard(struct execution *execution)
{
        egress_runs_note_heard(&execution->context->sandbox->egress_runs,
                               execution->record.execution_id, time_now_usec());
        record_end(execution);
}

static void on_egress_heard(void *userdata, const struct egress_answer *answer)
{
        struct execution *execution = userdata;

        (void)answer;
        execution->n_pending--;
        egress_heard(execution);
}

/* What it was denied is told by another process than its end, which waits for that, but not long.
 */
static void hear_egress(struct execution *execution)
{
        struct egress_request *request;

        if (egress_client_sync(execution->session->egress_client, execution->record.sandbox_id,
                               on_egress_heard, execution, &request) == 0)
                execution->n_pending++;
        else
                egress_heard(execution);
}

/* Without the first reading it cannot be told from what others used in the leaf before: that is the
 * sandbox's. */
static void take_usage(struct execution *execution, const struct usage *now)
{
        struct usage usage;

        if (!execution->is_unbilled)
                return;
        execution->has_usage = true;
        usage_since(now, &execution->usage_before, &usage);
        set_metered(execution, &usage);
}

void execution_take_meters(struct execution *execution, const Hotcell__Runtime__V1__Usage *meters)
{
        struct usage now;

        usage_from_meters(meters, &now);
        take_usage(execution, &now);
}

static bool has_asked_nothing(const struct execution *execution,
                              const Hotcell__Runtime__V1__Usage *usage)
{
        return usage->n_asked > 0 && usage->n_asked == execution->n_asked_before;
}

/* What the host knows of its end, but for what the end itself says. */
static struct run_evidence gather(const struct execution *execution)
{
        const struct execution_record *record = &execution->record;
        const struct sandbox_record *sandbox = &execution->context->sandbox->record;

        return (struct run_evidence){
                .end = execution->end,
                .exit_code = record->exit_code,
                .asked = execution->stop.outcome,
                .asked_cause = execution->stop.cause,
                .is_killed = execution->stop.is_killed,
                .sandbox_cause = sandbox->end_cause,
                .memory_limit_bytes = sandbox->limits.memory_bytes,
                .memory_peak_bytes = record->usage.memory_peak_bytes,
        };
}

/*
 * The kernel said that it lives, but another process of its leaf was killed for want of memory: the
 * runtime is about to kill all of it. Whichever of the two is quicker, the outcome is the same.
 */
static void judge_again(struct execution *execution)
{
        struct run_evidence evidence = gather(execution);

        if (execution->end == RUN_END_NOT_RUN || execution->record.state_lost ||
            execution->record.usage.oom_kills == 0)
                return;
        evidence.is_oom = true;
        outcome_settle(&evidence, &execution->record);
}

static void on_last_reading(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                            struct runtime_fds *fds)
{
        struct execution *execution = userdata;
        bool is_read =
                answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE;

        (void)fds;
        execution->n_pending--;
        if (is_read) {
                /* A successor would read what the next one used, too. */
                execution_take_meters(execution, answer->usage);
                judge_again(execution);
                journal_save_execution(execution->journal, execution->journal_ring);
        }
        if (is_read && has_asked_nothing(execution, answer->usage))
                egress_heard(execution);
        else
                hear_egress(execution);
}

/* The last reading, which also says whether there is anything to hear from hotcell-egress; then the
 * row. */
void execution_record_end(struct execution *execution)
{
        if (!execution->journal)
                record_end(execution);
        else if (!execution->has_usage &&
                 session_read_usage(execution->session, execution->record.sandbox_id,
                                    execution->process_id, on_last_reading, execution) == 0)
                execution->n_pending++;
        else
                hear_egress(execution);
}

/* Over, with outcome and cause set. */
static void execution_close(struct execution *execution)
{
        struct execution_record *record = &execution->record;
        bool has_run = execution->phase == PHASE_RUNNING;

        execution_enter(execution, PHASE_CLOSING);
        execution_drop_timers(execution);
        execution_drop_request(execution);
        record->end_time_usec = time_now_usec();
        if (has_run)
                record->usage.wall_usec =
                        (int64_t)(clock_monotonic_usec() - execution->start_monotonic_usec);
        else
                record->start_time_usec = 0;
        /* Nobody else saves it for a kernel that is over; a successor would take it as running. */
        if (execution->journal && !execution->journal->context)
                journal_save_execution(execution->journal, execution->journal_ring);

        if (has_run)
                egress_runs_note(&execution->context->sandbox->egress_runs,
                                 execution->context->kernel.cgroup_id, record);

        /* Before the context goes on: the next code's first reading must come after this. */
        execution_record_end(execution);
        context_on_execution_left(execution->context, execution);
}

void execution_cancel(struct execution *execution, enum cause cause, const char *message)
{
        struct run_evidence evidence = gather(execution);

        assert(execution->phase == PHASE_QUEUED);

        if (!message && execution->record.message[0])
                message = execution->record.message; /* of execution_doom */
        evidence.asked_cause = cause;
        evidence.words = message;
        outcome_settle(&evidence, &execution->record);
        execution_close(execution);
}

void execution_doom(struct execution *execution, enum cause cause, const char *message)
{
        assert(execution->phase == PHASE_ACCEPTING);

        if (execution->stop.outcome != OUTCOME_NONE)
                return;
        execution->stop.outcome = OUTCOME_NOT_STARTED;
        execution->stop.cause = cause;
        (void)snprintf(execution->record.message, sizeof(execution->record.message), "%s", message);
}

static int on_ladder(sd_event_source *source, uint64_t usec, void *userdata);

/* SIGINT, and again, then SIGKILL: programs that listen keep the interpreter's state. */
static void climb(struct execution *execution)
{
        const struct session_config *config = &execution->session->config;
        int64_t wait = execution->ladder_step == 0 ? config->interrupt_first_usec
                                                   : config->interrupt_second_usec;

        if (execution->ladder_step == 2 || execution->stop.is_killed) {
                execution->stop.is_killed = true;
                kernel_kill(execution->context);
                return;
        }
        execution->ladder_step++;
        execution->is_interrupt_due = !execution->has_started;
        if (execution->has_started)
                kernel_interrupt(execution->context);
        (void)session_arm(execution->session, &execution->ladder_timer, (uint64_t)MAX(wait, 1),
                          on_ladder, execution);
}

static int on_ladder(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct execution *execution = userdata;

        (void)source;
        (void)usec;
        climb(execution);
        kernel_save(execution->context);
        return 0;
}

/* A predecessor sent the last signal; whether it arrived nobody knows, so this step is taken again.
 */
void execution_climb_again(struct execution *execution)
{
        if (execution->ladder_step > 0)
                execution->ladder_step--;
        climb(execution);
}

/* Its end is decided: what is left in the pipes is all that is still to come. */
static bool is_kernel_draining(const struct execution *execution)
{
        return execution->phase == PHASE_RUNNING &&
               execution->context->kernel.state == KERNEL_DRAINING;
}

void execution_stop(struct execution *execution, enum outcome outcome, enum cause cause,
                    bool is_kill)
{
        struct execution_stop stop = { .outcome = outcome, .cause = cause, .is_killed = is_kill };
        bool is_first = execution->stop.outcome == OUTCOME_NONE;

        if (execution_is_over(execution))
                return;
        if (execution->phase == PHASE_QUEUED) {
                execution_cancel(execution, cause, NULL);
                return;
        }
        if (is_kernel_draining(execution)) {
                execution_start_discarding(execution); /* what it left must not wait for a client */
                return;
        }
        if (is_first)
                execution->stop = stop;
        if (execution->phase != PHASE_RUNNING)
                return;

        execution_start_discarding(execution);
        if (is_kill)
                execution->stop.is_killed = true;
        if (is_first || is_kill)
                climb(execution);
        kernel_save(execution->context);
}

void execution_sandbox_ends(struct execution *execution, enum cause cause)
{
        if (execution_is_over(execution))
                return;
        if (execution->stop.outcome == OUTCOME_NONE && !is_kernel_draining(execution)) {
                execution->stop.outcome = OUTCOME_SANDBOX_ENDED;
                execution->stop.cause = cause;
        }
        if (execution->phase == PHASE_QUEUED)
                execution_cancel(execution, execution->stop.cause, NULL);
        else if (execution->phase == PHASE_RUNNING)
                execution_start_discarding(execution);
}

/* DONE: the kernel lives on. */
void execution_on_done(struct execution *execution, const Hotcell__Sandbox__V1__Done *done)
{
        struct run_evidence evidence;

        if (done->_exit_code_case == HOTCELL__SANDBOX__V1__DONE___EXIT_CODE_EXIT_CODE)
                execution->end = RUN_END_SYS_EXIT;
        else if (!done->ok || channel_has_raised(execution->context->kernel.channel))
                execution->end = RUN_END_RAISED;
        else
                execution->end = RUN_END_OK;
        evidence = gather(execution);
        evidence.exit_code = done->exit_code;
        outcome_settle(&evidence, &execution->record);
        execution_close(execution);
}

void execution_kernel_over(struct execution *execution, const struct kernel_end *end)
{
        struct run_evidence evidence;

        assert(execution->phase == PHASE_RUNNING);

        if (end->process.has_usage)
                take_usage(execution, &end->process.usage);
        evidence = gather(execution);
        evidence.protocol_error = end->protocol_error;
        outcome_take_process(&end->process, &evidence);
        execution->end = evidence.end;
        outcome_settle(&evidence, &execution->record);
        execution_close(execution);
}
