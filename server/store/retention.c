/*
 * What is over is kept for a while and within bounds, so that the database stays as large as it is.
 * Pruned in steps of a few hundred rows: a step takes about as long as any other write, and others
 * come between two. The next step comes soon while there is more to prune, at once when the
 * database grows, and else after minutes.
 */
#include <errno.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/store/ledger.h"
#include "server/store/owner_bounds.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

enum {
        STEP_ROWS = 256, /* of each table */
        STEP_INTERVAL_USEC = 100 * 1000,
        REST_INTERVAL_USEC = 300 * 1000 * 1000,
        ACCURACY_USEC = 1000,
        BYTES_WORTH_PRUNING = 8 << 20, /* of events or outputs, since the last step */
};

struct prune_job {
        struct change_job change;
        struct store_retention retention;
        int64_t now_usec;
        bool has_more;
        int64_t n_ledger_above; /* rows of the ledger that went because there were too many */
};

/* Deletes what is before @bound. Adds to *@n_full if there may be more of it. */
static int delete_before(struct database *database, enum statement_id id, int64_t bound,
                         int *n_full)
{
        sqlite3_stmt *statement = database->statements[id];
        int r;

        row_bind_int64(statement, ":before", bound);
        row_bind_int64(statement, ":limit", STEP_ROWS);
        r = row_run(statement);
        if (r == 0 && sqlite3_changes(database->connection) >= STEP_ROWS)
                (*n_full)++;
        return r;
}

/* The first event that is kept: all before it go, whatever their time. */
static int find_first_event(struct database *database, int64_t time_usec, int64_t *ret_sequence)
{
        sqlite3_stmt *at_time = database->statements[STATEMENT_EVENT_SEQUENCE_AT_TIME];
        int64_t newest = 0;
        int r;

        r = read_newest_sequence(database, &newest);
        if (r)
                return r;
        *ret_sequence = newest + 1;
        row_bind_int64(at_time, ":time", time_usec);
        return row_number(at_time, ret_sequence);
}

static int prune_events(struct database *database, int64_t before, int *n_full)
{
        int64_t first_kept = 0;
        int r;

        r = find_first_event(database, before, &first_kept);
        return r ? r : delete_before(database, STATEMENT_EXPIRE_EVENTS, first_kept, n_full);
}

/* What is older than that goes; zero: nothing does. */
static int64_t time_before(const struct prune_job *prune, int64_t kept_usec)
{
        return kept_usec ? prune->now_usec - kept_usec : 0;
}

static int prune_work(struct database *database, struct job *job)
{
        struct prune_job *prune = CONTAINER_OF(job, struct prune_job, change.job);
        int64_t before = time_before(prune, prune->retention.kept_usec);
        int64_t requests_before = time_before(prune, prune->retention.requests_kept_usec);
        int n_full = 0, r;

        r = delete_before(database, STATEMENT_EXPIRE_EXECUTIONS, before, &n_full);
        if (r == 0)
                r = delete_before(database, STATEMENT_EXPIRE_CONTEXTS, before, &n_full);
        if (r == 0)
                r = delete_before(database, STATEMENT_EXPIRE_EGRESS_EVENTS, before, &n_full);
        if (r == 0)
                r = delete_before(database, STATEMENT_EXPIRE_EGRESS_OF_SANDBOXES, before, &n_full);
        if (r == 0)
                r = delete_before(database, STATEMENT_EXPIRE_SANDBOXES, before, &n_full);
        if (r == 0)
                r = prune_events(database, before, &n_full);
        if (r == 0)
                r = delete_before(database, STATEMENT_EXPIRE_REQUESTS, requests_before, &n_full);
        if (r == 0)
                r = delete_before(database, STATEMENT_EXPIRE_OUTPUTS,
                                  time_before(prune, prune->retention.outputs_kept_usec), &n_full);
        if (r == 0)
                r = ledger_prune(database, &prune->retention, prune->now_usec, &n_full);
        prune->has_more = n_full > 0;
        return r ? r
                 : owner_bounds_keep(database, &prune->retention, &prune->has_more,
                                     &prune->n_ledger_above);
}

/* Once, when there is nothing more to prune, and not for each step. */
static void tell_ledger_above(struct store *store, int64_t rows_max)
{
        if (store->n_ledger_above > 0)
                log_warning(
                        "the ledger has more rows than it may, the oldest of who has most went rows=%lld max=%lld",
                        (long long)store->n_ledger_above, (long long)rows_max);
        store->n_ledger_above = 0;
}

static void prune_deliver(struct job *job)
{
        struct prune_job *prune = CONTAINER_OF(job, struct prune_job, change.job);
        int result = job->result == 0 && prune->has_more ? STORE_E_MORE : job->result;

        if (job->result == 0)
                job->store->n_ledger_above += prune->n_ledger_above;
        if (result != STORE_E_MORE)
                tell_ledger_above(job->store, prune->retention.ledger_rows_max);
        prune->change.on_done(job->userdata, result);
}

static const struct job_class prune_class = {
        .is_write = true,
        .work = prune_work,
        .deliver = prune_deliver,
};

void store_prune(struct store *store, const struct store_retention *retention, int64_t now_usec,
                 store_on_done on_done, void *userdata)
{
        struct prune_job *prune = job_new(store, &prune_class, sizeof(*prune), userdata);

        prune->change.on_done = on_done;
        prune->retention = *retention;
        prune->now_usec = now_usec;
        job_submit(&prune->change.job);
}

static void prune_after(struct store *store, uint64_t usec)
{
        store->is_pruning = false;
        (void)sd_event_source_set_time_relative(store->retention_timer, usec);
        (void)sd_event_source_set_enabled(store->retention_timer, SD_EVENT_ONESHOT);
}

/* Of @n_bytes, that part of a bound is worth a step; without a bound nothing is. */
static bool is_much(int64_t n_bytes, int64_t bytes_max)
{
        return bytes_max > 0 && n_bytes >= MIN(bytes_max / 8, (int64_t)BYTES_WORTH_PRUNING);
}

static bool is_worth_pruning(const struct store *store)
{
        return store->n_rows >= STORE_ROWS_WORTH_PRUNING ||
               is_much(store->event_bytes, store->retention.events_bytes_max) ||
               is_much(store->egress_event_bytes, store->retention.egress_events_bytes_max) ||
               is_much(store->output_bytes, store->retention.outputs_max_bytes);
}

static void on_step_done(void *userdata, int result)
{
        struct store *store = userdata;

        if (result < 0)
                log_warning("pruning the database failed error=%d", -result);
        if (result >= 0 && is_worth_pruning(store))
                prune_after(store, 1);
        else
                prune_after(store, result == 0 ? REST_INTERVAL_USEC : STEP_INTERVAL_USEC);
}

static void prune_if_much(struct store *store)
{
        if (store->retention_timer && !store->is_pruning && is_worth_pruning(store))
                prune_after(store, 1);
}

void store_count_kept(struct store *store, size_t n_output_bytes, size_t n_event_bytes)
{
        store->n_rows++;
        store->output_bytes += (int64_t)n_output_bytes;
        store->event_bytes += (int64_t)n_event_bytes;
        prune_if_much(store);
}

void store_count_egress(struct store *store, size_t n_rows, size_t n_bytes)
{
        store->n_rows += (int64_t)n_rows;
        store->egress_event_bytes += (int64_t)n_bytes;
        prune_if_much(store);
}

static int on_retention_timer(sd_event_source *source, uint64_t now_usec, void *userdata)
{
        struct store *store = userdata;

        (void)source;
        (void)now_usec;
        store->is_pruning = true;
        store->n_rows = 0;
        store->event_bytes = 0;
        store->output_bytes = 0;
        store->egress_event_bytes = 0;
        store_prune(store, &store->retention, time_now_usec(), on_step_done, store);
        return 0;
}

int store_set_retention(struct store *store, const struct store_retention *retention)
{
        int r;

        store->retention = *retention;
        if (store->retention_timer)
                return 0;
        r = sd_event_add_time_relative(store->loop, &store->retention_timer, CLOCK_MONOTONIC,
                                       STEP_INTERVAL_USEC, ACCURACY_USEC, on_retention_timer,
                                       store);
        return r < 0 ? error_origin(r) : 0;
}
