/* What the two halves of a reconciliation share: `reconcile.c` asks and decides,
 * `reconcile_losses.c` records what is gone. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "server/session/session_private.h"
#include "server/session/takeover.h"

/* A sandbox that the runtime has. */
struct found {
        struct map_node by_id;
        char sandbox_id[ID_BUFFER];
        bool is_running;
        bool is_known;
        struct sandbox_limits limits; /* in force; zeros: not told */
        char (*process_ids)[ID_BUFFER];
        size_t n_processes;
};

/* A sandbox that ended by itself, as the runtime told meanwhile. */
struct heard_sandbox {
        char sandbox_id[ID_BUFFER];
        bool oom;
        bool has_usage;
        struct sandbox_usage usage;
};

/* A process that the runtime is to hand over. */
struct taking {
        STAILQ_ENTRY(taking) link; /* while it was not asked for */
        struct reconciliation *reconciliation;
        char sandbox_id[ID_BUFFER];
        char process_id[ID_BUFFER];
};

/* A row that says that something is gone; tried until it is written. */
struct loss {
        LIST_ENTRY(loss) link;
        struct reconciliation *reconciliation;
        sd_event_source *retry;
        bool is_sandbox;
        union {
                struct sandbox_record sandbox; /* what it owns is the living's */
                struct execution_record execution;
        };
};

/*
 *   LISTING --all listed--> LOADING --living read--> TAKING --all taken--> SETTLED --all written-->
 * over
 *      ^----- anything failed: again after a second -----'
 */
enum reconciliation_step {
        RECONCILE_LISTING, /* the runtime tells what it has */
        RECONCILE_LOADING, /* the database tells what lives */
        RECONCILE_TAKING,  /* processes and outputs are fetched */
        RECONCILE_SETTLED, /* everything has its place; losses are being written */
        _RECONCILIATION_STEP_N,
};

struct reconciliation {
        struct session *session; /* NULL: cancelled, the last answer frees it */
        struct session *owner;   /* whose pending answers are counted */
        enum reconciliation_step step;
        bool has_failed; /* what is still answered is for nothing */
        unsigned n_pending;
        sd_event_source *retry;
        struct map found;
        struct living living;
        STAILQ_HEAD(, taking) to_take;
        unsigned n_taking;
        struct takeover takeover;
        LIST_HEAD(, loss) losses;
        Hotcell__Runtime__V1__FromRuntime **heard; /* ends of processes */
        size_t n_heard;
        struct heard_sandbox *heard_sandboxes;
        size_t n_heard_sandboxes;
        size_t n_kept, n_lost, n_executions_lost, n_destroyed;
};

/* While an answer is awaited. */
void reconciliation_hold(struct reconciliation *reconciliation);

/* An answer came. False: it was cancelled meanwhile, and is gone if this was the last answer. */
bool reconciliation_release(struct reconciliation *reconciliation);

/* Goes on when nothing is awaited any more. May be the end of it. */
void reconciliation_check(struct reconciliation *reconciliation);

/* The end that the runtime told of a sandbox, or NULL. */
const struct heard_sandbox *find_heard(const struct reconciliation *reconciliation,
                                       const char *sandbox_id);

/* Losses, each recorded with the reason: sandboxes by write_lost_sandboxes, after the executions
 * that went with them. */
void record_loss(struct reconciliation *reconciliation, const struct sandbox_record *record);
void write_lost_sandboxes(struct reconciliation *reconciliation);
void record_execution_loss(struct reconciliation *reconciliation,
                           const struct execution_record *record,
                           const struct run_evidence *evidence);

/* It went with its sandbox. */
void record_gone_execution(struct reconciliation *reconciliation,
                           const struct execution_record *record);

/* What neither ran nor waits again: its context is gone, or what was kept of it cannot be read. */
void record_unsettled(struct reconciliation *reconciliation);

/* They are not written any more. */
void forget_losses(struct reconciliation *reconciliation);
