/*
 * A context: an interpreter that keeps its state, and the executions that wait for it. The
 * interpreter is started by the first execution that needs it, and again after each end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "server/session/execution.h"
#include "server/session/kernel.h"
#include "server/session/session.h"

struct sandbox;

/* Somebody who wants to hear that the interpreter is ready, or that the context is gone. */
struct context_waiter {
        STAILQ_ENTRY(context_waiter) link;
        session_on_contexts on_done;
        void *userdata;
        bool deletes_on_failure; /* the context was made for it */
};
STAILQ_HEAD(context_waiters, context_waiter);

enum context_row {
        CONTEXT_ROW_WRITTEN, /* and kept up to date */
        CONTEXT_ROW_PENDING,
        CONTEXT_ROW_REFUSED, /* there is none: nothing is written any more */
};

struct context {
        TAILQ_ENTRY(context) link; /* in its sandbox, in the order of creation */
        struct session *session;
        struct sandbox *sandbox;
        struct context_record record;
        struct kernel kernel;
        struct execution_queue queue; /* those that wait, oldest first */
        size_t n_queued;
        struct execution *current;            /* whose turn it is, from PREPARE until it left */
        size_t n_first_taken, n_behind_taken; /* of the shares */
        unsigned n_pending;                   /* answers that will still come */
        enum context_row row;
        unsigned n_closing; /* executions that left it but are not recorded yet */
        bool is_deleted;
        bool is_in_doubt; /* a predecessor's interpreter may have run code that we know nothing of
                           */
        bool is_held;     /* its queue is being emptied: nothing begins */
        struct context_waiters ready_waiters; /* while there are any, an interpreter is wanted */
        struct context_waiters deleted_waiters;
        uint64_t n_background_bytes; /* written while nothing ran; dropped */
};

TAILQ_HEAD(context_list, context);

/* Makes the default one of @language in @sandbox and records it. */
int context_new_default(struct sandbox *sandbox, const char *language,
                        struct context **ret_context);

/* Makes one that was asked for; @language: that of @request, resolved. */
int context_new(struct sandbox *sandbox, const struct context_request *request,
                const char *language, struct context **ret_context);
/* One of the last server's, without its interpreter; @generation: the highest it had. */
int context_adopt(struct sandbox *sandbox, const struct context_record *record, int64_t generation);
struct context *context_free(struct context *context);

enum context_state context_state(const struct context *context);

/* Takes a new execution into the queue. */
void context_enqueue(struct context *context, struct execution *execution);

/* The same for one that a predecessor had accepted. */
void context_requeue(struct context *context, struct execution *execution);
/* An execution that comes now waits for another one. */
bool context_has_work(const struct context *context);

/* Its code is sent as soon as it is recorded. */
bool context_runs_at_once(const struct context *context);

/* Takes of the shares, or gives back, what it has to run now. */
void context_account(struct context *context);

/* Does what is to be done next: start the interpreter, prepare or run an execution. */
void context_pump(struct context *context);

/* Answers @on_done once the interpreter is ready, or with why it is not. */
void context_when_ready(struct context *context, bool deletes_on_failure,
                        session_on_contexts on_done, void *userdata);

/* Throws the state away; what runs is killed. */
void context_restart(struct context *context);

/* Ends all executions, then the context; @on_done (may be NULL) hears when it is gone. */
void context_delete(struct context *context, session_on_contexts on_done, void *userdata);

/* Told by its parts. */
void context_on_kernel_ready(struct context *context);
void context_on_kernel_over(struct context *context, const struct kernel_end *end);
void context_on_execution_left(struct context *context, struct execution *execution);
void context_on_execution_recorded(struct context *context);
void context_check_gone(struct context *context);

/* Its sandbox ends, with @cause: nothing is started any more. */
void context_sandbox_ends(struct context *context, enum cause cause);

/* No process, no execution, nothing pending. */
bool context_is_quiet(const struct context *context);
