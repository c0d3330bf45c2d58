/*
 * The journal says what ran and what was sent to the kernel; the database says what was accepted.
 * An execution that no journal mentions was never sent: it waits again. One that a journal mentions
 * and the database does not was recorded as ended: its ring is free.
 */
#include "server/session/takeover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/context.h"
#include "server/session/journal.h"
#include "server/session/queue_safe.h"

enum { N_PIPES = 1 + KERNEL_PIPES }; /* a pidfd first */

void takeover_init(struct takeover *takeover, struct session *session)
{
        *takeover = (struct takeover){ .session = session };
        STAILQ_INIT(&takeover->processes);
}

static void close_fds(struct runtime_fds *fds)
{
        for (size_t i = 0; i < fds->n; i++)
                fds->fds[i] = close_fd(fds->fds[i]);
}

void takeover_deinit(struct takeover *takeover)
{
        while (!STAILQ_EMPTY(&takeover->processes)) {
                struct taken_process *process = STAILQ_FIRST(&takeover->processes);

                STAILQ_REMOVE_HEAD(&takeover->processes, link);
                close_fds(&process->fds);
                free(process);
        }
        for (size_t i = 0; i < takeover->n_executions; i++)
                kept_request_drop(&takeover->executions[i].request);
        free(takeover->executions);
        takeover->executions = NULL;
        takeover->n_executions = 0;
}

bool takeover_parse_process(const char *process_id, char ret_context_id[static ID_BUFFER],
                            int64_t *ret_generation)
{
        const char *mark = strstr(process_id, "-g");
        const char *next;
        char *end;

        /* The last one: an id may contain these letters. */
        while (mark && (next = strstr(mark + 1, "-g")))
                mark = next;
        if (!mark || mark == process_id || mark - process_id >= ID_BUFFER)
                return false;
        errno = 0;
        *ret_generation = (int64_t)strtoll(mark + 2, &end, 10);
        if (errno || end == mark + 2 || *end)
                return false;
        memcpy(ret_context_id, process_id, (size_t)(mark - process_id));
        ret_context_id[mark - process_id] = '\0';
        return true;
}

int takeover_add_process(struct takeover *takeover, const char *sandbox_id, const char *process_id,
                         size_t n_pipes, struct runtime_fds *fds)
{
        struct taken_process *process = calloc(1, sizeof(*process));
        struct taken_process *before = NULL;
        struct taken_process *other;

        if (!process)
                return error_origin(-ENOMEM);
        if (!takeover_parse_process(process_id, process->context_id, &process->generation)) {
                free(process);
                return error_origin(-EINVAL);
        }
        (void)snprintf(process->sandbox_id, sizeof(process->sandbox_id), "%s", sandbox_id);
        (void)snprintf(process->process_id, sizeof(process->process_id), "%s", process_id);
        process->n_pipes = n_pipes;
        process->fds.n = fds->n;
        for (size_t i = 0; i < fds->n; i++)
                process->fds.fds[i] = take_fd(&fds->fds[i]);
        STAILQ_FOREACH(other, &takeover->processes, link)
        {
                if (other->generation < process->generation)
                        break;
                before = other;
        }
        if (before)
                STAILQ_INSERT_AFTER(&takeover->processes, before, process, link);
        else
                STAILQ_INSERT_HEAD(&takeover->processes, process, link);
        return 0;
}

int takeover_add_execution(struct takeover *takeover, const struct execution_record *record,
                           const struct store_blob *request)
{
        struct taken_execution *executions =
                reallocarray(takeover->executions, takeover->n_executions + 1, sizeof(*executions));
        struct taken_execution *execution;
        int r;

        if (!executions)
                return error_origin(-ENOMEM);
        takeover->executions = executions;
        execution = &executions[takeover->n_executions];
        *execution = (struct taken_execution){ .record = *record };
        r = kept_request_copy(request->data, request->n, &execution->request);
        if (r)
                return r;
        takeover->n_executions++;
        return 0;
}

static struct taken_execution *find(struct takeover *takeover, const char *execution_id)
{
        for (size_t i = 0; i < takeover->n_executions; i++)
                if (strcmp(takeover->executions[i].record.execution_id, execution_id) == 0)
                        return &takeover->executions[i];
        return NULL;
}

static void kill_process(struct takeover *takeover, const struct taken_process *process)
{
        session_signal_process(takeover->session, process->sandbox_id, process->process_id,
                               SIGKILL);
}

static int open_journal(struct takeover *takeover, struct taken_process *process,
                        struct journal **ret_journal)
{
        int fds[JOURNAL_FDS];
        int r;

        if (process->n_pipes != N_PIPES || process->fds.n != N_PIPES + JOURNAL_FDS)
                return JOURNAL_E_BAD;
        for (size_t i = 0; i < JOURNAL_FDS; i++)
                fds[i] = take_fd(&process->fds.fds[N_PIPES + i]);
        r = journal_open(takeover->session, fds, ret_journal);
        if (r)
                return r;
        if (strcmp((*ret_journal)->state.process_id, process->process_id) == 0)
                return 0;
        *ret_journal = journal_unref(*ret_journal);
        return JOURNAL_E_BAD;
}

/* An older interpreter's can only be closing. */
static bool can_go_on(const struct context *context, const struct execution_saved *saved)
{
        if (saved->phase == PHASE_RUNNING)
                return !context->current && context->kernel.state == KERNEL_NONE;
        return saved->phase == PHASE_CLOSING;
}

/* What ran or closed in it. */
static int restore_executions(struct takeover *takeover, struct context *context,
                              struct journal *journal)
{
        for (int i = 0; i < JOURNAL_RINGS; i++) {
                struct execution_saved *saved = &journal->state.executions[i];
                struct taken_execution *taken = find(takeover, saved->record.execution_id);
                int r;

                if (!taken || taken->is_settled || !can_go_on(context, saved)) {
                        /* It was sent to a kernel: whatever became of it, it never runs again. */
                        if (taken)
                                kept_request_drop(&taken->request);
                        memset(saved, 0, sizeof(*saved));
                        continue;
                }
                r = execution_restore(context, saved, journal, i, &taken->execution);
                if (r)
                        return error_fold(r);
                taken->is_settled = true;
                takeover->n_resumed++;
        }
        return 0;
}

/* The kernel again, with the code that was on its way, if it was. */
static int restore_kernel(struct takeover *takeover, struct context *context,
                          struct journal *journal, struct taken_process *process)
{
        _cleanup_(kept_message_freep) Hotcell__Server__V1__KeptRequest *message = NULL;
        const struct taken_execution *taken = NULL;

        if (context->current)
                taken = find(takeover, context->current->record.execution_id);
        else
                channel_saved_drop_code(&journal->state.channel);
        if (taken && channel_saved_needs_code(&journal->state.channel))
                message = kept_request_open(&taken->request);
        return kernel_take_over(context, journal, process->fds.fds + 1,
                                message ? message->execute : NULL);
}

static void give_up_kernel(struct takeover *takeover, struct context *context,
                           struct taken_process *process, int error)
{
        const struct kernel_end end = { .process.kind = PROCESS_END_RUNTIME_LOST };
        struct execution *execution = context->current;

        log_error("an interpreter cannot be taken over, it is killed sandbox=%s process=%s "
                  "error=\"%s\"",
                  process->sandbox_id, process->process_id, strerror(-error));
        kill_process(takeover, process);
        if (!execution)
                return;
        find(takeover, execution->record.execution_id)->execution = NULL; /* it ends here */
        execution_kernel_over(execution, &end);
}

static void settle_process(struct takeover *takeover, struct taken_process *process)
{
        struct sandbox *sandbox =
                session_find_sandbox(takeover->session, NULL, process->sandbox_id);
        struct context *context =
                sandbox ? sandbox_find_context(sandbox, process->context_id) : NULL;
        struct journal *journal = NULL;
        int r = context ? open_journal(takeover, process, &journal) : JOURNAL_E_BAD;

        if (r) {
                /* One that was started and not kept yet has run nothing. */
                if (context && (process->n_pipes != N_PIPES || process->fds.n != N_PIPES))
                        context->is_in_doubt = true;
                log_info("an interpreter is not taken over, it is killed sandbox=%s process=%s",
                         process->sandbox_id, process->process_id);
                kill_process(takeover, process);
                return;
        }
        r = restore_executions(takeover, context, journal);
        if (!r && context->kernel.state == KERNEL_NONE)
                r = restore_kernel(takeover, context, journal, process);
        else
                (void)journal_unref(journal); /* its executions have it */
        if (r)
                give_up_kernel(takeover, context, process, r);
}

static void settle_execution(struct takeover *takeover, struct taken_execution *taken)
{
        const struct execution_record *record = &taken->record;
        struct sandbox *sandbox = session_find_sandbox(takeover->session, NULL, record->sandbox_id);
        struct context *context =
                sandbox ? sandbox_find_context(sandbox, record->context_id) : NULL;
        int r;

        /* In doubt also while its row does not say that it began: that may have been on its way. */
        if (!context || taken->request.n == 0 || context->is_in_doubt)
                return;
        r = execution_requeue(context, record, taken->request.bytes, taken->request.n,
                              &taken->execution);
        if (r) {
                log_error("an execution cannot be queued again execution=%s error=\"%s\"",
                          record->execution_id, strerror(-r));
                return;
        }
        taken->is_settled = true;
        takeover->n_requeued++;
}

void takeover_settle(struct takeover *takeover)
{
        struct taken_process *process;

        STAILQ_FOREACH(process, &takeover->processes, link)
        {
                settle_process(takeover, process);
        }
        for (size_t i = 0; i < takeover->n_executions; i++)
                if (!takeover->executions[i].is_settled)
                        settle_execution(takeover, &takeover->executions[i]);
}

void takeover_go_on(struct takeover *takeover)
{
        struct map_node *node, *next;
        struct context *context, *following;

        for (size_t i = 0; i < takeover->n_executions; i++)
                if (takeover->executions[i].execution)
                        execution_go_on(takeover->executions[i].execution);
        for (node = map_first(&takeover->session->sandboxes); node; node = next) {
                struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                next = map_next(node);
                sandbox->n_pending++; /* stays until all of it moves */
                TAILQ_FOREACH_SAFE(context, &sandbox->contexts, link, following)
                {
                        if (context->kernel.channel)
                                kernel_go_on(context);
                        context_pump(context);
                }
                sandbox->n_pending--;
                sandbox_check(sandbox);
        }
}
