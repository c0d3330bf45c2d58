/* What a server that starts must know: all that is not over, and what ended ones said. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/execution_reads.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

struct living_job {
        struct job job;
        store_on_living on_done;
        struct sandboxes sandboxes;
        struct context_record *contexts;
        size_t n_contexts;
        struct executions executions;
        struct store_blob *requests; /* one for each execution; their bytes are owned */
};

struct outputs_job {
        struct job job;
        store_on_outputs on_done;
        int64_t end_time_usec;
        int64_t bytes_max;
        int64_t n_bytes;
        struct execution_output *outputs; /* their bytes are owned */
        size_t n;
};

/* The bytes of a column, copied. */
static int read_blob(sqlite3_stmt *statement, int column, struct store_blob *ret_blob)
{
        size_t n = (size_t)sqlite3_column_bytes(statement, column);
        const void *bytes = sqlite3_column_blob(statement, column);
        void *copy = malloc(n + 1);

        if (!copy)
                return error_origin(-ENOMEM);
        if (n > 0)
                memcpy(copy, bytes, n);
        *ret_blob = (struct store_blob){ .data = copy, .n = n };
        return 0;
}

static void blob_deinit(struct store_blob *blob)
{
        free((void *)(uintptr_t)blob->data);
}

static int read_contexts(struct database *database, struct living_job *living)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_ALL_CONTEXTS_LIVING];
        int r;

        while ((r = row_step(statement)) == ROW_E_ROW) {
                r = array_grow(&living->contexts, living->n_contexts, sizeof(*living->contexts));
                if (r == 0)
                        r = row_read_context(statement, &living->contexts[living->n_contexts]);
                if (r)
                        break;
                living->n_contexts++;
        }
        row_end(statement);
        return r;
}

static int read_request(struct database *database, const char *execution_id,
                        struct store_blob *ret_request)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_KEPT];
        int r;

        row_bind_text(statement, ":id", execution_id);
        r = row_step(statement);
        if (r != ROW_E_ROW)
                return r; /* none was kept */
        r = read_blob(statement, 0, ret_request);
        row_end(statement);
        return r;
}

static int read_executions(struct database *database, struct living_job *living)
{
        int r = executions_read(database->statements[STATEMENT_ALL_EXECUTIONS_LIVING],
                                &living->executions);

        if (r)
                return r;
        living->requests = calloc(living->executions.n + 1, sizeof(*living->requests));
        if (!living->requests)
                return error_origin(-ENOMEM);
        for (size_t i = 0; r == 0 && i < living->executions.n; i++)
                r = read_request(database, living->executions.items[i].execution_id,
                                 &living->requests[i]);
        return r;
}

static int read_living(struct database *database, struct sandbox_record *record)
{
        int r = read_whole(database, record);

        return r ? r : read_egress_tail(database, record);
}

static int living_work(struct database *database, struct job *job)
{
        struct living_job *living = CONTAINER_OF(job, struct living_job, job);
        int r;

        r = sandboxes_read(database->statements[STATEMENT_ALL_SANDBOXES_LIVING], SIZE_MAX,
                           &living->sandboxes);
        for (size_t i = 0; r == 0 && i < living->sandboxes.n; i++)
                r = read_living(database, &living->sandboxes.items[i]);
        if (r == 0)
                r = read_contexts(database, living);
        return r ? r : read_executions(database, living);
}

static void living_deliver(struct job *job)
{
        struct living_job *living = CONTAINER_OF(job, struct living_job, job);
        const struct living result = {
                .sandboxes = living->sandboxes.items,
                .n_sandboxes = living->sandboxes.n,
                .contexts = living->contexts,
                .n_contexts = living->n_contexts,
                .executions = living->executions.items,
                .requests = living->requests,
                .n_executions = living->executions.n,
        };

        living->on_done(job->userdata, job->result, job->result ? NULL : &result);
}

static void living_deinit(struct job *job)
{
        struct living_job *living = CONTAINER_OF(job, struct living_job, job);

        sandboxes_deinit(&living->sandboxes);
        free(living->contexts);
        for (size_t i = 0; living->requests && i < living->executions.n; i++)
                blob_deinit(&living->requests[i]);
        free(living->requests);
        free(living->executions.items);
}

static const struct job_class living_class = {
        .work = living_work,
        .deliver = living_deliver,
        .deinit = living_deinit,
};

void store_load_living(struct store *store, store_on_living on_done, void *userdata)
{
        struct living_job *living = job_new(store, &living_class, sizeof(*living), userdata);

        living->on_done = on_done;
        job_submit(&living->job);
}

/* One more row, unless the limit is reached: STORE_E_MORE. */
static int read_output(sqlite3_stmt *statement, struct outputs_job *outputs)
{
        int column = sqlite3_column_count(statement) - 1;
        struct execution_output *output;
        int r;

        outputs->n_bytes += sqlite3_column_bytes(statement, column);
        if (outputs->n_bytes > outputs->bytes_max)
                return STORE_E_MORE;
        r = array_grow(&outputs->outputs, outputs->n, sizeof(*outputs->outputs));
        if (r)
                return r;
        output = &outputs->outputs[outputs->n];
        r = row_read_execution(statement, &output->record);
        if (r == 0)
                r = read_blob(statement, column, &output->output);
        if (r == 0)
                outputs->n++;
        return r;
}

static void turn_round(struct outputs_job *outputs)
{
        for (size_t i = 0; i < outputs->n / 2; i++) {
                struct execution_output newer = outputs->outputs[i];

                outputs->outputs[i] = outputs->outputs[outputs->n - 1 - i];
                outputs->outputs[outputs->n - 1 - i] = newer;
        }
}

static int outputs_work(struct database *database, struct job *job)
{
        struct outputs_job *outputs = CONTAINER_OF(job, struct outputs_job, job);
        sqlite3_stmt *statement = database->statements[STATEMENT_OUTPUTS];
        int r;

        row_bind_int64(statement, ":time", outputs->end_time_usec);
        while ((r = row_step(statement)) == ROW_E_ROW) {
                r = read_output(statement, outputs);
                if (r)
                        break;
        }
        row_end(statement);
        turn_round(outputs);
        return r == STORE_E_MORE ? 0 : r;
}

static void outputs_deliver(struct job *job)
{
        struct outputs_job *outputs = CONTAINER_OF(job, struct outputs_job, job);

        outputs->on_done(job->userdata, job->result, job->result ? NULL : outputs->outputs,
                         job->result ? 0 : outputs->n);
}

static void outputs_deinit(struct job *job)
{
        struct outputs_job *outputs = CONTAINER_OF(job, struct outputs_job, job);

        for (size_t i = 0; i < outputs->n; i++)
                blob_deinit(&outputs->outputs[i].output);
        free(outputs->outputs);
}

static const struct job_class outputs_class = {
        .work = outputs_work,
        .deliver = outputs_deliver,
        .deinit = outputs_deinit,
};

void store_load_outputs(struct store *store, int64_t end_time_usec, int64_t bytes_max,
                        store_on_outputs on_done, void *userdata)
{
        struct outputs_job *outputs = job_new(store, &outputs_class, sizeof(*outputs), userdata);

        outputs->on_done = on_done;
        outputs->end_time_usec = end_time_usec;
        outputs->bytes_max = bytes_max;
        job_submit(&outputs->job);
}
