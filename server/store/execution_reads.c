/* Contexts and executions: one of them, and pages. */
#include <errno.h>
#include <stdlib.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/execution_reads.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

int executions_read(sqlite3_stmt *statement, struct executions *executions)
{
        int r;

        while ((r = row_step(statement)) == ROW_E_ROW) {
                r = array_grow(&executions->items, executions->n, sizeof(*executions->items));
                if (r == 0)
                        r = row_read_execution(statement, &executions->items[executions->n]);
                if (r)
                        break;
                executions->n++;
        }
        row_end(statement);
        return r;
}

/* Whether there is or was a context. */

struct find_job {
        struct change_job find; /* only a result is told */
        struct job_text owner;
        struct job_text sandbox_id;
        struct job_text context_id;
};

static int find_work(struct database *database, struct job *job)
{
        struct find_job *find = CONTAINER_OF(job, struct find_job, find.job);
        sqlite3_stmt *statement = database->statements[STATEMENT_CONTEXT];
        int r;

        row_bind_text(statement, ":id", find->context_id.text);
        row_bind_text(statement, ":sandbox_id", find->sandbox_id.text);
        row_bind_text(statement, ":owner", find->owner.text);
        r = row_step(statement);
        if (r != ROW_E_ROW)
                return r ? r : STORE_E_NOT_FOUND;
        row_end(statement);
        return 0;
}

static const struct job_class find_class = {
        .work = find_work,
        .deliver = change_deliver,
};

void store_find_context(struct store *store, const char *owner, const char *sandbox_id,
                        const char *context_id, store_on_done on_done, void *userdata)
{
        struct find_job *find = job_new(store, &find_class, sizeof(*find), userdata);

        find->find.on_done = on_done;
        job_text_set(&find->find.job, &find->owner, owner);
        job_text_set(&find->find.job, &find->sandbox_id, sandbox_id);
        job_text_set(&find->find.job, &find->context_id, context_id);
        job_submit(&find->find.job);
}

/* One execution. */

struct get_job {
        struct job job;
        store_on_execution on_done;
        struct job_text owner;
        struct job_text execution_id;
        struct execution_record record;
};

static int get_work(struct database *database, struct job *job)
{
        struct get_job *get = CONTAINER_OF(job, struct get_job, job);
        sqlite3_stmt *statement = database->statements[STATEMENT_EXECUTION];
        int r;

        row_bind_text(statement, ":id", get->execution_id.text);
        row_bind_text(statement, ":owner", job_text_get(&get->owner));
        r = row_step(statement);
        if (r != ROW_E_ROW)
                return r ? r : STORE_E_NOT_FOUND;
        r = row_read_execution(statement, &get->record);
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

void store_get_execution(struct store *store, const char *owner, const char *execution_id,
                         store_on_execution on_done, void *userdata)
{
        struct get_job *get = job_new(store, &get_class, sizeof(*get), userdata);

        get->on_done = on_done;
        job_text_set(&get->job, &get->owner, owner);
        job_text_set(&get->job, &get->execution_id, execution_id);
        job_submit(&get->job);
}

/* A page of them. */

struct list_job {
        struct job job;
        store_on_executions on_done;
        struct job_text owner;
        struct job_text sandbox_id;
        struct job_text context_id;
        unsigned states;
        struct store_cursor cursor;
        size_t limit;
        struct executions found;
        struct execution_list list;
};

/* The narrowest filter chooses the index. */
static sqlite3_stmt *page_statement(struct database *database, const struct list_job *list)
{
        if (list->context_id.is_set)
                return database->statements[STATEMENT_EXECUTIONS_OF_CONTEXT];
        if (list->sandbox_id.is_set)
                return database->statements[STATEMENT_EXECUTIONS_OF_SANDBOX];
        if (list->owner.is_set)
                return database->statements[STATEMENT_EXECUTIONS_OF_OWNER];
        return database->statements[STATEMENT_EXECUTIONS];
}

static int list_work(struct database *database, struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);
        sqlite3_stmt *page = page_statement(database, list);
        int r;

        if (list->context_id.is_set)
                row_bind_text(page, ":context_id", list->context_id.text);
        row_bind_text(page, ":owner", job_text_get(&list->owner));
        row_bind_text(page, ":sandbox_id", job_text_get(&list->sandbox_id));
        row_bind_int64(page, ":states", list->states);
        row_bind_int64(page, ":time",
                       list->cursor.create_time_usec ? list->cursor.create_time_usec : INT64_MAX);
        row_bind_text(page, ":id", list->cursor.id);
        row_bind_int64(page, ":limit", (int64_t)list->limit + 1); /* one more tells of more */
        r = executions_read(page, &list->found);

        list->list.records = list->found.items;
        list->list.n = MIN(list->found.n, list->limit);
        list->list.more = list->found.n > list->limit;
        return r;
}

static void list_deliver(struct job *job)
{
        struct list_job *list = CONTAINER_OF(job, struct list_job, job);

        list->on_done(job->userdata, job->result, job->result ? NULL : &list->list);
}

static void list_deinit(struct job *job)
{
        free(CONTAINER_OF(job, struct list_job, job)->found.items);
}

static const struct job_class list_class = {
        .work = list_work,
        .deliver = list_deliver,
        .deinit = list_deinit,
};

void store_list_executions(struct store *store, const struct execution_query *query,
                           store_on_executions on_done, void *userdata)
{
        struct list_job *list = job_new(store, &list_class, sizeof(*list), userdata);

        list->on_done = on_done;
        job_text_set(&list->job, &list->owner, query->owner);
        job_text_set(&list->job, &list->sandbox_id, query->sandbox_id);
        job_text_set(&list->job, &list->context_id, query->context_id);
        list->states = query->states ? query->states : ~0U;
        list->cursor = query->cursor;
        list->limit = MIN(query->limit, (size_t)LIST_LIMIT_MAX);
        job_submit(&list->job);
}
