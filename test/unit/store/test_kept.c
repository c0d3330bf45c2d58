/* What outlives the server: requests until the end of their execution, outputs for a while after.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

enum { OUTPUTS_MAX = 16 };

static struct fixture fixture;

static void set_up(void)
{
        struct sandbox_record sandbox = make_sandbox(1, 1000);
        struct context_record context = make_context(1, sandbox.sandbox_id);

        fixture = fixture_new();
        fixture_open(&fixture);
        ck_assert_int_eq(insert_sandbox(&fixture, &sandbox), 0);
        ck_assert_int_eq(insert_context(&fixture, &context), 0);
        sandbox_record_deinit(&sandbox);
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

static struct execution_record numbered(int number)
{
        struct sandbox_record sandbox = make_sandbox(1, 1000);
        struct context_record context = make_context(1, sandbox.sandbox_id);
        struct execution_record record =
                make_execution(number, sandbox.sandbox_id, context.context_id, 1000 + number);

        sandbox_record_deinit(&sandbox);
        return record;
}

static int insert(const struct execution_record *record, const void *kept, size_t n)
{
        const struct store_blob blob = { kept, n };
        struct answer answer = { 0 };

        store_insert_execution_for(fixture.store, NULL, record, kept ? &blob : NULL, on_answer,
                                   &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

static int end(struct execution_record *record, int64_t time_usec, const void *output, size_t n)
{
        const struct store_blob blob = { output, n };
        struct answer answer = { 0 };

        record->state = EXECUTION_ENDED;
        record->outcome = OUTCOME_OK;
        record->cause = CAUSE_PROGRAM;
        record->end_time_usec = time_usec;
        store_end_execution(fixture.store, record, output ? &blob : NULL, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

/* One that has ended with @n bytes of output. */
static void add_ended(int number, int64_t time_usec, size_t n)
{
        struct execution_record record = numbered(number);
        char *output = malloc(n + 1);

        memset(output, 'a' + number, n);
        ck_assert_int_eq(insert(&record, "r", 1), 0);
        ck_assert_int_eq(end(&record, time_usec, output, n), 0);
        free(output);
}

struct seen_living {
        int n_calls;
        size_t n;
        char requests[OUTPUTS_MAX][32];
        size_t sizes[OUTPUTS_MAX];
        char ids[OUTPUTS_MAX][ID_BUFFER];
};

static void on_living(void *userdata, int result, const struct living *living)
{
        struct seen_living *seen = userdata;

        ck_assert_int_eq(result, 0);
        seen->n_calls++;
        seen->n = living->n_executions;
        ck_assert_uint_le(seen->n, OUTPUTS_MAX);
        for (size_t i = 0; i < seen->n; i++) {
                (void)snprintf(seen->requests[i], sizeof(seen->requests[i]), "%.*s",
                               (int)living->requests[i].n, (const char *)living->requests[i].data);
                seen->sizes[i] = living->requests[i].n;
                (void)snprintf(seen->ids[i], sizeof(seen->ids[i]), "%s",
                               living->executions[i].execution_id);
        }
}

static struct seen_living load_living(void)
{
        struct seen_living seen = { 0 };

        store_load_living(fixture.store, on_living, &seen);
        wait_for(&fixture, &seen.n_calls, 1);
        return seen;
}

/* The numbers of the executions whose output came, in order. */
struct seen_outputs {
        int n_calls;
        char text[128];
};

static void on_outputs(void *userdata, int result, const struct execution_output *outputs, size_t n)
{
        struct seen_outputs *seen = userdata;

        ck_assert_int_eq(result, 0);
        seen->n_calls++;
        for (size_t i = 0; i < n; i++) {
                int number = atoi(outputs[i].record.execution_id + strlen("exe-"));
                const char *bytes = outputs[i].output.data;

                ck_assert_int_eq(outputs[i].record.state, EXECUTION_ENDED);
                for (size_t j = 0; j < outputs[i].output.n; j++)
                        ck_assert_int_eq(bytes[j], 'a' + number);
                (void)snprintf(seen->text + strlen(seen->text),
                               sizeof(seen->text) - strlen(seen->text), "%d:%zu ", number,
                               outputs[i].output.n);
        }
}

static struct seen_outputs load_outputs(int64_t since_usec, int64_t bytes_max)
{
        struct seen_outputs seen = { 0 };

        store_load_outputs(fixture.store, since_usec, bytes_max, on_outputs, &seen);
        wait_for(&fixture, &seen.n_calls, 1);
        return seen;
}

static int prune(const struct store_retention *retention, int64_t now_usec)
{
        struct answer answer = { 0 };

        store_prune(fixture.store, retention, now_usec, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

static int64_t n_rows(const char *table)
{
        char sql[128], path[128];
        int64_t n;

        (void)snprintf(path, sizeof(path), "%s", fixture_path(&fixture, "hotcell.db"));
        fixture_close(&fixture);
        (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", table);
        n = ask_sql(path, sql);
        fixture_open(&fixture);
        return n;
}

START_TEST(a_request_is_kept_until_the_end)
{
        struct execution_record first = numbered(1), second = numbered(2), third = numbered(3);
        struct seen_living living;

        ck_assert_int_eq(insert(&second, "two\0two", 7), 0);
        ck_assert_int_eq(insert(&first, "one", 3), 0);
        ck_assert_int_eq(insert(&third, NULL, 0), 0);
        fixture_close(&fixture);
        fixture_open(&fixture);
        living = load_living();
        ck_assert_uint_eq(living.n, 3);
        ck_assert_str_eq(living.ids[0], first.execution_id); /* oldest first */
        ck_assert_str_eq(living.requests[0], "one");
        ck_assert_uint_eq(living.sizes[1], 7);
        ck_assert_uint_eq(living.sizes[2], 0);

        first.state = EXECUTION_RUNNING; /* an update is no end */
        ck_assert_int_eq(update_execution(&fixture, &first), 0);
        ck_assert_str_eq(load_living().requests[0], "one");
        ck_assert_int_eq(end(&first, 5000, NULL, 0), 0);
        living = load_living();
        ck_assert_uint_eq(living.n, 2);
        ck_assert_str_eq(living.ids[0], second.execution_id);
        ck_assert_int_eq(n_rows("execution_requests"), 1);
        ck_assert_int_eq(n_rows("execution_outputs"), 0);
}
END_TEST

START_TEST(an_insert_that_fails_keeps_no_request)
{
        struct execution_record record = numbered(1);

        ck_assert_int_eq(insert(&record, "one", 3), 0);
        ck_assert_int_ne(insert(&record, "two", 3), 0);
        ck_assert_str_eq(load_living().requests[0], "one");
        ck_assert_int_eq(n_rows("execution_requests"), 1);
}
END_TEST

START_TEST(an_output_is_kept_with_the_end)
{
        add_ended(1, 5000, 3);
        fixture_close(&fixture);
        fixture_open(&fixture);
        ck_assert_str_eq(load_outputs(0, 1000).text, "1:3 ");
        ck_assert_int_eq(n_rows("execution_requests"), 0);
}
END_TEST

START_TEST(a_second_end_changes_nothing)
{
        struct execution_record record = numbered(1);

        ck_assert_int_eq(insert(&record, "r", 1), 0);
        ck_assert_int_eq(end(&record, 5000, "bbb", 3), 0);
        ck_assert_int_eq(end(&record, 5000, "bbb", 3), 0);
        ck_assert_str_eq(load_outputs(0, 1000).text, "1:3 ");
        ck_assert_int_eq(n_rows("execution_outputs"), 1);
        ck_assert_uint_eq(load_living().n, 0);
}
END_TEST

START_TEST(the_newest_are_loaded_and_told_oldest_first)
{
        add_ended(1, 7000, 10);
        add_ended(2, 5000, 20);
        add_ended(3, 6000, 30);
        ck_assert_str_eq(load_outputs(0, 60).text, "2:20 3:30 1:10 ");
        ck_assert_str_eq(load_outputs(0, 59).text, "3:30 1:10 ");
        ck_assert_str_eq(load_outputs(0, 40).text, "3:30 1:10 ");
        ck_assert_str_eq(load_outputs(0, 39).text, "1:10 ");
        ck_assert_str_eq(load_outputs(0, 9).text, "");
        ck_assert_str_eq(load_outputs(6000, 60).text, "3:30 1:10 ");
        ck_assert_str_eq(load_outputs(6001, 60).text, "1:10 ");
}
END_TEST

START_TEST(outputs_are_pruned_when_they_are_old)
{
        struct store_retention retention = { .outputs_kept_usec = 1000 };

        add_ended(1, 5000, 10);
        add_ended(2, 6000, 10);
        ck_assert_int_eq(prune(&retention, 6000), 0);
        ck_assert_str_eq(load_outputs(0, 100).text, "1:10 2:10 ");
        ck_assert_int_eq(prune(&retention, 6001), 0);
        ck_assert_str_eq(load_outputs(0, 100).text, "2:10 ");
        retention.outputs_kept_usec = 0; /* no bound */
        ck_assert_int_eq(prune(&retention, INT64_MAX / 2), 0);
        ck_assert_str_eq(load_outputs(0, 100).text, "2:10 ");
        ck_assert_int_eq(n_rows("executions"), 2); /* only what they said is gone */
}
END_TEST

START_TEST(outputs_are_pruned_when_they_are_too_many_bytes)
{
        struct store_retention retention = { .outputs_max_bytes = 60 };

        add_ended(1, 5000, 20);
        add_ended(2, 6000, 30);
        add_ended(3, 7000, 10);
        ck_assert_int_eq(prune(&retention, 7000), 0);
        ck_assert_str_eq(load_outputs(0, 100).text, "1:20 2:30 3:10 ");
        retention.outputs_max_bytes = 59;
        ck_assert_int_eq(prune(&retention, 7000), 0);
        ck_assert_str_eq(load_outputs(0, 100).text, "2:30 3:10 ");
        retention.outputs_max_bytes = 9;
        ck_assert_int_eq(prune(&retention, 7000), 0);
        ck_assert_str_eq(load_outputs(0, 100).text, "");
}
END_TEST

START_TEST(they_go_with_their_execution)
{
        struct store_retention retention = { .kept_usec = 1000, .executions_max = 1000 };

        add_ended(1, 5000, 20);
        ck_assert_int_eq(prune(&retention, 1000 * 1000), 0);
        ck_assert_int_eq(n_rows("executions"), 0);
        ck_assert_int_eq(n_rows("execution_outputs"), 0);
}
END_TEST

static bool is_pruned(void)
{
        return strcmp(load_outputs(0, 1 << 20).text, "2:1000 ") == 0;
}

/* Not only every few minutes: a server may write as much in a second. */
START_TEST(many_bytes_are_pruned_soon)
{
        const struct store_retention retention = { .outputs_max_bytes = 1500 };

        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        add_ended(1, 5000, 1000);
        add_ended(2, 6000, 1000);
        while (!is_pruned()) /* check's own timeout ends it */
                ;
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_request_is_kept_until_the_end,
                an_insert_that_fails_keeps_no_request,
                an_output_is_kept_with_the_end,
                a_second_end_changes_nothing,
                the_newest_are_loaded_and_told_oldest_first,
                outputs_are_pruned_when_they_are_old,
                outputs_are_pruned_when_they_are_too_many_bytes,
                they_go_with_their_execution,
                many_bytes_are_pruned_soon,
        };
        TCase *tcase = tcase_create("kept");
        Suite *suite = suite_create("store kept");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
