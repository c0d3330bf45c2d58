/*
 * Taking kernels and executions over from a server that was killed: what the runtime kept for each
 * process, and what the database kept for each execution, become contexts, kernels and executions
 * again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "server/session/kept_request.h"
#include "server/session/session_private.h"

/* A process that the runtime handed over: its pipes, then what was kept with it. */
struct taken_process {
        STAILQ_ENTRY(taken_process) link; /* latest generation first */
        char sandbox_id[ID_BUFFER];
        char process_id[ID_BUFFER];
        char context_id[ID_BUFFER];
        int64_t generation;
        size_t n_pipes;
        struct runtime_fds fds; /* owned */
};

/* An execution that the database knows as not ended, in a sandbox that goes on. */
struct taken_execution {
        struct execution_record record;
        struct kept_request request;
        bool is_settled;
        struct execution *execution; /* NULL: it does not go on */
};

struct takeover {
        struct session *session;
        STAILQ_HEAD(, taken_process) processes;
        struct taken_execution *executions; /* oldest first */
        size_t n_executions;
        size_t n_resumed, n_requeued;
};

void takeover_init(struct takeover *takeover, struct session *session);
void takeover_deinit(struct takeover *takeover);

/* The context and the generation that a process belongs to. False: it is no kernel's. */
bool takeover_parse_process(const char *process_id, char ret_context_id[static ID_BUFFER],
                            int64_t *ret_generation);

/* Takes what came with a ProcessTaken; without descriptors: it was not handed over, it is killed
 * and what ran in it is lost. */
int takeover_add_process(struct takeover *takeover, const char *sandbox_id, const char *process_id,
                         size_t n_pipes, struct runtime_fds *fds);

int takeover_add_execution(struct takeover *takeover, const struct execution_record *record,
                           const struct store_blob *request);

/* Everything that was added: restores what can be, queues again what never ran. What is not settled
 * after it is lost. Nothing moves yet. */
void takeover_settle(struct takeover *takeover);

/* All of it moves on. */
void takeover_go_on(struct takeover *takeover);
