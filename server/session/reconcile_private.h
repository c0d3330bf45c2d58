/* What the two halves of a reconciliation share: `reconcile.c` asks and goes on,
 * `reconcile_losses.c` records what is gone. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "server/session/session_private.h"
#include "server/session/takeover.h"

/* A sandbox that the runtime has. */
struct found {
        struct map_node by_id;
        char sandbox_id[ID_BUFFER];
        bool is_running;
        bool is_known;
        char (*process_ids)[ID_BUFFER];
        size_t n_processes;
};

/* A sandbox that ended by itself, as the runtime told meanwhile. */
struct heard_sandbox {
        char sandbox_id[ID_BUFFER];
        bool oom;
};

struct reconciliation {
        struct session *session; /* NULL: cancelled, the last answer frees it */
        struct session *owner;   /* whose pending answers are counted */
        struct map found;
        struct takeover takeover;
        unsigned n_pending;
        bool is_compared;
        bool is_settled;
        sd_event_source *retry;
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

/* Losses, each recorded with the reason. */
void record_loss(struct reconciliation *reconciliation, const struct sandbox_record *record);
void record_execution_loss(struct reconciliation *reconciliation,
                           const struct execution_record *record, enum outcome outcome,
                           enum cause cause, const char *message);

/* It went with its sandbox. */
void record_gone_execution(struct reconciliation *reconciliation,
                           const struct execution_record *record, const struct living *living);

/* What neither ran nor waits again: its context is gone, or what was kept of it cannot be read. */
void record_unsettled(struct reconciliation *reconciliation);
