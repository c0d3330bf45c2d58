/* What is written to the ledger: each row is there once, rows add up to what is stored, and none is
 * changed. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/store/books.h"

START_TEST(an_execution_has_one_row_however_often_its_end_is_told)
{
        const struct usage usage = make_usage(100);
        struct execution_record record = run(1, 1, 5000, &usage), out;
        struct usage expected = usage;

        record.usage = make_usage(900);
        ck_assert_int_eq(end_execution(&record), 0);
        ck_assert_int_eq(update_execution(&fixture, &record), 0);
        fixture_close(&fixture);
        fixture_open(&fixture);
        ck_assert_int_eq(end_execution(&record), 0);

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
        expected.missing &= ~BIT(USAGE_PART_THROTTLED);
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
        ck_assert_int_eq(end_execution(&waiting), 0);
        ck_assert_int_eq(insert_execution(&fixture, &lost), 0);
        lost.state = EXECUTION_ENDED;
        lost.start_time_usec = 3000;
        lost.end_time_usec = 8000;
        lost.usage.missing = BIT(USAGE_PART_REST);
        ck_assert_int_eq(end_execution(&lost), 0);

        ck_assert_uint_eq(list_of(1), 2);
        ck_assert_int_eq(rows[0].start_time_usec, 7000);
        check_usage(&rows[0].usage, &(struct usage){ 0 });
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
}
END_TEST

START_TEST(a_lost_run_is_known_by_what_its_sandbox_was_billed_with)
{
        const struct usage used = { .cpu_usec = 700, .memory_peak_bytes = 90 };
        struct used_so_far so_far = { .execution_id = "exe-000001", .usage = used };
        const struct sandbox_bill asked = { .sandbox_id = sandbox_id(1),
                                            .end_time_usec = 6000,
                                            .total = { .cpu_usec = 50, .memory_peak_bytes = 95 },
                                            .runs = &so_far,
                                            .n_runs = 1 };
        struct execution_record record = make_run(1, 1), out;
        struct answer answer = { 0 };

        ck_assert_int_eq(insert_execution(&fixture, &record), 0);
        store_bill_sandbox(fixture.store, &asked, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        ck_assert_int_eq(answer.result, 0);
        ck_assert_int_eq(get_execution(&fixture, NULL, record.execution_id, &out), 0);
        check_usage(&out.usage, &used);

        out.state = EXECUTION_ENDED;
        out.start_time_usec = 3000;
        out.end_time_usec = 8000;
        out.usage.missing |= BIT(USAGE_PART_REST);
        ck_assert_int_eq(end_execution(&out), 0);
        ck_assert_int_eq(end_sandbox(1, 9000, &(struct usage){ 0 }, true), 0);
        ck_assert_uint_eq(list_of(1), 3);
        check_usage(&rows[1].usage, &out.usage);
        ck_assert_int_eq(rows[2].usage.cpu_usec, 0);
        ck_assert_int_eq(rows[2].usage.memory_peak_bytes, 95);
        ck_assert(rows[1].is_incomplete && rows[2].is_incomplete);
        ck_assert_int_eq(sum(&(struct usage_query){ .sandbox_id = sandbox_id(1) }).usage.cpu_usec,
                         750);
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

/* As the meters count it, which know nothing of the clock of the rows. */
START_TEST(a_clock_that_is_set_changes_no_wall_time_that_was_metered)
{
        const int64_t day_usec = INT64_C(86400) * 1000000;
        struct usage total = { .cpu_usec = 1, .wall_usec = 400 };

        ck_assert_int_eq(bill(1, day_usec, &total), 0);
        total = (struct usage){ .cpu_usec = 2, .wall_usec = 1000 };
        ck_assert_int_eq(bill(1, 2000, &total), 0); /* set back */
        total.wall_usec = 1100;
        ck_assert_int_eq(end_sandbox(1, 2100, &total, false), 0);
        ck_assert_uint_eq(list_of(1), 3);
        ck_assert_int_eq(rows[0].usage.wall_usec, 400);
        ck_assert_int_eq(rows[1].usage.wall_usec, 600);
        ck_assert_int_eq(rows[2].usage.wall_usec, 100);
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
        check_usage(&rows[0].usage,
                    &(struct usage){ .wall_usec = 8000, .missing = BIT(USAGE_PART_REST) });
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
                                        .cpu_user_usec = 700,
                                        .cpu_system_usec = 300,
                                        .wall_usec = 8000,
                                        .memory_peak_bytes = 90,
                                        .context_switches = 8,
                                        .stdout_bytes = 11 };
        const struct usage part = { .cpu_usec = 400,
                                    .cpu_user_usec = 350,
                                    .cpu_system_usec = 50,
                                    .wall_usec = 77,
                                    .memory_peak_bytes = 90,
                                    .throttled_usec = 9,
                                    .context_switches = 8,
                                    .stdout_bytes = 11 };
        const struct usage total = { .cpu_usec = 1000,
                                     .cpu_user_usec = 700,
                                     .cpu_system_usec = 300,
                                     .memory_peak_bytes = 80,
                                     .context_switches = 7 };
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
        sums = sum(&(struct usage_query){ .execution_id = "exe-000001" });
        ck_assert_int_eq(sums.usage.wall_usec, 77);
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
        ck_assert_int_eq(end_execution(&record), 0);
        ck_assert_uint_eq(list_of(1), 2);
        check_usage(&rows[1].usage, &(struct usage){ .wall_usec = 4 });
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
                ck_assert_int_eq(end_execution(&record), 0);
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

static void check_refused(const char *sql)
{
        sqlite3 *connection = NULL;

        ck_assert_int_eq(sqlite3_open(path(), &connection), SQLITE_OK);
        ck_assert_int_ne(sqlite3_exec(connection, sql, NULL, NULL, NULL), SQLITE_OK);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
}

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

int main(void)
{
        Suite *suite = suite_create("store_ledger");
        TCase *tests = tcase_create("ledger");
        const TTest *const all[] = {
                an_execution_has_one_row_however_often_its_end_is_told,
                what_did_not_start_has_a_row_of_nothing_and_what_was_lost_one_that_says_so,
                a_sandbox_is_billed_for_what_no_row_has,
                a_lost_run_is_known_by_what_its_sandbox_was_billed_with,
                a_clock_that_is_set_back_takes_no_time_away,
                a_clock_that_is_set_changes_no_wall_time_that_was_metered,
                a_sandbox_ends_with_one_row_also_of_nothing,
                a_sandbox_used_what_its_rows_add_up_to,
                an_execution_that_is_told_after_its_sandbox_adds_nothing,
                rows_add_up_to_the_counters,
                a_store_that_is_killed_and_told_again_has_each_row_once,
                a_full_disk_is_not_filled_with_bills,
                a_row_cannot_be_changed_or_removed,
        };

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_set_timeout(tests, 60);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                tcase_add_test(tests, all[i]);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
