/*
 * What is gone is recorded with its cause, as far as the host saw it: the end that was asked for,
 * the end that the runtime told, another boot of the machine, another runtime.
 */
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "server/session/reconcile_private.h"
#include "server/session/sandbox.h"

static void on_recorded(void *userdata, int result)
{
        if (result)
                log_error("a loss could not be recorded result=%d", result);
        if (reconciliation_release(userdata))
                reconciliation_check(userdata);
}

/* A sandbox that ended by itself while nobody was there. */
static const struct heard_sandbox *find_heard(const struct reconciliation *reconciliation,
                                              const char *sandbox_id)
{
        for (size_t i = 0; i < reconciliation->n_heard_sandboxes; i++)
                if (strcmp(reconciliation->heard_sandboxes[i].sandbox_id, sandbox_id) == 0)
                        return &reconciliation->heard_sandboxes[i];
        return NULL;
}

/* Why a sandbox of the database is not there any more. */
static enum cause explain_loss(const struct reconciliation *reconciliation,
                               const struct sandbox_record *record, const char **ret_message)
{
        const char *boot_id = runtime_client_welcome(reconciliation->session->runtime)->boot_id;
        const struct heard_sandbox *heard = find_heard(reconciliation, record->sandbox_id);

        if (strcmp(record->boot_id, boot_id) != 0) {
                *ret_message = "The machine was restarted.";
                return CAUSE_HOST_LOST;
        }
        if (record->state == SANDBOX_ENDING) {
                *ret_message = record->end_message;
                return record->end_cause;
        }
        if (heard) {
                *ret_message = heard->oom ? "It ran out of memory." : "Its first process ended.";
                return heard->oom ? CAUSE_LIMIT : CAUSE_PROGRAM;
        }
        if (record->state == SANDBOX_CREATING) {
                *ret_message = "The server was restarted while it was made.";
                return CAUSE_HOST_LOST;
        }
        *ret_message = "The runtime does not have it any more.";
        return CAUSE_RUNTIME_LOST;
}

void record_loss(struct reconciliation *reconciliation, const struct sandbox_record *record)
{
        struct sandbox_record ended = *record; /* shares what it owns: not freed */
        const char *message;

        ended.state = SANDBOX_ENDED;
        ended.end_cause = explain_loss(reconciliation, record, &message);
        ended.end_time_usec = time_now_usec();
        ended.environment = (struct pairs){ 0 };
        if (message != record->end_message)
                (void)snprintf(ended.end_message, sizeof(ended.end_message), "%s", message);
        log_warning("a sandbox is lost sandbox=%s cause=%d reason=\"%s\"", record->sandbox_id,
                    (int)ended.end_cause, message);
        reconciliation->n_lost++;
        reconciliation_hold(reconciliation);
        store_update_sandbox(reconciliation->session->store, &ended, SANDBOX_EVENT_ENDED,
                             on_recorded, reconciliation);
}

void record_execution_loss(struct reconciliation *reconciliation,
                           const struct execution_record *record, enum outcome outcome,
                           enum cause cause, const char *message)
{
        struct execution_record ended = *record;

        ended.state = EXECUTION_ENDED;
        ended.outcome = outcome;
        ended.cause = cause;
        ended.state_lost = true;
        ended.end_time_usec = time_now_usec();
        (void)snprintf(ended.message, sizeof(ended.message), "%s", message);
        log_warning("an execution is lost execution=%s sandbox=%s outcome=%d cause=%d",
                    record->execution_id, record->sandbox_id, (int)outcome, (int)cause);
        reconciliation->n_executions_lost++;
        reconciliation_hold(reconciliation);
        store_end_execution(reconciliation->session->store, &ended, NULL, on_recorded,
                            reconciliation);
}

/* It went with its sandbox. What the host saw of that one's end is also its own. */
void record_gone_execution(struct reconciliation *reconciliation,
                           const struct execution_record *record, const struct living *living)
{
        enum cause cause = CAUSE_HOST_LOST;
        const char *message;

        for (size_t i = 0; i < living->n_sandboxes; i++)
                if (strcmp(living->sandboxes[i].sandbox_id, record->sandbox_id) == 0)
                        cause = explain_loss(reconciliation, &living->sandboxes[i], &message);
        if (cause == CAUSE_HOST_LOST || cause == CAUSE_RUNTIME_LOST)
                record_execution_loss(reconciliation, record, OUTCOME_LOST, cause,
                                      "Its sandbox was lost; whether the code ran to its end is "
                                      "unknown.");
        else
                record_execution_loss(reconciliation, record, OUTCOME_SANDBOX_ENDED, cause,
                                      "The sandbox ended while the code ran.");
}

/* What neither ran nor waits again: its context is gone, or what was kept of it cannot be read. */
void record_unsettled(struct reconciliation *reconciliation)
{
        const struct takeover *takeover = &reconciliation->takeover;

        for (size_t i = 0; i < takeover->n_executions; i++) {
                const struct execution_record *record = &takeover->executions[i].record;
                struct sandbox *sandbox =
                        session_find_sandbox(takeover->session, NULL, record->sandbox_id);

                if (takeover->executions[i].is_settled)
                        continue;
                if (sandbox && sandbox_find_context(sandbox, record->context_id))
                        record_execution_loss(reconciliation, record, OUTCOME_LOST, CAUSE_HOST_LOST,
                                              "The server was restarted; whether the code ran to "
                                              "its end is unknown.");
                else
                        record_execution_loss(reconciliation, record,
                                              record->state == EXECUTION_RUNNING
                                                      ? OUTCOME_KILLED
                                                      : OUTCOME_NOT_STARTED,
                                              CAUSE_CLIENT, "Its context was deleted.");
        }
}
