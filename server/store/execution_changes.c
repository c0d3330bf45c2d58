/* Contexts and executions come, change and end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/ledger.h"
#include "server/store/requests.h"
#include "server/store/rows.h"
#include "server/store/store_private.h"

struct context_change {
        struct change_job change;
        struct context_record record;
        struct asked_by asked_by;
};

struct execution_change {
        struct change_job change;
        struct execution_record record;
        struct asked_by asked_by;
        uint8_t *blob; /* request or output; NULL: none */
        size_t n_blob;
};

/* Neither has a unique column but its id. */
static int outcome_of(int r)
{
        return r == ROW_E_NO_PARENT ? STORE_E_NOT_FOUND : r;
}

static int run_context(struct database *database, enum statement_id id, struct job *job)
{
        struct context_change *change = CONTAINER_OF(job, struct context_change, change.job);
        int r;

        r = row_bind_context(database->statements[id], &change->record);
        return r ? r : outcome_of(row_run(database->statements[id]));
}

static int run_execution(struct database *database, enum statement_id id, struct job *job)
{
        struct execution_change *change = CONTAINER_OF(job, struct execution_change, change.job);
        int r;

        r = row_bind_execution(database->statements[id], &change->record);
        return r ? r : outcome_of(row_run(database->statements[id]));
}

static int found(struct database *database, int r)
{
        return r == 0 && sqlite3_changes(database->connection) == 0 ? STORE_E_NOT_FOUND : r;
}

static int insert_context_work(struct database *database, struct job *job)
{
        struct context_change *change = CONTAINER_OF(job, struct context_change, change.job);
        int r = run_context(database, STATEMENT_INSERT_CONTEXT, job);

        return r ? r : asked_by_remember(&change->asked_by, database);
}

static int update_context_work(struct database *database, struct job *job)
{
        return found(database, run_context(database, STATEMENT_UPDATE_CONTEXT, job));
}

static int insert_kept(struct database *database, const struct execution_change *change)
{
        sqlite3_stmt *insert = database->statements[STATEMENT_INSERT_KEPT];

        if (!change->blob)
                return 0;
        row_bind_text(insert, ":id", change->record.execution_id);
        row_bind_text(insert, ":owner", change->record.owner);
        row_bind_blob(insert, ":blob", change->blob, change->n_blob);
        return row_run(insert);
}

static int insert_execution_work(struct database *database, struct job *job)
{
        struct execution_change *change = CONTAINER_OF(job, struct execution_change, change.job);
        int r = run_execution(database, STATEMENT_INSERT_EXECUTION, job);

        if (r == 0)
                r = insert_kept(database, change);
        return r ? r : asked_by_remember(&change->asked_by, database);
}

/* The ledger first: it looks whether this is the end. */
static int update_execution_work(struct database *database, struct job *job)
{
        struct execution_change *change = CONTAINER_OF(job, struct execution_change, change.job);
        int r = 0;

        if (change->record.state == EXECUTION_ENDED)
                r = ledger_end_execution(database, &change->record);
        return r ? r : found(database, run_execution(database, STATEMENT_UPDATE_EXECUTION, job));
}

static int insert_output(struct database *database, const struct execution_change *change)
{
        sqlite3_stmt *insert = database->statements[STATEMENT_INSERT_OUTPUT];

        /* The room that is left on a full disk is for rows. */
        if (!change->blob || database->spare.is_given)
                return 0;
        row_bind_text(insert, ":id", change->record.execution_id);
        row_bind_text(insert, ":owner", change->record.owner);
        row_bind_int64(insert, ":time", change->record.end_time_usec);
        row_bind_int64(insert, ":size", (int64_t)change->n_blob);
        row_bind_blob(insert, ":blob", change->blob, change->n_blob);
        return row_run(insert);
}

static int end_execution_work(struct database *database, struct job *job)
{
        struct execution_change *change = CONTAINER_OF(job, struct execution_change, change.job);
        sqlite3_stmt *delete_kept = database->statements[STATEMENT_DELETE_KEPT];
        int r;

        r = update_execution_work(database, job);
        if (r)
                return r;
        row_bind_text(delete_kept, ":id", change->record.execution_id);
        r = row_run(delete_kept);
        return r ? r : insert_output(database, change);
}

static void end_execution_deliver(struct job *job)
{
        struct execution_change *change = CONTAINER_OF(job, struct execution_change, change.job);

        if (job->result == 0)
                store_count_kept(job->store, change->n_blob, 0);
        change_deliver(job);
}

static void execution_deinit(struct job *job)
{
        free(CONTAINER_OF(job, struct execution_change, change.job)->blob);
}

static const struct job_class insert_context_class = {
        .is_write = true,
        .is_new_work = true,
        .work = insert_context_work,
        .deliver = change_deliver,
};

static const struct job_class update_context_class = {
        .is_write = true,
        .work = update_context_work,
        .deliver = change_deliver,
};

static const struct job_class insert_execution_class = {
        .is_write = true,
        .is_new_work = true,
        .work = insert_execution_work,
        .deliver = change_deliver,
        .deinit = execution_deinit,
};

static const struct job_class end_execution_class = {
        .is_write = true,
        .work = end_execution_work,
        .deliver = end_execution_deliver,
        .deinit = execution_deinit,
};

static const struct job_class update_execution_class = {
        .is_write = true,
        .work = update_execution_work,
        .deliver = change_deliver,
};

static void submit_context(struct store *store, const struct job_class *class,
                           const struct request_record *request,
                           const struct context_record *record, store_on_done on_done,
                           void *userdata)
{
        struct context_change *change = job_new(store, class, sizeof(*change), userdata);

        change->change.on_done = on_done;
        change->record = *record;
        asked_by_set(&change->asked_by, store, request);
        job_submit(&change->change.job);
}

static int copy_blob(struct execution_change *change, const struct store_blob *blob)
{
        if (!blob || blob->n == 0)
                return 0;
        change->blob = malloc(blob->n);
        if (!change->blob)
                return error_origin(-ENOMEM);
        memcpy(change->blob, blob->data, blob->n);
        change->n_blob = blob->n;
        return 0;
}

static void submit_execution(struct store *store, const struct job_class *class,
                             const struct request_record *request,
                             const struct execution_record *record, const struct store_blob *blob,
                             store_on_done on_done, void *userdata)
{
        struct execution_change *change = job_new(store, class, sizeof(*change), userdata);

        change->change.job.result = copy_blob(change, blob);
        change->change.on_done = on_done;
        change->record = *record;
        asked_by_set(&change->asked_by, store, request);
        job_submit(&change->change.job);
}

void store_insert_context(struct store *store, const struct context_record *record,
                          store_on_done on_done, void *userdata)
{
        store_insert_context_for(store, NULL, record, on_done, userdata);
}

void store_update_context(struct store *store, const struct context_record *record,
                          store_on_done on_done, void *userdata)
{
        submit_context(store, &update_context_class, NULL, record, on_done, userdata);
}

void store_insert_execution(struct store *store, const struct execution_record *record,
                            store_on_done on_done, void *userdata)
{
        store_insert_execution_for(store, NULL, record, NULL, on_done, userdata);
}

void store_update_execution(struct store *store, const struct execution_record *record,
                            store_on_done on_done, void *userdata)
{
        submit_execution(store, &update_execution_class, NULL, record, NULL, on_done, userdata);
}

void store_insert_context_for(struct store *store, const struct request_record *request,
                              const struct context_record *record, store_on_done on_done,
                              void *userdata)
{
        submit_context(store, &insert_context_class, request, record, on_done, userdata);
}

void store_insert_execution_for(struct store *store, const struct request_record *request,
                                const struct execution_record *record,
                                const struct store_blob *kept, store_on_done on_done,
                                void *userdata)
{
        submit_execution(store, &insert_execution_class, request, record, kept, on_done, userdata);
}

void store_end_execution(struct store *store, const struct execution_record *record,
                         const struct store_blob *output, store_on_done on_done, void *userdata)
{
        submit_execution(store, &end_execution_class, NULL, record, output, on_done, userdata);
}
