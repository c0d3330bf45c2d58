/* What sandboxes asked the network for: batches of events come in, pages of them go out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

/* Of a row in the table and its indexes, without its texts; about. */
enum { ROW_BYTES = 384 };

struct insert_job {
        struct change_job change;
        struct egress_record *records;
        size_t n;
        size_t n_inserted;
        size_t n_bytes; /* of those */
};

static int64_t size_of(const struct egress_record *record)
{
        return ROW_BYTES + (int64_t)(strlen(record->address) + strlen(record->name) +
                                     strlen(record->command) + strlen(record->rule));
}

static int insert_one(struct database *database, struct insert_job *insert,
                      const struct egress_record *record)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_INSERT_EGRESS_EVENT];
        int r;

        r = row_bind_egress_event(statement, record);
        if (r)
                return error_fold(r);
        row_bind_int64(statement, ":size", size_of(record));
        r = row_run(statement);
        if (r == 0 && sqlite3_changes(database->connection) > 0) {
                insert->n_inserted++;
                insert->n_bytes += (size_t)size_of(record);
        }
        return r;
}

static int insert_work(struct database *database, struct job *job)
{
        struct insert_job *insert = CONTAINER_OF(job, struct insert_job, change.job);
        int r = 0;

        /* Anew when the whole transaction is tried a second time. */
        insert->n_inserted = 0;
        insert->n_bytes = 0;
        for (size_t i = 0; i < insert->n && r == 0; i++)
                r = insert_one(database, insert, &insert->records[i]);
        return r;
}

static void insert_deliver(struct job *job)
{
        const struct insert_job *insert = CONTAINER_OF(job, struct insert_job, change.job);

        if (job->result == 0)
                store_count_egress(job->store, insert->n_inserted, insert->n_bytes);
        change_deliver(job);
}

static void insert_deinit(struct job *job)
{
        free(CONTAINER_OF(job, struct insert_job, change.job)->records);
}

static const struct job_class insert_class = {
        .is_write = true,
        .is_new_work = true,
        .work = insert_work,
        .deliver = insert_deliver,
        .deinit = insert_deinit,
};

void store_insert_egress_events(struct store *store, const struct egress_record *records, size_t n,
                                store_on_done on_done, void *userdata)
{
        struct insert_job *insert = job_new(store, &insert_class, sizeof(*insert), userdata);

        assert(n <= EGRESS_BATCH_MAX);
        insert->change.on_done = on_done;
        insert->n = n;
        insert->records = reallocarray(NULL, n + 1, sizeof(*records));
        if (insert->records)
                memcpy(insert->records, records, n * sizeof(*records));
        else
                insert->change.job.result = error_origin(-ENOMEM);
        job_submit(&insert->change.job);
}

/* A page of them. */

struct list_job {
        struct job job;
        store_on_egress_events on_done;
        struct job_text owner;
        struct job_text sandbox_id;
        struct job_text execution_id;
        unsigned types;
        int64_t after_sequence;
        size_t limit;
        struct egress_record *records;
        size_t n_records;
        struct egress_list list;
};

/* 0: there is one; else @absent. */
static int ask_whether(sqlite3_stmt *statement, int absent)
{
        int64_t found = 0;
        int r = row_number(statement, &found);

        if (r)
                return r;
        return found ? 0 : absent;
}

static int check_filter(struct database *database, const struct list_job *list)
{
        sqlite3_stmt *sandbox = database->statements[STATEMENT_HAS_SANDBOX];
        sqlite3_stmt *execution = database->statements[STATEMENT_HAS_EXECUTION];
        int r;

        row_bind_text(sandbox, ":id", list->sandbox_id.text);
        row_bind_text(sandbox, ":owner", job_text_get(&list->owner));
        r = ask_whether(sandbox, STORE_E_NOT_FOUND);
        if (r || !list->execution_id.is_set)
                return r;
        row_bind_text(execution, ":id", list->execution_id.text);
        row_bind_text(execution, ":sandbox_id", list->sandbox_id.text);
        return ask_whether(execution, STORE_E_NO_EXECUTION);
}

static int read_records(sqlite3_stmt *page, struct list_job *list)
{
        int r;

        while ((r = row_step(page)) == ROW_E_ROW) {
                r = array_grow(&list->records, list->n_records, sizeof(*list->records));
                if (r == 0)
                        r = row_read_egress_event(page, &list->records[list->n_records]);
                if (r)
                        break;
                list->n_records++;
        }
        row_end(page);
        return r;
}

static int read_page(struct database *database, struct list_job *list)
{
        bool is_of_execution = list->execution_id.is_set;
        sqlite3_stmt *page =
                database->statements[is_of_execution ? STATEMENT_EGRESS_EVENTS_OF_EXECUTION
                                                     : STATEMENT_EGRESS_EVENTS];

        if (is_of_execution)
                row_bind_text(page, ":execution_id", list->execution_id.text);
        row_bind_text(page, ":sandbox_id", list->sandbox_id.text);
        row_bind_int64(page, ":after", list->after_sequence);
        row_bind_int64(page, ":types", list->types);
        row_bind_int64(page, ":limit", (int64_t)list->limit + 1); /* one more tells of more */
        return read_records(page, list);
}

static int list_work(struct database *database, struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);
        int r;

        r = check_filter(database, list);
        if (r == 0)
                r = read_page(database, list);
        list->list.records = list->records;
        list->list.n = MIN(list->n_records, list->limit);
        list->list.more = list->n_records > list->limit;
        return r;
}

static void list_deliver(struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);

        list->on_done(job->userdata, job->result, job->result ? NULL : &list->list);
}

static void list_deinit(struct job *job)
{
        free(CONTAINER_OF(job, struct list_job, job)->records);
}

static const struct job_class list_class = {
        .work = list_work,
        .deliver = list_deliver,
        .deinit = list_deinit,
};

void store_list_egress_events(struct store *store, const struct egress_query *query,
                              store_on_egress_events on_done, void *userdata)
{
        struct list_job *list = job_new(store, &list_class, sizeof(*list), userdata);

        list->on_done = on_done;
        job_text_set(&list->job, &list->owner, query->owner);
        job_text_set(&list->job, &list->sandbox_id, query->sandbox_id);
        job_text_set(&list->job, &list->execution_id, query->execution_id);
        list->types = query->types ? query->types : ~0U;
        list->after_sequence = query->after_sequence;
        list->limit = MIN(query->limit, (size_t)LIST_LIMIT_MAX);
        job_submit(&list->job);
}
