/* Lists, their pages, and watches. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"
#include "test/unit/store/records.h"

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

START_TEST(a_token_from_the_future_is_expired)
{
        ck_assert_int_eq(list_events(&fixture, &(struct sandbox_event_query){ .after_sequence = 5,
                                                                              .limit = 9 })
                                 ->result,
                         STORE_E_TOKEN_EXPIRED);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                lists_filter_by_state_label_and_name,
                executions_are_listed_by_sandbox_context_and_state,
                paging_under_change_neither_skips_nor_repeats,
                a_limit_is_capped_at_a_thousand,
                a_page_ends_before_it_is_too_large_for_a_message,
                so_does_a_page_of_events,
                events_follow_changes_and_go_on_after_a_token,
                an_event_shows_the_sandbox_as_it_was_then,
                a_token_from_the_future_is_expired,
        };
        TCase *tcase = tcase_create("lists");
        Suite *suite = suite_create("store lists");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
