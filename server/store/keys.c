/* API keys: few, so they are read and kept as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

struct key_change {
        struct change_job change;
        struct key_record record;
        unsigned set_quotas; /* BIT(enum key_quota) */
};

static int insert_work(struct database *database, struct job *job)
{
        struct key_change *change = CONTAINER_OF(job, struct key_change, change.job);
        sqlite3_stmt *forget = database->statements[STATEMENT_FORGET_ENDED_KEYS];
        sqlite3_stmt *insert = database->statements[STATEMENT_INSERT_KEY];
        int r;

        /* The new one is the thousandth at most, if there are some that can go. */
        row_bind_int64(forget, ":keep", STORE_KEYS_MAX - 1);
        row_bind_int64(forget, ":now", change->record.create_time_usec);
        r = row_run(forget);
        if (r == 0)
                r = row_bind_key(insert, &change->record);
        if (r == 0)
                r = row_run(insert);
        if (r == ROW_E_NOT_UNIQUE) /* the secret: it was made of 260 random bits */
                return error_origin(-EEXIST);
        return r == 0 && sqlite3_changes(database->connection) == 0 ? STORE_E_NAME_IN_USE : r;
}

static int revoke_work(struct database *database, struct job *job)
{
        struct key_change *change = CONTAINER_OF(job, struct key_change, change.job);
        sqlite3_stmt *revoke = database->statements[STATEMENT_REVOKE_KEY];
        int r;

        row_bind_text(revoke, ":id", change->record.key_id);
        row_bind_int64(revoke, ":time", change->record.revoke_time_usec);
        r = row_run(revoke);
        return r == 0 && sqlite3_changes(database->connection) == 0 ? STORE_E_NOT_FOUND : r;
}

static int quotas_work(struct database *database, struct job *job)
{
        struct key_change *change = CONTAINER_OF(job, struct key_change, change.job);
        sqlite3_stmt *set = database->statements[STATEMENT_SET_QUOTAS];
        const struct key_quotas *quotas = &change->record.quotas;
        int r;

        row_bind_text(set, ":id", change->record.key_id);
        row_bind_int64(set, ":set", change->set_quotas);
        row_bind_int64(set, ":sandboxes", quotas->most[KEY_QUOTA_SANDBOXES]);
        row_bind_int64(set, ":memory_bytes", quotas->most[KEY_QUOTA_MEMORY]);
        row_bind_int64(set, ":cpu_millis", quotas->most[KEY_QUOTA_CPU]);
        row_bind_int64(set, ":executions", quotas->most[KEY_QUOTA_EXECUTIONS]);
        r = row_run(set);
        return r == 0 && sqlite3_changes(database->connection) == 0 ? STORE_E_NOT_FOUND : r;
}

static int touch_work(struct database *database, struct job *job)
{
        struct key_change *change = CONTAINER_OF(job, struct key_change, change.job);
        sqlite3_stmt *touch = database->statements[STATEMENT_TOUCH_KEY];

        row_bind_text(touch, ":id", change->record.key_id);
        row_bind_int64(touch, ":time", change->record.last_used_time_usec);
        return row_run(touch);
}

static const struct job_class insert_class = {
        .is_write = true,
        .is_new_work = true,
        .work = insert_work,
        .deliver = change_deliver,
};

static const struct job_class revoke_class = {
        .is_write = true,
        .work = revoke_work,
        .deliver = change_deliver,
};

static const struct job_class quotas_class = {
        .is_write = true,
        .work = quotas_work,
        .deliver = change_deliver,
};

static const struct job_class touch_class = {
        .is_write = true,
        .work = touch_work,
        .deliver = change_deliver,
};

static void submit_change(struct store *store, const struct job_class *class,
                          const struct key_record *record, store_on_done on_done, void *userdata)
{
        struct key_change *change = job_new(store, class, sizeof(*change), userdata);

        change->change.on_done = on_done;
        change->change.job.is_durable = class != &touch_class;
        change->record = *record;
        job_submit(&change->change.job);
}

void store_insert_key(struct store *store, const struct key_record *record, store_on_done on_done,
                      void *userdata)
{
        submit_change(store, &insert_class, record, on_done, userdata);
}

/* One that is too long stays empty, as no key's is. */
static void set_id(struct key_record *record, const char *key_id)
{
        if (strlen(key_id) < sizeof(record->key_id))
                (void)memcpy(record->key_id, key_id, strlen(key_id) + 1);
}

void store_revoke_key(struct store *store, const char *key_id, int64_t revoke_time_usec,
                      store_on_done on_done, void *userdata)
{
        struct key_record record = { .revoke_time_usec = revoke_time_usec };

        set_id(&record, key_id);
        submit_change(store, &revoke_class, &record, on_done, userdata);
}

void store_set_quotas(struct store *store, const char *key_id, unsigned set,
                      const struct key_quotas *quotas, store_on_done on_done, void *userdata)
{
        struct key_change *change = job_new(store, &quotas_class, sizeof(*change), userdata);

        change->change.on_done = on_done;
        change->change.job.is_durable = true;
        change->set_quotas = set;
        change->record.quotas = *quotas;
        set_id(&change->record, key_id);
        job_submit(&change->change.job);
}

void store_touch_key(struct store *store, const char *key_id, int64_t used_time_usec,
                     store_on_done on_done, void *userdata)
{
        struct key_record record = { .last_used_time_usec = used_time_usec };

        set_id(&record, key_id);
        submit_change(store, &touch_class, &record, on_done, userdata);
}

/* All of them. */

struct list_job {
        struct job job;
        store_on_keys on_done;
        struct key_record *records;
        size_t n;
};

static int list_work(struct database *database, struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);
        sqlite3_stmt *statement = database->statements[STATEMENT_KEYS];
        int r;

        while ((r = row_step(statement)) == ROW_E_ROW) {
                r = array_grow(&list->records, list->n, sizeof(*list->records));
                if (r == 0)
                        r = row_read_key(statement, &list->records[list->n]);
                if (r)
                        break;
                list->n++;
        }
        row_end(statement);
        return r;
}

static void list_deliver(struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);

        list->on_done(job->userdata, job->result, job->result ? NULL : list->records,
                      job->result ? 0 : list->n);
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

void store_list_keys(struct store *store, store_on_keys on_done, void *userdata)
{
        struct list_job *list = job_new(store, &list_class, sizeof(*list), userdata);

        list->on_done = on_done;
        job_submit(&list->job);
}
