/*
 * Rows go oldest first, as they came, and of an owner above the bound (owner_bounds.h) likewise.
 * Since their times only go on, those of a time are found by halving.
 */
#include "runtime/base/macros.h"
#include "server/store/ledger.h"
#include "server/store/rows.h"
#include "server/store/store_private.h"

enum { STEP_ROWS = 256 };

struct extent {
        int64_t deleted_id; /* those up to here are gone, and maybe others */
        int64_t newest_id;
};

static int read_extent(struct database *database, struct extent *ret_extent)
{
        int r = row_number(database->statements[STATEMENT_USAGE_DELETED_ID],
                           &ret_extent->deleted_id);

        ret_extent->newest_id = ret_extent->deleted_id; /* when there is no row */
        return r ? r
                 : row_number(database->statements[STATEMENT_USAGE_NEWEST_ID],
                              &ret_extent->newest_id);
}

/* Of the row of that id or the next one: there is one. */
int ledger_read_time(struct database *database, int64_t record_id, int64_t *ret_time_usec)
{
        sqlite3_stmt *read = database->statements[STATEMENT_USAGE_RECORD_TIME];

        row_bind_int64(read, ":id", record_id);
        return row_number(read, ret_time_usec);
}

int ledger_find_time(struct database *database, int64_t time_usec, int64_t *ret_record_id)
{
        struct extent extent = { 0 };
        int64_t low, high;
        int r;

        r = read_extent(database, &extent);
        low = extent.deleted_id + 1;
        high = extent.newest_id + 1;
        while (r == 0 && low < high) {
                int64_t middle = low + (high - low) / 2, time = 0;

                r = ledger_read_time(database, middle, &time);
                if (time >= time_usec)
                        high = middle;
                else
                        low = middle + 1;
        }
        *ret_record_id = low;
        return r;
}

static int delete_up_to(struct database *database, int64_t record_id)
{
        sqlite3_stmt *allow = database->statements[STATEMENT_ALLOW_USAGE_DELETE];
        int r;

        row_bind_int64(allow, ":id", record_id);
        r = row_run(allow);
        return r ? r : row_run(database->statements[STATEMENT_DELETE_USAGE_RECORDS]);
}

int ledger_prune(struct database *database, const struct store_retention *retention,
                 int64_t now_usec, int *n_full)
{
        struct extent extent = { 0 };
        int64_t first_kept = 0, last;
        int r;

        if (!retention->ledger_kept_usec)
                return 0;
        r = read_extent(database, &extent);
        if (r == 0)
                r = ledger_find_time(database, now_usec - retention->ledger_kept_usec, &first_kept);
        last = MIN(first_kept - 1, extent.deleted_id + STEP_ROWS);
        if (r || last <= extent.deleted_id)
                return r;
        if (last < first_kept - 1)
                (*n_full)++;
        return delete_up_to(database, last);
}
