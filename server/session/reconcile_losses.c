/*
 * What is gone is recorded with its cause, as far as the host saw it: the end that was asked for,
 * the end that the runtime told, another boot of the machine, another runtime.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "server/session/reconcile_private.h"
#include "server/session/sandbox.h"

enum { RETRY_USEC = 1000 * 1000 };

static void write_loss(struct loss *loss);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        write_loss(userdata);
        return 0;
}

static void free_loss(struct loss *loss)
{
        LIST_REMOVE(loss, link);
        (void)sd_event_source_disable_unref(loss->retry);
        free(loss);
}

/* Until it is written the session does not serve: a full disk may pass. */
static void on_recorded(void *userdata, int result)
{
        struct loss *loss = userdata;
        struct reconciliation *reconciliation = loss->reconciliation;
        struct session *session = reconciliation->session;

        if (result && result != STORE_E_NOT_FOUND && session && !session->is_stopping &&
            session_arm(session, &loss->retry, RETRY_USEC, on_retry, loss) == 0) {
                log_error("a loss could not be recorded, trying again result=%d", result);
                return;
        }
        free_loss(loss);
        if (reconciliation_release(reconciliation))
                reconciliation_check(reconciliation);
}

static void write_loss(struct loss *loss)
{
        struct store *store = loss->reconciliation->owner->store;

        if (loss->is_sandbox)
                store_update_sandbox(store, &loss->sandbox, SANDBOX_EVENT_ENDED, on_recorded, loss);
        else
                store_end_execution(store, &loss->execution, NULL, on_recorded, loss);
}

static struct loss *add_loss(struct reconciliation *reconciliation)
{
        struct loss *loss = calloc(1, sizeof(*loss));

        if (!loss) {
                /* The next start finds it again. */
                log_error("there is no memory to record a loss");
                return NULL;
        }
        loss->reconciliation = reconciliation;
        LIST_INSERT_HEAD(&reconciliation->losses, loss, link);
        reconciliation_hold(reconciliation);
        return loss;
}

void forget_losses(struct reconciliation *reconciliation)
{
        struct loss *loss, *next;

        for (loss = LIST_FIRST(&reconciliation->losses); loss; loss = next) {
                next = LIST_NEXT(loss, link);
                if (!loss->retry)
                        continue; /* its answer comes and finds that nobody waits */
                free_loss(loss);
                reconciliation->owner->n_pending--;
                reconciliation->n_pending--;
        }
}

/* A sandbox that ended by itself while nobody was there. */
const struct heard_sandbox *find_heard(const struct reconciliation *reconciliation,
                                       const char *sandbox_id)
{
        for (size_t i = 0; i < reconciliation->n_heard_sandboxes; i++)
                if (strcmp(reconciliation->heard_sandboxes[i].sandbox_id, sandbox_id) == 0)
                        return &reconciliation->heard_sandboxes[i];
        return NULL;
}

/* Why a sandbox of the database is not there any more. */
static enum sandbox_end explain_loss(const struct reconciliation *reconciliation,
                                     const struct sandbox_record *record)
{
        const char *boot_id = runtime_client_welcome(reconciliation->session->runtime)->boot_id;
        const struct heard_sandbox *heard = find_heard(reconciliation, record->sandbox_id);

        if (strcmp(record->boot_id, boot_id) != 0)
                return SANDBOX_END_REBOOT;
        if (record->state == SANDBOX_ENDING)
                return SANDBOX_END_ASKED;
        if (heard)
                return heard->oom ? SANDBOX_END_OOM : SANDBOX_END_INIT;
        if (record->state == SANDBOX_CREATING)
                return SANDBOX_END_CREATING;
        return SANDBOX_END_RUNTIME;
}

static enum cause cause_of_loss(const struct reconciliation *reconciliation,
                                const struct sandbox_record *record)
{
        enum cause cause = outcome_of_sandbox(explain_loss(reconciliation, record))->cause;

        return cause == CAUSE_NONE ? record->end_cause : cause;
}

/* As the runtime told, or as far as it was recorded. */
static void fill_usage(struct sandbox_record *record, const struct heard_sandbox *heard)
{
        if (heard && heard->has_usage)
                record->usage = heard->usage;
        else
                record->usage.total.missing |= BIT(USAGE_PART_REST);
}

void record_loss(struct reconciliation *reconciliation, const struct sandbox_record *record)
{
        struct loss *loss = add_loss(reconciliation);
        const struct sandbox_end_row *row =
                outcome_of_sandbox(explain_loss(reconciliation, record));
        const char *message = row->cause == CAUSE_NONE ? record->end_message : row->sentence;
        enum cause cause = cause_of_loss(reconciliation, record);

        log_warning("a sandbox is lost sandbox=%s cause=%d reason=\"%s\"", record->sandbox_id,
                    (int)cause, message);
        reconciliation->n_lost++;
        if (!loss)
                return;
        loss->is_sandbox = true;
        loss->sandbox = *record; /* shares what it owns: not freed */
        loss->sandbox.state = SANDBOX_ENDED;
        loss->sandbox.end_cause = cause;
        loss->sandbox.end_time_usec = time_now_usec();
        loss->sandbox.environment = (struct pairs){ 0 };
        fill_usage(&loss->sandbox, find_heard(reconciliation, record->sandbox_id));
        if (message != record->end_message)
                (void)snprintf(loss->sandbox.end_message, sizeof(loss->sandbox.end_message), "%s",
                               message);
}

void write_lost_sandboxes(struct reconciliation *reconciliation)
{
        struct loss *loss;

        LIST_FOREACH(loss, &reconciliation->losses, link)
        {
                if (loss->is_sandbox)
                        write_loss(loss);
        }
}

void record_execution_loss(struct reconciliation *reconciliation,
                           const struct execution_record *record,
                           const struct run_evidence *evidence)
{
        struct loss *loss = add_loss(reconciliation);
        struct run_verdict verdict;

        outcome_judge(evidence, &verdict);
        log_warning("an execution is lost execution=%s sandbox=%s outcome=%d cause=%d",
                    record->execution_id, record->sandbox_id, (int)verdict.outcome,
                    (int)verdict.cause);
        reconciliation->n_executions_lost++;
        if (!loss)
                return;
        loss->execution = *record;
        loss->execution.state = EXECUTION_ENDED;
        if (record->state == EXECUTION_RUNNING)
                loss->execution.usage.missing |= BIT(USAGE_PART_REST);
        loss->execution.end_time_usec = time_now_usec();
        outcome_settle(evidence, &loss->execution);
        write_loss(loss);
}

/* It went with its sandbox. What the host saw of that one's end is also its own. */
void record_gone_execution(struct reconciliation *reconciliation,
                           const struct execution_record *record)
{
        const struct living *living = &reconciliation->living;
        struct run_evidence evidence = { .end = RUN_END_SANDBOX, .sandbox_cause = CAUSE_HOST_LOST };

        for (size_t i = 0; i < living->n_sandboxes; i++)
                if (strcmp(living->sandboxes[i].sandbox_id, record->sandbox_id) == 0)
                        evidence.sandbox_cause =
                                cause_of_loss(reconciliation, &living->sandboxes[i]);
        record_execution_loss(reconciliation, record, &evidence);
}

/* What neither ran nor waits again: its context is gone, or what was kept of it cannot be read. */
static void record_unsettled_one(struct reconciliation *reconciliation,
                                 const struct execution_record *record)
{
        struct sandbox *sandbox =
                session_find_sandbox(reconciliation->takeover.session, NULL, record->sandbox_id);
        struct run_evidence evidence = { .end = RUN_END_CONTEXT };

        if (sandbox && sandbox_find_context(sandbox, record->context_id))
                evidence.end = RUN_END_HOST_LOST;
        else if (record->state != EXECUTION_RUNNING)
                evidence = (struct run_evidence){
                        .end = RUN_END_NOT_RUN,
                        .asked_cause = CAUSE_CLIENT,
                        .words = "Its context was deleted.",
                };
        record_execution_loss(reconciliation, record, &evidence);
}

void record_unsettled(struct reconciliation *reconciliation)
{
        const struct takeover *takeover = &reconciliation->takeover;

        for (size_t i = 0; i < takeover->n_executions; i++)
                if (!takeover->executions[i].is_settled)
                        record_unsettled_one(reconciliation, &takeover->executions[i].record);
}
