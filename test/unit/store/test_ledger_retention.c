/* Rows of the ledger go by age and by number, and what stays adds up. */
#include <check.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "test/lib/suite.h"
#include "test/unit/store/books.h"

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
                store_bill_sandbox(fixture.store,
                                   &(struct sandbox_bill){ .sandbox_id = sandbox_id(1),
                                                           .end_time_usec = 2000 + total.cpu_usec,
                                                           .total = total },
                                   on_answer, &answer);
        }
        wait_for(&fixture, &answer.n_calls, (int)total.cpu_usec);
        while (sum(&(struct usage_query){ 0 }).n > 200)
                (void)sd_event_run(fixture.loop, 1000000);
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

int main(void)
{
        Suite *suite = suite_create("store_ledger_retention");
        TCase *tests = tcase_create("ledger");
        const TTest *const all[] = {
                labels_of_an_ended_sandbox_outlive_it,
                the_oldest_rows_go_by_age_and_by_number_with_their_sandboxes,
                pages_go_on_where_rows_went,
                a_run_that_bounds_the_ledger_is_told_once,
                rows_go_of_who_has_most,
                many_rows_of_one_that_lives_are_pruned_soon,
                sums_are_those_of_rows_that_are_kept,
                what_a_sandbox_used_is_known_as_long_as_that_is_kept,
        };

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_set_timeout(tests, 60);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                tcase_add_test(tests, all[i]);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
