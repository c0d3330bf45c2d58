/*
 * What a context does next is decided in one place, context_pump, which everything that changes
 * calls.
 */
#include "server/session/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/journal.h"
#include "server/session/queue_safe.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

enum { PREPARED_MAX = 3 }; /* interpreters that may end before one execution could run */

static int add_waiter(struct context_waiters *waiters, session_on_contexts on_done, void *userdata,
                      bool deletes_on_failure)
{
        struct context_waiter *waiter = calloc(1, sizeof(*waiter));

        if (!waiter)
                return error_origin(-ENOMEM);
        waiter->on_done = on_done;
        waiter->userdata = userdata;
        waiter->deletes_on_failure = deletes_on_failure;
        STAILQ_INSERT_TAIL(waiters, waiter, link);
        return 0;
}

/* Answers all. True: one of them does not want the context any more. */
static bool answer_waiters(struct context *context, struct context_waiters *waiters,
                           const struct session_result *result)
{
        struct context_view view = { .record = &context->record, .state = context_state(context) };
        bool deletes = false;

        while (!STAILQ_EMPTY(waiters)) {
                struct context_waiter *waiter = STAILQ_FIRST(waiters);

                STAILQ_REMOVE_HEAD(waiters, link);
                deletes = deletes || (result->outcome && waiter->deletes_on_failure);
                waiter->on_done(waiter->userdata, result, result->outcome ? NULL : &view,
                                result->outcome ? 0 : 1);
                free(waiter);
        }
        return deletes;
}

/* Somebody waits for its interpreter, whether or not an execution does. */
static bool is_awaited(const struct context *context)
{
        return !STAILQ_EMPTY(&context->ready_waiters);
}

enum context_state context_state(const struct context *context)
{
        switch (context->kernel.state) {
        case KERNEL_ASKED:
        case KERNEL_UNWANTED:
        case KERNEL_MISSED:
        case KERNEL_STARTING:
                return CONTEXT_STARTING;
        case KERNEL_READY:
                return context->current ? CONTEXT_BUSY : CONTEXT_IDLE;
        case KERNEL_KILLED:
        case KERNEL_DRAINING:
                if (context->current)
                        return CONTEXT_BUSY;
                return is_awaited(context) ? CONTEXT_STARTING : CONTEXT_STOPPED;
        case KERNEL_NONE:
        case _KERNEL_STATE_N:
                break;
        }
        return CONTEXT_STOPPED;
}

static void answer_ready(struct context *context)
{
        const struct session_result success = { 0 };

        if (context->kernel.state == KERNEL_READY && context->row == CONTEXT_ROW_WRITTEN)
                (void)answer_waiters(context, &context->ready_waiters, &success);
}

static void fail_ready(struct context *context, const struct session_result *result)
{
        if (answer_waiters(context, &context->ready_waiters, result))
                context_delete(context, NULL, NULL);
}

static void on_inserted(void *userdata, int result)
{
        struct context *context = userdata;
        struct sandbox *sandbox = context->sandbox;

        context->n_pending--;
        context->row = result ? CONTEXT_ROW_REFUSED : CONTEXT_ROW_WRITTEN;
        if (result) {
                struct session_result failure = result_of_store(result, "the context");

                (void)answer_waiters(context, &context->ready_waiters, &failure);
                context_delete(context, NULL, NULL);
        } else
                answer_ready(context);
        context_check_gone(context);
        sandbox_check(sandbox);
}

static struct context *allocate(struct sandbox *sandbox)
{
        struct context *context = calloc(1, sizeof(*context));

        if (!context)
                return NULL;
        context->session = sandbox->session;
        context->sandbox = sandbox;
        TAILQ_INIT(&context->queue);
        STAILQ_INIT(&context->ready_waiters);
        STAILQ_INIT(&context->deleted_waiters);
        TAILQ_INSERT_TAIL(&sandbox->contexts, context, link);
        sandbox->n_contexts++;
        return context;
}

int context_adopt(struct sandbox *sandbox, const struct context_record *record, int64_t generation)
{
        struct context *context = allocate(sandbox);

        if (!context)
                return error_origin(-ENOMEM);
        context->record = *record;
        context->record.generation = generation;
        return 0;
}

/* The first generation is about to start. */
static void insert_row(struct context *context, const struct request_record *asked)
{
        struct context_record record = context->record;
        struct request_record request;

        record.generation = 1;
        if (asked) {
                request = *asked;
                (void)snprintf(request.object_id, sizeof(request.object_id), "%s",
                               record.context_id);
                request.created = true;
        }
        context->n_pending++;
        context->row = CONTEXT_ROW_PENDING;
        store_insert_context_for(context->session->store, asked ? &request : NULL, &record,
                                 on_inserted, context);
}

static int make(struct sandbox *sandbox, const char *language, const char *working_directory,
                struct context **ret_context)
{
        struct context *context = allocate(sandbox);
        struct context_record *record;

        if (!context)
                return error_origin(-ENOMEM);
        record = &context->record;
        if (id_generate("ctx", record->context_id)) {
                (void)context_free(context);
                return error_origin(-EIO);
        }
        (void)snprintf(record->sandbox_id, sizeof(record->sandbox_id), "%s",
                       sandbox->record.sandbox_id);
        (void)snprintf(record->owner, sizeof(record->owner), "%s", sandbox->record.owner);
        (void)snprintf(record->language, sizeof(record->language), "%s", language);
        (void)snprintf(record->working_directory, sizeof(record->working_directory), "%s",
                       working_directory[0] ? working_directory : sandbox->template->home);
        record->create_time_usec = time_now_usec();
        *ret_context = context;
        return 0;
}

int context_new_default(struct sandbox *sandbox, const char *language, struct context **ret_context)
{
        int r = make(sandbox, language, "", ret_context);

        if (r)
                return error_fold(r);
        (*ret_context)->record.is_default = true;
        insert_row(*ret_context, NULL);
        return 0;
}

int context_new(struct sandbox *sandbox, const struct context_request *request,
                const char *language, struct context **ret_context)
{
        int r = make(sandbox, language, request->working_directory, ret_context);

        if (r)
                return error_fold(r);
        insert_row(*ret_context, request->request);
        return 0;
}

struct context *context_free(struct context *context)
{
        struct session_result gone;

        if (!context)
                return NULL;
        assert(context->n_pending == 0 && !context->current && TAILQ_EMPTY(&context->queue));

        gone = result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s has ended.",
                         context->record.sandbox_id);
        (void)answer_waiters(context, &context->ready_waiters, &gone);
        TAILQ_REMOVE(&context->sandbox->contexts, context, link);
        context->sandbox->n_contexts--;
        kernel_deinit(&context->kernel);
        free(context);
        return NULL;
}

static void take_from_queue(struct context *context, struct execution *execution)
{
        TAILQ_REMOVE(&context->queue, execution, queue_link);
        execution->is_in_queue = false;
        context->n_queued--;
}

/* Accepted by a predecessor: where it was, behind those that came before it. */
void context_requeue(struct context *context, struct execution *execution)
{
        execution->position = (int64_t)context->n_queued + (context->current ? 1 : 0);
        TAILQ_INSERT_TAIL(&context->queue, execution, queue_link);
        execution->is_in_queue = true;
        context->n_queued++;
        context_account(context);
}

void context_enqueue(struct context *context, struct execution *execution)
{
        context_requeue(context, execution);
        context->sandbox->n_active++;
        sandbox_check(context->sandbox);
}

static void on_updated(void *userdata, int result)
{
        struct context *context = userdata;
        struct sandbox *sandbox = context->sandbox;

        context->n_pending--;
        if (result)
                log_warning("a context's row was not updated context=%s",
                            context->record.context_id);
        context_check_gone(context);
        sandbox_check(sandbox);
}

static void record_update(struct context *context)
{
        context->n_pending++;
        store_update_context(context->session->store, &context->record, on_updated, context);
}

static void start_kernel(struct context *context)
{
        context->record.generation++;
        if (context->record.generation > 1) /* the insert says 1 */
                record_update(context);
        kernel_start(context);
}

static void run_current(struct context *context)
{
        struct execution *execution = context->current;
        int r;

        if (!execution_is_prepared(execution) || !channel_is_idle(context->kernel.channel) ||
            journal_find_ring(context->kernel.journal) < 0)
                return;
        /* What was written since the last code ended belongs to no execution. */
        channel_drain(context->kernel.channel);
        r = execution_run(execution, context->kernel.channel, context->kernel.journal);
        if (r) {
                log_error("code could not be sent execution=%s error=\"%s\"",
                          execution->record.execution_id, strerror(-r));
                execution_cancel(execution, CAUSE_LIMIT, "The server had no memory to send it.");
        }
}

/* Whose turn is next: not those that were asked to end before their row was there. */
static struct execution *next_in_queue(struct context *context)
{
        struct execution *execution;

        TAILQ_FOREACH(execution, &context->queue, queue_link)
        {
                if (execution->stop.outcome == OUTCOME_NONE)
                        return execution;
        }
        return NULL;
}

void context_pump(struct context *context)
{
        struct execution *next = next_in_queue(context);
        bool is_wanted = context->current || next || is_awaited(context);

        if (context->is_deleted || context->is_held ||
            context->sandbox->record.state != SANDBOX_RUNNING)
                return;
        if (context->kernel.state == KERNEL_NONE && is_wanted)
                start_kernel(context);
        if (context->kernel.state != KERNEL_READY)
                return;

        if (!context->current && next) {
                take_from_queue(context, next);
                context->current = next;
                next->n_prepared++;
                execution_prepare(next, context->kernel.process_id);
        }
        if (context->current)
                run_current(context);
}

void context_when_ready(struct context *context, bool deletes_on_failure,
                        session_on_contexts on_done, void *userdata)
{
        if (add_waiter(&context->ready_waiters, on_done, userdata, deletes_on_failure)) {
                struct session_result failure = result_of(
                        -ENOMEM, "There is no memory for context %s.", context->record.context_id);

                on_done(userdata, &failure, NULL, 0);
                return;
        }
        answer_ready(context);
        context_pump(context);
}

/* Kills what runs. Its state is lost. */
static void kill_current(struct context *context)
{
        if (context->current)
                execution_stop(context->current, OUTCOME_KILLED, CAUSE_CLIENT, true);
        kernel_kill(context);
}

void context_restart(struct context *context)
{
        kill_current(context);
        context_pump(context);
}

static void cancel_queue(struct context *context, enum cause cause, const char *message)
{
        struct execution *execution, *next;

        context->is_held = true;
        TAILQ_FOREACH_SAFE(execution, &context->queue, queue_link, next)
        {
                if (execution->phase == PHASE_QUEUED)
                        execution_cancel(execution, cause, message);
                else
                        execution_doom(execution, cause, message);
        }
        context->is_held = false;
}

void context_delete(struct context *context, session_on_contexts on_done, void *userdata)
{
        if (on_done && add_waiter(&context->deleted_waiters, on_done, userdata, false)) {
                struct session_result failure =
                        result_of(-ENOMEM, "There is no memory to delete context %s.",
                                  context->record.context_id);

                on_done(userdata, &failure, NULL, 0);
                return;
        }
        if (!context->is_deleted) {
                struct session_result gone =
                        result_of(SESSION_E_CONTEXT_NOT_FOUND, "Context %s was deleted.",
                                  context->record.context_id);

                context->is_deleted = true;
                context->record.delete_time_usec = time_now_usec();
                if (context->row != CONTEXT_ROW_REFUSED)
                        record_update(context);
                (void)answer_waiters(context, &context->ready_waiters, &gone);
                cancel_queue(context, CAUSE_CLIENT, "Its context was deleted.");
                kill_current(context);
        }
        context_check_gone(context);
}

bool context_is_quiet(const struct context *context)
{
        return context->kernel.state == KERNEL_NONE && !context->current &&
               TAILQ_EMPTY(&context->queue) && context->n_closing == 0 && context->n_pending == 0;
}

void context_check_gone(struct context *context)
{
        const struct session_result success = { 0 };

        if (!context->is_deleted || !context_is_quiet(context))
                return;
        (void)answer_waiters(context, &context->deleted_waiters, &success);
        (void)context_free(context);
}

void context_on_kernel_ready(struct context *context)
{
        answer_ready(context);
        context_pump(context);
}

/* An execution that was about to run waits again, at the front. */
static void requeue_current(struct context *context)
{
        struct execution *execution = context->current;

        execution_unprepare(execution);
        if (execution->phase == PHASE_QUEUED && execution->n_prepared >= PREPARED_MAX) {
                execution_cancel(execution, CAUSE_PROGRAM,
                                 "The interpreter ended again and again before the code ran.");
                return;
        }
        context->current = NULL;
        TAILQ_INSERT_HEAD(&context->queue, execution, queue_link);
        execution->is_in_queue = true;
        context->n_queued++;
}

void context_on_kernel_over(struct context *context, const struct kernel_end *end)
{
        struct sandbox *sandbox = context->sandbox;

        if (context->current && context->current->phase == PHASE_RUNNING)
                execution_kernel_over(context->current, end);
        else if (context->current)
                requeue_current(context);

        if (end->failure.outcome) {
                cancel_queue(context, end->failure_cause, end->failure.message);
                fail_ready(context, &end->failure);
        }
        context_pump(context);
        context_check_gone(context);
        sandbox_check(sandbox);
}

void context_on_execution_left(struct context *context, struct execution *execution)
{
        context->n_closing++;
        if (context->current == execution)
                context->current = NULL;
        else if (execution->is_in_queue)
                take_from_queue(context, execution);
        context_account(context);
        context_pump(context);
}

void context_on_execution_recorded(struct context *context)
{
        context->n_closing--;
        context_pump(context); /* its ring may have been waited for */
        context_check_gone(context);
}

void context_sandbox_ends(struct context *context, enum cause cause)
{
        struct execution *execution, *next;
        struct session_result ended = result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s has ended.",
                                                context->record.sandbox_id);

        TAILQ_FOREACH_SAFE(execution, &context->queue, queue_link, next)
        {
                execution_sandbox_ends(execution, cause);
        }
        if (context->current)
                execution_sandbox_ends(context->current, cause);
        (void)answer_waiters(context, &context->ready_waiters, &ended);
}
