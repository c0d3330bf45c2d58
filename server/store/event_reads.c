/* What happened to sandboxes, for watches. */
#include <errno.h>
#include <stdlib.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

struct events_job {
        struct job job;
        store_on_sandbox_events on_done;
        struct job_text owner;
        struct job_text sandbox_id;
        int64_t after_sequence;
        size_t limit;
        struct sandbox_event_record *records;
        size_t n_records;
        struct sandbox_event_list list;
};

/* An owner's events are deleted oldest first: all after @after_sequence are there if none after it
 * was deleted. One that was never given out comes from another database. */
static int check_token(struct database *database, const struct events_job *events, int64_t newest)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_DELETED_SEQUENCE];
        int64_t deleted = 0;
        int r;

        row_bind_text(statement, ":owner", job_text_get(&events->owner));
        r = row_number(statement, &deleted);
        if (r)
                return r;
        if (events->after_sequence < deleted || events->after_sequence > newest)
                return STORE_E_TOKEN_EXPIRED;
        return 0;
}

static sqlite3_stmt *page_statement(struct database *database, const struct events_job *events)
{
        if (events->sandbox_id.is_set)
                return database->statements[STATEMENT_EVENTS_OF_SANDBOX];
        if (events->owner.is_set)
                return database->statements[STATEMENT_EVENTS_OF_OWNER];
        return database->statements[STATEMENT_EVENTS];
}

static int read_record(sqlite3_stmt *statement, struct sandbox_event_record *ret_record)
{
        int column = row_sandbox_n_columns();
        int r;

        *ret_record = (struct sandbox_event_record){ 0 };
        r = row_read_sandbox(statement, &ret_record->sandbox);
        if (r)
                return error_fold(r);
        ret_record->sequence = sqlite3_column_int64(statement, column);
        ret_record->event_time_usec = sqlite3_column_int64(statement, column + 1);
        ret_record->event = (enum sandbox_event)sqlite3_column_int(statement, column + 2);
        return row_read_packed_pairs(statement, column + 3, &ret_record->sandbox.labels);
}

/* Up to the limit of records, or of bytes: the first that is above it is read in vain. */
static int read_records(sqlite3_stmt *page, struct events_job *events)
{
        struct sandbox_event_list *list = &events->list;
        size_t n_bytes = 0;
        int r;

        while ((r = row_step(page)) == ROW_E_ROW) {
                struct sandbox_event_record *record;

                r = array_grow(&events->records, events->n_records, sizeof(*events->records));
                if (r)
                        break;
                record = &events->records[events->n_records++];
                r = read_record(page, record);
                if (r)
                        break;
                n_bytes += sandbox_message_bytes(&record->sandbox);
                list->more = events->n_records > events->limit ||
                             (n_bytes > STORE_PAGE_BYTES && events->n_records > 1);
                if (list->more)
                        break;
                list->n = events->n_records;
        }
        row_end(page);
        return r;
}

static int read_page(struct database *database, struct events_job *events)
{
        sqlite3_stmt *page = page_statement(database, events);

        if (events->sandbox_id.is_set)
                row_bind_text(page, ":sandbox_id", events->sandbox_id.text);
        row_bind_text(page, ":owner", job_text_get(&events->owner));
        row_bind_int64(page, ":after", events->after_sequence);
        row_bind_int64(page, ":limit", (int64_t)events->limit + 1);
        return read_records(page, events);
}

static int events_work(struct database *database, struct job *job)
{
        struct events_job *events = CONTAINER_OF(job, struct events_job, job);
        struct sandbox_event_list *list = &events->list;
        int r;

        r = read_newest_sequence(database, &list->last_sequence);
        if (r || events->after_sequence < 0)
                return r;
        r = check_token(database, events, list->last_sequence);
        if (r)
                return r;
        r = read_page(database, events);
        if (r)
                return r;

        list->records = events->records;
        /* At the end of the page only those of others follow, up to the newest: skip them. */
        if (list->more)
                list->last_sequence =
                        list->n ? list->records[list->n - 1].sequence : events->after_sequence;
        return 0;
}

static void events_deliver(struct job *job)
{
        struct events_job *events = CONTAINER_OF(job, struct events_job, job);

        events->on_done(job->userdata, job->result, job->result ? NULL : &events->list);
}

static void events_deinit(struct job *job)
{
        struct events_job *events = CONTAINER_OF(job, struct events_job, job);

        for (size_t i = 0; i < events->n_records; i++)
                sandbox_record_deinit(&events->records[i].sandbox);
        free(events->records);
}

static const struct job_class events_class = {
        .work = events_work,
        .deliver = events_deliver,
        .deinit = events_deinit,
};

void store_list_sandbox_events(struct store *store, const struct sandbox_event_query *query,
                               store_on_sandbox_events on_done, void *userdata)
{
        struct events_job *events = job_new(store, &events_class, sizeof(*events), userdata);

        events->on_done = on_done;
        job_text_set(&events->job, &events->owner, query->owner);
        job_text_set(&events->job, &events->sandbox_id, query->sandbox_id);
        events->after_sequence = query->after_sequence;
        events->limit = MIN(query->limit, (size_t)LIST_LIMIT_MAX);
        job_submit(&events->job);
}
