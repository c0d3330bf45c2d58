/*
 * All of the sandbox is read first, then what runs in it: what is used between two readings, or is
 * in a new row of an execution, too, is missing in this row and is in the next one. The other way
 * around it would be in two. Without the reading of one of them there is no row this time.
 */
#include "server/session/billing.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/meters.h"
#include "server/session/session_private.h"

struct leaf {
        struct bill *bill;
        char execution_id[ID_BUFFER];
        char process_id[ID_BUFFER];
};

struct bill {
        struct sandbox *sandbox; /* waits for it */
        unsigned n_pending;
        bool is_read; /* all of the sandbox */
        int64_t time_usec;
        struct usage total;
        struct used_so_far *runs;
        size_t n_runs;
        size_t n_leaves;
        struct leaf leaves[];
};

void billing_add(struct execution *execution)
{
        billing_drop(execution);
        execution->is_unbilled = true;
        execution->reading = READING_NONE;
        execution->usage_so_far = (struct usage){ 0 };
        LIST_INSERT_HEAD(&execution->context->sandbox->unbilled, execution, unbilled_link);
}

void billing_drop(struct execution *execution)
{
        if (execution->is_unbilled)
                LIST_REMOVE(execution, unbilled_link);
        execution->is_unbilled = false;
}

void billing_note(struct execution *execution, const struct usage *now)
{
        struct usage *usage = &execution->usage_so_far;

        if (!execution->is_unbilled)
                return;
        usage_since(now, &execution->usage_before, usage);
        usage->wall_usec = (int64_t)(clock_monotonic_usec() - execution->start_monotonic_usec);
}

static void bill_over(struct bill *bill)
{
        struct sandbox *sandbox = bill->sandbox;

        free(bill->runs);
        free(bill);
        sandbox->bill = NULL;
        sandbox->n_pending--;
        sandbox_check(sandbox);
}

static size_t count_unbilled(const struct sandbox *sandbox)
{
        const struct execution *execution;
        size_t n = 0;

        LIST_FOREACH(execution, &sandbox->unbilled, unbilled_link)
        n++;
        return n;
}

/* What is not in a row now is in the next one. */
static void on_billed(void *userdata, int result)
{
        struct bill *bill = userdata;

        if (result)
                log_debug("a sandbox was not billed sandbox=%s result=%d",
                          bill->sandbox->record.sandbox_id, result);
        bill_over(bill);
}

static void add_run(struct bill *bill, const struct execution *execution)
{
        struct used_so_far *run = &bill->runs[bill->n_runs++];

        memcpy(run->execution_id, execution->record.execution_id, sizeof(run->execution_id));
        run->usage = execution->has_usage ? execution->record.usage : execution->usage_so_far;
}

/* What the rows of its executions will have. False: not known. */
static bool find_kept_out(struct bill *bill, struct usage *ret_sum)
{
        const struct sandbox *sandbox = bill->sandbox;
        const struct execution *execution;

        *ret_sum = (struct usage){ 0 };
        bill->runs = calloc(count_unbilled(sandbox) + 1, sizeof(*bill->runs));
        if (!bill->runs)
                return false;
        LIST_FOREACH(execution, &sandbox->unbilled, unbilled_link)
        {
                if (!execution->has_usage && execution->reading == READING_ASKED)
                        return false;
                if (execution->has_usage || execution->reading == READING_TAKEN)
                        add_run(bill, execution);
        }
        for (size_t i = 0; i < bill->n_runs; i++)
                usage_add(ret_sum, &bill->runs[i].usage);
        usage_drop_of_sandbox(ret_sum); /* in no row of an execution */
        ret_sum->wall_usec = 0;         /* a part of the sandbox's, not beside it */
        return true;
}

static void readings_over(struct bill *bill)
{
        struct sandbox *sandbox = bill->sandbox;
        struct sandbox_bill asked = { .sandbox_id = sandbox->record.sandbox_id,
                                      .end_time_usec = bill->time_usec };
        struct usage kept_out;

        /* What ends has a last row. */
        if (!bill->is_read || sandbox->record.state != SANDBOX_RUNNING ||
            !find_kept_out(bill, &kept_out)) {
                bill_over(bill);
                return;
        }
        usage_since(&bill->total, &kept_out, &asked.total);
        asked.total.missing = bill->total.missing;
        asked.runs = bill->runs;
        asked.n_runs = bill->n_runs;
        store_bill_sandbox(sandbox->session->store, &asked, on_billed, bill);
}

static void reading_over(struct bill *bill)
{
        if (--bill->n_pending == 0)
                readings_over(bill);
}

static bool is_usage(const Hotcell__Runtime__V1__FromRuntime *answer)
{
        return answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE;
}

static void on_leaf_read(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                         struct runtime_fds *fds)
{
        const struct leaf *leaf = userdata;
        struct execution *execution =
                session_find_execution(leaf->bill->sandbox->session, NULL, leaf->execution_id);
        struct usage now;

        (void)fds;
        if (is_usage(answer) && execution && execution->is_unbilled &&
            execution->reading == READING_ASKED &&
            strcmp(execution->process_id, leaf->process_id) == 0) {
                usage_from_meters(answer->usage, &now);
                billing_note(execution, &now);
                execution->reading = READING_TAKEN;
        }
        reading_over(leaf->bill);
}

static void on_sandbox_read(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                            struct runtime_fds *fds)
{
        struct bill *bill = userdata;

        (void)fds;
        bill->is_read = is_usage(answer);
        if (bill->is_read && bill->sandbox->record.state == SANDBOX_RUNNING) {
                sandbox_usage_from_meters(answer->usage, &bill->sandbox->last_read);
                bill->total = bill->sandbox->last_read.total;
        }
        reading_over(bill);
}

static void read_leaf(struct bill *bill, struct execution *execution)
{
        struct leaf *leaf = &bill->leaves[bill->n_leaves++];

        leaf->bill = bill;
        memcpy(leaf->execution_id, execution->record.execution_id, sizeof(leaf->execution_id));
        memcpy(leaf->process_id, execution->process_id, sizeof(leaf->process_id));
        execution->reading = READING_ASKED;
        if (session_read_usage(bill->sandbox->session, bill->sandbox->record.sandbox_id,
                               leaf->process_id, on_leaf_read, leaf) == 0)
                bill->n_pending++;
}

static void read_all(struct bill *bill)
{
        struct sandbox *sandbox = bill->sandbox;
        struct execution *execution;

        bill->time_usec = time_now_usec(); /* all that was used before is read */
        if (session_read_usage(sandbox->session, sandbox->record.sandbox_id, "", on_sandbox_read,
                               bill) == 0)
                bill->n_pending++;
        LIST_FOREACH(execution, &sandbox->unbilled, unbilled_link)
        {
                if (!execution->has_usage)
                        read_leaf(bill, execution);
        }
}

static void bill_now(struct sandbox *sandbox)
{
        struct bill *bill;

        if (sandbox->bill)
                return;
        bill = calloc(1, sizeof(*bill) + count_unbilled(sandbox) * sizeof(*bill->leaves));
        if (!bill)
                return; /* next time */
        bill->sandbox = sandbox;
        sandbox->bill = bill;
        sandbox->n_pending++;
        bill->n_pending++; /* stays until all were asked for */
        read_all(bill);
        reading_over(bill);
}

static void arm(struct sandbox *sandbox, uint64_t usec);

static int on_bill_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;

        (void)source;
        (void)usec;
        arm(sandbox, (uint64_t)sandbox->session->config.ledger_period_usec);
        bill_now(sandbox);
        return 0;
}

static void arm(struct sandbox *sandbox, uint64_t usec)
{
        if (session_arm(sandbox->session, &sandbox->bill_timer, usec, on_bill_timer, sandbox))
                log_error("a sandbox has no timer for its bills sandbox=%s",
                          sandbox->record.sandbox_id);
}

/* Ids are random: so not all come at one moment, also after a restart. */
static uint64_t phase_of(const struct sandbox *sandbox)
{
        uint64_t hash = 0;

        for (const char *c = sandbox->record.sandbox_id; *c; c++)
                hash = hash * 31 + (unsigned char)*c;
        return 1 + hash % (uint64_t)sandbox->session->config.ledger_period_usec;
}

void billing_start(struct sandbox *sandbox)
{
        if (!sandbox->bill_timer && sandbox->session->config.ledger_period_usec > 0)
                arm(sandbox, phase_of(sandbox));
}

void billing_stop(struct sandbox *sandbox)
{
        sandbox->bill_timer = sd_event_source_disable_unref(sandbox->bill_timer);
}
