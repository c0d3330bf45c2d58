/* What a sandbox uses is in the ledger once, whoever used it, and whatever is killed. */
#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

static char sandbox_id[ID_BUFFER];
static struct seen seen;

static void set_up(void)
{
        fixture_setup();
        stop_session();
        f.config.ledger_period_usec = 3 * 1000;
        fake_runtime_script(f.runtime)->tells_last = true;
        start_session();
        run_until(session_serves, NULL);
        (void)strcpy(sandbox_id, new_sandbox().sandbox.sandbox_id);
        memset(&seen, 0, sizeof(seen));
}

static void wait_for_rows(size_t n)
{
        while (read_books(sandbox_id).n_sandboxes < n)
                run_turns(1); /* check's own timeout ends it */
}

/* All that the runtime counted is in rows, and told as what it used. */
static struct books delete_and_check(size_t n_executions)
{
        struct answer answer = delete_sandbox(sandbox_id);
        int64_t cpu_usec = (int64_t)fake_runtime_last_cpu_usec(f.runtime);
        struct books books = read_books(sandbox_id);

        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_int_eq(answer.sandbox.usage.total.cpu_usec, cpu_usec);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.usage.total.cpu_usec, cpu_usec);
        ck_assert_int_eq(books.cpu_usec, cpu_usec);
        ck_assert_uint_eq(books.n_executions, n_executions);
        ck_assert_uint_eq(books.n_ends, 1);
        ck_assert_int_eq(books.last.type, USAGE_RECORD_SANDBOX_END);
        ck_assert_int_eq(books.last.cause, CAUSE_CLIENT);
        ck_assert(!books.last.is_incomplete);
        return books;
}

START_TEST(a_living_sandbox_is_billed_again_and_again)
{
        int64_t start_usec = time_now_usec();
        struct books books;

        wait_for_rows(5);
        books = read_books(sandbox_id);
        ck_assert_int_ge(books.last.end_time_usec, start_usec);
        ck_assert_int_gt(books.last.usage.wall_usec, 0);
        ck_assert_uint_eq(books.last.usage.missing, 0);
        books = delete_and_check(0);
        ck_assert_int_ge(books.cpu_usec_sandbox, 5000);
}
END_TEST

START_TEST(a_sandbox_is_billed_for_the_wall_time_that_the_runtime_counts)
{
        const int64_t lived_usec = INT64_C(86400) * 1000000; /* no clock of this test says so */
        int64_t billed_usec;
        struct answer answer;

        fake_runtime_script(f.runtime)->wall_usec = (uint64_t)lived_usec - 1;
        wait_for_rows(read_books(sandbox_id).n_sandboxes + 2);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.usage.total.wall_usec, lived_usec - 1);
        billed_usec = read_books(sandbox_id).wall_usec_sandbox;
        ck_assert_int_ge(billed_usec, lived_usec - 1);
        fake_runtime_script(f.runtime)->wall_usec = (uint64_t)billed_usec + 7;
        answer = delete_sandbox(sandbox_id);
        ck_assert_int_eq(answer.sandbox.usage.total.wall_usec, billed_usec + 7);
        ck_assert_int_eq(read_books(sandbox_id).wall_usec_sandbox, billed_usec + 7);
}
END_TEST

/* What is told to be complete until then is. */
START_TEST(a_bill_ends_no_later_than_its_reading)
{
        const struct fake_runtime_script *script = fake_runtime_script(f.runtime);
        struct books books;

        wait_for_rows(3);
        books = read_books(sandbox_id);
        ck_assert_uint_le(books.n_sandboxes, ARRAY_SIZE(script->readings_usec));
        ck_assert_int_le(books.last.end_time_usec, script->readings_usec[books.n_sandboxes - 1]);
}
END_TEST

/* The fake's sandbox works on when no code runs, as threads and children do. */
START_TEST(work_that_outlives_its_execution_is_the_sandboxs)
{
        int64_t before;

        seen = run_code(sandbox_id, "out a");
        ck_assert_int_gt(seen.ended.usage.cpu_usec, 0);
        before = read_books(sandbox_id).cpu_usec_sandbox;
        wait_for_rows(read_books(sandbox_id).n_sandboxes + 3);
        ck_assert_int_ge(read_books(sandbox_id).cpu_usec_sandbox, before + 2000);
        seen = run_code(sandbox_id, "out b");
        (void)delete_and_check(2);
}
END_TEST

static struct answer begin_code(const char *code, const char *text)
{
        struct execute_request request = execute_request(sandbox_id, code);
        struct answer answer = execute(&request, &seen);

        wait_for_text(&seen, text);
        return answer;
}

static void interrupt(const char *execution_id)
{
        struct answer answer = { 0 };

        session_interrupt_execution(f.session, "uid:1", execution_id, false, CAUSE_CLIENT,
                                    on_execution_answer, &answer);
        run_until_true(&answer.is_done);
        wait_for_end(&seen);
}

START_TEST(what_runs_is_in_no_row_before_it_ends)
{
        struct answer answer = begin_code("out x\nsleep", "stdout:x");
        unsigned n_readings = fake_runtime_script(f.runtime)->n_readings;
        struct books books;

        wait_for_rows(read_books(sandbox_id).n_sandboxes + 5);
        books = read_books(sandbox_id);
        n_readings = fake_runtime_script(f.runtime)->n_readings - n_readings;
        ck_assert_uint_eq(books.n_executions, 0);
        interrupt(answer.execution.execution_id);
        ck_assert_int_ge(seen.ended.usage.cpu_usec, (int64_t)n_readings * 1000);
        (void)delete_and_check(1);
}
END_TEST

/* Its leaf's meters have what those before it used, too, which is in their rows. */
START_TEST(only_what_runs_is_kept_out_of_a_row)
{
        struct books before, books;

        for (int i = 0; i < 20; i++)
                (void)run_code(sandbox_id, "out a");
        (void)begin_code("out x\nsleep", "stdout:x");
        before = read_books(sandbox_id);
        wait_for_rows(before.n_sandboxes + 5);
        books = read_books(sandbox_id);
        ck_assert_int_ge(books.cpu_usec_sandbox, before.cpu_usec_sandbox + 4000);
        /* Of throttling nothing is, and nothing else knows of it. */
        ck_assert_int_eq(books.last.type, USAGE_RECORD_SANDBOX);
        ck_assert_int_gt(books.last.usage.throttled_usec, 0);
        (void)delete_and_check(21);
}
END_TEST

START_TEST(no_row_comes_while_what_runs_cannot_be_read)
{
        unsigned n_readings;
        size_t n_rows;

        (void)begin_code("out x\nsleep", "stdout:x");
        wait_for_rows(read_books(sandbox_id).n_sandboxes + 1);
        fake_runtime_script(f.runtime)->n_fail_leaves = UINT_MAX;
        run_turns(20);
        n_rows = read_books(sandbox_id).n_sandboxes;
        n_readings = fake_runtime_script(f.runtime)->n_readings;
        while (fake_runtime_script(f.runtime)->n_readings < n_readings + 5)
                run_turns(1);
        ck_assert_uint_eq(read_books(sandbox_id).n_sandboxes, n_rows);
        fake_runtime_script(f.runtime)->n_fail_leaves = 0;
        wait_for_rows(n_rows + 1);
        (void)delete_and_check(1);
}
END_TEST

START_TEST(what_an_execution_used_is_the_sandboxs_when_it_is_not_known)
{
        struct books books;

        fake_runtime_script(f.runtime)->n_fail_leaves = UINT_MAX;
        seen = run_code(sandbox_id, "out a");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        books = delete_and_check(1);
        ck_assert_int_eq(books.cpu_usec_sandbox, books.cpu_usec);
        ck_assert_uint_eq(books.n_incomplete, 1);
}
END_TEST

/* By its last reading alone it would have what the one before it used, too. */
START_TEST(without_a_first_reading_it_is_not_known)
{
        struct books books;

        (void)run_code(sandbox_id, "out a");
        fake_runtime_script(f.runtime)->n_fail_leaves = 1;
        seen = run_code(sandbox_id, "out b");
        ck_assert_int_eq(seen.ended.usage.cpu_usec, 0);
        books = delete_and_check(2);
        ck_assert_uint_eq(books.n_incomplete, 1);
}
END_TEST

START_TEST(the_reading_before_the_end_counts_when_the_runtime_tells_no_other)
{
        fake_runtime_script(f.runtime)->tells_last = false;
        seen = run_code(sandbox_id, "out a");
        (void)delete_and_check(1);
}
END_TEST

START_TEST(a_successor_bills_on)
{
        struct answer answer = begin_code("out x\nsleep", "stdout:x");

        for (int i = 0; i < 3; i++) {
                wait_for_rows(read_books(sandbox_id).n_sandboxes + 2);
                crash_server();
                seen.reader = NULL;
                start_session();
                run_until(session_serves, NULL);
        }
        wait_for_rows(read_books(sandbox_id).n_sandboxes + 2);
        attach(answer.execution.execution_id, seen.last_sequence, &seen);
        interrupt(answer.execution.execution_id);
        (void)delete_and_check(1);
}
END_TEST

static bool has_ended(void *userdata)
{
        (void)userdata;
        return get_sandbox(sandbox_id).sandbox.state == SANDBOX_ENDED;
}

START_TEST(a_lost_runtime_leaves_a_row_that_says_so)
{
        struct books books;
        int64_t before;

        wait_for_rows(2);
        (void)begin_code("out x\nsleep", "stdout:x");
        before = read_books(sandbox_id).cpu_usec;
        fake_runtime_break(f.runtime);
        wait_for_end(&seen);
        run_until(has_ended, NULL);
        books = read_books(sandbox_id);
        ck_assert_int_eq(books.last.type, USAGE_RECORD_SANDBOX_END);
        ck_assert_int_eq(books.last.cause, CAUSE_RUNTIME_LOST);
        ck_assert_uint_eq(books.n_executions, 1);
        ck_assert_uint_eq(books.n_incomplete, 2);
        ck_assert_int_ge(books.cpu_usec, before); /* what was billed stays so */
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.usage.total.cpu_usec, books.cpu_usec);
}
END_TEST

/* Executions that went with it come before its last row, also for a successor that finds nothing.
 */
START_TEST(what_was_lost_while_nobody_was_there_has_its_rows)
{
        struct books books;

        (void)begin_code("out x\nsleep", "stdout:x");
        crash();
        start_session();
        run_until(session_serves, NULL);
        run_until(has_ended, NULL);
        books = read_books(sandbox_id);
        ck_assert_uint_eq(books.n_executions, 1);
        ck_assert_int_eq(books.last.type, USAGE_RECORD_SANDBOX_END);
        ck_assert_uint_eq(books.n_incomplete, 2);
}
END_TEST

static void check_end_by_itself(void)
{
        struct books books;

        run_until(has_ended, NULL);
        books = read_books(sandbox_id);
        ck_assert_int_eq(books.last.type, USAGE_RECORD_SANDBOX_END);
        ck_assert_int_eq(books.last.cause, CAUSE_LIMIT);
        ck_assert(!books.last.is_incomplete);
}

START_TEST(a_sandbox_that_ends_by_itself_is_billed_by_its_last_meters)
{
        fake_runtime_end_sandbox(f.runtime, sandbox_id, true);
        check_end_by_itself();
        ck_assert_int_eq(read_books(sandbox_id).cpu_usec,
                         (int64_t)fake_runtime_last_cpu_usec(f.runtime));
}
END_TEST

START_TEST(also_when_the_server_was_away)
{
        crash_server();
        fake_runtime_script(f.runtime)->end_on_list = sandbox_id;
        start_session();
        run_until(session_serves, NULL);
        check_end_by_itself();
        ck_assert_int_gt(read_books(sandbox_id).cpu_usec, 0);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_living_sandbox_is_billed_again_and_again,
                a_sandbox_is_billed_for_the_wall_time_that_the_runtime_counts,
                a_bill_ends_no_later_than_its_reading,
                work_that_outlives_its_execution_is_the_sandboxs,
                what_runs_is_in_no_row_before_it_ends,
                only_what_runs_is_kept_out_of_a_row,
                no_row_comes_while_what_runs_cannot_be_read,
                what_an_execution_used_is_the_sandboxs_when_it_is_not_known,
                without_a_first_reading_it_is_not_known,
                the_reading_before_the_end_counts_when_the_runtime_tells_no_other,
                a_successor_bills_on,
                a_lost_runtime_leaves_a_row_that_says_so,
                what_was_lost_while_nobody_was_there_has_its_rows,
                a_sandbox_that_ends_by_itself_is_billed_by_its_last_meters,
                also_when_the_server_was_away,
        };
        Suite *suite = suite_create("billing");
        TCase *tcase = tcase_create("billing");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, fixture_teardown);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
