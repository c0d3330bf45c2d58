/*
 * The database counts by owner (owner_totals), so a step reads one row for each. Where a total is
 * above its bound, all are cut to one level: those who have less lose nothing, whatever others add.
 */
#include "server/store/owner_bounds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

enum {
        STEP_ROWS = 256,     /* of each kind, of all owners */
        STEP_BYTES = 4 << 20 /* likewise, where rows are large */
};

/* In the order of STATEMENT_OWNER_TOTALS. */
enum kind {
        EVENTS,
        EVENT_BYTES,
        ENDED_EXECUTIONS,
        ENDED_SANDBOXES,
        OUTPUTS,
        OUTPUT_BYTES,
        EGRESS_EVENTS,
        EGRESS_EVENT_BYTES,
        LEDGER_ROWS,
        _KIND_N
};

struct owner_total {
        char owner[OWNER_BUFFER];
        int64_t amounts[_KIND_N];
};

struct totals {
        struct owner_total *items;
        size_t n;
        int64_t sums[_KIND_N];
};

static int compare(const void *a, const void *b)
{
        int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

        return (left > right) - (left < right);
}

int64_t owner_bounds_level(int64_t *amounts, size_t n, int64_t bound)
{
        int64_t left = bound;

        qsort(amounts, n, sizeof(*amounts), compare);
        for (size_t i = 0; i < n; i++) {
                int64_t each = left / (int64_t)(n - i);

                if (amounts[i] > each)
                        return each;
                left -= amounts[i];
        }
        return INT64_MAX;
}

static int add_total(sqlite3_stmt *statement, struct totals *totals)
{
        const char *owner = (const char *)sqlite3_column_text(statement, 0);
        struct owner_total *total;
        int r;

        r = array_grow(&totals->items, totals->n, sizeof(*totals->items));
        if (r)
                return error_fold(r);
        total = &totals->items[totals->n++];
        *total = (struct owner_total){ 0 };
        if (owner && strlen(owner) < sizeof(total->owner))
                memcpy(total->owner, owner, strlen(owner) + 1);
        for (int kind = 0; kind < _KIND_N; kind++) {
                total->amounts[kind] = sqlite3_column_int64(statement, 1 + kind);
                totals->sums[kind] += total->amounts[kind];
        }
        return 0;
}

static int read_totals(struct database *database, struct totals *totals)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_OWNER_TOTALS];
        int r;

        while ((r = row_step(statement)) == ROW_E_ROW) {
                r = add_total(statement, totals);
                if (r)
                        break;
        }
        row_end(statement);
        return r;
}

static int find_level(const struct totals *totals, enum kind kind, int64_t bound,
                      int64_t *ret_level)
{
        int64_t *amounts = calloc(totals->n + 1, sizeof(*amounts));

        if (!amounts)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < totals->n; i++)
                amounts[i] = totals->items[i].amounts[kind];
        *ret_level = owner_bounds_level(amounts, totals->n, bound);
        free(amounts);
        return 0;
}

static int delete_oldest(struct database *database, enum statement_id id, const char *owner,
                         int64_t n_rows)
{
        sqlite3_stmt *statement = database->statements[id];

        row_bind_text(statement, ":owner", owner);
        row_bind_int64(statement, ":limit", n_rows);
        return row_run(statement);
}

/* Of one row with bytes of its own, on the average. */
static int64_t row_bytes_of(const struct owner_total *total, enum kind kind)
{
        if (kind == EVENTS || kind == EVENT_BYTES)
                return total->amounts[EVENT_BYTES] / MAX(total->amounts[EVENTS], 1) + 1;
        if (kind == OUTPUTS || kind == OUTPUT_BYTES)
                return total->amounts[OUTPUT_BYTES] / MAX(total->amounts[OUTPUTS], 1) + 1;
        if (kind == EGRESS_EVENTS || kind == EGRESS_EVENT_BYTES)
                return total->amounts[EGRESS_EVENT_BYTES] / MAX(total->amounts[EGRESS_EVENTS], 1) +
                       1;
        return 1;
}

/* How many rows are to go for @excess of that kind; at most a step's. */
static int64_t rows_of(const struct owner_total *total, enum kind kind, int64_t excess)
{
        int64_t row_bytes = row_bytes_of(total, kind);
        int64_t n_rows = excess;

        if (kind == EVENT_BYTES || kind == OUTPUT_BYTES || kind == EGRESS_EVENT_BYTES)
                n_rows = excess / row_bytes + 1;
        n_rows = MIN(n_rows, STEP_BYTES / row_bytes + 1);
        return MIN(n_rows, (int64_t)STEP_ROWS);
}

/* Executions and egress events of sandboxes that go are first, in steps of their own: a cascade
 * over thousands would hold up everyone else's writes. */
static int delete_sandboxes(struct database *database, const char *owner, int64_t n_rows)
{
        int r;

        r = delete_oldest(database, STATEMENT_EMPTY_OLDEST_SANDBOXES, owner, n_rows);
        if (r == 0)
                r = delete_oldest(database, STATEMENT_EMPTY_EGRESS_OF_OLDEST_SANDBOXES, owner,
                                  n_rows);
        if (r == 0)
                r = delete_oldest(database, STATEMENT_DELETE_OLDEST_SANDBOXES, owner, n_rows);
        return r;
}

static int delete_ledger(struct database *database, const char *owner, int64_t n_rows)
{
        int r = delete_oldest(database, STATEMENT_ALLOW_USAGE_DELETE_OF_OWNER, owner, n_rows);

        return r ? r
                 : delete_oldest(database, STATEMENT_DELETE_OLDEST_USAGE_RECORDS, owner, n_rows);
}

static int delete_of(struct database *database, enum kind kind, const char *owner, int64_t n_rows)
{
        switch (kind) {
        case EVENTS:
        case EVENT_BYTES:
                return delete_oldest(database, STATEMENT_DELETE_OLDEST_EVENTS, owner, n_rows);
        case ENDED_EXECUTIONS:
                return delete_oldest(database, STATEMENT_DELETE_OLDEST_EXECUTIONS, owner, n_rows);
        case ENDED_SANDBOXES:
                return delete_sandboxes(database, owner, n_rows);
        case OUTPUTS:
        case OUTPUT_BYTES:
                return delete_oldest(database, STATEMENT_DELETE_OLDEST_OUTPUTS, owner, n_rows);
        case EGRESS_EVENTS:
        case EGRESS_EVENT_BYTES:
                return delete_oldest(database, STATEMENT_DELETE_OLDEST_EGRESS_EVENTS, owner,
                                     n_rows);
        case LEDGER_ROWS:
                return delete_ledger(database, owner, n_rows);
        case _KIND_N:
                break;
        }
        return 0;
}

static bool is_above(const struct totals *totals, enum kind kind, const int64_t *bounds)
{
        return bounds[kind] && totals->sums[kind] > bounds[kind];
}

/* *@ret_n_rows: how many went. */
static int keep_kind(struct database *database, const struct totals *totals, enum kind kind,
                     int64_t bound, int64_t *ret_n_rows)
{
        int64_t budget = STEP_ROWS, level = 0;
        int r;

        r = find_level(totals, kind, bound, &level);
        for (size_t i = 0; i < totals->n && r == 0 && budget > 0; i++) {
                const struct owner_total *total = &totals->items[i];
                int64_t n_rows = 0;

                if (total->amounts[kind] > level)
                        n_rows = MIN(rows_of(total, kind, total->amounts[kind] - level), budget);
                if (n_rows > 0)
                        r = delete_of(database, kind, total->owner, n_rows);
                budget -= n_rows;
        }
        *ret_n_rows = STEP_ROWS - budget;
        return r;
}

/* Owners come and go: those that have nothing any more are forgotten. */
static int forget_owners(struct database *database)
{
        int r = row_run(database->statements[STATEMENT_REMEMBER_DELETED_EVENTS]);

        return r ? r : row_run(database->statements[STATEMENT_FORGET_OWNERS]);
}

/* Deletes of what is above its bound. *@ret_is_above: something was. */
static int keep_all(struct database *database, const int64_t *bounds, bool *ret_is_above,
                    int64_t *ret_n_ledger)
{
        struct totals totals = { 0 };
        int64_t n_rows;
        int r;

        *ret_n_ledger = 0;
        *ret_is_above = false;
        r = read_totals(database, &totals);
        for (enum kind kind = 0; kind < _KIND_N && r == 0; kind++) {
                if (!is_above(&totals, kind, bounds))
                        continue;
                *ret_is_above = true;
                r = keep_kind(database, &totals, kind, bounds[kind], &n_rows);
                if (kind == LEDGER_ROWS)
                        *ret_n_ledger = n_rows;
        }
        free(totals.items);
        return r;
}

/* Whether a step was enough is only known afterwards: rows differ in size. */
static int look_again(struct database *database, const int64_t *bounds, bool *has_more)
{
        struct totals totals = { 0 };
        int r;

        r = read_totals(database, &totals);
        for (enum kind kind = 0; kind < _KIND_N && r == 0; kind++)
                *has_more = *has_more || is_above(&totals, kind, bounds);
        free(totals.items);
        return r;
}

int owner_bounds_keep(struct database *database, const struct store_retention *retention,
                      bool *has_more, int64_t *ret_n_ledger)
{
        const int64_t bounds[_KIND_N] = {
                [EVENTS] = retention->events_max,
                [EVENT_BYTES] = retention->events_bytes_max,
                [ENDED_EXECUTIONS] = retention->executions_max,
                [ENDED_SANDBOXES] = retention->sandboxes_max,
                [OUTPUT_BYTES] = retention->outputs_max_bytes,
                [EGRESS_EVENTS] = retention->egress_events_max,
                [EGRESS_EVENT_BYTES] = retention->egress_events_bytes_max,
                [LEDGER_ROWS] = retention->ledger_rows_max,
        };
        bool was_above = false;
        int r;

        r = keep_all(database, bounds, &was_above, ret_n_ledger);
        if (r == 0 && was_above)
                r = look_again(database, bounds, has_more);
        return r ? r : forget_owners(database);
}
