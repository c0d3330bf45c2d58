#include "server/store/sandbox_reads.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/store.h"
#include "server/store/store_private.h"

int array_grow(void *items_pointer, size_t n, size_t size)
{
        void *items;

        /* Full exactly when the count is zero or a power of two. */
        if (n & (n - 1))
                return 0;
        memcpy(&items, items_pointer, sizeof(items));
        items = reallocarray(items, n ? n * 2 : 1, size);
        if (!items)
                return error_origin(-ENOMEM);
        memcpy(items_pointer, &items, sizeof(items));
        return 0;
}

int read_labels(struct database *database, struct sandbox_record *record)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_LABELS];

        row_bind_text(statement, ":id", record->sandbox_id);
        return row_read_pairs(statement, &record->labels);
}

int read_environment(struct database *database, struct sandbox_record *record)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_ENVIRONMENT];

        row_bind_text(statement, ":id", record->sandbox_id);
        return row_read_pairs(statement, &record->environment);
}

int read_egress(struct database *database, struct sandbox_record *record)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_EGRESS];
        int r;

        row_bind_text(statement, ":id", record->sandbox_id);
        r = row_step(statement);
        if (r != ROW_E_ROW)
                return r;
        r = row_read_egress(statement, &record->egress);
        row_end(statement);
        return r;
}

int read_egress_tail(struct database *database, struct sandbox_record *record)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_EGRESS_TAIL];
        struct egress_tail *tail = &record->egress_tail;
        int r;

        row_bind_text(statement, ":id", record->sandbox_id);
        while ((r = row_step(statement)) == ROW_E_ROW) {
                int source = sqlite3_column_int(statement, 0);

                tail->sequence = MAX(tail->sequence, sqlite3_column_int64(statement, 1));
                if (source <= 0 || source >= _EGRESS_DECIDER_N)
                        continue;
                tail->told[source].serial = sqlite3_column_int64(statement, 2);
                tail->told[source].time_usec = sqlite3_column_int64(statement, 3);
        }
        row_end(statement);
        return r;
}

int read_whole(struct database *database, struct sandbox_record *record)
{
        int r = read_labels(database, record);

        if (r == 0)
                r = read_environment(database, record);
        return r ? r : read_egress(database, record);
}

size_t sandbox_message_bytes(const struct sandbox_record *record)
{
        enum { FIXED = 400, LABEL = 16 }; /* tags, lengths and numbers */
        size_t n_bytes = FIXED + strlen(record->sandbox_id) + strlen(record->name) +
                         strlen(record->template_name) + strlen(record->template_digest) +
                         strlen(record->end_message);

        for (size_t i = 0; i < record->labels.n; i++)
                n_bytes += LABEL + strlen(record->labels.items[i].name) +
                           strlen(record->labels.items[i].value);
        return n_bytes;
}

int read_newest_sequence(struct database *database, int64_t *ret_sequence)
{
        return row_number(database->statements[STATEMENT_NEWEST_SEQUENCE], ret_sequence);
}

void sandboxes_deinit(struct sandboxes *sandboxes)
{
        for (size_t i = 0; i < sandboxes->n; i++)
                sandbox_record_deinit(&sandboxes->items[i]);
        free(sandboxes->items);
        *sandboxes = (struct sandboxes){ 0 };
}

int sandboxes_read(sqlite3_stmt *statement, size_t max, struct sandboxes *sandboxes)
{
        int r = 0;

        while (sandboxes->n < max && (r = row_step(statement)) == ROW_E_ROW) {
                r = array_grow(&sandboxes->items, sandboxes->n, sizeof(*sandboxes->items));
                if (r == 0)
                        r = row_read_sandbox(statement, &sandboxes->items[sandboxes->n]);
                if (r)
                        break;
                sandboxes->n++;
        }
        row_end(statement);
        return r;
}

/* One sandbox. */

struct get_job {
        struct job job;
        store_on_sandbox on_done;
        struct job_text owner;
        struct job_text sandbox_id;
        struct sandbox_record record;
};

static int get_work(struct database *database, struct job *job)
{
        struct get_job *get = CONTAINER_OF(job, struct get_job, job);
        sqlite3_stmt *statement = database->statements[STATEMENT_SANDBOX];
        int r;

        row_bind_text(statement, ":id", get->sandbox_id.text);
        row_bind_text(statement, ":owner", job_text_get(&get->owner));
        r = row_step(statement);
        if (r != ROW_E_ROW)
                return r ? r : STORE_E_NOT_FOUND;
        r = row_read_sandbox(statement, &get->record);
        row_end(statement);
        return r ? r : read_whole(database, &get->record);
}

static void get_deliver(struct job *job)
{
        struct get_job *get = CONTAINER_OF(job, struct get_job, job);

        get->on_done(job->userdata, job->result, job->result ? NULL : &get->record);
}

static void get_deinit(struct job *job)
{
        sandbox_record_deinit(&CONTAINER_OF(job, struct get_job, job)->record);
}

static const struct job_class get_class = {
        .work = get_work,
        .deliver = get_deliver,
        .deinit = get_deinit,
};

void store_get_sandbox(struct store *store, const char *owner, const char *sandbox_id,
                       store_on_sandbox on_done, void *userdata)
{
        struct get_job *get = job_new(store, &get_class, sizeof(*get), userdata);

        get->on_done = on_done;
        job_text_set(&get->job, &get->owner, owner);
        job_text_set(&get->job, &get->sandbox_id, sandbox_id);
        job_submit(&get->job);
}

/* A page of them. */

struct list_job {
        struct job job;
        store_on_sandboxes on_done;
        struct job_text owner;
        struct job_text name;
        struct pairs labels;
        unsigned states;
        struct store_cursor cursor;
        size_t limit;
        struct sandboxes found; /* with those after the page, which lack labels */
        struct sandbox_list list;
};

static sqlite3_stmt *page_statement(struct database *database, const struct list_job *list)
{
        bool is_living = !(list->states & BIT(SANDBOX_ENDED));

        if (list->owner.is_set)
                return database->statements[is_living ? STATEMENT_SANDBOXES_LIVING_OF_OWNER
                                                      : STATEMENT_SANDBOXES_OF_OWNER];
        return database->statements[is_living ? STATEMENT_SANDBOXES_LIVING : STATEMENT_SANDBOXES];
}

int want_labels(struct database *database, const struct pairs *labels)
{
        sqlite3_stmt *want = database->statements[STATEMENT_WANT_LABEL];
        int r;

        r = row_run(database->statements[STATEMENT_WANT_NO_LABELS]);
        for (size_t i = 0; r == 0 && i < labels->n; i++) {
                row_bind_text(want, ":name", labels->items[i].name);
                row_bind_text(want, ":value", labels->items[i].value);
                r = row_run(want);
        }
        return r;
}

/* Up to the limit of records, or of bytes. */
static int read_page_labels(struct database *database, struct list_job *list)
{
        size_t n_bytes = 0;
        size_t n = 0;
        int r = 0;

        for (; r == 0 && n < MIN(list->found.n, list->limit); n++) {
                r = read_labels(database, &list->found.items[n]);
                n_bytes += sandbox_message_bytes(&list->found.items[n]);
                if (n_bytes > STORE_PAGE_BYTES && n > 0)
                        break;
        }
        list->list.n = n;
        list->list.more = n < list->found.n;
        return r;
}

static int read_page(struct database *database, struct list_job *list)
{
        sqlite3_stmt *page = page_statement(database, list);
        int r;

        r = want_labels(database, &list->labels);
        if (r)
                return r;
        row_bind_text(page, ":owner", job_text_get(&list->owner));
        row_bind_text(page, ":name", job_text_get(&list->name));
        row_bind_int64(page, ":states", list->states);
        row_bind_int64(page, ":time",
                       list->cursor.create_time_usec ? list->cursor.create_time_usec : INT64_MAX);
        row_bind_text(page, ":id", list->cursor.id);
        row_bind_int64(page, ":limit", (int64_t)list->limit + 1); /* one more tells of more */
        r = sandboxes_read(page, list->limit + 1, &list->found);
        return r ? r : read_page_labels(database, list);
}

static int list_work(struct database *database, struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);
        int r;

        r = read_page(database, list);
        if (r == 0)
                r = read_newest_sequence(database, &list->list.watch_sequence);
        list->list.records = list->found.items;
        return r;
}

static void list_deliver(struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);

        list->on_done(job->userdata, job->result, job->result ? NULL : &list->list);
}

static void list_deinit(struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);

        pairs_deinit(&list->labels);
        sandboxes_deinit(&list->found);
}

static const struct job_class list_class = {
        .work = list_work,
        .deliver = list_deliver,
        .deinit = list_deinit,
};

void store_list_sandboxes(struct store *store, const struct sandbox_query *query,
                          store_on_sandboxes on_done, void *userdata)
{
        struct list_job *list = job_new(store, &list_class, sizeof(*list), userdata);

        if (query->labels && pairs_copy(query->labels, &list->labels))
                list->job.result = error_origin(-ENOMEM);
        list->on_done = on_done;
        job_text_set(&list->job, &list->owner, query->owner);
        job_text_set(&list->job, &list->name, query->name);
        list->states = query->states
                               ? query->states
                               : BIT(SANDBOX_CREATING) | BIT(SANDBOX_RUNNING) | BIT(SANDBOX_ENDING);
        list->cursor = query->cursor;
        list->limit = MIN(query->limit, (size_t)LIST_LIMIT_MAX);
        job_submit(&list->job);
}
