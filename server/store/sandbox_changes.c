/* Sandboxes come, change and end. Each change, its event and its request are one transaction. */
#include <errno.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/ledger.h"
#include "server/store/requests.h"
#include "server/store/rows.h"
#include "server/store/store_private.h"

struct sandbox_change {
        struct change_job change;
        struct sandbox_record record;
        enum sandbox_event event; /* 0: none */
        int64_t event_time_usec;
        struct asked_by asked_by;
};

static int run_for_sandbox(sqlite3_stmt *statement, const char *sandbox_id)
{
        row_bind_text(statement, ":id", sandbox_id);
        return row_run(statement);
}

static int insert_pair(sqlite3_stmt *statement, const struct sandbox_record *record,
                       const struct pair *pair)
{
        row_bind_text(statement, ":id", record->sandbox_id);
        row_bind_text(statement, ":owner", record->owner);
        row_bind_text(statement, ":name", pair->name);
        row_bind_text(statement, ":value", pair->value);
        return row_run(statement);
}

static int insert_labels(struct database *database, const struct sandbox_record *record)
{
        for (size_t i = 0; i < record->labels.n; i++) {
                int r = insert_pair(database->statements[STATEMENT_INSERT_LABEL], record,
                                    &record->labels.items[i]);

                if (r)
                        return r;
        }
        return 0;
}

static int insert_environment(struct database *database, const struct sandbox_record *record)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_INSERT_VARIABLE];

        for (size_t i = 0; i < record->environment.n; i++) {
                int r;

                row_bind_int64(statement, ":position", (int64_t)i);
                r = insert_pair(statement, record, &record->environment.items[i]);
                if (r)
                        return r;
        }
        return 0;
}

/* Of one that has ended only what it was is kept: the rules of so many would have no bound. */
static int set_egress(struct database *database, const struct sandbox_record *record)
{
        sqlite3_stmt *set = database->statements[STATEMENT_SET_EGRESS];

        if (record->state == SANDBOX_ENDED)
                return run_for_sandbox(database->statements[STATEMENT_FORGET_EGRESS],
                                       record->sandbox_id);
        if (!record->egress)
                return run_for_sandbox(database->statements[STATEMENT_DELETE_EGRESS],
                                       record->sandbox_id);
        row_bind_egress(set, record);
        return row_run(set);
}

/* Bytes that an event takes in the file, or some more: what does not fit a page is in pages of its
 * own. Migration 0007 counts alike. */
static int64_t event_size(const struct pairs *labels)
{
        size_t n = pairs_packed_bytes(labels);

        return 512 + (int64_t)(n > 3000 ? (n / 4096 + 1) * 4096 : n);
}

static int insert_event(struct database *database, const struct sandbox_change *change)
{
        sqlite3_stmt *event = database->statements[STATEMENT_INSERT_EVENT];
        _cleanup_(freep) char *labels = NULL;
        size_t n_bytes = 0;
        int r;

        if (!change->event)
                return 0;
        r = pairs_pack(&change->record.labels, &labels, &n_bytes);
        if (r)
                return error_fold(r);
        row_bind_int64(event, ":time", change->event_time_usec);
        row_bind_int64(event, ":event", change->event);
        row_bind_int64(event, ":size", event_size(&change->record.labels));
        row_bind_blob(event, ":labels", labels, n_bytes);
        return run_for_sandbox(event, change->record.sandbox_id);
}

/* A constraint that we know is an outcome; another one is a mistake of ours. */
static int outcome_of(int r)
{
        switch (r) {
        case ROW_E_NOT_UNIQUE:
                return STORE_E_NAME_IN_USE;
        case ROW_E_NO_PARENT:
                return STORE_E_NOT_FOUND;
        default:
                return r;
        }
}

static int insert_work(struct database *database, struct job *job)
{
        struct sandbox_change *change = CONTAINER_OF(job, struct sandbox_change, change.job);
        sqlite3_stmt *insert = database->statements[STATEMENT_INSERT_SANDBOX];
        int r;

        r = row_bind_sandbox(insert, &change->record);
        if (r == 0)
                r = row_run(insert);
        if (r == 0)
                r = insert_labels(database, &change->record);
        if (r == 0 && change->record.state != SANDBOX_ENDED)
                r = insert_environment(database, &change->record);
        if (r == 0 && change->record.egress)
                r = set_egress(database, &change->record);
        if (r == 0)
                r = insert_event(database, change);
        return outcome_of(r);
}

/* What an ended one used is what its rows in the ledger add up to. */
static int update_row(struct database *database, const struct sandbox_record *record)
{
        sqlite3_stmt *update = database->statements[STATEMENT_UPDATE_SANDBOX];
        struct sandbox_record row = *record; /* owns nothing of it */
        int r = 0;

        if (record->state == SANDBOX_ENDED)
                r = ledger_end_sandbox(database, record, &row.usage.total);
        if (r == 0)
                r = row_bind_sandbox(update, &row);
        if (r == 0)
                r = row_run(update);
        if (r == 0 && sqlite3_changes(database->connection) == 0)
                return STORE_E_NOT_FOUND;
        return outcome_of(r);
}

static int update_work(struct database *database, struct job *job)
{
        struct sandbox_change *change = CONTAINER_OF(job, struct sandbox_change, change.job);
        const struct sandbox_record *record = &change->record;
        sqlite3_stmt *const *statements = database->statements;
        int r;

        r = update_row(database, record);
        if (r == 0)
                r = run_for_sandbox(statements[STATEMENT_DELETE_LABELS], record->sandbox_id);
        if (r == 0)
                r = insert_labels(database, record);
        if (r == 0 && record->state == SANDBOX_ENDED)
                r = run_for_sandbox(statements[STATEMENT_DELETE_ENVIRONMENT], record->sandbox_id);
        if (r == 0)
                r = set_egress(database, record);
        if (r == 0)
                r = insert_event(database, change);
        if (r == 0)
                r = asked_by_remember(&change->asked_by, database);
        return r;
}

static void change_deinit(struct job *job)
{
        sandbox_record_deinit(&CONTAINER_OF(job, struct sandbox_change, change.job)->record);
}

static void sandbox_change_deliver(struct job *job)
{
        const struct sandbox_change *change = CONTAINER_OF(job, struct sandbox_change, change.job);

        if (job->result == 0 && change->event)
                store_count_kept(job->store, 0, (size_t)event_size(&change->record.labels));
        change_deliver(job);
}

static const struct job_class insert_class = {
        .is_write = true,
        .is_new_work = true,
        .work = insert_work,
        .deliver = sandbox_change_deliver,
        .deinit = change_deinit,
};

static const struct job_class update_class = {
        .is_write = true,
        .work = update_work,
        .deliver = sandbox_change_deliver,
        .deinit = change_deinit,
};

static struct sandbox_change *change_new(struct store *store, const struct job_class *class,
                                         const struct sandbox_record *record,
                                         enum sandbox_event event, store_on_done on_done,
                                         void *userdata)
{
        struct sandbox_change *change = job_new(store, class, sizeof(*change), userdata);

        change->change.job.result = sandbox_record_copy(record, &change->record);
        change->change.on_done = on_done;
        change->change.job.is_durable = record->state == SANDBOX_ENDED;
        change->event = event;
        change->event_time_usec = time_now_usec();
        return change;
}

void store_insert_sandbox(struct store *store, const struct sandbox_record *record,
                          store_on_done on_done, void *userdata)
{
        struct sandbox_change *change =
                change_new(store, &insert_class, record, SANDBOX_EVENT_CREATED, on_done, userdata);

        job_submit(&change->change.job);
}

void store_update_sandbox(struct store *store, const struct sandbox_record *record,
                          enum sandbox_event event, store_on_done on_done, void *userdata)
{
        store_update_sandbox_for(store, NULL, record, event, on_done, userdata);
}

void store_update_sandbox_for(struct store *store, const struct request_record *request,
                              const struct sandbox_record *record, enum sandbox_event event,
                              store_on_done on_done, void *userdata)
{
        struct sandbox_change *change =
                change_new(store, &update_class, record, event, on_done, userdata);

        asked_by_set(&change->asked_by, store, request);
        job_submit(&change->change.job);
}
