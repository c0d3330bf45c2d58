/* What is known of what is asked for, and until when its rows are complete. */
#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/rows.h"
#include "server/store/sandbox_reads.h"
#include "server/store/store_private.h"

struct scope_job {
        struct job job;
        store_on_usage_scope on_done;
        struct job_text owner;
        struct job_text sandbox_id;
        struct job_text execution_id;
        struct pairs labels;
        struct usage_scope scope;
};

static sqlite3_stmt *bind(struct database *database, enum statement_id id,
                          const struct scope_job *ask)
{
        sqlite3_stmt *statement = database->statements[id];

        row_bind_text(statement, ":owner", job_text_get(&ask->owner));
        if (id == STATEMENT_IS_USAGE_OWNER_KNOWN)
                return statement;
        row_bind_text(statement, ":sandbox_id", job_text_get(&ask->sandbox_id));
        if (id != STATEMENT_IS_USAGE_SANDBOX_KNOWN)
                row_bind_text(statement, ":execution_id", job_text_get(&ask->execution_id));
        return statement;
}

/* True also where none is asked for. */
static int ask_known(struct database *database, enum statement_id id, const struct scope_job *ask,
                     const struct job_text *what, bool *ret_is_known)
{
        int64_t is_known = 1;
        int r = what->is_set ? row_number(bind(database, id, ask), &is_known) : 0;

        *ret_is_known = is_known;
        return r;
}

static int scope_work(struct database *database, struct job *job)
{
        struct scope_job *ask = CONTAINER_OF(job, struct scope_job, job);
        struct usage_scope *scope = &ask->scope;
        int r;

        r = ask_known(database, STATEMENT_IS_USAGE_OWNER_KNOWN, ask, &ask->owner,
                      &scope->is_owner_known);
        if (r == 0)
                r = ask_known(database, STATEMENT_IS_USAGE_SANDBOX_KNOWN, ask, &ask->sandbox_id,
                              &scope->is_sandbox_known);
        if (r == 0)
                r = ask_known(database, STATEMENT_IS_USAGE_EXECUTION_KNOWN, ask, &ask->execution_id,
                              &scope->is_execution_known);
        if (r == 0)
                r = want_labels(database, &ask->labels);
        return r ? r
                 : row_number(bind(database, STATEMENT_USAGE_COMPLETE_UNTIL, ask),
                              &scope->complete_until_usec);
}

static void scope_deliver(struct job *job)
{
        struct scope_job *ask = CONTAINER_OF(job, struct scope_job, job);

        ask->scope.cost_usec = job->cost_usec;
        ask->on_done(job->userdata, job->result, job->result ? NULL : &ask->scope);
}

static void scope_deinit(struct job *job)
{
        pairs_deinit(&CONTAINER_OF(job, struct scope_job, job)->labels);
}

static const struct job_class scope_class = {
        .work = scope_work,
        .deliver = scope_deliver,
        .deinit = scope_deinit,
};

void store_find_usage_scope(struct store *store, const struct usage_query *query,
                            store_on_usage_scope on_done, void *userdata)
{
        struct scope_job *ask = job_new(store, &scope_class, sizeof(*ask), userdata);

        ask->on_done = on_done;
        if (query->labels && pairs_copy(query->labels, &ask->labels))
                ask->job.result = error_origin(-ENOMEM);
        job_text_set(&ask->job, &ask->owner, query->owner);
        job_text_set(&ask->job, &ask->sandbox_id, query->sandbox_id);
        job_text_set(&ask->job, &ask->execution_id, query->execution_id);
        job_submit(&ask->job);
}
