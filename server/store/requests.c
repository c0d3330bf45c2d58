/*
 * Requests that carried a request_id, and what came of them.
 *
 * The numbers of an owner's requests have no gap but for forgotten ones, so those that are beyond
 * the owner's bound are found by one look at the index: an insert deletes as many as it adds.
 */
#include "server/store/requests.h"

#include <errno.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/store_private.h"

void asked_by_set(struct asked_by *asked_by, const struct store *store,
                  const struct request_record *request)
{
        asked_by->is_set = request != NULL;
        if (!request)
                return;
        asked_by->record = *request;
        asked_by->time_usec = time_now_usec();
        asked_by->requests_max = store->retention.requests_max;
}

static void bind_key(sqlite3_stmt *statement, const struct request_record *record)
{
        row_bind_text(statement, ":owner", record->owner);
        row_bind_text(statement, ":method", record->method);
        row_bind_text(statement, ":request_id", record->request_id);
}

static int bound_owner(const struct asked_by *asked_by, struct database *database)
{
        sqlite3_stmt *bound = database->statements[STATEMENT_BOUND_REQUESTS];

        if (!asked_by->requests_max)
                return 0;
        row_bind_text(bound, ":owner", asked_by->record.owner);
        row_bind_int64(bound, ":max", asked_by->requests_max);
        return row_run(bound);
}

int asked_by_remember(const struct asked_by *asked_by, struct database *database)
{
        sqlite3_stmt *insert = database->statements[STATEMENT_INSERT_REQUEST];
        int r;

        if (!asked_by->is_set)
                return 0;
        r = row_bind_request(insert, &asked_by->record);
        if (r)
                return r;
        row_bind_int64(insert, ":time", asked_by->time_usec);
        r = row_run(insert);
        return r ? r : bound_owner(asked_by, database);
}

/* One that changes nothing else. */

struct request_change {
        struct change_job change;
        struct asked_by asked_by;
};

static int remember_work(struct database *database, struct job *job)
{
        struct request_change *change = CONTAINER_OF(job, struct request_change, change.job);

        return asked_by_remember(&change->asked_by, database);
}

static int forget_work(struct database *database, struct job *job)
{
        struct request_change *change = CONTAINER_OF(job, struct request_change, change.job);
        sqlite3_stmt *forget = database->statements[STATEMENT_FORGET_REQUEST];

        bind_key(forget, &change->asked_by.record);
        return row_run(forget);
}

static const struct job_class remember_class = {
        .is_write = true,
        .work = remember_work,
        .deliver = change_deliver,
};

static const struct job_class forget_class = {
        .is_write = true,
        .work = forget_work,
        .deliver = change_deliver,
};

static void submit_change(struct store *store, const struct job_class *class,
                          const struct request_record *request, store_on_done on_done,
                          void *userdata)
{
        struct request_change *change = job_new(store, class, sizeof(*change), userdata);

        change->change.on_done = on_done;
        asked_by_set(&change->asked_by, store, request);
        job_submit(&change->change.job);
}

void store_remember_request(struct store *store, const struct request_record *request,
                            store_on_done on_done, void *userdata)
{
        submit_change(store, &remember_class, request, on_done, userdata);
}

void store_forget_request(struct store *store, const struct request_record *request,
                          store_on_done on_done, void *userdata)
{
        submit_change(store, &forget_class, request, on_done, userdata);
}

/* What is known of one. */

struct get_job {
        struct job job;
        store_on_request on_done;
        struct request_record record;
};

static int get_work(struct database *database, struct job *job)
{
        struct get_job *get = CONTAINER_OF(job, struct get_job, job);
        sqlite3_stmt *statement = database->statements[STATEMENT_REQUEST];
        int r;

        bind_key(statement, &get->record);
        r = row_step(statement);
        if (r != ROW_E_ROW)
                return r ? r : STORE_E_NOT_FOUND;
        r = row_read_request(statement, &get->record);
        row_end(statement);
        return r;
}

static void get_deliver(struct job *job)
{
        struct get_job *get = CONTAINER_OF(job, struct get_job, job);

        get->on_done(job->userdata, job->result, job->result ? NULL : &get->record);
}

static const struct job_class get_class = {
        .work = get_work,
        .deliver = get_deliver,
};

void store_get_request(struct store *store, const struct request_record *request,
                       store_on_request on_done, void *userdata)
{
        struct get_job *get = job_new(store, &get_class, sizeof(*get), userdata);

        get->on_done = on_done;
        get->record = *request;
        job_submit(&get->job);
}
