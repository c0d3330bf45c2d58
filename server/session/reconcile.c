/*
 * What the database says lives is compared with what the runtime has. First the runtime is asked
 * for everything, then the database; the comparison happens in the answer of the database.
 *
 * A sandbox that both know goes on, without its interpreters: their pipes ended with the server
 * that held them. Everything that is gone is recorded as lost, with the reason. Whatever the
 * runtime has that nobody knows is destroyed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/session_private.h"

enum { RETRY_USEC = 1000 * 1000 };

/* A sandbox that the runtime has. */
struct found {
        struct map_node by_id;
        char sandbox_id[ID_BUFFER];
        bool is_running;
        bool is_known;
        char (*process_ids)[ID_BUFFER];
        size_t n_processes;
};

struct reconciliation {
        struct session *session; /* NULL: cancelled, the last answer frees it */
        struct session *owner;   /* whose pending answers are counted */
        struct map found;
        unsigned n_pending;
        bool is_compared;
        sd_event_source *retry;
        size_t n_kept, n_lost, n_destroyed;
};

static void free_found(struct reconciliation *reconciliation)
{
        struct map_node *node;

        while ((node = map_first(&reconciliation->found))) {
                struct found *found = CONTAINER_OF(node, struct found, by_id);

                map_remove(&reconciliation->found, node);
                free(found->process_ids);
                free(found);
        }
}

static void free_reconciliation(struct reconciliation *reconciliation)
{
        free_found(reconciliation);
        (void)sd_event_source_disable_unref(reconciliation->retry);
        free(reconciliation);
}

static void hold(struct reconciliation *reconciliation)
{
        reconciliation->n_pending++;
        reconciliation->owner->n_pending++;
}

static void finish(struct reconciliation *reconciliation)
{
        struct session *session = reconciliation->session;

        log_info("the database and the runtime agree kept=%zu lost=%zu destroyed=%zu",
                 reconciliation->n_kept, reconciliation->n_lost, reconciliation->n_destroyed);
        session->was_reconciled = true;
        session->reconciliation = NULL;
        free_reconciliation(reconciliation);
        session_on_reconciled(session);
}

/* An answer came. False: it was cancelled meanwhile, and is gone if this was the last answer. */
static bool release(struct reconciliation *reconciliation)
{
        struct session *owner = reconciliation->owner;
        bool is_alive = reconciliation->session;

        owner->n_pending--;
        reconciliation->n_pending--;
        if (!is_alive && reconciliation->n_pending == 0)
                free_reconciliation(reconciliation);
        if (!is_alive)
                session_check_stopped(owner);
        return is_alive;
}

static void check(struct reconciliation *reconciliation)
{
        if (reconciliation->is_compared && reconciliation->n_pending == 0)
                finish(reconciliation);
}

static void on_destroyed(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                         struct runtime_fds *fds)
{
        (void)fds;
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE)
                log_warning("a sandbox that nobody knows could not be destroyed message=\"%s\"",
                            answer->failure->message);
        if (release(userdata))
                check(userdata);
}

static void on_recorded(void *userdata, int result)
{
        if (result)
                log_error("a loss could not be recorded result=%d", result);
        if (release(userdata))
                check(userdata);
}

static void destroy_found(struct reconciliation *reconciliation, const struct found *found)
{
        log_warning("the runtime has a sandbox that is not known, it is destroyed sandbox=%s",
                    found->sandbox_id);
        reconciliation->n_destroyed++;
        if (session_destroy_sandbox(reconciliation->session, found->sandbox_id, on_destroyed,
                                    reconciliation) == 0)
                hold(reconciliation);
}

static void destroy_unknown(struct reconciliation *reconciliation)
{
        struct map_node *node;

        for (node = map_first(&reconciliation->found); node; node = map_next(node)) {
                const struct found *found = CONTAINER_OF(node, struct found, by_id);

                if (!found->is_known)
                        destroy_found(reconciliation, found);
        }
}

/* Why a sandbox of the database is not there any more. */
static enum cause explain_loss(const struct reconciliation *reconciliation,
                               const struct sandbox_record *record, const struct found *found,
                               const char **ret_message)
{
        const char *boot_id = runtime_client_welcome(reconciliation->session->runtime)->boot_id;

        if (strcmp(record->boot_id, boot_id) != 0) {
                *ret_message = "The machine was restarted.";
                return CAUSE_HOST_LOST;
        }
        if (!found || !found->is_running) {
                *ret_message = "The runtime does not have it any more.";
                return CAUSE_RUNTIME_LOST;
        }
        *ret_message = record->state == SANDBOX_RUNNING
                               ? "The server was restarted while its execution ran."
                               : "The server was restarted while it was made or ended.";
        return CAUSE_HOST_LOST;
}

static void record_loss(struct reconciliation *reconciliation, const struct sandbox_record *record,
                        const struct found *found)
{
        struct sandbox_record ended = *record; /* shares what it owns: not freed */
        const char *message;

        ended.state = SANDBOX_ENDED;
        ended.end_cause = explain_loss(reconciliation, record, found, &message);
        ended.end_time_usec = time_now_usec();
        ended.environment = (struct pairs){ 0 };
        (void)snprintf(ended.end_message, sizeof(ended.end_message), "%s", message);
        log_warning("a sandbox is lost sandbox=%s cause=%d reason=\"%s\"", record->sandbox_id,
                    (int)ended.end_cause, message);
        reconciliation->n_lost++;
        hold(reconciliation);
        store_update_sandbox(reconciliation->session->store, &ended, SANDBOX_EVENT_ENDED,
                             on_recorded, reconciliation);
}

/* Process ids are never used twice: go on after the highest that the runtime knows. */
static int64_t last_generation(const struct found *found, const struct context_record *record)
{
        size_t n = strlen(record->context_id);
        int64_t last = record->generation;

        for (size_t i = 0; i < found->n_processes; i++) {
                const char *id = found->process_ids[i];

                if (strncmp(id, record->context_id, n) == 0 && strncmp(id + n, "-g", 2) == 0)
                        last = MAX(last, (int64_t)strtoll(id + n + 2, NULL, 10));
        }
        return last;
}

static int adopt_contexts(struct sandbox *sandbox, const struct living *living,
                          const struct found *found)
{
        for (size_t i = 0; i < living->n_contexts; i++) {
                const struct context_record *record = &living->contexts[i];
                int r;

                if (strcmp(record->sandbox_id, sandbox->record.sandbox_id) != 0)
                        continue;
                r = context_adopt(sandbox, record, last_generation(found, record));
                if (r)
                        return error_fold(r);
        }
        return 0;
}

static int adopt(struct reconciliation *reconciliation, const struct sandbox_record *record,
                 const struct living *living, struct found *found)
{
        struct session *session = reconciliation->session;
        struct sandbox *sandbox;
        int r;

        r = sandbox_adopt(session, record, &sandbox);
        if (r == 0)
                r = adopt_contexts(sandbox, living, found);
        if (r)
                return error_fold(r);
        log_info("a sandbox goes on without its interpreters sandbox=%s processes=%zu",
                 record->sandbox_id, found->n_processes);
        found->is_known = true;
        reconciliation->n_kept++;
        for (size_t i = 0; i < found->n_processes; i++)
                session_signal_process(session, record->sandbox_id, found->process_ids[i], SIGKILL);
        sandbox_arm_timers(sandbox);
        return 0;
}

static void compare_sandbox(struct reconciliation *reconciliation,
                            const struct sandbox_record *record, const struct living *living)
{
        const char *boot_id = runtime_client_welcome(reconciliation->session->runtime)->boot_id;
        struct map_node *node =
                map_find(&reconciliation->found, record->sandbox_id, strlen(record->sandbox_id));
        struct found *found = MAP_ITEM(node, struct found, by_id);

        if (found && found->is_running && record->state == SANDBOX_RUNNING &&
            !record->is_one_shot && strcmp(record->boot_id, boot_id) == 0 &&
            adopt(reconciliation, record, living, found) == 0)
                return;
        record_loss(reconciliation, record, found);
}

static void compare_execution(struct reconciliation *reconciliation,
                              const struct execution_record *record)
{
        struct execution_record ended = *record;
        bool is_kept = session_find_sandbox(reconciliation->session, NULL, record->sandbox_id);

        ended.state = EXECUTION_ENDED;
        ended.outcome = OUTCOME_LOST;
        ended.cause = CAUSE_HOST_LOST;
        ended.state_lost = true;
        ended.end_time_usec = time_now_usec();
        (void)snprintf(
                ended.message, sizeof(ended.message), "%s",
                is_kept ? "The server was restarted; whether the code ran to its end is "
                          "unknown."
                        : "Its sandbox was lost; whether the code ran to its end is unknown.");
        log_warning("an execution is lost execution=%s sandbox=%s", record->execution_id,
                    record->sandbox_id);
        hold(reconciliation);
        store_update_execution(reconciliation->session->store, &ended, on_recorded, reconciliation);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata);

static void on_living(void *userdata, int result, const struct living *living)
{
        struct reconciliation *reconciliation = userdata;

        if (!release(reconciliation))
                return;
        if (result) {
                log_error("what lives cannot be read, trying again result=%d", result);
                (void)session_arm(reconciliation->session, &reconciliation->retry, RETRY_USEC,
                                  on_retry, reconciliation);
                return;
        }
        hold(reconciliation); /* while it is compared */
        for (size_t i = 0; i < living->n_sandboxes; i++)
                compare_sandbox(reconciliation, &living->sandboxes[i], living);
        for (size_t i = 0; i < living->n_executions; i++)
                compare_execution(reconciliation, &living->executions[i]);
        destroy_unknown(reconciliation);
        reconciliation->is_compared = true;
        if (release(reconciliation))
                check(reconciliation);
}

static void compare(struct reconciliation *reconciliation)
{
        struct session *session = reconciliation->session;

        if (session->was_reconciled) {
                /* What lived ended with the last connection: nothing of the runtime's is ours. */
                reconciliation->is_compared = true;
                hold(reconciliation);
                destroy_unknown(reconciliation);
                if (release(reconciliation))
                        check(reconciliation);
                return;
        }
        hold(reconciliation);
        store_load_living(session->store, on_living, reconciliation);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        compare(userdata);
        return 0;
}

static int add_found(struct reconciliation *reconciliation,
                     const Hotcell__Runtime__V1__SandboxState *state)
{
        struct found *found = calloc(1, sizeof(*found));

        if (!found)
                return error_origin(-ENOMEM);
        found->process_ids = calloc(state->n_process_ids + 1, sizeof(*found->process_ids));
        if (!found->process_ids) {
                free(found);
                return error_origin(-ENOMEM);
        }
        (void)snprintf(found->sandbox_id, sizeof(found->sandbox_id), "%s", state->sandbox_id);
        found->is_running = state->running;
        for (size_t i = 0; i < state->n_process_ids; i++)
                (void)snprintf(found->process_ids[i], ID_BUFFER, "%s", state->process_ids[i]);
        found->n_processes = state->n_process_ids;
        map_add(&reconciliation->found, &found->by_id, found->sandbox_id,
                strlen(found->sandbox_id));
        return 0;
}

static void list_after(struct reconciliation *reconciliation, const char *sandbox_id);

static void on_listed(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                      struct runtime_fds *fds)
{
        struct reconciliation *reconciliation = userdata;
        const Hotcell__Runtime__V1__SandboxList *list;

        (void)fds;
        if (!release(reconciliation))
                return;
        if (!answer || answer->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_SANDBOX_LIST) {
                if (answer)
                        log_error("the runtime does not list its sandboxes");
                return; /* a loss of the connection begins anew */
        }
        list = answer->sandbox_list;
        for (size_t i = 0; i < list->n_sandboxes; i++)
                if (add_found(reconciliation, list->sandboxes[i]))
                        return;
        if (list->more && list->n_sandboxes > 0)
                list_after(reconciliation, list->sandboxes[list->n_sandboxes - 1]->sandbox_id);
        else
                compare(reconciliation);
}

static void list_after(struct reconciliation *reconciliation, const char *sandbox_id)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ListSandboxes list;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__list_sandboxes__init(&list);
        list.after_sandbox_id = unconst(sandbox_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_LIST_SANDBOXES;
        request.list_sandboxes = &list;
        if (session_request(reconciliation->session, &request, on_listed, reconciliation) == 0)
                hold(reconciliation);
}

void session_reconcile(struct session *session)
{
        struct reconciliation *reconciliation = calloc(1, sizeof(*reconciliation));

        if (!reconciliation) {
                log_error("there is no memory to reconcile");
                return;
        }
        reconciliation->session = session;
        reconciliation->owner = session;
        session->reconciliation = reconciliation;
        list_after(reconciliation, "");
}

void session_reconcile_cancel(struct session *session)
{
        struct reconciliation *reconciliation = session->reconciliation;

        if (!reconciliation)
                return;
        session->reconciliation = NULL;
        reconciliation->session = NULL;
        if (reconciliation->n_pending == 0)
                free_reconciliation(reconciliation);
}
