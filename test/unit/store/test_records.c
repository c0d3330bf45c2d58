/* What goes in comes out; outcomes; lists and watches. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/unit/store/fixture.h"

static struct fixture fixture;

static void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

static struct sandbox_record insert_one(int number)
{
        struct sandbox_record record = make_sandbox(number, 1000 + number);

        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        return record;
}

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
        in.usage.memory_peak_bytes = 1LL << 40;
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
        in.usage = (struct execution_usage){ .cpu_usec = 1, .wall_usec = 2, .rich_bytes = 3 };
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

START_TEST(lists_filter_by_state_label_and_name)
{
        struct sandbox_record record;
        struct pairs labels = { 0 };
        const struct page *page;

        for (int i = 1; i <= 6; i++) {
                record = make_sandbox(i, i);
                record.state = i <= 2 ? SANDBOX_ENDED : SANDBOX_RUNNING;
                ck_assert_int_eq(pairs_add(&record.labels, "parity", i % 2 ? "odd" : "even"), 0);
                ck_assert_int_eq(pairs_add(&record.labels, "all", ""), 0);
                if (i == 3)
                        (void)strcpy(record.name, "third");
                ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
                sandbox_record_deinit(&record);
        }

        page = list_sandboxes(&fixture, &(struct sandbox_query){ .owner = "uid:1000", .limit = 9 });
        ck_assert_uint_eq(page->n, 4); /* without ended ones */
        ck_assert_str_eq(page->ids[0], "sbx-000006");
        page = list_sandboxes(&fixture,
                              &(struct sandbox_query){ .states = BIT(SANDBOX_ENDED), .limit = 9 });
        ck_assert_uint_eq(page->n, 2);

        ck_assert_int_eq(pairs_add(&labels, "parity", "odd"), 0);
        ck_assert_int_eq(pairs_add(&labels, "all", ""), 0);
        page = list_sandboxes(&fixture, &(struct sandbox_query){ .labels = &labels, .limit = 9 });
        ck_assert_uint_eq(page->n, 2);
        ck_assert_str_eq(page->ids[1], "sbx-000003");
        ck_assert_int_eq(pairs_add(&labels, "none", ""), 0);
        page = list_sandboxes(&fixture, &(struct sandbox_query){ .labels = &labels, .limit = 9 });
        ck_assert_uint_eq(page->n, 0);
        /* A filter does not stay behind for the next list. */
        page = list_sandboxes(&fixture, &(struct sandbox_query){ .limit = 9 });
        ck_assert_uint_eq(page->n, 4);

        page = list_sandboxes(&fixture, &(struct sandbox_query){ .name = "third", .limit = 9 });
        ck_assert_uint_eq(page->n, 1);
        pairs_deinit(&labels);
}
END_TEST

START_TEST(executions_are_listed_by_sandbox_context_and_state)
{
        struct sandbox_record first = insert_one(1), second = insert_one(2);
        struct context_record context = make_context(1, first.sandbox_id);
        struct execution_record execution;

        ck_assert_int_eq(insert_context(&fixture, &context), 0);
        for (int i = 1; i <= 6; i++) {
                execution = make_execution(i, i <= 4 ? first.sandbox_id : second.sandbox_id,
                                           i <= 2 ? context.context_id : "", i);
                if (i == 1)
                        execution.state = EXECUTION_ENDED;
                ck_assert_int_eq(insert_execution(&fixture, &execution), 0);
        }

        const struct {
                struct execution_query query;
                size_t n;
        } cases[] = {
                { { .limit = 9 }, 6 },
                { { .owner = "uid:1000", .limit = 9 }, 6 },
                { { .sandbox_id = first.sandbox_id, .limit = 9 }, 4 },
                { { .sandbox_id = first.sandbox_id, .owner = "uid:1", .limit = 9 }, 0 },
                { { .context_id = context.context_id, .limit = 9 }, 2 },
                { { .context_id = context.context_id, .sandbox_id = second.sandbox_id, .limit = 9 },
                  0 },
                { { .states = BIT(EXECUTION_ENDED), .limit = 9 }, 1 },
                { { .states = BIT(EXECUTION_QUEUED), .limit = 3 }, 3 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                ck_assert_uint_eq(list_executions(&fixture, &cases[i].query)->n, cases[i].n);
}
END_TEST

/* Every sandbox that was there all along is seen once, whatever else comes and goes. */
START_TEST(paging_under_change_neither_skips_nor_repeats)
{
        enum {
                N = 300,
                PAGE = 7,
        };
        static int seen[N + 1];
        struct sandbox_query query = { .owner = "uid:1000", .limit = PAGE };
        const struct page *page;
        int next_new = N + 1;

        for (int i = 1; i <= N; i++) {
                /* Groups of five share a time: the id decides. */
                struct sandbox_record record = make_sandbox(i, 1 + i / 5);

                ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        }

        do {
                page = list_sandboxes(&fixture, &query);
                ck_assert_int_eq(page->result, 0);
                for (size_t i = 0; i < page->n; i++) {
                        int number = atoi(page->ids[i] + strlen("sbx-"));

                        if (number <= N)
                                seen[number]++;
                }
                query.cursor = cursor_after(page);

                /* One that was seen ends; new ones come at the top and in the middle. */
                struct sandbox_record ended = make_sandbox(atoi(page->ids[0] + 4), 1);
                struct sandbox_record top = make_sandbox(next_new, 1000000 + next_new);
                struct sandbox_record middle = make_sandbox(next_new + 1, 20);
                bool more = page->more;

                next_new += 2;
                ended.state = SANDBOX_ENDED;
                ck_assert_int_eq(update_sandbox(&fixture, &ended, 0), 0);
                ck_assert_int_eq(insert_sandbox(&fixture, &top), 0);
                ck_assert_int_eq(insert_sandbox(&fixture, &middle), 0);
                if (!more)
                        break;
        } while (true);

        for (int i = 1; i <= N; i++)
                ck_assert_msg(seen[i] == 1, "sandbox %d was seen %d times", i, seen[i]);
}
END_TEST

/* With the most labels that one may have. */
enum { LARGE_BYTES = 64 * (63 + 1024) };

static void insert_large(int number)
{
        struct sandbox_record record = make_sandbox(number, number);
        char name[64], value[1025] = { 0 };

        memset(value, 'v', sizeof(value) - 1);
        for (int i = 0; i < 64; i++) {
                (void)snprintf(name, sizeof(name), "%063d", i);
                ck_assert_int_eq(pairs_add(&record.labels, name, value), 0);
        }
        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        sandbox_record_deinit(&record);
}

START_TEST(a_limit_is_capped_at_a_thousand)
{
        struct answer answer = { 0 };

        for (int i = 1; i <= 1001; i++) {
                struct sandbox_record record = make_sandbox(i, i);

                store_insert_sandbox(fixture.store, &record, on_answer, &answer);
        }
        wait_for(&fixture, &answer.n_calls, 1001);
        ck_assert_int_eq(answer.result, 0);
        const struct page *page =
                list_sandboxes(&fixture, &(struct sandbox_query){ .limit = 100000 });

        ck_assert_uint_eq(page->n, 1000);
        ck_assert(page->more);
}
END_TEST

START_TEST(a_page_ends_before_it_is_too_large_for_a_message)
{
        struct store_cursor cursor = { 0 };
        const struct page *page;
        size_t n = 0;

        for (int i = 1; i <= 30; i++)
                insert_large(i);
        do {
                page = list_sandboxes(&fixture,
                                      &(struct sandbox_query){ .limit = 100, .cursor = cursor });
                ck_assert_int_eq(page->result, 0);
                ck_assert_uint_le(page->n * LARGE_BYTES, STORE_PAGE_BYTES);
                ck_assert_uint_le(n + page->n, 30);
                n += page->n;
                ck_assert_int_eq(page->more, n < 30);
                ck_assert(!page->more || (page->n + 2) * LARGE_BYTES > STORE_PAGE_BYTES);
                cursor = cursor_after(page);
        } while (page->more);
        ck_assert_uint_eq(n, 30);
}
END_TEST

START_TEST(so_does_a_page_of_events)
{
        int64_t after = 0;
        const struct page *page;
        size_t n = 0;

        for (int i = 1; i <= 30; i++)
                insert_large(i);
        do {
                page = list_events(&fixture, &(struct sandbox_event_query){ .after_sequence = after,
                                                                            .limit = 100 });
                ck_assert_int_eq(page->result, 0);
                ck_assert_uint_gt(page->n, 0);
                ck_assert_uint_le(page->n * LARGE_BYTES, STORE_PAGE_BYTES);
                n += page->n;
                after = page->sequence;
        } while (page->more);
        ck_assert_uint_eq(n, 30);
}
END_TEST

START_TEST(events_follow_changes_and_go_on_after_a_token)
{
        struct sandbox_record first = insert_one(1), second;
        int64_t token = list_sandboxes(&fixture, &(struct sandbox_query){ .limit = 9 })->sequence;
        const struct page *page;

        second = insert_one(2);
        first.state = SANDBOX_RUNNING;
        ck_assert_int_eq(update_sandbox(&fixture, &first, SANDBOX_EVENT_RUNNING), 0);
        ck_assert_int_eq(update_sandbox(&fixture, &second, 0), 0); /* without an event */

        page = list_events(&fixture,
                           &(struct sandbox_event_query){ .after_sequence = token, .limit = 9 });
        ck_assert_uint_eq(page->n, 2);
        ck_assert_int_eq(page->events[0], SANDBOX_EVENT_CREATED);
        ck_assert_str_eq(page->ids[0], second.sandbox_id);
        ck_assert_int_eq(page->events[1], SANDBOX_EVENT_RUNNING);
        ck_assert(!page->more);

        page = list_events(&fixture,
                           &(struct sandbox_event_query){ .after_sequence = token, .limit = 1 });
        ck_assert_uint_eq(page->n, 1);
        ck_assert(page->more);
        ck_assert_int_eq(page->sequence, token + 1);

        page = list_events(&fixture, &(struct sandbox_event_query){ .sandbox_id = first.sandbox_id,
                                                                    .after_sequence = 0,
                                                                    .limit = 9 });
        ck_assert_uint_eq(page->n, 2);

        /* Those of others are skipped for good. */
        page = list_events(&fixture, &(struct sandbox_event_query){ .owner = "uid:1", .limit = 9 });
        ck_assert_int_eq(page->sequence, token + 2);
        page = list_events(&fixture, &(struct sandbox_event_query){ .after_sequence = -1 });
        ck_assert_int_eq(page->result, 0);
        ck_assert_int_eq(page->sequence, token + 2);
}
END_TEST

struct seen_event {
        int n_calls;
        char label[32];
        enum sandbox_state state;
};

static void on_first_event(void *userdata, int result, const struct sandbox_event_list *list)
{
        struct seen_event *seen = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_ge(list->n, 1);
        (void)strcpy(seen->label, list->records[0].sandbox.labels.items[0].value);
        seen->state = list->records[0].sandbox.state;
        seen->n_calls++;
}

START_TEST(an_event_shows_the_sandbox_as_it_was_then)
{
        struct sandbox_record record = make_sandbox(1, 1);
        struct seen_event seen = { 0 };

        ck_assert_int_eq(pairs_add(&record.labels, "stage", "first"), 0);
        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        pairs_deinit(&record.labels);
        record.state = SANDBOX_RUNNING;
        ck_assert_int_eq(update_sandbox(&fixture, &record, SANDBOX_EVENT_UPDATED), 0);

        store_list_sandbox_events(fixture.store, &(struct sandbox_event_query){ .limit = 9 },
                                  on_first_event, &seen);
        wait_for(&fixture, &seen.n_calls, 1);
        ck_assert_str_eq(seen.label, "first");
        ck_assert_int_eq(seen.state, SANDBOX_CREATING);
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

START_TEST(a_token_from_the_future_is_expired)
{
        ck_assert_int_eq(list_events(&fixture, &(struct sandbox_event_query){ .after_sequence = 5,
                                                                              .limit = 9 })
                                 ->result,
                         STORE_E_TOKEN_EXPIRED);
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

struct keys {
        int n_calls;
        size_t n;
        struct key_record records[STORE_KEYS_MAX];
};

static void on_keys(void *userdata, int result, const struct key_record *records, size_t n)
{
        struct keys *keys = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_le(n, ARRAY_SIZE(keys->records));
        keys->n_calls++;
        keys->n = n;
        if (n)
                (void)memcpy(keys->records, records, n * sizeof(*records));
}

static const struct keys *list_keys(void)
{
        static struct keys keys;

        keys.n_calls = 0;
        store_list_keys(fixture.store, on_keys, &keys);
        wait_for(&fixture, &keys.n_calls, 1);
        return &keys;
}

START_TEST(keys_are_kept_revoked_and_their_names_freed)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci"), again = make_key(2, "ci");
        const struct keys *keys;

        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_insert_key(fixture.store, &again, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, STORE_E_NAME_IN_USE);

        store_revoke_key(fixture.store, key.key_id, 50, on_answer, &answer);
        store_revoke_key(fixture.store, key.key_id, 60, on_answer, &answer); /* stays at 50 */
        store_insert_key(fixture.store, &again, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 5);
        ck_assert_int_eq(answer.result, 0);
        store_revoke_key(fixture.store, "key-none", 50, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 6);
        ck_assert_int_eq(answer.result, STORE_E_NOT_FOUND);

        keys = list_keys();
        ck_assert_uint_eq(keys->n, 2);
        ck_assert_str_eq(keys->records[0].key_id, "key-000002");
        ck_assert_int_eq(keys->records[1].revoke_time_usec, 50);
        ck_assert_mem_eq(keys->records[1].secret_sha256, key.secret_sha256, 32);
}
END_TEST

START_TEST(an_expired_key_gives_its_name_free)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci"), early = make_key(99, "ci"),
                          later = make_key(100, "ci");

        key.expire_time_usec = 100;
        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_insert_key(fixture.store, &early, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, STORE_E_NAME_IN_USE);
        store_insert_key(fixture.store, &later, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 3);
        ck_assert_int_eq(answer.result, 0);
}
END_TEST

START_TEST(what_a_key_may_and_when_it_was_used_comes_back)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci");
        const struct keys *keys;

        (void)strcpy(key.owner, "key-older");
        key.scopes = 5;
        key.expire_time_usec = 100;
        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_touch_key(fixture.store, key.key_id, 60, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, 0);
        fixture_close(&fixture);
        fixture_open(&fixture);

        keys = list_keys();
        ck_assert_str_eq(keys->records[0].owner, "key-older");
        ck_assert_int_eq(keys->records[0].scopes, 5);
        ck_assert_int_eq(keys->records[0].expire_time_usec, 100);
        ck_assert_int_eq(keys->records[0].last_used_time_usec, 60);
}
END_TEST

START_TEST(the_same_secret_twice_is_our_mistake)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci"), again = make_key(2, "other");

        (void)memcpy(again.secret_sha256, key.secret_sha256, sizeof(key.secret_sha256));
        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_insert_key(fixture.store, &again, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, -EEXIST);
}
END_TEST

START_TEST(old_revoked_keys_are_forgotten_for_new_ones)
{
        struct answer answer = { 0 };
        const struct keys *keys;

        for (int i = 1; i <= STORE_KEYS_MAX + 5; i++) {
                struct key_record key = make_key(i, "same");

                store_insert_key(fixture.store, &key, on_answer, &answer);
                store_revoke_key(fixture.store, key.key_id, i, on_answer, &answer);
        }
        wait_for(&fixture, &answer.n_calls, 2 * (STORE_KEYS_MAX + 5));
        keys = list_keys();
        ck_assert_uint_eq(keys->n, STORE_KEYS_MAX);
        ck_assert_str_eq(keys->records[STORE_KEYS_MAX - 1].key_id, "key-000006");
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
                lists_filter_by_state_label_and_name,
                executions_are_listed_by_sandbox_context_and_state,
                paging_under_change_neither_skips_nor_repeats,
                a_limit_is_capped_at_a_thousand,
                a_page_ends_before_it_is_too_large_for_a_message,
                so_does_a_page_of_events,
                events_follow_changes_and_go_on_after_a_token,
                an_event_shows_the_sandbox_as_it_was_then,
                labels_are_packed_and_what_is_not_packed_is_refused,
                a_token_from_the_future_is_expired,
                what_lives_is_loaded_after_a_restart,
                keys_are_kept_revoked_and_their_names_freed,
                an_expired_key_gives_its_name_free,
                what_a_key_may_and_when_it_was_used_comes_back,
                the_same_secret_twice_is_our_mistake,
                old_revoked_keys_are_forgotten_for_new_ones,
        };
        TCase *tcase = tcase_create("records");
        Suite *suite = suite_create("store records");
        SRunner *runner = srunner_create(suite);

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        srunner_run_all(runner, CK_SILENT);
        srunner_free(runner);
        return 0;
}
