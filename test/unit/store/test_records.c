/* What goes in comes out; outcomes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"
#include "test/unit/store/records.h"

START_TEST(a_sandbox_comes_back_as_it_was)
{
        struct sandbox_record in = make_sandbox(1, 1000), out;

        (void)strcpy(in.name, "work");
        (void)strcpy(in.end_message, "it’s over");
        (void)strcpy(in.boot_id, "b00t");
        in.cgroup_id = UINT64_MAX - 1;
        in.expire_time_usec = INT64_MAX;
        in.idle_timeout_usec = 7;
        in.limits.execution = (struct execution_limits){ .timeout_usec = 5, .output_bytes = 6 };
        in.limits.cpu_weight = 7;
        in.limits.disk_inodes = 8;
        in.limits.io_bytes_per_second = 9;
        in.usage.total.memory_peak_bytes = 1LL << 40;
        in.is_one_shot = true;
        ck_assert_int_eq(pairs_add(&in.labels, "team", "a \"b\" 'c'; DROP TABLE sandboxes"), 0);
        ck_assert_int_eq(pairs_add(&in.labels, "empty", ""), 0);
        ck_assert_int_eq(pairs_add(&in.environment, "Z", "1"), 0);
        ck_assert_int_eq(pairs_add(&in.environment, "A", "2"), 0);

        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);
        ck_assert_int_eq(get_sandbox(&fixture, in.owner, in.sandbox_id, &out), 0);

        ck_assert_str_eq(out.name, in.name);
        ck_assert_str_eq(out.end_message, in.end_message);
        ck_assert_str_eq(out.boot_id, in.boot_id);
        ck_assert(out.cgroup_id == in.cgroup_id);
        ck_assert_int_eq(out.expire_time_usec, in.expire_time_usec);
        ck_assert_mem_eq(&out.limits, &in.limits, sizeof(in.limits));
        ck_assert_mem_eq(&out.usage, &in.usage, sizeof(in.usage));
        ck_assert(out.is_one_shot);
        ck_assert_uint_eq(out.labels.n, 2);
        ck_assert_str_eq(out.labels.items[0].name, "empty"); /* labels are sorted by name */
        ck_assert_str_eq(out.labels.items[1].value, in.labels.items[0].value);
        ck_assert_uint_eq(out.environment.n, 2);
        ck_assert_str_eq(out.environment.items[0].name, "Z"); /* variables keep their order */
        sandbox_record_deinit(&in);
        sandbox_record_deinit(&out);
}
END_TEST

START_TEST(an_end_forgets_the_environment_and_replaces_labels)
{
        struct sandbox_record in = make_sandbox(1, 1000), out;

        ck_assert_int_eq(pairs_add(&in.labels, "old", "1"), 0);
        ck_assert_int_eq(pairs_add(&in.environment, "SECRET", "hunter2"), 0);
        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);

        pairs_deinit(&in.labels);
        ck_assert_int_eq(pairs_add(&in.labels, "new", "2"), 0);
        in.state = SANDBOX_ENDED;
        in.end_cause = CAUSE_TTL;
        in.end_time_usec = 2000;
        ck_assert_int_eq(update_sandbox(&fixture, &in, SANDBOX_EVENT_ENDED), 0);

        ck_assert_int_eq(get_sandbox(&fixture, NULL, in.sandbox_id, &out), 0);
        ck_assert_int_eq(out.end_cause, CAUSE_TTL);
        ck_assert_uint_eq(out.environment.n, 0);
        ck_assert_uint_eq(out.labels.n, 1);
        ck_assert_str_eq(out.labels.items[0].name, "new");
        sandbox_record_deinit(&in);
        sandbox_record_deinit(&out);
}
END_TEST

START_TEST(what_belongs_to_others_is_not_found)
{
        struct sandbox_record record = insert_one(1), out;
        struct execution_record execution = make_execution(1, record.sandbox_id, "", 1);

        ck_assert_int_eq(insert_execution(&fixture, &execution), 0);

        ck_assert_int_eq(get_sandbox(&fixture, "uid:1", record.sandbox_id, &out),
                         STORE_E_NOT_FOUND);
        ck_assert_int_eq(get_execution(&fixture, "uid:1", execution.execution_id, &execution),
                         STORE_E_NOT_FOUND);
        ck_assert_int_eq(
                list_sandboxes(&fixture, &(struct sandbox_query){ .owner = "uid:1", .limit = 9 })
                        ->n,
                0);
        ck_assert_int_eq(
                list_executions(&fixture, &(struct execution_query){ .owner = "uid:1", .limit = 9 })
                        ->n,
                0);
        ck_assert_int_eq(
                list_events(&fixture, &(struct sandbox_event_query){ .owner = "uid:1", .limit = 9 })
                        ->n,
                0);
        (void)strcpy(record.owner, "uid:1");
        ck_assert_int_eq(update_sandbox(&fixture, &record, 0), STORE_E_NOT_FOUND);
}
END_TEST

START_TEST(unknown_rows_are_not_found)
{
        struct sandbox_record record = make_sandbox(1, 1000), out;
        struct execution_record execution = make_execution(1, "sbx-none", "", 1);
        struct context_record context = make_context(1, "sbx-none");

        ck_assert_int_eq(get_sandbox(&fixture, NULL, "sbx-none", &out), STORE_E_NOT_FOUND);
        ck_assert_int_eq(get_execution(&fixture, NULL, "exe-none", &execution), STORE_E_NOT_FOUND);
        ck_assert_int_eq(update_sandbox(&fixture, &record, 0), STORE_E_NOT_FOUND);
        ck_assert_int_eq(insert_context(&fixture, &context), STORE_E_NOT_FOUND);
        ck_assert_int_eq(update_context(&fixture, &context), STORE_E_NOT_FOUND);
        ck_assert_int_eq(insert_execution(&fixture, &execution), STORE_E_NOT_FOUND);
        ck_assert_int_eq(update_execution(&fixture, &execution), STORE_E_NOT_FOUND);
}
END_TEST

START_TEST(an_overlong_filter_is_refused_not_cut)
{
        char owner[OWNER_BUFFER + 8];
        struct sandbox_record out;

        (void)memset(owner, 'x', sizeof(owner) - 1);
        owner[sizeof(owner) - 1] = '\0';
        ck_assert_int_eq(get_sandbox(&fixture, owner, "sbx-000001", &out), -ENAMETOOLONG);
}
END_TEST

START_TEST(a_living_name_is_unique_for_its_owner)
{
        struct sandbox_record first = make_sandbox(1, 1), second = make_sandbox(2, 2),
                              other = make_sandbox(3, 3);

        (void)strcpy(first.name, "work");
        (void)strcpy(second.name, "work");
        (void)strcpy(other.name, "work");
        (void)strcpy(other.owner, "uid:1");
        ck_assert_int_eq(insert_sandbox(&fixture, &first), 0);
        ck_assert_int_eq(insert_sandbox(&fixture, &second), STORE_E_NAME_IN_USE);
        ck_assert_int_eq(insert_sandbox(&fixture, &other), 0);

        first.state = SANDBOX_ENDED;
        ck_assert_int_eq(update_sandbox(&fixture, &first, SANDBOX_EVENT_ENDED), 0);
        ck_assert_int_eq(insert_sandbox(&fixture, &second), 0);

        /* The refused insert left no event behind. */
        ck_assert_int_eq(list_events(&fixture, &(struct sandbox_event_query){ .limit = 9 })->n, 4);
}
END_TEST

START_TEST(nameless_sandboxes_do_not_clash)
{
        (void)insert_one(1);
        (void)insert_one(2);
}
END_TEST

START_TEST(the_same_id_twice_is_our_mistake)
{
        struct sandbox_record record = insert_one(1);

        ck_assert_int_eq(insert_sandbox(&fixture, &record), -EEXIST);
        ck_assert(store_is_healthy(fixture.store));
}
END_TEST

START_TEST(executions_and_contexts_come_back_as_they_were)
{
        struct sandbox_record sandbox = insert_one(1);
        struct context_record context = make_context(1, sandbox.sandbox_id);
        struct execution_record in = make_execution(1, sandbox.sandbox_id, context.context_id, 500),
                                out;

        ck_assert_int_eq(insert_context(&fixture, &context), 0);
        ck_assert_int_eq(insert_execution(&fixture, &in), 0);
        in.state = EXECUTION_ENDED;
        in.outcome = OUTCOME_EXITED;
        in.cause = CAUSE_PROGRAM;
        in.has_exit_code = true;
        in.exit_code = -3;
        in.state_lost = true;
        (void)strcpy(in.message, "The program exited with status 3.");
        in.usage = (struct usage){ .cpu_usec = 1, .wall_usec = 2, .rich_bytes = 3 };
        in.last_sequence = 9;
        ck_assert_int_eq(update_execution(&fixture, &in), 0);

        ck_assert_int_eq(get_execution(&fixture, in.owner, in.execution_id, &out), 0);
        ck_assert_str_eq(out.context_id, in.context_id);
        ck_assert_int_eq(out.outcome, OUTCOME_EXITED);
        ck_assert(out.has_exit_code && out.state_lost);
        ck_assert_int_eq(out.exit_code, -3);
        ck_assert_str_eq(out.message, in.message);
        ck_assert_mem_eq(&out.usage, &in.usage, sizeof(in.usage));
        ck_assert_int_eq(out.last_sequence, 9);

        context.generation = 2;
        context.delete_time_usec = 77;
        ck_assert_int_eq(update_context(&fixture, &context), 0);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(fixture_path(&fixture, "hotcell.db"),
                                 "SELECT generation * 100 + delete_time_usec FROM contexts"),
                         277);
        fixture_open(&fixture);
}
END_TEST

START_TEST(labels_are_packed_and_what_is_not_packed_is_refused)
{
        static const struct {
                const char *bytes;
                size_t n;
        } bad[] = { { "a", 1 }, { "a\0", 2 }, { "a\0b", 3 }, { "a\0b\0c", 5 }, { "\0", 1 } };
        struct pairs labels = { 0 }, back = { 0 };
        char *bytes = NULL;
        size_t n = 1;

        ck_assert_int_eq(pairs_pack(&labels, &bytes, &n), 0);
        ck_assert_uint_eq(n, 0);
        ck_assert_int_eq(pairs_unpack(bytes, n, &back), 0);
        ck_assert_uint_eq(back.n, 0);
        free(bytes);
        ck_assert_int_eq(pairs_add(&labels, "stage", "first"), 0);
        ck_assert_int_eq(pairs_add(&labels, "empty", ""), 0);
        ck_assert_int_eq(pairs_pack(&labels, &bytes, &n), 0);
        ck_assert_uint_eq(n, sizeof("stage\0first\0empty\0"));
        ck_assert_int_eq(pairs_unpack(bytes, n, &back), 0);
        ck_assert_uint_eq(back.n, 2);
        ck_assert_str_eq(back.items[0].value, "first");
        ck_assert_str_eq(back.items[1].name, "empty");
        ck_assert_str_eq(back.items[1].value, "");
        free(bytes);
        pairs_deinit(&labels);
        pairs_deinit(&back);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                ck_assert_int_eq(pairs_unpack(bad[i].bytes, bad[i].n, &back), -EUCLEAN);
                pairs_deinit(&back);
        }
}
END_TEST

static void on_living(void *userdata, int result, const struct living *living)
{
        int *n_calls = userdata;

        (*n_calls)++;
        ck_assert_int_eq(result, 0);
        ck_assert_uint_eq(living->n_sandboxes, 1);
        ck_assert_str_eq(living->sandboxes[0].sandbox_id, "sbx-000001");
        ck_assert_str_eq(living->sandboxes[0].environment.items[0].value, "secret");
        ck_assert_uint_eq(living->n_contexts, 1);
        ck_assert_str_eq(living->contexts[0].context_id, "ctx-000001");
        ck_assert_uint_eq(living->n_executions, 1);
        ck_assert_str_eq(living->executions[0].execution_id, "exe-000001");
}

START_TEST(what_lives_is_loaded_after_a_restart)
{
        int n_calls = 0;

        for (int i = 1; i <= 2; i++) {
                struct sandbox_record record = make_sandbox(i, i);
                struct context_record context = make_context(i, record.sandbox_id);
                struct context_record deleted = make_context(10 + i, record.sandbox_id);
                struct execution_record execution =
                        make_execution(i, record.sandbox_id, context.context_id, i);

                ck_assert_int_eq(pairs_add(&record.environment, "KEY", "secret"), 0);
                ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
                ck_assert_int_eq(insert_context(&fixture, &context), 0);
                deleted.delete_time_usec = 9;
                ck_assert_int_eq(insert_context(&fixture, &deleted), 0);
                execution.state = i == 2 ? EXECUTION_ENDED : EXECUTION_RUNNING;
                ck_assert_int_eq(insert_execution(&fixture, &execution), 0);
                record.state = i == 2 ? SANDBOX_ENDED : SANDBOX_RUNNING;
                ck_assert_int_eq(update_sandbox(&fixture, &record, 0), 0);
                sandbox_record_deinit(&record);
        }
        fixture_close(&fixture);
        fixture_open(&fixture);
        store_load_living(fixture.store, on_living, &n_calls);
        wait_for(&fixture, &n_calls, 1);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_sandbox_comes_back_as_it_was,
                an_end_forgets_the_environment_and_replaces_labels,
                what_belongs_to_others_is_not_found,
                unknown_rows_are_not_found,
                an_overlong_filter_is_refused_not_cut,
                a_living_name_is_unique_for_its_owner,
                nameless_sandboxes_do_not_clash,
                the_same_id_twice_is_our_mistake,
                executions_and_contexts_come_back_as_they_were,
                labels_are_packed_and_what_is_not_packed_is_refused,
                what_lives_is_loaded_after_a_restart,
        };
        TCase *tcase = tcase_create("records");
        Suite *suite = suite_create("store records");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
