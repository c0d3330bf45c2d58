/* How rows of the ledger are found and summed up, and until when they are complete. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "test/lib/suite.h"
#include "test/unit/store/books.h"

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
        const struct usage_query owner = { .owner = "uid:1000" };
        struct usage_query query = { .sandbox_id = sandbox_id(7), .execution_id = "exe-000007" };

        ck_assert(!find_scope(&query).is_sandbox_known);
        ck_assert(!find_scope(&query).is_execution_known);
        ck_assert(!find_scope(&(struct usage_query){ .owner = "key-b" }).is_owner_known);
        ck_assert(find_scope(&query).is_owner_known); /* none is asked for */
        ck_assert(find_scope(&(struct usage_query){ 0 }).is_sandbox_known);
        ck_assert(
                find_scope(&(struct usage_query){ .sandbox_id = sandbox_id(1) }).is_sandbox_known);
        (void)run(1, 1, 5000, &(struct usage){ .cpu_usec = 1 });
        ck_assert_int_eq(end_sandbox(1, 9000, &(struct usage){ .cpu_usec = 3 }, false), 0);
        for (int i = 0; i < 2; i++) { /* the second time only rows are left */
                ck_assert(find_scope(&mine).is_sandbox_known);
                ck_assert(find_scope(&mine).is_execution_known);
                ck_assert(find_scope(&owner).is_owner_known);
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
        ck_assert_int_eq(end_execution(&record), 0);
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

/* Each label that is wanted is looked for at each row. */
START_TEST(a_step_with_many_labels_has_few_rows)
{
        struct pair wanted[64];
        struct pairs labels = { .items = wanted, .n = ARRAY_SIZE(wanted) };
        struct usage_query query = { .labels = &labels, .limit = 10 };
        char names[ARRAY_SIZE(wanted)][8];

        for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
                (void)snprintf(names[i], sizeof(names[i]), "l%zu", i);
                wanted[i] = (struct pair){ names[i], names[i] };
        }
        fill_ledger(9000);
        ck_assert_uint_eq(list(&query).n, 0);
        ck_assert(list(&query).more);
        ck_assert_int_le(list(&query).last_time_usec, 4096LL * 1000000 / 64);
        ck_assert_uint_gt(list(&query).cost_usec, 0);
        ck_assert_uint_gt(find_scope(&query).cost_usec, 0);
        ck_assert_int_eq(sum(&query).n, 0);
        ck_assert_int_ge(n_sum_steps, 9000 * 64 / 4096);
        query.start_time_usec = 1; /* by rows */
        ck_assert_int_eq(sum(&query).n, 0);
        ck_assert_int_ge(n_sum_steps, 9000 * 64 / 4096);
}
END_TEST

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
        ck_assert_int_eq(sum(&one).gaps.n_without[USAGE_PART_THROTTLED], 0);
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

static void on_destinations(void *userdata, int result, const struct usage_destinations *found)
{
        struct destinations *destinations = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_gt(found->cost_usec, 0);
        ck_assert_uint_le(found->n, ARRAY_SIZE(destinations->items));
        destinations->n_calls++;
        destinations->n = found->n;
        if (found->n > 0)
                memcpy(destinations->items, found->items, found->n * sizeof(*found->items));
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
        Suite *suite = suite_create("store_ledger_reads");
        TCase *tests = tcase_create("ledger");
        const TTest *const all[] = {
                what_has_a_row_or_a_record_is_known_to_its_owner,
                rows_are_complete_until_what_lives_had_its_last,
                rows_are_found_by_what_they_are_of,
                pages_go_on_after_the_last_row,
                rows_of_a_time_are_found_whenever_they_came,
                sums_come_in_steps,
                a_step_with_many_labels_has_few_rows,
                sums_tell_how_many_records_lack_what,
                destinations_are_told_with_what_was_sent_there,
        };

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_set_timeout(tests, 60);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                tcase_add_test(tests, all[i]);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
