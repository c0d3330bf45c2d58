/* The ledger: each row is there once, rows add up to what is stored, and none is changed. */
#include <check.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

enum { N_AMOUNTS = 19, ROWS_MAX = 1000 };
static_assert(offsetof(struct usage, missing) == N_AMOUNTS * sizeof(int64_t), "all are amounts");

static struct fixture fixture;
static struct usage_record rows[ROWS_MAX];

static const char *path(void)
{
        return fixture_path(&fixture, "hotcell.db");
}

static const char *sandbox_id(int number)
{
        static char ids[4][ID_BUFFER];
        static size_t next;
        char *id = ids[next++ % ARRAY_SIZE(ids)];

        (void)snprintf(id, ID_BUFFER, "sbx-%06d", number);
        return id;
}

static void add_sandbox(int number, const char *owner, const char *label)
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

static void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
        add_sandbox(1, "uid:1000", "blue");
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

/* Every amount differs from the others and from zero. */
static struct usage make_usage(int64_t base)
{
        struct usage usage = { .missing = BIT(USAGE_PART_RSS_PEAK) };
        int64_t amounts[N_AMOUNTS];

        for (int i = 0; i < N_AMOUNTS; i++)
                amounts[i] = base + i;
        memcpy(&usage, amounts, sizeof(amounts));
        return usage;
}

static void check_usage(const struct usage *is, const struct usage *should_be)
{
        int64_t a[N_AMOUNTS], b[N_AMOUNTS];

        memcpy(a, is, sizeof(a));
        memcpy(b, should_be, sizeof(b));
        for (int i = 0; i < N_AMOUNTS; i++)
                ck_assert_msg(a[i] == b[i], "amount %d: %lld, not %lld", i, (long long)a[i],
                              (long long)b[i]);
        ck_assert_uint_eq(is->missing, should_be->missing);
}

static struct execution_record make_run(int number, int sandbox)
{
        char context_id[ID_BUFFER];

        (void)snprintf(context_id, sizeof(context_id), "ctx-%06d", sandbox);
        return make_execution(number, sandbox_id(sandbox), context_id, 2000 + number);
}

static int end(const struct execution_record *record)
{
        struct answer answer = { 0 };

        store_end_execution(fixture.store, record, NULL, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

static struct execution_record ended(int number, int sandbox, int64_t time_usec,
                                     const struct usage *usage)
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

/* One that has ended at @time_usec. */
static struct execution_record run(int number, int sandbox, int64_t time_usec,
                                   const struct usage *usage)
{
        struct execution_record record = make_run(number, sandbox);

        ck_assert_int_eq(insert_execution(&fixture, &record), 0);
        record = ended(number, sandbox, time_usec, usage);
        ck_assert_int_eq(end(&record), 0);
        return record;
}

static int bill(int sandbox, int64_t time_usec, const struct usage *total)
{
        struct answer answer = { 0 };

        store_bill_sandbox(fixture.store, sandbox_id(sandbox), time_usec, total, on_answer,
                           &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

/* Keeps owner and labels. */
static int end_sandbox(int number, int64_t time_usec, const struct usage *total, bool is_incomplete)
{
        struct sandbox_record record;
        int r;

        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(number), &record), 0);
        record.state = SANDBOX_ENDED;
        record.end_time_usec = time_usec;
        record.end_cause = CAUSE_TTL;
        record.usage.total = *total;
        record.is_usage_incomplete = is_incomplete;
        (void)strcpy(record.end_message, "It was time.");
        r = update_sandbox(&fixture, &record, SANDBOX_EVENT_ENDED);
        sandbox_record_deinit(&record);
        return r;
}

struct listing {
        int n_calls;
        size_t n;
        bool more;
        int64_t last_time_usec;
};

static void on_list(void *userdata, int result, const struct usage_list *list)
{
        struct listing *listing = userdata;

        ck_assert_int_eq(result, 0);
        listing->n_calls++;
        listing->n = list->n;
        listing->more = list->more;
        listing->last_time_usec = list->last_time_usec;
        if (list->n > 0)
                memcpy(rows, list->records, list->n * sizeof(*rows));
}

static struct listing list(const struct usage_query *query)
{
        struct listing listing = { 0 };

        store_list_usage(fixture.store, query, on_list, &listing);
        wait_for(&fixture, &listing.n_calls, 1);
        return listing;
}

static size_t list_of(int sandbox)
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

static int n_sum_steps;

/* In all steps. */
static struct usage_sums sum(const struct usage_query *query)
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
                all.has_sandboxes |= summing.sums.has_sandboxes;
                all.cost_usec += summing.sums.cost_usec;
                next.after_id = summing.sums.last_id;
                memcpy(after_sandbox, summing.sums.last_sandbox, sizeof(after_sandbox));
                next.after_sandbox = after_sandbox;
                n_sum_steps++;
        } while (summing.sums.more);
        return all;
}

START_TEST(an_execution_has_one_row_however_often_its_end_is_told)
{
        const struct usage usage = make_usage(100);
        struct execution_record record = run(1, 1, 5000, &usage), out;
        struct usage expected = usage;

        record.usage = make_usage(900);
        ck_assert_int_eq(end(&record), 0);
        ck_assert_int_eq(update_execution(&fixture, &record), 0);
        fixture_close(&fixture);
        fixture_open(&fixture);
        ck_assert_int_eq(end(&record), 0);

        ck_assert_uint_eq(list_of(1), 1);
        ck_assert_int_eq(rows[0].sequence, 1);
        ck_assert_int_eq(rows[0].type, USAGE_RECORD_EXECUTION);
        ck_assert_str_eq(rows[0].execution_id, record.execution_id);
        ck_assert_str_eq(rows[0].context_id, record.context_id);
        ck_assert_str_eq(rows[0].owner, "uid:1000");
        ck_assert_int_eq(rows[0].start_time_usec, 4990);
        ck_assert_int_eq(rows[0].end_time_usec, 5000);
        ck_assert_int_eq(rows[0].outcome, OUTCOME_EXITED);
        ck_assert_int_eq(rows[0].cause, CAUSE_PROGRAM);
        ck_assert(!rows[0].is_incomplete);
        expected.throttled_periods = 0; /* of the whole sandbox: in rows of that */
        expected.throttled_usec = 0;
        expected.missing |= BIT(USAGE_PART_THROTTLED);
        check_usage(&rows[0].usage, &expected);
        ck_assert_int_eq(get_execution(&fixture, NULL, record.execution_id, &out), 0);
        check_usage(&out.usage, &record.usage);
}
END_TEST

START_TEST(what_did_not_start_has_a_row_of_nothing_and_what_was_lost_one_that_says_so)
{
        struct execution_record waiting = make_run(1, 1), lost = make_run(2, 1);

        ck_assert_int_eq(insert_execution(&fixture, &waiting), 0);
        waiting.state = EXECUTION_ENDED;
        waiting.outcome = OUTCOME_NOT_STARTED;
        waiting.end_time_usec = 7000;
        ck_assert_int_eq(end(&waiting), 0);
        ck_assert_int_eq(insert_execution(&fixture, &lost), 0);
        lost.state = EXECUTION_ENDED;
        lost.start_time_usec = 3000;
        lost.end_time_usec = 8000;
        lost.is_usage_incomplete = true;
        ck_assert_int_eq(end(&lost), 0);

        ck_assert_uint_eq(list_of(1), 2);
        ck_assert_int_eq(rows[0].start_time_usec, 7000);
        check_usage(&rows[0].usage, &(struct usage){ .missing = BIT(USAGE_PART_THROTTLED) });
        ck_assert(!rows[0].is_incomplete);
        ck_assert_int_eq(rows[1].sequence, 2);
        ck_assert(rows[1].is_incomplete);
}
END_TEST

START_TEST(a_sandbox_is_billed_for_what_no_row_has)
{
        struct usage total = { .cpu_usec = 1000, .memory_peak_bytes = 70, .throttled_usec = 5 };

        (void)run(1, 1, 5000, &(struct usage){ .cpu_usec = 300, .memory_peak_bytes = 90 });
        ck_assert_int_eq(bill(1, 6000, &total), 0);
        ck_assert_int_eq(bill(1, 6000, &total), 0); /* told again */
        ck_assert_int_eq(bill(1, 6500, &total), 0); /* nothing since */
        total.cpu_usec = 1100;
        ck_assert_int_eq(bill(1, 7000, &total), 0);

        ck_assert_uint_eq(list_of(1), 3);
        ck_assert_int_eq(rows[1].type, USAGE_RECORD_SANDBOX);
        ck_assert_int_eq(rows[1].start_time_usec, 1000); /* when it was made */
        ck_assert_int_eq(rows[1].end_time_usec, 6000);
        check_usage(&rows[1].usage, &(struct usage){ .cpu_usec = 700,
                                                     .wall_usec = 5000,
                                                     .memory_peak_bytes = 70,
                                                     .throttled_usec = 5 });
        ck_assert_int_eq(rows[2].sequence, 3);
        ck_assert_int_eq(rows[2].start_time_usec, 6000);
        ck_assert_int_eq(rows[2].usage.cpu_usec, 100);
        ck_assert_int_eq(rows[2].usage.wall_usec, 1000);
        ck_assert_int_eq(bill(2, 7000, &total), STORE_E_NOT_FOUND);
        ck_assert(sum(&(struct usage_query){ .sandbox_id = sandbox_id(1) }).has_sandboxes);
}
END_TEST

START_TEST(a_clock_that_is_set_back_takes_no_time_away)
{
        ck_assert_int_eq(bill(1, 9000, &(struct usage){ .cpu_usec = 1 }), 0);
        ck_assert_int_eq(bill(1, 4000, &(struct usage){ .cpu_usec = 2 }), 0);
        ck_assert_int_eq(bill(1, 9500, &(struct usage){ .cpu_usec = 3 }), 0);
        ck_assert_uint_eq(list_of(1), 3);
        ck_assert_int_eq(rows[1].usage.wall_usec, 0);
        ck_assert_int_eq(rows[1].start_time_usec, 4000); /* not after its end */
        ck_assert_int_eq(rows[2].usage.wall_usec, 500);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(path(), "SELECT count(*) FROM usage_records AS a JOIN "
                                         "usage_records AS b ON a.record_id < b.record_id "
                                         "AND a.record_time_usec >= b.record_time_usec"),
                         0);
}
END_TEST

START_TEST(a_sandbox_ends_with_one_row_also_of_nothing)
{
        const struct usage none = { 0 };

        ck_assert_int_eq(end_sandbox(1, 9000, &none, true), 0);
        ck_assert_int_eq(end_sandbox(1, 9900, &(struct usage){ .cpu_usec = 5 }, false), 0);
        ck_assert_int_eq(bill(1, 9999, &(struct usage){ .cpu_usec = 50 }), 0); /* too late */
        ck_assert_uint_eq(list_of(1), 1);
        ck_assert_int_eq(rows[0].type, USAGE_RECORD_SANDBOX_END);
        ck_assert_int_eq(rows[0].cause, CAUSE_TTL);
        ck_assert(rows[0].is_incomplete);
        check_usage(&rows[0].usage, &(struct usage){ .wall_usec = 8000 });
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(path(), "SELECT end_cause FROM usage_sandboxes "
                                         "WHERE end_message = 'It was time.' "
                                         "AND end_time_usec = 9000"),
                         CAUSE_TTL);
}
END_TEST

/* Meters of a whole and of its parts are not read at one moment, nor rounded alike. */
START_TEST(a_sandbox_used_what_its_rows_add_up_to)
{
        const struct usage expected = { .cpu_usec = 1000,
                                        .cpu_user_usec = 800,
                                        .cpu_system_usec = 300,
                                        .wall_usec = 8000,
                                        .memory_peak_bytes = 90,
                                        .stdout_bytes = 11 };
        const struct usage part = { .cpu_usec = 400,
                                    .cpu_user_usec = 800,
                                    .cpu_system_usec = 100,
                                    .wall_usec = 77,
                                    .memory_peak_bytes = 90,
                                    .throttled_usec = 9,
                                    .stdout_bytes = 11 };
        const struct usage total = { .cpu_usec = 1000,
                                     .cpu_user_usec = 700,
                                     .cpu_system_usec = 300,
                                     .memory_peak_bytes = 80 };
        struct sandbox_record record;
        struct usage_sums sums;

        (void)run(1, 1, 5000, &part);
        for (int i = 0; i < 2; i++) { /* told twice */
                ck_assert_int_eq(end_sandbox(1, 9000, &total, false), 0);
                ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(1), &record), 0);
                check_usage(&record.usage.total, &expected);
                sandbox_record_deinit(&record);
        }
        sums = sum(&(struct usage_query){ .sandbox_id = sandbox_id(1) });
        check_usage(&sums.usage, &expected); /* of throttling, too, nothing is missing */
        ck_assert(sums.has_sandboxes);
        sums = sum(&(struct usage_query){ .execution_id = "exe-000001" });
        ck_assert_int_eq(sums.usage.wall_usec, 77);
        ck_assert(!sums.has_sandboxes);
}
END_TEST

START_TEST(an_execution_that_is_told_after_its_sandbox_adds_nothing)
{
        struct execution_record record = make_run(1, 1);
        const struct usage total = { .cpu_usec = 10, .wall_usec = 4 };
        struct sandbox_record sandbox;

        ck_assert_int_eq(insert_execution(&fixture, &record), 0);
        ck_assert_int_eq(end_sandbox(1, 9000, &total, false), 0);
        record = ended(1, 1, 8000, &total);
        ck_assert_int_eq(end(&record), 0);
        ck_assert_uint_eq(list_of(1), 2);
        check_usage(&rows[1].usage,
                    &(struct usage){ .wall_usec = 4, .missing = BIT(USAGE_PART_THROTTLED) });
        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(1), &sandbox), 0);
        ck_assert_int_eq(sandbox.usage.total.cpu_usec, 10);
        sandbox_record_deinit(&sandbox);
}
END_TEST

#define NAME(field, kind) #field,

static const char *const amounts[N_AMOUNTS] = { USAGE_FIELDS(NAME) };

/* Rows are 1 … n, and what is stored of each ended sandbox is what they add up to. */
static void check_books(void)
{
        for (int i = 0; i < N_AMOUNTS; i++) {
                const char *how = strstr(amounts[i], "peak") ? "max" : "sum";
                const char *where = strcmp(amounts[i], "wall_usec") == 0 ? "AND type > 1" : "";
                char sql[512];

                (void)snprintf(sql, sizeof(sql),
                               "SELECT count(*) FROM usage_sandboxes AS s "
                               "WHERE %s <> (SELECT %s(%s) FROM usage_records AS u "
                               "WHERE u.sandbox_id = s.sandbox_id %s)",
                               amounts[i], how, amounts[i], where);
                ck_assert_msg(ask_sql(path(), sql) == 0, "%s do not add up", amounts[i]);
        }
        ck_assert_int_eq(ask_sql(path(), "SELECT count(*) FROM (SELECT count(*) AS n, "
                                         "min(sequence) AS low, max(sequence) AS high, "
                                         "sum(type = 3) AS n_ends FROM usage_records "
                                         "GROUP BY sandbox_id) "
                                         "WHERE low <> 1 OR high <> n OR n_ends <> 1"),
                         0);
        ck_assert_int_eq(ask_sql(path(), "SELECT count(*) FROM executions WHERE (state = 3) <> "
                                         "(execution_id IN (SELECT execution_id FROM "
                                         "usage_records WHERE execution_id IS NOT NULL))"),
                         0);
}

/* Whatever comes in which order: meters that stand still, jump, or are behind their parts. */
START_TEST(rows_add_up_to_the_counters)
{
        struct usage totals[4] = { 0 };

        for (int i = 2; i <= 4; i++)
                add_sandbox(i, "uid:1000", NULL);
        srandom(7);
        for (int i = 1; i <= 400; i++) {
                int sandbox = 1 + (int)(random() % 4);
                struct usage part = make_usage(random() % 1000);

                if (random() % 2)
                        usage_add(&totals[sandbox - 1], &part);
                if (random() % 3)
                        (void)run(i, sandbox, 2000 + i * 10, &part);
                else
                        ck_assert_int_eq(bill(sandbox, 2000 + i * 10, &totals[sandbox - 1]), 0);
        }
        for (int i = 1; i <= 4; i++)
                ck_assert_int_eq(end_sandbox(i, 7000, &totals[i - 1], false), 0);
        fixture_close(&fixture);
        check_books();
        ck_assert_int_gt(ask_sql(path(), "SELECT count(*) FROM usage_records"), 300);
}
END_TEST

/* Does the same work in every life: what was done before is told again. */
static void live(int fd, int first)
{
        struct usage total = { 0 };

        fixture_open(&fixture);
        for (int i = 1; i <= 60; i++) {
                struct usage part = make_usage(i);
                struct execution_record record = make_run(i, 1);

                usage_add(&total, &part);
                (void)insert_execution(&fixture, &record);
                if (i == first)
                        (void)!write(fd, "x", 1);
                record = ended(i, 1, 2000 + i, &part);
                ck_assert_int_eq(end(&record), 0);
                ck_assert_int_eq(bill(1, 2000 + i, &total), 0);
        }
        ck_assert_int_eq(end_sandbox(1, 7000, &total, false), 0);
}

START_TEST(a_store_that_is_killed_and_told_again_has_each_row_once)
{
        fixture_close(&fixture);
        for (int life = 0; life < 20; life++) {
                int fds[2];
                char byte;
                pid_t pid;

                ck_assert_int_eq(pipe(fds), 0);
                pid = fork();
                if (pid == 0) {
                        ck_assert_int_ge(sd_event_new(&fixture.loop), 0);
                        live(fds[1], life * 3 + 1);
                        _exit(0);
                }
                (void)close(fds[1]);
                ck_assert_int_eq(read(fds[0], &byte, 1), 1);
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
                (void)close(fds[0]);
        }
        live(STDERR_FILENO, 0);
        fixture_close(&fixture);
        check_books();
        ck_assert_int_eq(ask_sql(path(), "SELECT count(*) FROM usage_records WHERE type = 1"), 60);
}
END_TEST

static int prune(const struct store_retention *retention, int64_t now_usec)
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

static void on_scope(void *userdata, int result, const struct usage_scope *scope)
{
        ck_assert_int_eq(result, 0);
        *(struct usage_scope *)userdata = *scope;
}

static struct usage_scope find_scope(const struct usage_query *query)
{
        struct usage_scope scope = { .complete_until_usec = -1 };
        struct listing after = { 0 };

        store_find_usage_scope(fixture.store, query, on_scope, &scope);
        store_list_usage(fixture.store, &(struct usage_query){ .limit = 1 }, on_list, &after);
        wait_for(&fixture, &after.n_calls, 1);
        ck_assert_int_ge(scope.complete_until_usec, 0);
        return scope;
}

START_TEST(what_has_a_row_or_a_record_is_known_to_its_owner)
{
        const struct usage_query mine = { .owner = "uid:1000",
                                          .sandbox_id = sandbox_id(1),
                                          .execution_id = "exe-000001" };
        struct usage_query query = { .sandbox_id = sandbox_id(7), .execution_id = "exe-000007" };

        ck_assert(!find_scope(&query).is_sandbox_known);
        ck_assert(!find_scope(&query).is_execution_known);
        ck_assert(find_scope(&(struct usage_query){ 0 }).is_sandbox_known);
        ck_assert(
                find_scope(&(struct usage_query){ .sandbox_id = sandbox_id(1) }).is_sandbox_known);
        (void)run(1, 1, 5000, &(struct usage){ .cpu_usec = 1 });
        ck_assert_int_eq(end_sandbox(1, 9000, &(struct usage){ .cpu_usec = 3 }, false), 0);
        for (int i = 0; i < 2; i++) { /* the second time only rows are left */
                ck_assert(find_scope(&mine).is_sandbox_known);
                ck_assert(find_scope(&mine).is_execution_known);
                query = mine;
                query.owner = "uid:2000";
                ck_assert(!find_scope(&query).is_sandbox_known);
                ck_assert(!find_scope(&query).is_execution_known);
                query = mine;
                query.sandbox_id = sandbox_id(7);
                ck_assert(!find_scope(&query).is_execution_known);
                (void)prune(&(struct store_retention){ .kept_usec = 1 }, 20000);
        }
}
END_TEST

START_TEST(rows_are_complete_until_what_lives_had_its_last)
{
        const struct usage_query all = { 0 }, one = { .execution_id = "exe-000001" };
        struct execution_record record = make_run(1, 1);
        struct pair pair = { unconst("team"), unconst("red") };
        struct pairs labels = { .items = &pair, .n = 1 };

        ck_assert_int_eq(find_scope(&all).complete_until_usec, 1000); /* when it was made */
        ck_assert_int_eq(find_scope(&(struct usage_query){ .labels = &labels }).complete_until_usec,
                         0);
        ck_assert_int_eq(
                find_scope(&(struct usage_query){ .owner = "uid:2000" }).complete_until_usec, 0);
        ck_assert_int_eq(bill(1, 6000, &(struct usage){ .cpu_usec = 1 }), 0);
        ck_assert_int_eq(find_scope(&all).complete_until_usec, 6000);
        ck_assert_int_eq(insert_execution(&fixture, &record), 0);
        ck_assert_int_eq(find_scope(&all).complete_until_usec, 6000); /* it did not start */
        record.state = EXECUTION_RUNNING;
        record.start_time_usec = 5500;
        ck_assert_int_eq(update_execution(&fixture, &record), 0);
        ck_assert_int_eq(find_scope(&all).complete_until_usec, 5500);
        ck_assert_int_eq(find_scope(&one).complete_until_usec, 5500);
        record = ended(1, 1, 7000, &(struct usage){ .cpu_usec = 1 });
        ck_assert_int_eq(end(&record), 0);
        ck_assert_int_eq(find_scope(&all).complete_until_usec, 6000);
        ck_assert_int_eq(find_scope(&one).complete_until_usec, 0);
        ck_assert_int_eq(end_sandbox(1, 9000, &(struct usage){ .cpu_usec = 3 }, false), 0);
        ck_assert_int_eq(find_scope(&all).complete_until_usec, 0);
}
END_TEST

START_TEST(rows_are_found_by_what_they_are_of)
{
        struct pair pair = { unconst("team"), unconst("blue") };
        struct pairs labels = { .items = &pair, .n = 1 };
        const struct usage one = { .cpu_usec = 1 };
        struct usage_query query = { .limit = 10 };

        add_sandbox(2, "uid:2000", "blue");
        add_sandbox(3, "uid:2000", "red");
        for (int i = 0; i < 3; i++)
                (void)run(i + 1, i + 1, 5000 + i, &one);
        ck_assert_int_eq(end_sandbox(2, 9000, &one, false), 0);

        ck_assert_uint_eq(list(&query).n, 4);
        query.owner = "uid:2000";
        ck_assert_uint_eq(list(&query).n, 3);
        query.labels = &labels;
        ck_assert_uint_eq(list(&query).n, 2);
        ck_assert_str_eq(rows[0].sandbox_id, sandbox_id(2));
        query.sandbox_id = sandbox_id(3);
        ck_assert_uint_eq(list(&query).n, 0);
        query = (struct usage_query){ .labels = &labels, .limit = 10 };
        ck_assert_uint_eq(list(&query).n, 3);
        ck_assert_int_eq(sum(&query).n, 3);
        ck_assert_int_eq(sum(&query).usage.cpu_usec, 2);
        query = (struct usage_query){ .execution_id = "exe-000003", .limit = 10 };
        ck_assert_uint_eq(list(&query).n, 1);
        query.owner = "uid:1000";
        ck_assert_uint_eq(list(&query).n, 0);
        query = (struct usage_query){ .sandbox_id = sandbox_id(2),
                                      .owner = "uid:1000",
                                      .limit = 10 };
        ck_assert_uint_eq(list(&query).n, 0);
}
END_TEST

START_TEST(labels_of_an_ended_sandbox_outlive_it)
{
        const struct store_retention retention = { .kept_usec = 1 };
        struct pair pair = { unconst("team"), unconst("blue") };
        struct pairs labels = { .items = &pair, .n = 1 };
        const struct usage_query query = { .labels = &labels, .limit = 10 };
        struct answer answer = { 0 };
        struct sandbox_record record;

        (void)run(1, 1, 5000, &(struct usage){ .cpu_usec = 1 });
        ck_assert_int_eq(end_sandbox(1, 9000, &(struct usage){ .cpu_usec = 3 }, false), 0);
        store_prune(fixture.store, &retention, 20000, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(1), &record), STORE_E_NOT_FOUND);
        ck_assert_uint_eq(list(&query).n, 2);
        ck_assert_int_eq(sum(&query).usage.cpu_usec, 3);
        pair.value = unconst("red");
        ck_assert_uint_eq(list(&query).n, 0);
}
END_TEST

START_TEST(pages_go_on_after_the_last_row)
{
        struct usage_query query = { .limit = 3 };
        struct usage total = { 0 };
        struct listing page;

        for (int i = 0; i < 7; i++) {
                total.cpu_usec++;
                ck_assert_int_eq(bill(1, 5000 + i, &total), 0);
        }
        for (int of_sandbox = 0; of_sandbox < 2; of_sandbox++) {
                query.after_time_usec = 0;
                query.sandbox_id = of_sandbox ? sandbox_id(1) : NULL;
                for (int i = 0; i < 3; i++) {
                        page = list(&query);
                        ck_assert_uint_eq(page.n, i < 2 ? 3 : 1);
                        ck_assert_int_eq(rows[0].sequence, i * 3 + 1);
                        ck_assert_int_eq(page.more, i < 2);
                        query.after_time_usec = page.last_time_usec;
                }
                query.after_time_usec = INT64_MAX;
                ck_assert_uint_eq(list(&query).n, 0);
        }
}
END_TEST

/* Times are when rows end; a row may come late, never early. */
START_TEST(rows_of_a_time_are_found_whenever_they_came)
{
        int64_t now = time_now_usec();
        struct usage total = { 0 };
        struct usage_query query = { .limit = 100 };

        for (int i = 0; i < 20; i++) {
                total.cpu_usec++;
                ck_assert_int_eq(bill(1, now + (i % 2 ? 1000000 : 0) + i, &total), 0);
        }
        query.start_time_usec = now + 1000000;
        ck_assert_uint_eq(list(&query).n, 10);
        ck_assert_int_eq(sum(&query).n, 10);
        query.end_time_usec = now + 1000000 + 5;
        ck_assert_uint_eq(list(&query).n, 2);
        query.start_time_usec = 0;
        ck_assert_uint_eq(list(&query).n, 12);
        ck_assert_int_eq(sum(&query).n, 12);
        query.sandbox_id = sandbox_id(1);
        ck_assert_uint_eq(list(&query).n, 12);
        query.start_time_usec = now + 2000000;
        query.end_time_usec = 0;
        ck_assert_uint_eq(list(&query).n, 0);
}
END_TEST

/* An ended sandbox of one row for each second from @first to @last. */
static void fill_ledger_of(const char *owner, int first, int last)
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

static void fill_ledger(int n)
{
        fill_ledger_of("uid:1000", 1, n);
}

START_TEST(sums_come_in_steps)
{
        struct usage_query query = { .owner = "uid:1000" };
        struct usage_sums sums;

        fill_ledger(9000);
        sums = sum(&query);
        ck_assert_int_eq(sums.n, 9000);
        ck_assert_int_eq(n_sum_steps, (9000 + 511) / 512);
        ck_assert_int_eq(sums.usage.cpu_usec, 9000);
        ck_assert_int_eq(sums.usage.memory_peak_bytes, 5);
        ck_assert_uint_gt(sums.cost_usec, 0);
        query.start_time_usec = 1; /* by rows: it is the same */
        ck_assert_int_eq(sum(&query).n, 9000);
        ck_assert_int_eq(sum(&query).usage.cpu_usec, 9000);
        ck_assert_int_eq(n_sum_steps, (9000 + 511) / 512);
        query.start_time_usec = 8999LL * 1000000;
        ck_assert_int_eq(sum(&query).n, 2);
        ck_assert_int_eq(n_sum_steps, 1);
        /* A step that finds nothing of what is asked for tells where to go on. */
        query = (struct usage_query){ .end_time_usec = 1, .limit = 10 };
        ck_assert_uint_eq(list(&query).n, 0);
        ck_assert(list(&query).more);
        ck_assert_int_eq(list(&query).last_time_usec, 4096LL * 1000000);
}
END_TEST

START_TEST(the_oldest_rows_go_by_age_and_by_number_with_their_sandboxes)
{
        fill_ledger(1000);
        ck_assert_int_eq(bill(1, time_now_usec(), &(struct usage){ .cpu_usec = 1 }), 0);
        ck_assert_int_gt(prune(&(struct store_retention){ .ledger_kept_usec = 100 * 1000000LL },
                               701 * 1000000LL),
                         1); /* those before 601 */
        ck_assert_int_eq(sum(&(struct usage_query){ 0 }).n, 401);
        (void)prune(&(struct store_retention){ .ledger_rows_max = 101 }, 701 * 1000000LL);
        ck_assert_int_eq(sum(&(struct usage_query){ 0 }).n, 101);
        (void)prune(&(struct store_retention){ 0 }, INT64_MAX);
        ck_assert_uint_eq(list(&(struct usage_query){ .limit = 1 }).n, 1);
        ck_assert_str_eq(rows[0].sandbox_id, "sbx-901");
        (void)prune(&(struct store_retention){ .ledger_kept_usec = 1 }, INT64_MAX);
        ck_assert_int_eq(sum(&(struct usage_query){ 0 }).n, 0);
        ck_assert_int_eq(bill(1, time_now_usec(), &(struct usage){ .cpu_usec = 2 }), 0);
        ck_assert_uint_eq(list_of(1), 1);
        ck_assert_int_eq(rows[0].sequence, 2);
        ck_assert_int_eq(rows[0].usage.cpu_usec, 1); /* what went was billed */
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(path(), "SELECT count(*) FROM usage_sandboxes"), 1);
}
END_TEST

START_TEST(pages_go_on_where_rows_went)
{
        struct usage_query query = { .limit = 3 };

        fill_ledger(20);
        query.after_time_usec = list(&query).last_time_usec;
        ck_assert_str_eq(rows[2].sandbox_id, "sbx-3");
        (void)prune(&(struct store_retention){ .ledger_rows_max = 18 }, 100 * 1000000LL);
        ck_assert_uint_eq(list(&query).n, 3);
        ck_assert_str_eq(rows[0].sandbox_id, "sbx-4");
        (void)prune(&(struct store_retention){ .ledger_rows_max = 10 }, 100 * 1000000LL);
        ck_assert_uint_eq(list(&query).n, 3);
        ck_assert_str_eq(rows[0].sandbox_id, "sbx-11");
}
END_TEST

/* Not once for each of its steps. */
START_TEST(a_run_that_bounds_the_ledger_is_told_once)
{
        static const char sentence[] = "the ledger has more rows than it may";
        int log = memfd_create("log", MFD_CLOEXEC), standard_error = dup(STDERR_FILENO);
        char text[4096] = { 0 };
        const char *told;

        fill_ledger(1000);
        ck_assert_int_ge(dup2(log, STDERR_FILENO), 0);
        ck_assert_int_gt(prune(&(struct store_retention){ .ledger_rows_max = 101 }, 0), 1);
        ck_assert_int_ge(dup2(standard_error, STDERR_FILENO), 0);
        ck_assert_int_gt(pread(log, text, sizeof(text) - 1, 0), 0);
        told = strstr(text, sentence);
        ck_assert_ptr_nonnull(told);
        ck_assert_ptr_nonnull(strstr(told, " rows=899 max=101\n"));
        ck_assert_ptr_null(strstr(told + 1, sentence));
        (void)close(standard_error);
        (void)close(log);
}
END_TEST

/* Whatever others add, the records of who has few stay: also older ones. */
START_TEST(rows_go_of_who_has_most)
{
        const struct usage_query small = { .owner = "uid:2000" }, large = { .owner = "uid:1000" };

        fill_ledger_of("uid:2000", 1, 3);
        fill_ledger_of("uid:1000", 4, 1003);
        (void)prune(&(struct store_retention){ .ledger_rows_max = 500 }, 2000 * 1000000LL);
        ck_assert_int_eq(sum(&small).n, 3);
        ck_assert_int_eq(sum(&large).n, 497);
        ck_assert_uint_eq(list(&(struct usage_query){ .owner = "uid:1000", .limit = 1 }).n, 1);
        ck_assert_str_eq(rows[0].sandbox_id, "sbx-507"); /* its oldest */
        (void)prune(&(struct store_retention){ .ledger_rows_max = 4 }, 2000 * 1000000LL);
        ck_assert_int_eq(sum(&small).n, 2);
        ck_assert_int_eq(sum(&large).n, 2);
        /* Rows of a time are found although others between them are gone, and go by age. */
        ck_assert_int_eq(sum(&(struct usage_query){ .start_time_usec = 3 * 1000000LL }).n, 3);
        ck_assert_int_eq(sum(&(struct usage_query){ .start_time_usec = 1003 * 1000000LL }).n, 1);
        (void)prune(&(struct store_retention){ .ledger_kept_usec = 1 }, INT64_MAX);
        ck_assert_int_eq(sum(&(struct usage_query){ 0 }).n, 0);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(path(), "SELECT sum(n_usage_records) FROM owner_totals"), 0);
}
END_TEST

/* Not only every few minutes. */
START_TEST(many_rows_of_one_that_lives_are_pruned_soon)
{
        const struct store_retention retention = { .ledger_rows_max = 100 };
        struct usage total = { 0 };
        struct answer answer = { 0 };

        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        for (int i = 0; i < 10; i++) /* what comes at the start is over */
                (void)sd_event_run(fixture.loop, 100000);
        while (total.cpu_usec < STORE_ROWS_WORTH_PRUNING + 100) {
                total.cpu_usec++;
                store_bill_sandbox(fixture.store, sandbox_id(1), 2000 + total.cpu_usec, &total,
                                   on_answer, &answer);
        }
        wait_for(&fixture, &answer.n_calls, (int)total.cpu_usec);
        while (sum(&(struct usage_query){ 0 }).n > 200)
                (void)sd_event_run(fixture.loop, 1000000);
}
END_TEST

START_TEST(a_full_disk_is_not_filled_with_bills)
{
        store_keep_spare(fixture.store, INT64_MAX / 4); /* no disk has that */
        while (!store_is_full(fixture.store))
                (void)sd_event_run(fixture.loop, 1000000);
        ck_assert_int_eq(bill(1, 5000, &(struct usage){ .cpu_usec = 1 }), STORE_E_FULL);
        ck_assert_int_eq(end_sandbox(1, 9000, &(struct usage){ .cpu_usec = 3 }, false), 0);
        ck_assert_uint_eq(list_of(1), 1);
        ck_assert_int_eq(rows[0].usage.cpu_usec, 3); /* the last one has it */
}
END_TEST

/* What accounts and what rows say of it. */
static void check_sums(struct usage_query query, int64_t n)
{
        struct usage_sums of_accounts = sum(&query), of_rows;

        query.start_time_usec = 1;
        of_rows = sum(&query);
        ck_assert_int_eq(of_accounts.n, n);
        ck_assert_int_eq(of_rows.n, n);
        ck_assert_int_eq(of_accounts.has_sandboxes, of_rows.has_sandboxes);
        check_usage(&of_accounts.usage, &of_rows.usage);
        ck_assert_mem_eq(&of_accounts.gaps, &of_rows.gaps, sizeof(of_rows.gaps));
}

START_TEST(sums_tell_how_many_records_lack_what)
{
        const struct usage_query all = { 0 }, one = { .execution_id = "exe-000001" };
        const uint32_t missing[] = { BIT(USAGE_PART_MEMORY) | BIT(USAGE_PART_MEMORY_PEAK),
                                     BIT(USAGE_PART_MEMORY_PEAK), BIT(USAGE_PART_TRAFFIC), 0 };
        struct usage total = { .cpu_usec = 100, .missing = BIT(USAGE_PART_THROTTLED) };
        struct usage_gaps gaps;

        for (int i = 0; i < (int)ARRAY_SIZE(missing); i++)
                (void)run(i + 1, 1, 5000 + i,
                          &(struct usage){ .cpu_usec = 1, .missing = missing[i] });
        ck_assert_int_eq(bill(1, 6000, &total), 0);
        total.missing = BIT(USAGE_PART_TRAFFIC);
        ck_assert_int_eq(end_sandbox(1, 9000, &total, true), 0);
        check_sums(all, 6);
        gaps = sum(&all).gaps;
        ck_assert_int_eq(gaps.n_without[USAGE_PART_MEMORY], 1);
        ck_assert_int_eq(gaps.n_without[USAGE_PART_MEMORY_PEAK], 1); /* that alone */
        ck_assert_int_eq(gaps.n_without[USAGE_PART_TRAFFIC], 2);
        ck_assert_int_eq(gaps.n_without[USAGE_PART_THROTTLED], 1); /* of sandboxes only */
        ck_assert_int_eq(gaps.n_incomplete, 1);
        ck_assert_int_eq(sum(&one).gaps.n_without[USAGE_PART_THROTTLED], 1);
}
END_TEST

START_TEST(sums_are_those_of_rows_that_are_kept)
{
        struct pair pair = { unconst("team"), unconst("blue") };
        struct pairs labels = { .items = &pair, .n = 1 };
        const struct usage_query all = { 0 }, first = { .sandbox_id = sandbox_id(1) },
                                 second = { .owner = "uid:2000" }, blue = { .labels = &labels },
                                 none = { .owner = "uid:1000", .sandbox_id = sandbox_id(2) };
        struct usage total = make_usage(1000000);

        add_sandbox(2, "uid:2000", "red");
        add_sandbox(3, "uid:2000", "blue");
        for (int i = 0; i < 600; i++) { /* more than a step */
                struct usage used = make_usage(i);

                (void)run(i + 1, 1, 5000 + i, &used);
        }
        (void)run(601, 2, 6000, &total);
        check_sums(second, 1);
        ck_assert(!sum(&second).has_sandboxes);
        ck_assert_int_eq(bill(1, 7000, &total), 0);
        ck_assert_int_eq(end_sandbox(2, 9000, &total, false), 0);
        check_sums(all, 603);
        check_sums(first, 601);
        check_sums(blue, 601);
        check_sums(second, 2);
        check_sums(none, 0);
        (void)sum(&all);
        ck_assert_int_eq(n_sum_steps, 1);

        /* The oldest go, of the first owner until both have the same. */
        for (int64_t n_kept = 602; n_kept > 0; n_kept -= n_kept == 602 ? 100 : 500) {
                (void)prune(&(struct store_retention){ .ledger_rows_max = n_kept }, 10000);
                check_sums(all, n_kept);
                check_sums(first, n_kept > 2 ? n_kept - 2 : 1);
                check_sums(blue, n_kept > 2 ? n_kept - 2 : 1);
                check_sums(second, n_kept > 2 ? 2 : 1);
                check_sums(none, 0);
        }
}
END_TEST

static void check_refused(const char *sql)
{
        sqlite3 *connection = NULL;

        ck_assert_int_eq(sqlite3_open(path(), &connection), SQLITE_OK);
        ck_assert_int_ne(sqlite3_exec(connection, sql, NULL, NULL, NULL), SQLITE_OK);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
}

static void on_told(void *userdata, int result, const struct sandbox_event_list *list)
{
        struct usage *told = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_eq(list->n, 2);
        check_usage(&list->records[0].sandbox.usage.total, &(struct usage){ 0 });
        *told = list->records[1].sandbox.usage.total;
}

/* Both what a client asks for and what it is told by a watch. */
static void check_ended(const struct usage *expected)
{
        const struct sandbox_event_query query = { .limit = 9 };
        struct sandbox_record record;
        struct usage told = { 0 };

        store_list_sandbox_events(fixture.store, &query, on_told, &told);
        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(1), &record), 0);
        check_usage(&told, expected); /* what was asked first was answered first */
        check_usage(&record.usage.total, expected);
        ck_assert_int_eq(record.usage.memory_bytes, 77);
        sandbox_record_deinit(&record);
}

/* Rows of the ledger may be kept for less time than sandboxes. */
START_TEST(what_a_sandbox_used_is_known_as_long_as_that_is_kept)
{
        const struct usage total = make_usage(100);
        struct usage expected = total;
        struct sandbox_record record;

        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(1), &record), 0);
        record.state = SANDBOX_ENDED;
        record.end_time_usec = 9000;
        record.usage = (struct sandbox_usage){ .memory_bytes = 77, .total = total };
        ck_assert_int_eq(update_sandbox(&fixture, &record, SANDBOX_EVENT_ENDED), 0);
        sandbox_record_deinit(&record);
        expected.wall_usec = 8000;
        expected.earlier_usec = 0; /* of executions only, as are these */
        expected.stdout_bytes = 0;
        expected.stderr_bytes = 0;
        expected.rich_bytes = 0;
        check_ended(&expected);
        (void)prune(&(struct store_retention){ .ledger_kept_usec = 1 }, INT64_MAX);
        ck_assert_int_eq(sum(&(struct usage_query){ 0 }).n, 0);
        fixture_close(&fixture);
        fixture_open(&fixture);
        check_ended(&expected);
        (void)prune(&(struct store_retention){ .kept_usec = 1 }, 20000);
        ck_assert_int_eq(get_sandbox(&fixture, NULL, sandbox_id(1), &record), STORE_E_NOT_FOUND);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(path(), "SELECT count(*) FROM usage_sandboxes"), 0);
}
END_TEST

START_TEST(a_row_cannot_be_changed_or_removed)
{
        (void)run(1, 1, 5000, &(struct usage){ .cpu_usec = 1 });
        fixture_close(&fixture);
        check_refused("UPDATE usage_records SET cpu_usec = 0");
        check_refused("DELETE FROM usage_records");
        check_refused("INSERT INTO usage_records SELECT NULL, record_time_usec, sandbox_id, 1, "
                      "2, NULL, NULL, owner, 1, 1, 0, 0, 0, 1, 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
                      "0,0 FROM usage_records");
        ck_assert_int_eq(ask_sql(path(), "SELECT sum(cpu_usec) FROM usage_records"), 1);
}
END_TEST

static struct egress_record make_flow(int64_t sequence, const char *name, const char *address)
{
        struct egress_record record = {
                .sequence = sequence,
                .event_time_usec = 5000 + sequence,
                .type = EGRESS_EVENT_FLOW_ENDED,
                .protocol = EGRESS_PROTOCOL_TCP,
                .port = 443,
                .count = 1,
                .sent_bytes = 10,
                .received_bytes = 100 * sequence,
        };

        (void)strcpy(record.sandbox_id, sandbox_id(1));
        (void)strcpy(record.execution_id, sequence % 2 ? "exe-000001" : "");
        (void)strcpy(record.name, name);
        (void)strcpy(record.address, address);
        return record;
}

struct destinations {
        int n_calls;
        size_t n;
        struct usage_destination items[8];
};

static void on_destinations(void *userdata, int result, const struct usage_destination *items,
                            size_t n)
{
        struct destinations *destinations = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_le(n, ARRAY_SIZE(destinations->items));
        destinations->n_calls++;
        destinations->n = n;
        if (n > 0)
                memcpy(destinations->items, items, n * sizeof(*items));
}

static struct destinations list_destinations(const char *owner, const char *execution_id)
{
        struct destinations destinations = { 0 };

        store_list_usage_destinations(fixture.store, owner, sandbox_id(1), execution_id,
                                      on_destinations, &destinations);
        wait_for(&fixture, &destinations.n_calls, 1);
        return destinations;
}

START_TEST(destinations_are_told_with_what_was_sent_there)
{
        struct egress_record flows[] = {
                make_flow(1, "a.test", "192.0.2.1"), make_flow(2, "a.test", "192.0.2.2"),
                make_flow(3, "", "192.0.2.3"),       make_flow(4, "", "192.0.2.4"),
                make_flow(5, "b.test", "192.0.2.5"),
        };
        struct answer answer = { 0 };
        struct destinations found;

        flows[4].type = EGRESS_EVENT_DENIED;
        store_insert_egress_events(fixture.store, flows, ARRAY_SIZE(flows), on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        found = list_destinations("uid:1000", NULL);
        ck_assert_uint_eq(found.n, 3);
        ck_assert_str_eq(found.items[0].address, "192.0.2.4");
        ck_assert_str_eq(found.items[1].name, "a.test");
        ck_assert_str_eq(found.items[1].address, "");
        ck_assert_int_eq(found.items[1].port, 443);
        ck_assert_int_eq(found.items[1].connections, 2);
        ck_assert_int_eq(found.items[1].sent_bytes, 20);
        ck_assert_int_eq(found.items[1].received_bytes, 300);
        found = list_destinations(NULL, "exe-000001");
        ck_assert_uint_eq(found.n, 2);
        ck_assert_str_eq(found.items[1].address, "192.0.2.1");
        ck_assert_uint_eq(list_destinations("uid:2000", NULL).n, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("store_ledger");
        TCase *tests = tcase_create("ledger");
        const TTest *const all[] = {
                an_execution_has_one_row_however_often_its_end_is_told,
                what_did_not_start_has_a_row_of_nothing_and_what_was_lost_one_that_says_so,
                a_sandbox_is_billed_for_what_no_row_has,
                a_clock_that_is_set_back_takes_no_time_away,
                a_sandbox_ends_with_one_row_also_of_nothing,
                a_sandbox_used_what_its_rows_add_up_to,
                an_execution_that_is_told_after_its_sandbox_adds_nothing,
                rows_add_up_to_the_counters,
                a_store_that_is_killed_and_told_again_has_each_row_once,
                what_has_a_row_or_a_record_is_known_to_its_owner,
                rows_are_complete_until_what_lives_had_its_last,
                rows_are_found_by_what_they_are_of,
                labels_of_an_ended_sandbox_outlive_it,
                pages_go_on_after_the_last_row,
                rows_of_a_time_are_found_whenever_they_came,
                sums_come_in_steps,
                sums_are_those_of_rows_that_are_kept,
                sums_tell_how_many_records_lack_what,
                the_oldest_rows_go_by_age_and_by_number_with_their_sandboxes,
                pages_go_on_where_rows_went,
                a_run_that_bounds_the_ledger_is_told_once,
                rows_go_of_who_has_most,
                many_rows_of_one_that_lives_are_pruned_soon,
                a_full_disk_is_not_filled_with_bills,
                what_a_sandbox_used_is_known_as_long_as_that_is_kept,
                a_row_cannot_be_changed_or_removed,
                destinations_are_told_with_what_was_sent_there,
        };

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_set_timeout(tests, 60);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                tcase_add_test(tests, all[i]);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
