/* Egress events: each is kept once, as long as its sandbox, and within bounds. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/store/sandbox_reads.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

static struct fixture fixture;

static void add_sandbox(int number, const char *owner)
{
        struct sandbox_record sandbox = make_sandbox(number, 1000 + number);

        (void)strcpy(sandbox.owner, owner);
        ck_assert_int_eq(insert_sandbox(&fixture, &sandbox), 0);
        sandbox_record_deinit(&sandbox);
}

static void end_sandbox(int number, const char *owner, int64_t time_usec)
{
        struct sandbox_record sandbox = make_sandbox(number, 1000 + number);

        (void)strcpy(sandbox.owner, owner);
        sandbox.state = SANDBOX_ENDED;
        sandbox.end_time_usec = time_usec;
        ck_assert_int_eq(update_sandbox(&fixture, &sandbox, SANDBOX_EVENT_ENDED), 0);
        sandbox_record_deinit(&sandbox);
}

static void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
        add_sandbox(1, "uid:1000");
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

static struct egress_record make_event(int number, int64_t sequence)
{
        struct sandbox_record sandbox = make_sandbox(number, 1000 + number);
        struct egress_record record = {
                .sequence = sequence,
                .event_time_usec = 5000 + sequence,
                .type = EGRESS_EVENT_DENIED,
                .protocol = EGRESS_PROTOCOL_TCP,
                .address = "192.0.2.1",
                .port = 443,
                .reason = EGRESS_REASON_DEFAULT,
                .command = "curl",
                .count = 1,
        };

        (void)strcpy(record.sandbox_id, sandbox.sandbox_id);
        sandbox_record_deinit(&sandbox);
        return record;
}

static int insert(const struct egress_record *records, size_t n)
{
        struct answer answer = { 0 };

        store_insert_egress_events(fixture.store, records, n, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

/* @n of them, with the sequences @first … */
static void insert_many(int number, int64_t first, int n)
{
        struct egress_record records[EGRESS_BATCH_MAX];

        while (n > 0) {
                int n_batch = MIN(n, (int)EGRESS_BATCH_MAX);

                for (int i = 0; i < n_batch; i++)
                        records[i] = make_event(number, first + i);
                ck_assert_int_eq(insert(records, (size_t)n_batch), 0);
                first += n_batch;
                n -= n_batch;
        }
}

static struct seen {
        int n_calls;
        int result;
        size_t n;
        bool more;
        struct egress_record records[1000];
} seen;

static void on_events(void *userdata, int result, const struct egress_list *list)
{
        (void)userdata;
        seen.n_calls++;
        seen.result = result;
        seen.n = list ? list->n : 0;
        seen.more = list && list->more;
        ck_assert_uint_le(seen.n, ARRAY_SIZE(seen.records));
        if (seen.n > 0)
                memcpy(seen.records, list->records, seen.n * sizeof(*seen.records));
}

static const struct seen *list(int number, const struct egress_query *filter)
{
        struct sandbox_record sandbox = make_sandbox(number, 1000 + number);
        struct egress_query query = *filter;

        if (!query.sandbox_id)
                query.sandbox_id = sandbox.sandbox_id;
        if (query.limit == 0)
                query.limit = 1000;
        seen.n_calls = 0;
        store_list_egress_events(fixture.store, &query, on_events, NULL);
        wait_for(&fixture, &seen.n_calls, 1);
        sandbox_record_deinit(&sandbox);
        return &seen;
}

static int prune(const struct store_retention *retention, int64_t now_usec)
{
        struct answer answer = { 0 };
        int n = 0;

        do {
                answer = (struct answer){ 0 };
                store_prune(fixture.store, retention, now_usec, on_answer, &answer);
                wait_for(&fixture, &answer.n_calls, 1);
                n++;
        } while (answer.result == STORE_E_MORE);
        ck_assert_int_eq(answer.result, 0);
        return n;
}

/* What the database counts is what is there; the answer is that number. */
static int64_t check_totals(void)
{
        char path[128];
        int64_t n;

        (void)snprintf(path, sizeof(path), "%s", fixture_path(&fixture, "hotcell.db"));
        fixture_close(&fixture);
        n = ask_sql(path, "SELECT count(*) FROM egress_events");
        ck_assert_int_eq(ask_sql(path, "SELECT sum(n_egress_events) FROM owner_totals"), n);
        ck_assert_int_eq(ask_sql(path, "SELECT sum(egress_event_bytes) FROM owner_totals"),
                         ask_sql(path, "SELECT coalesce(sum(size_bytes), 0) FROM egress_events"));
        ck_assert_int_eq(ask_sql(path,
                                 "SELECT count(*) FROM egress_events AS e JOIN sandboxes AS s "
                                 "USING (sandbox_id) WHERE e.owner = s.owner"),
                         n);
        fixture_open(&fixture);
        return n;
}

START_TEST(an_event_comes_back_as_it_was)
{
        struct egress_record in = {
                .sequence = INT64_MAX,
                .event_time_usec = 1234567,
                .type = EGRESS_EVENT_FLOW_ENDED,
                .protocol = EGRESS_PROTOCOL_ICMP,
                .address = "2001:db8::1",
                .port = 65535,
                .name = "example.org",
                .reason = EGRESS_REASON_POLICY_CHANGED,
                .rule_index = 9999,
                .policy_version = 7,
                .pid = 4194304,
                .command = "wget",
                .count = INT64_MAX,
                .error_number = ECONNREFUSED,
                .sent_bytes = INT64_MAX - 1,
                .received_bytes = 3,
                .duration_usec = 4,
                .rule = "deny 2001:db8::/32",
        };
        const struct egress_record *out = &seen.records[0];

        (void)strcpy(in.sandbox_id, make_event(1, 1).sandbox_id);
        (void)strcpy(in.execution_id, "exe-1");
        ck_assert_int_eq(insert(&in, 1), 0);
        fixture_close(&fixture);
        fixture_open(&fixture);
        ck_assert_uint_eq(list(1, &(struct egress_query){ 0 })->n, 1);
        ck_assert_int_eq(out->sequence, in.sequence);
        ck_assert_int_eq(out->event_time_usec, in.event_time_usec);
        ck_assert_str_eq(out->sandbox_id, in.sandbox_id);
        ck_assert_str_eq(out->execution_id, in.execution_id);
        ck_assert_int_eq(out->type, in.type);
        ck_assert_int_eq(out->protocol, in.protocol);
        ck_assert_str_eq(out->address, in.address);
        ck_assert_int_eq(out->port, in.port);
        ck_assert_str_eq(out->name, in.name);
        ck_assert_int_eq(out->reason, in.reason);
        ck_assert_int_eq(out->rule_index, in.rule_index);
        ck_assert_int_eq(out->policy_version, in.policy_version);
        ck_assert_int_eq(out->pid, in.pid);
        ck_assert_str_eq(out->command, in.command);
        ck_assert_int_eq(out->count, in.count);
        ck_assert_int_eq(out->error_number, in.error_number);
        ck_assert_int_eq(out->sent_bytes, in.sent_bytes);
        ck_assert_int_eq(out->received_bytes, in.received_bytes);
        ck_assert_int_eq(out->duration_usec, in.duration_usec);
        ck_assert_str_eq(out->rule, in.rule);
}
END_TEST

/* By which the bound of bytes goes. */
START_TEST(an_event_is_as_large_as_its_texts)
{
        enum { FEW = 384 }; /* of a row without texts */
        struct egress_record record = make_event(1, 1);
        char path[128];

        ck_assert_int_eq(insert(&record, 1), 0);
        record = make_event(1, 2);
        (void)memset(record.name, 'a', 200);
        (void)strcpy(record.address, "2001:db8::1");
        (void)strcpy(record.command, "a-long-command");
        (void)strcpy(record.rule, "deny 2001:db8::/32");
        ck_assert_int_eq(insert(&record, 1), 0);
        (void)snprintf(path, sizeof(path), "%s", fixture_path(&fixture, "hotcell.db"));
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(path, "SELECT min(size_bytes) FROM egress_events"),
                         FEW + (int64_t)strlen("192.0.2.1") + (int64_t)strlen("curl"));
        ck_assert_int_eq(ask_sql(path, "SELECT max(size_bytes) FROM egress_events"),
                         FEW + 200 + (int64_t)strlen(record.address) +
                                 (int64_t)strlen(record.command) + (int64_t)strlen(record.rule));
        fixture_open(&fixture);
}
END_TEST

START_TEST(a_page_has_a_thousand_at_most)
{
        insert_many(1, 1, LIST_LIMIT_MAX + 1);
        ck_assert_uint_eq(list(1, &(struct egress_query){ .limit = 5000 })->n, LIST_LIMIT_MAX);
        ck_assert(seen.more);
}
END_TEST

START_TEST(one_that_is_told_twice_is_kept_once)
{
        struct egress_record records[] = { make_event(1, 1), make_event(1, 2), make_event(1, 2) };

        ck_assert_int_eq(insert(records, 3), 0);
        records[0] = make_event(1, 3);
        (void)strcpy(records[1].address, "198.51.100.1"); /* it stays as it was told first */
        ck_assert_int_eq(insert(records, 2), 0);
        ck_assert_uint_eq(list(1, &(struct egress_query){ 0 })->n, 3);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(seen.records[i].sequence, i + 1);
        ck_assert_str_eq(seen.records[1].address, "192.0.2.1");
        ck_assert_int_eq(check_totals(), 3);
}
END_TEST

START_TEST(the_numbers_of_two_sandboxes_have_nothing_to_do_with_each_other)
{
        const struct egress_record records[] = { make_event(1, 5), make_event(2, 5) };

        add_sandbox(2, "key-b");
        ck_assert_int_eq(insert(records, 2), 0);
        ck_assert_uint_eq(list(1, &(struct egress_query){ 0 })->n, 1);
        ck_assert_uint_eq(list(2, &(struct egress_query){ 0 })->n, 1);
        ck_assert_int_eq(check_totals(), 2);
}
END_TEST

START_TEST(one_of_an_unknown_sandbox_does_not_spoil_the_others)
{
        struct egress_record records[] = { make_event(1, 1), make_event(7, 1), make_event(1, 2) };

        ck_assert_int_eq(insert(records, 3), 0);
        ck_assert_int_eq(check_totals(), 2);
        ck_assert_int_eq(list(7, &(struct egress_query){ 0 })->result, STORE_E_NOT_FOUND);
}
END_TEST

START_TEST(a_page_is_oldest_first_and_goes_on_where_it_ended)
{
        struct egress_query query = { .limit = 4 };
        int64_t expected = 1;

        insert_many(1, 6, 5);
        insert_many(1, 1, 5);
        do {
                (void)list(1, &query);
                ck_assert_int_eq(seen.result, 0);
                for (size_t i = 0; i < seen.n; i++)
                        ck_assert_int_eq(seen.records[i].sequence, expected++);
                ck_assert(seen.more == (expected <= 10));
                query.after_sequence = expected - 1;
        } while (seen.more);
        ck_assert_int_eq(expected, 11);
        ck_assert_uint_eq(list(1, &query)->n, 0);
}
END_TEST

START_TEST(a_filter_leaves_the_others_out)
{
        struct sandbox_record sandbox = make_sandbox(1, 1001);
        struct context_record context = make_context(1, sandbox.sandbox_id);
        struct execution_record execution =
                make_execution(1, sandbox.sandbox_id, context.context_id, 1001);
        struct egress_record records[6];

        ck_assert_int_eq(insert_context(&fixture, &context), 0);
        ck_assert_int_eq(insert_execution(&fixture, &execution), 0);
        add_sandbox(2, "key-b");
        for (int i = 0; i < 6; i++) {
                records[i] = make_event(1, i + 1);
                records[i].type = (enum egress_event_type)(i % 3 + 1);
                if (i < 3)
                        (void)strcpy(records[i].execution_id, execution.execution_id);
        }
        ck_assert_int_eq(insert(records, 6), 0);
        ck_assert_uint_eq(list(1, &(struct egress_query){ .types = BIT(EGRESS_EVENT_FAILED) })->n,
                          2);
        ck_assert_int_eq(seen.records[1].sequence, 5);
        ck_assert_uint_eq(
                list(1, &(struct egress_query){ .execution_id = execution.execution_id })->n, 3);
        ck_assert_uint_eq(list(1, &(struct egress_query){ .execution_id = execution.execution_id,
                                                          .types = BIT(EGRESS_EVENT_DENIED) })
                                  ->n,
                          1);
        /* What is another's is as if it were not there. */
        ck_assert_int_eq(list(1, &(struct egress_query){ .owner = "uid:1000" })->result, 0);
        ck_assert_int_eq(list(1, &(struct egress_query){ .owner = "key-b" })->result,
                         STORE_E_NOT_FOUND);
        ck_assert_int_eq(
                list(2, &(struct egress_query){ .execution_id = execution.execution_id })->result,
                STORE_E_NO_EXECUTION);
        ck_assert_int_eq(list(1, &(struct egress_query){ .execution_id = "exe-none" })->result,
                         STORE_E_NO_EXECUTION);
        sandbox_record_deinit(&sandbox);
}
END_TEST

START_TEST(they_are_pruned_by_age)
{
        const struct store_retention retention = { .kept_usec = 1000 };

        insert_many(1, 1, 700); /* of 5001 … 5700 */
        (void)prune(&retention, 6501);
        ck_assert_uint_eq(list(1, &(struct egress_query){ 0 })->n, 200);
        ck_assert_int_eq(seen.records[0].sequence, 501);
        ck_assert_int_eq(check_totals(), 200);
}
END_TEST

START_TEST(who_has_most_makes_room_first)
{
        struct store_retention retention = { .egress_events_max = 500 };

        add_sandbox(2, "key-b");
        add_sandbox(3, "key-c");
        insert_many(2, 1, 10); /* the oldest */
        insert_many(1, 100, 900);
        insert_many(3, 100, 600);
        (void)prune(&retention, time_now_usec());
        ck_assert_uint_eq(list(2, &(struct egress_query){ 0 })->n, 10);
        ck_assert_uint_eq(list(1, &(struct egress_query){ 0 })->n, 245);
        ck_assert_int_eq(seen.records[244].sequence, 999);
        ck_assert_uint_eq(list(3, &(struct egress_query){ 0 })->n, 245);
        retention = (struct store_retention){ .egress_events_bytes_max = 50 * 400 };
        (void)prune(&retention, time_now_usec());
        ck_assert_uint_eq(list(2, &(struct egress_query){ 0 })->n, 10);
        ck_assert_int_lt(check_totals(), 60);
}
END_TEST

/* Also those that are younger than it may be, as a clock that was set back leaves them. */
START_TEST(they_go_with_their_sandbox_in_small_steps)
{
        const struct store_retention retention = { .kept_usec = 100 };
        struct store_retention few = { .sandboxes_max = 1 };

        insert_many(1, 1, 700);
        end_sandbox(1, "uid:1000", 1);
        ck_assert_int_gt(prune(&retention, 200), 2);
        ck_assert_int_eq(check_totals(), 0);
        ck_assert_int_eq(list(1, &(struct egress_query){ 0 })->result, STORE_E_NOT_FOUND);

        for (int i = 2; i < 5; i++) {
                add_sandbox(i, "key-b");
                insert_many(i, 1, 300);
                end_sandbox(i, "key-b", i);
        }
        ck_assert_int_gt(prune(&few, 200), 2);
        ck_assert_int_eq(check_totals(), 300);
        ck_assert_uint_eq(list(4, &(struct egress_query){ 0 })->n, 300);
}
END_TEST

START_TEST(an_owner_that_has_nothing_else_is_not_forgotten)
{
        const struct store_retention retention = { .kept_usec = 1 };
        struct egress_record record = make_event(1, 1);

        record.event_time_usec = INT64_MAX / 2;
        ck_assert_int_eq(insert(&record, 1), 0);
        (void)prune(&retention, time_now_usec() + 1000000);
        ck_assert_int_eq(check_totals(), 1);
        (void)prune(&retention, INT64_MAX / 2 + 2);
        ck_assert_int_eq(check_totals(), 0);
}
END_TEST

/* Not only every few minutes. */
START_TEST(much_that_is_added_is_pruned_soon)
{
        const struct store_retention retention = { .egress_events_bytes_max = 256 << 10 };

        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        for (int i = 0; i < 10; i++) /* what comes at the start is over */
                (void)sd_event_run(fixture.loop, 100000);
        insert_many(1, 1, 1500);
        while (list(1, &(struct egress_query){ 0 })->n > 700 || seen.more)
                (void)sd_event_run(fixture.loop, 1000000);
}
END_TEST

START_TEST(a_full_disk_is_not_filled_with_them)
{
        struct egress_record record = make_event(1, 1);
        struct answer answer = { 0 };

        store_keep_spare(fixture.store, INT64_MAX / 4); /* no disk has that */
        while (!store_is_full(fixture.store))
                (void)sd_event_run(fixture.loop, 1000000);
        store_insert_egress_events(fixture.store, &record, 1, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        ck_assert_int_eq(answer.result, STORE_E_FULL);
        ck_assert_uint_eq(list(1, &(struct egress_query){ 0 })->n, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("egress");
        TCase *tcase = tcase_create("egress");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        tcase_add_test(tcase, an_event_comes_back_as_it_was);
        tcase_add_test(tcase, an_event_is_as_large_as_its_texts);
        tcase_add_test(tcase, a_page_has_a_thousand_at_most);
        tcase_add_test(tcase, one_that_is_told_twice_is_kept_once);
        tcase_add_test(tcase, the_numbers_of_two_sandboxes_have_nothing_to_do_with_each_other);
        tcase_add_test(tcase, one_of_an_unknown_sandbox_does_not_spoil_the_others);
        tcase_add_test(tcase, a_page_is_oldest_first_and_goes_on_where_it_ended);
        tcase_add_test(tcase, a_filter_leaves_the_others_out);
        tcase_add_test(tcase, they_are_pruned_by_age);
        tcase_add_test(tcase, who_has_most_makes_room_first);
        tcase_add_test(tcase, they_go_with_their_sandbox_in_small_steps);
        tcase_add_test(tcase, an_owner_that_has_nothing_else_is_not_forgotten);
        tcase_add_test(tcase, much_that_is_added_is_pruned_soon);
        tcase_add_test(tcase, a_full_disk_is_not_filled_with_them);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
