#include "test/unit/store/books.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"

struct fixture fixture;
struct usage_record rows[ROWS_MAX];
int n_sum_steps;

const char *path(void)
{
        return fixture_path(&fixture, "hotcell.db");
}

const char *sandbox_id(int number)
{
        static char ids[4][ID_BUFFER];
        static size_t next;
        char *id = ids[next++ % ARRAY_SIZE(ids)];

        (void)snprintf(id, ID_BUFFER, "sbx-%06d", number);
        return id;
}

void add_sandbox(int number, const char *owner, const char *label)
{
        struct sandbox_record sandbox = make_sandbox(number, 1000);
        struct context_record context = make_context(number, sandbox.sandbox_id);

        (void)strcpy(sandbox.owner, owner);
        (void)strcpy(context.owner, owner);
        if (label)
                ck_assert_int_eq(pairs_add(&sandbox.labels, "team", label), 0);
        ck_assert_int_eq(insert_sandbox(&fixture, &sandbox), 0);
        ck_assert_int_eq(insert_context(&fixture, &context), 0);
        sandbox_record_deinit(&sandbox);
}

void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
        add_sandbox(1, "uid:1000", "blue");
}

void tear_down(void)
{
        fixture_free(&fixture);
}

struct usage make_usage(int64_t base)
{
        struct usage usage = { .missing = BIT(USAGE_PART_RSS_PEAK) };
        int64_t amounts[N_AMOUNTS];

        for (int i = 0; i < N_AMOUNTS; i++)
                amounts[i] = base + i;
        memcpy(&usage, amounts, sizeof(amounts));
        usage.cpu_usec = usage.cpu_user_usec + usage.cpu_system_usec;
        return usage;
}

void check_usage(const struct usage *is, const struct usage *should_be)
{
        int64_t a[N_AMOUNTS], b[N_AMOUNTS];

        memcpy(a, is, sizeof(a));
        memcpy(b, should_be, sizeof(b));
        for (int i = 0; i < N_AMOUNTS; i++)
                ck_assert_msg(a[i] == b[i], "amount %d: %lld, not %lld", i, (long long)a[i],
                              (long long)b[i]);
        ck_assert_uint_eq(is->missing, should_be->missing);
}

struct execution_record make_run(int number, int sandbox)
{
        char context_id[ID_BUFFER];

        (void)snprintf(context_id, sizeof(context_id), "ctx-%06d", sandbox);
        return make_execution(number, sandbox_id(sandbox), context_id, 2000 + number);
}

int end_execution(const struct execution_record *record)
{
        struct answer answer = { 0 };

        store_end_execution(fixture.store, record, NULL, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

struct execution_record ended(int number, int sandbox, int64_t time_usec, const struct usage *usage)
{
        struct execution_record record = make_run(number, sandbox);

        record.state = EXECUTION_ENDED;
        record.start_time_usec = time_usec - 10;
        record.end_time_usec = time_usec;
        record.outcome = OUTCOME_EXITED;
        record.cause = CAUSE_PROGRAM;
        record.usage = *usage;
        return record;
}

struct execution_record run(int number, int sandbox, int64_t time_usec, const struct usage *usage)
{
        struct execution_record record = make_run(number, sandbox);

        ck_assert_int_eq(insert_execution(&fixture, &record), 0);
        record = ended(number, sandbox, time_usec, usage);
        ck_assert_int_eq(end_execution(&record), 0);
        return record;
}

int bill(int sandbox, int64_t time_usec, const struct usage *total)
{
        const struct sandbox_bill asked = { .sandbox_id = sandbox_id(sandbox),
                                            .end_time_usec = time_usec,
                                            .total = *total };
        struct answer answer = { 0 };

        store_bill_sandbox(fixture.store, &asked, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

int end_sandbox(int number, int64_t time_usec, const struct usage *total, bool is_incomplete)
{
        struct sandbox_record record;
        int r;

        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(number), &record), 0);
        record.state = SANDBOX_ENDED;
        record.end_time_usec = time_usec;
        record.end_cause = CAUSE_TTL;
        record.usage.total = *total;
        if (is_incomplete)
                record.usage.total.missing |= BIT(USAGE_PART_REST);
        (void)strcpy(record.end_message, "It was time.");
        r = update_sandbox(&fixture, &record, SANDBOX_EVENT_ENDED);
        sandbox_record_deinit(&record);
        return r;
}

void on_list(void *userdata, int result, const struct usage_list *list)
{
        struct listing *listing = userdata;

        ck_assert_int_eq(result, 0);
        listing->n_calls++;
        listing->n = list->n;
        listing->more = list->more;
        listing->last_time_usec = list->last_time_usec;
        listing->cost_usec = list->cost_usec;
        if (list->n > 0)
                memcpy(rows, list->records, list->n * sizeof(*rows));
}

struct listing list(const struct usage_query *query)
{
        struct listing listing = { 0 };

        store_list_usage(fixture.store, query, on_list, &listing);
        wait_for(&fixture, &listing.n_calls, 1);
        return listing;
}

size_t list_of(int sandbox)
{
        return list(&(struct usage_query){ .sandbox_id = sandbox_id(sandbox), .limit = ROWS_MAX })
                .n;
}

struct summing {
        int n_calls;
        struct usage_sums sums;
};

static void on_sums(void *userdata, int result, const struct usage_sums *sums)
{
        struct summing *summing = userdata;

        ck_assert_int_eq(result, 0);
        summing->n_calls++;
        summing->sums = *sums;
}

struct usage_sums sum(const struct usage_query *query)
{
        struct usage_query next = *query;
        struct usage_sums all = { 0 };
        char after_sandbox[ID_BUFFER];
        struct summing summing;

        n_sum_steps = 0;
        do {
                summing = (struct summing){ 0 };
                store_sum_usage(fixture.store, &next, on_sums, &summing);
                wait_for(&fixture, &summing.n_calls, 1);
                usage_add(&all.usage, &summing.sums.usage);
                usage_gaps_add(&all.gaps, &summing.sums.gaps);
                all.n += summing.sums.n;
                all.cost_usec += summing.sums.cost_usec;
                next.after_id = summing.sums.last_id;
                memcpy(after_sandbox, summing.sums.last_sandbox, sizeof(after_sandbox));
                next.after_sandbox = after_sandbox;
                n_sum_steps++;
        } while (summing.sums.more);
        return all;
}

int prune(const struct store_retention *retention, int64_t now_usec)
{
        struct answer answer = { 0 };
        int n_steps = 0;

        do {
                store_prune(fixture.store, retention, now_usec, on_answer, &answer);
                wait_for(&fixture, &answer.n_calls, ++n_steps);
        } while (answer.result == STORE_E_MORE);
        ck_assert_int_eq(answer.result, 0);
        return n_steps;
}

void fill_ledger_of(const char *owner, int first, int last)
{
        char sql[1024];

        fixture_close(&fixture);
        (void)snprintf(sql, sizeof(sql),
                       "WITH n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                       "INSERT INTO usage_records SELECT NULL, i * 1000000, 'sbx-' || i, 1, 3, "
                       "NULL, NULL, '%s', 1, i * 1000000, 0, 7, 0, 1, 0,0,0,5,0,0,0,0,0,0,0,0,"
                       "0,0,0,0,0,0,0 FROM n",
                       first, last, owner);
        run_sql(path(), sql);
        run_sql(path(), "INSERT INTO usage_sandboxes (sandbox_id, owner, billed_time_usec, "
                        "end_time_usec, n_records, cpu_usec, memory_peak_bytes) "
                        "SELECT sandbox_id, owner, 1, 1, 1, cpu_usec, memory_peak_bytes "
                        "FROM usage_records WHERE true ON CONFLICT DO NOTHING");
        fixture_open(&fixture);
}

void fill_ledger(int n)
{
        fill_ledger_of("uid:1000", 1, n);
}

void check_sums(struct usage_query query, int64_t n)
{
        struct usage_sums of_accounts = sum(&query), of_rows;

        query.start_time_usec = 1;
        of_rows = sum(&query);
        ck_assert_int_eq(of_accounts.n, n);
        ck_assert_int_eq(of_rows.n, n);
        check_usage(&of_accounts.usage, &of_rows.usage);
        ck_assert_mem_eq(&of_accounts.gaps, &of_rows.gaps, sizeof(of_rows.gaps));
}
