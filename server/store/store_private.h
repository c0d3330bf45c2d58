/* What the files of the store share. Belongs to the loop thread, but for the database. */
#pragma once

#include <stdbool.h>

#include <systemd/sd-event.h>

#include "server/store/database.h"
#include "server/store/store.h"
#include "server/store/worker.h"

struct store {
        sd_event *loop;
        char *path; /* of the database's file */
        struct inbox *inbox;
        struct worker *worker;
        struct database database; /* the worker's while there is one */
        bool is_closing;

        bool is_healthy;
        bool is_full;
        store_on_health_change on_health_change;
        void *health_userdata;
        sd_event_source *probe_timer; /* runs while unhealthy, or for what is not synced yet */
        bool has_probed_soon;         /* since a write failed */
        bool is_unsynced;             /* something was told that a loss of power would undo */
        bool has_lost_sync;           /* the last durable write failed */

        struct store_retention retention;
        sd_event_source *retention_timer;
        bool is_pruning; /* a step is under way, which sets the timer again */
        int64_t n_rows;  /* that came since the last step, and what of which kind */
        int64_t output_bytes;
        int64_t event_bytes;
        int64_t egress_event_bytes;
        int64_t n_ledger_above; /* rows that went in the steps of this run, not told yet */
};

/* One more row is kept, and so many bytes with it: prunes soon when they have become many. */
void store_count_kept(struct store *store, size_t n_output_bytes, size_t n_event_bytes);
void store_count_egress(struct store *store, size_t n_rows, size_t n_bytes);

/* All changes: only a result is told. */
struct change_job {
        struct job job;
        store_on_done on_done;
};
void change_deliver(struct job *job);
