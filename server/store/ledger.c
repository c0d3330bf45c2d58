/*
 * An account (usage_sandboxes) has what all rows of a sandbox add up to. A row of an execution says
 * what that used; a row of a sandbox, what of its meters no row has yet. So rows add up to the
 * meters, whatever was lost on the way: what one row lacks is in the next. Where rows have more
 * than a meter (two meters of the kernel are not read at one moment, nor rounded alike), the rows
 * count.
 *
 * Meters of a whole sandbox, which executions that run at the same time would all count, are in no
 * row of an execution: throttling. What only executions have is in no row of a sandbox: output and
 * work of earlier ones. Wall time of a sandbox is metered, too. Only where no meters say it is it
 * from the end of its last row on, by the clock that people set.
 */
#include "server/store/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/store_private.h"

static int read_account(struct database *database, const char *sandbox_id,
                        struct usage_account *ret_account)
{
        sqlite3_stmt *read = database->statements[STATEMENT_USAGE_ACCOUNT];
        int r;

        row_bind_text(read, ":id", sandbox_id);
        r = row_step(read);
        if (r != ROW_E_ROW)
                return r ? r : STORE_E_NOT_FOUND;
        r = row_read_usage_account(read, ret_account);
        row_end(read);
        return r;
}

/* A new one, if it has none. */
static int open_account(struct database *database, const char *sandbox_id,
                        struct usage_account *ret_account)
{
        sqlite3_stmt *open = database->statements[STATEMENT_OPEN_USAGE_ACCOUNT];
        int r = read_account(database, sandbox_id, ret_account);

        if (r != STORE_E_NOT_FOUND)
                return r;
        row_bind_text(open, ":id", sandbox_id);
        r = row_run(open);
        return r ? r : read_account(database, sandbox_id, ret_account);
}

static int save_account(struct database *database, const struct usage_account *account)
{
        sqlite3_stmt *update = database->statements[STATEMENT_UPDATE_USAGE_ACCOUNT];
        int r = row_bind_usage_account(update, account);

        return r ? r : row_run(update);
}

struct usage ledger_share(const struct usage_record *record)
{
        struct usage share = record->usage;

        if (record->type == USAGE_RECORD_EXECUTION) {
                share.wall_usec = 0;
                /* What was not billed to it is billed to its sandbox, as far as that was read. */
                share.missing &= ~(BIT(USAGE_PART_THROTTLED) | BIT(USAGE_PART_REST));
        }
        return share;
}

static int add_record(struct database *database, struct usage_account *account,
                      struct usage_record *record)
{
        sqlite3_stmt *insert = database->statements[STATEMENT_INSERT_USAGE_RECORD];
        struct usage share = ledger_share(record);
        int r;

        memcpy(record->sandbox_id, account->sandbox_id, sizeof(record->sandbox_id));
        memcpy(record->owner, account->owner, sizeof(record->owner));
        record->sequence = ++account->n_records;
        usage_add(&account->usage, &share);
        usage_gaps_count(&account->gaps, share.missing, record->is_incomplete);
        r = row_bind_usage_record(insert, record);
        if (r)
                return error_fold(r);
        row_bind_int64(insert, ":time", time_now_usec());
        r = row_run(insert);
        if (r > 0) /* its rows are counted and its ends looked for: nothing of it is there twice */
                return error_origin(-EUCLEAN);
        return r ? r : save_account(database, account);
}

/* The one number that is asked for @id; without a row STORE_E_NOT_FOUND. */
static int ask_state(struct database *database, enum statement_id statement, const char *id,
                     bool *ret_is_ended)
{
        sqlite3_stmt *ask = database->statements[statement];
        int64_t is_ended = -1;
        int r;

        row_bind_text(ask, ":id", id);
        r = row_number(ask, &is_ended);
        if (r)
                return r;
        *ret_is_ended = is_ended == 1;
        return is_ended < 0 ? STORE_E_NOT_FOUND : 0;
}

/* More was used than was read. */
static bool has_rest(const struct usage *usage)
{
        return usage->missing & BIT(USAGE_PART_REST);
}

static struct usage_record record_of(const struct execution_record *execution)
{
        struct usage_record record = {
                .type = USAGE_RECORD_EXECUTION,
                .start_time_usec = execution->start_time_usec ? execution->start_time_usec
                                                              : execution->end_time_usec,
                .end_time_usec = execution->end_time_usec,
                .usage = execution->usage,
                .outcome = execution->outcome,
                .cause = execution->cause,
                .is_incomplete = has_rest(&execution->usage),
        };

        memcpy(record.execution_id, execution->execution_id, sizeof(record.execution_id));
        memcpy(record.context_id, execution->context_id, sizeof(record.context_id));
        usage_drop_of_sandbox(&record.usage);
        return record;
}

int ledger_end_execution(struct database *database, const struct execution_record *execution)
{
        struct usage_record record = record_of(execution);
        struct usage_account account;
        bool is_ended;
        int r;

        r = ask_state(database, STATEMENT_IS_EXECUTION_ENDED, execution->execution_id, &is_ended);
        if (r || is_ended)
                return r;
        r = open_account(database, execution->sandbox_id, &account);
        if (r)
                return r;
        /* Told after the end of its sandbox, whose last row has it. */
        if (account.end_time_usec)
                record.usage =
                        (struct usage){ .wall_usec = execution->usage.wall_usec,
                                        .missing = record.usage.missing & BIT(USAGE_PART_REST) };
        return add_record(database, &account, &record);
}

/* What of @total no row has. */
static struct usage rest_of(const struct usage_account *account, const struct usage *total,
                            int64_t end_time_usec)
{
        struct usage rest;

        usage_rest(total, &account->usage, &rest);
        if (!total->wall_usec)
                rest.wall_usec = MAX(end_time_usec - account->billed_time_usec, 0);
        return rest;
}

static int add_rest(struct database *database, struct usage_account *account,
                    struct usage_record *record)
{
        record->start_time_usec = MIN(account->billed_time_usec, record->end_time_usec);
        account->billed_time_usec = MAX(account->billed_time_usec, record->end_time_usec);
        return add_record(database, account, record);
}

static int add_end(struct database *database, struct usage_account *account,
                   const struct sandbox_record *sandbox)
{
        sqlite3_stmt *labels = database->statements[STATEMENT_INSERT_USAGE_LABELS];
        struct usage_record record = {
                .type = USAGE_RECORD_SANDBOX_END,
                .end_time_usec = sandbox->end_time_usec,
                .cause = sandbox->end_cause,
                .is_incomplete = has_rest(&sandbox->usage.total),
        };
        int r;

        record.usage = rest_of(account, &sandbox->usage.total, sandbox->end_time_usec);
        if (record.is_incomplete) /* that reading may have been lost, too */
                usage_raise_peaks(&record.usage, &account->usage);
        account->end_time_usec = MAX(sandbox->end_time_usec, 1);
        account->end_cause = sandbox->end_cause;
        memcpy(account->end_message, sandbox->end_message, sizeof(account->end_message));
        r = add_rest(database, account, &record);
        if (r)
                return r;
        row_bind_text(labels, ":id", sandbox->sandbox_id);
        return row_run(labels);
}

int ledger_end_sandbox(struct database *database, const struct sandbox_record *sandbox,
                       struct usage *ret_total)
{
        struct usage_account account;
        bool is_ended;
        int r;

        r = ask_state(database, STATEMENT_IS_SANDBOX_ENDED, sandbox->sandbox_id, &is_ended);
        if (r)
                return r;
        if (is_ended)
                r = read_account(database, sandbox->sandbox_id, &account);
        else
                r = open_account(database, sandbox->sandbox_id, &account);
        if (r == 0 && !is_ended)
                r = add_end(database, &account, sandbox);
        if (r == 0)
                *ret_total = account.usage;
        return is_ended && r == STORE_E_NOT_FOUND ? 0 : r; /* it ended before there was a ledger */
}

/* A row for a part of its life. */

struct bill_job {
        struct change_job change;
        struct job_text sandbox_id;
        int64_t end_time_usec;
        struct usage total;
        size_t n_runs;
        struct used_so_far runs[];
};

static int note_runs(struct database *database, const struct bill_job *bill)
{
        sqlite3_stmt *note = database->statements[STATEMENT_NOTE_EXECUTION_USAGE];
        int r = 0;

        for (size_t i = 0; r == 0 && i < bill->n_runs; i++) {
                struct execution_record record = { .usage = bill->runs[i].usage };

                memcpy(record.execution_id, bill->runs[i].execution_id,
                       sizeof(record.execution_id));
                r = row_bind_execution(note, &record);
                if (r == 0)
                        r = row_run(note);
        }
        return r;
}

static int bill_work(struct database *database, struct job *job)
{
        struct bill_job *bill = CONTAINER_OF(job, struct bill_job, change.job);
        struct usage_record record = { .type = USAGE_RECORD_SANDBOX,
                                       .end_time_usec = bill->end_time_usec };
        struct usage_account account;
        int r;

        r = open_account(database, bill->sandbox_id.text, &account);
        if (r || account.end_time_usec)
                return r;
        r = note_runs(database, bill);
        if (r)
                return error_fold(r);
        record.usage = rest_of(&account, &bill->total, bill->end_time_usec);
        return usage_is_nothing(&record.usage) ? 0 : add_rest(database, &account, &record);
}

static void bill_deliver(struct job *job)
{
        if (job->result == 0)
                store_count_kept(job->store, 0, 0);
        change_deliver(job);
}

static const struct job_class bill_class = {
        .is_write = true,
        .is_new_work = true,
        .work = bill_work,
        .deliver = bill_deliver,
};

void store_bill_sandbox(struct store *store, const struct sandbox_bill *asked,
                        store_on_done on_done, void *userdata)
{
        size_t n_bytes = asked->n_runs * sizeof(*asked->runs);
        struct bill_job *bill = job_new(store, &bill_class, sizeof(*bill) + n_bytes, userdata);

        bill->change.on_done = on_done;
        job_text_set(&bill->change.job, &bill->sandbox_id, asked->sandbox_id);
        bill->end_time_usec = asked->end_time_usec;
        bill->total = asked->total;
        bill->n_runs = asked->n_runs;
        if (n_bytes > 0)
                memcpy(bill->runs, asked->runs, n_bytes);
        job_submit(&bill->change.job);
}
