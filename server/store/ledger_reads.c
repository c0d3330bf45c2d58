/*
 * Rows of the ledger, by steps: a step looks at some thousand rows of a scope that an index finds,
 * fewer if it has labels to look for at each, and takes those that are asked for. What ended at a
 * time came then or later, so a search from a time on begins there.
 *
 * Sums of all times are those of accounts, sandbox after sandbox. Where retention took rows from an
 * account its other rows are summed up: such a sandbox ends a step, or takes several.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/ledger.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

enum {
        STEP_LOOKS = 4096, /* a few milliseconds of them: one at a row, and one for each label */
        SUM_LOOKS = 8,     /* at a row, or an account, that is read whole */
        DESTINATIONS_MAX = 1000,
};

struct read_job {
        struct job job;
        store_on_usage on_list; /* one of these two */
        store_on_usage_sums on_sums;
        struct job_text owner;
        struct job_text sandbox_id;
        struct job_text execution_id;
        struct pairs labels;
        struct job_text after_sandbox;
        struct usage_query query; /* without what is above */
        struct usage_record *records;
        size_t n_records;
        struct usage_sums sums;
        int64_t last_id;
        int64_t last_time_usec;
        bool more;
};

/* The narrowest filter chooses the index. */
static sqlite3_stmt *bind_scope(struct database *database, const struct read_job *read)
{
        enum statement_id id = STATEMENT_USAGE_RECORDS;
        sqlite3_stmt *page;

        if (read->execution_id.is_set)
                id = STATEMENT_USAGE_RECORDS_OF_EXECUTION;
        else if (read->sandbox_id.is_set)
                id = STATEMENT_USAGE_RECORDS_OF_SANDBOX;
        else if (read->owner.is_set)
                id = STATEMENT_USAGE_RECORDS_OF_OWNER;
        page = database->statements[id];
        if (id != STATEMENT_USAGE_RECORDS)
                row_bind_text(page, ":owner", job_text_get(&read->owner));
        if (read->execution_id.is_set)
                row_bind_text(page, ":execution_id", read->execution_id.text);
        if (read->execution_id.is_set || read->sandbox_id.is_set)
                row_bind_text(page, ":sandbox_id", job_text_get(&read->sandbox_id));
        return page;
}

static int find_start(struct database *database, const struct read_job *read, int64_t *ret_after)
{
        const struct usage_query *query = &read->query;
        int64_t first = 0, next = 0;
        int r = 0;

        if (query->start_time_usec > 0 && !read->sandbox_id.is_set)
                r = ledger_find_time(database, query->start_time_usec, &first);
        if (r == 0 && query->after_time_usec > 0)
                r = ledger_find_time(database, query->after_time_usec + 1, &next);
        *ret_after = MAX(MAX(first, next) - 1, query->after_id);
        return r;
}

static void add_sum(struct read_job *read, const struct usage_record *record)
{
        struct usage share = read->execution_id.is_set ? record->usage : ledger_share(record);

        usage_add(&read->sums.usage, &share);
        usage_gaps_count(&read->sums.gaps, share.missing, record->is_incomplete);
        read->sums.n++;
}

static int take_record(sqlite3_stmt *page, struct read_job *read)
{
        struct usage_record record;
        int r;

        if (read->on_sums) {
                r = row_read_usage_record(page, &record);
                if (r == 0)
                        add_sum(read, &record);
                return r;
        }
        r = array_grow(&read->records, read->n_records, sizeof(*read->records));
        if (r == 0)
                r = row_read_usage_record(page, &read->records[read->n_records]);
        if (r == 0)
                read->n_records++;
        return r;
}

static size_t step_rows(const struct read_job *read)
{
        return STEP_LOOKS / ((read->on_sums ? SUM_LOOKS : 1) + read->labels.n);
}

static int read_step(sqlite3_stmt *page, struct read_job *read)
{
        int id_column = row_usage_record_n_columns();
        size_t n_seen = 0;
        int r = 0;

        while (r == 0 && (r = row_step(page)) == ROW_E_ROW) {
                bool is_wanted = sqlite3_column_int(page, id_column + 1) != 0;

                read->more = n_seen == step_rows(read) ||
                             (is_wanted && read->on_list && read->n_records == read->query.limit);
                if (read->more)
                        break;
                n_seen++;
                r = is_wanted ? take_record(page, read) : 0;
                read->last_id = sqlite3_column_int64(page, id_column);
        }
        row_end(page);
        return r == ROW_E_ROW ? 0 : r;
}

static int read_rows(struct database *database, struct read_job *read)
{
        int64_t end_time_usec = read->query.end_time_usec;
        sqlite3_stmt *page;
        int64_t after;
        int r;

        r = find_start(database, read, &after);
        if (r)
                return r;
        read->last_id = after;
        page = bind_scope(database, read);
        row_bind_int64(page, ":after", after);
        row_bind_int64(page, ":start", read->query.start_time_usec);
        row_bind_int64(page, ":end", end_time_usec ? end_time_usec : INT64_MAX);
        row_bind_int64(page, ":limit", (int64_t)step_rows(read) + 1); /* one more tells of more */
        r = read_step(page, read);
        if (r == 0 && read->more && read->on_list)
                r = ledger_read_time(database, read->last_id, &read->last_time_usec);
        return r;
}

/* The rows of the sandbox that the step came to. More: of it, or of those after it. */
static int sum_rest(struct database *database, struct read_job *read)
{
        bool is_only = read->sandbox_id.is_set;
        int r;

        job_text_set(&read->job, &read->sandbox_id, read->sums.last_sandbox);
        r = read_rows(database, read);
        if (!read->more)
                read->last_id = 0;
        read->more |= !is_only;
        return r;
}

static sqlite3_stmt *bind_accounts(struct database *database, const struct read_job *read)
{
        enum statement_id id = STATEMENT_USAGE_ACCOUNTS;
        sqlite3_stmt *page;

        if (read->sandbox_id.is_set)
                id = STATEMENT_USAGE_ACCOUNTS_OF_SANDBOX;
        else if (read->owner.is_set)
                id = STATEMENT_USAGE_ACCOUNTS_OF_OWNER;
        page = database->statements[id];
        if (id != STATEMENT_USAGE_ACCOUNTS)
                row_bind_text(page, ":owner", job_text_get(&read->owner));
        if (read->sandbox_id.is_set)
                row_bind_text(page, ":sandbox_id", read->sandbox_id.text);
        row_bind_text(page, ":after", read->after_sandbox.text);
        row_bind_int64(page, ":limit", (int64_t)step_rows(read) + 1);
        return page;
}

static void add_account(struct usage_sums *sums, const struct usage_account *account)
{
        usage_add(&sums->usage, &account->usage);
        usage_gaps_add(&sums->gaps, &account->gaps);
        sums->n += account->n_records;
}

/* *@ret_is_cut: rows of the one that it came to last are gone. */
static int sum_accounts(sqlite3_stmt *page, struct read_job *read, bool *ret_is_cut)
{
        int flag_column = row_usage_account_n_columns();
        struct usage_account account;
        size_t n_seen = 0;
        int r = 0;

        *ret_is_cut = false;
        while (r == 0 && (r = row_step(page)) == ROW_E_ROW) {
                bool is_wanted = sqlite3_column_int(page, flag_column) != 0;
                bool is_whole = sqlite3_column_int(page, flag_column + 1) != 0;

                read->more = n_seen++ == step_rows(read);
                if (read->more)
                        break;
                r = row_read_usage_account(page, &account);
                if (r)
                        break;
                memcpy(read->sums.last_sandbox, account.sandbox_id, sizeof(account.sandbox_id));
                *ret_is_cut = is_wanted && !is_whole;
                if (*ret_is_cut)
                        break;
                if (is_wanted)
                        add_account(&read->sums, &account);
        }
        row_end(page);
        return r == ROW_E_ROW ? 0 : r;
}

static int sum_by_accounts(struct database *database, struct read_job *read)
{
        bool is_cut = read->query.after_id > 0; /* it is in the midst of one */
        int r = 0;

        memcpy(read->sums.last_sandbox, read->after_sandbox.text, ID_BUFFER - 1);
        if (!is_cut)
                r = sum_accounts(bind_accounts(database, read), read, &is_cut);
        return r || !is_cut ? r : sum_rest(database, read);
}

static int read_work(struct database *database, struct job *job)
{
        struct read_job *read = CONTAINER_OF(job, struct read_job, job);
        bool is_of_all_times = !read->query.start_time_usec && !read->query.end_time_usec;
        int r = want_labels(database, &read->labels);

        if (r)
                return r;
        if (read->on_sums && is_of_all_times && !read->execution_id.is_set)
                return sum_by_accounts(database, read);
        return read_rows(database, read);
}

static void read_deliver(struct job *job)
{
        struct read_job *read = CONTAINER_OF(job, struct read_job, job);
        const struct usage_list list = { .records = read->records,
                                         .n = read->n_records,
                                         .more = read->more,
                                         .last_time_usec = read->last_time_usec,
                                         .cost_usec = job->cost_usec };

        read->sums.cost_usec = job->cost_usec;
        read->sums.more = read->more;
        read->sums.last_id = read->last_id;
        if (read->on_list)
                read->on_list(job->userdata, job->result, job->result ? NULL : &list);
        else
                read->on_sums(job->userdata, job->result, job->result ? NULL : &read->sums);
}

static void read_deinit(struct job *job)
{
        struct read_job *read = CONTAINER_OF(job, struct read_job, job);

        pairs_deinit(&read->labels);
        free(read->records);
}

static const struct job_class read_class = {
        .work = read_work,
        .deliver = read_deliver,
        .deinit = read_deinit,
};

static struct read_job *read_new(struct store *store, const struct usage_query *query,
                                 void *userdata)
{
        struct read_job *read = job_new(store, &read_class, sizeof(*read), userdata);

        if (query->labels && pairs_copy(query->labels, &read->labels))
                read->job.result = error_origin(-ENOMEM);
        job_text_set(&read->job, &read->owner, query->owner);
        job_text_set(&read->job, &read->sandbox_id, query->sandbox_id);
        job_text_set(&read->job, &read->execution_id, query->execution_id);
        job_text_set(&read->job, &read->after_sandbox, query->after_sandbox);
        read->query = (struct usage_query){
                .start_time_usec = query->start_time_usec,
                .end_time_usec = query->end_time_usec,
                .after_time_usec = MIN(query->after_time_usec, INT64_MAX - 1),
                .after_id = query->after_id,
                .limit = MIN(query->limit, (size_t)LIST_LIMIT_MAX),
        };
        return read;
}

void store_list_usage(struct store *store, const struct usage_query *query, store_on_usage on_done,
                      void *userdata)
{
        struct read_job *read = read_new(store, query, userdata);

        read->on_list = on_done;
        job_submit(&read->job);
}

void store_sum_usage(struct store *store, const struct usage_query *query,
                     store_on_usage_sums on_done, void *userdata)
{
        struct read_job *read = read_new(store, query, userdata);

        read->on_sums = on_done;
        job_submit(&read->job);
}

/* Where connections went. */

struct destinations_job {
        struct job job;
        store_on_usage_destinations on_done;
        struct job_text owner;
        struct job_text sandbox_id;
        struct job_text execution_id;
        struct usage_destination *destinations;
        size_t n;
};

/* Texts come from rows that were checked when they came in: cut, they still end. */
static void take_text(sqlite3_stmt *statement, int column, size_t size, char *ret_text)
{
        const char *text = (const char *)sqlite3_column_text(statement, column);
        size_t n = text ? strnlen(text, size - 1) : 0;

        if (n > 0)
                memcpy(ret_text, text, n);
        ret_text[n] = '\0';
}

static int take_destination(sqlite3_stmt *statement, struct destinations_job *read)
{
        struct usage_destination *destination;
        int r = array_grow(&read->destinations, read->n, sizeof(*read->destinations));

        if (r)
                return error_fold(r);
        destination = &read->destinations[read->n++];
        take_text(statement, 0, sizeof(destination->name), destination->name);
        take_text(statement, 1, sizeof(destination->address), destination->address);
        destination->port = sqlite3_column_int(statement, 2);
        destination->connections = sqlite3_column_int64(statement, 3);
        destination->sent_bytes = sqlite3_column_int64(statement, 4);
        destination->received_bytes = sqlite3_column_int64(statement, 5);
        return 0;
}

static int destinations_work(struct database *database, struct job *job)
{
        struct destinations_job *read = CONTAINER_OF(job, struct destinations_job, job);
        bool is_of_execution = read->execution_id.is_set;
        sqlite3_stmt *statement =
                database->statements[is_of_execution ? STATEMENT_USAGE_DESTINATIONS_OF_EXECUTION
                                                     : STATEMENT_USAGE_DESTINATIONS_OF_SANDBOX];
        int r;

        row_bind_text(statement, ":owner", job_text_get(&read->owner));
        row_bind_text(statement, ":sandbox_id", job_text_get(&read->sandbox_id));
        if (is_of_execution)
                row_bind_text(statement, ":execution_id", read->execution_id.text);
        row_bind_int64(statement, ":limit", DESTINATIONS_MAX);
        while ((r = row_step(statement)) == ROW_E_ROW) {
                r = take_destination(statement, read);
                if (r)
                        break;
        }
        row_end(statement);
        return r;
}

static void destinations_deliver(struct job *job)
{
        struct destinations_job *read = CONTAINER_OF(job, struct destinations_job, job);
        const struct usage_destinations found = { .items = read->destinations,
                                                  .n = read->n,
                                                  .cost_usec = job->cost_usec };

        read->on_done(job->userdata, job->result, job->result ? NULL : &found);
}

static void destinations_deinit(struct job *job)
{
        free(CONTAINER_OF(job, struct destinations_job, job)->destinations);
}

static const struct job_class destinations_class = {
        .work = destinations_work,
        .deliver = destinations_deliver,
        .deinit = destinations_deinit,
};

void store_list_usage_destinations(struct store *store, const char *owner, const char *sandbox_id,
                                   const char *execution_id, store_on_usage_destinations on_done,
                                   void *userdata)
{
        struct destinations_job *read =
                job_new(store, &destinations_class, sizeof(*read), userdata);

        read->on_done = on_done;
        job_text_set(&read->job, &read->owner, owner);
        job_text_set(&read->job, &read->sandbox_id, sandbox_id);
        job_text_set(&read->job, &read->execution_id, execution_id);
        job_submit(&read->job);
}
