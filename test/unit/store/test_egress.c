/* Egress policies of sandboxes: what goes in comes out, and what is kept of those that ended. */
#include <check.h>
#include <stdio.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
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

/* Of @n_rules like those of a client, one of them with @first for its last number. */
static struct egress *make_egress(unsigned n_rules, unsigned first)
{
        enum { RULE = 40 };
        struct egress *egress = egress_new((size_t)n_rules * RULE);

        ck_assert_ptr_nonnull(egress);
        for (unsigned i = 0; i < n_rules; i++)
                (void)snprintf(egress->bytes + (size_t)i * RULE, RULE,
                               "deny tcp - cidr %3u.%3u.%7u", i % 256, i / 256, first + i);
        egress->default_action = 2;
        egress->allows = true;
        egress->record_types = 1U << (first % 14);
        egress->n_rules = n_rules;
        for (size_t i = 0; i < sizeof(egress->sha256); i++)
                egress->sha256[i] = (uint8_t)(first + i);
        return egress;
}

static void check_egress(const struct sandbox_record *in)
{
        struct sandbox_record out;

        ck_assert_int_eq(get_sandbox(&fixture, in->owner, in->sandbox_id, &out), 0);
        ck_assert_int_eq(out.egress_version, in->egress_version);
        ck_assert_ptr_ne(out.egress, in->egress);
        ck_assert(egress_is_same(out.egress, in->egress));
        if (in->egress) {
                ck_assert_int_eq(out.egress->default_action, in->egress->default_action);
                ck_assert_int_eq(out.egress->allows, in->egress->allows);
                ck_assert_uint_eq(out.egress->record_types, in->egress->record_types);
                ck_assert_int_eq(out.egress->n_rules, in->egress->n_rules);
                ck_assert_mem_eq(out.egress->sha256, in->egress->sha256, 32);
        }
        sandbox_record_deinit(&out);
}

static const unsigned rule_counts[] = { 0, 1, 10000 };

START_TEST(an_egress_policy_comes_back_as_it_was)
{
        struct sandbox_record in = make_sandbox(1, 1000);

        in.egress_version = 1;
        in.egress = make_egress(rule_counts[_i], 7);
        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);
        check_egress(&in);

        /* Another change leaves it. */
        in.idle_timeout_usec = 9;
        ck_assert_int_eq(update_sandbox(&fixture, &in, 0), 0);
        check_egress(&in);

        in.egress = egress_release(in.egress);
        in.egress = make_egress(rule_counts[_i], 8);
        in.egress_version = 2;
        ck_assert_int_eq(update_sandbox(&fixture, &in, SANDBOX_EVENT_UPDATED), 0);
        check_egress(&in);
        fixture_close(&fixture);
        fixture_open(&fixture);
        check_egress(&in);
        sandbox_record_deinit(&in);
}
END_TEST

/* A pair that differs in one thing only; what follows from these is not looked at. */
START_TEST(the_same_policy_has_the_same_default_and_rules)
{
        struct egress *one = make_egress(2, 7), *other = make_egress(2, 7);
        struct egress *longer = make_egress(3, 7), *none = make_egress(0, 7);

        ck_assert(egress_is_same(one, other));
        other->default_action = 1;
        ck_assert(!egress_is_same(one, other));
        other->default_action = one->default_action;
        other->record_types++;
        ck_assert(!egress_is_same(one, other));
        other->record_types = one->record_types;
        other->bytes[other->n_bytes - 1] = '8';
        ck_assert(!egress_is_same(one, other));
        ck_assert(!egress_is_same(one, longer));
        ck_assert(!egress_is_same(longer, one));
        ck_assert(!egress_is_same(one, none));
        ck_assert(!egress_is_same(none, NULL));
        ck_assert(!egress_is_same(NULL, none));
        ck_assert(egress_is_same(NULL, NULL));
        (void)egress_release(one);
        (void)egress_release(other);
        (void)egress_release(longer);
        (void)egress_release(none);
}
END_TEST

START_TEST(a_policy_may_come_late_and_go_again)
{
        struct sandbox_record in = make_sandbox(1, 1000), out;

        in.egress_version = 1;
        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);
        ck_assert_int_eq(get_sandbox(&fixture, in.owner, in.sandbox_id, &out), 0);
        ck_assert_ptr_null(out.egress);
        in.egress_version = 2;
        in.egress = make_egress(1, 1);
        ck_assert_int_eq(update_sandbox(&fixture, &in, 0), 0);
        check_egress(&in);
        in.egress_version = 3;
        in.egress = egress_release(in.egress);
        ck_assert_int_eq(update_sandbox(&fixture, &in, 0), 0);
        ck_assert_int_eq(get_sandbox(&fixture, in.owner, in.sandbox_id, &out), 0);
        ck_assert_ptr_null(out.egress);
        ck_assert_int_eq(out.egress_version, 3);
}
END_TEST

START_TEST(a_policy_is_not_written_again_with_every_change)
{
        const char *path = fixture_path(&fixture, "hotcell.db");
        struct sandbox_record in = make_sandbox(1, 1000);

        in.egress_version = 1;
        in.egress = make_egress(1, 7);
        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);
        fixture_close(&fixture);
        run_sql(path, "CREATE TRIGGER written BEFORE UPDATE ON sandbox_egress BEGIN "
                      "SELECT raise(ABORT, 'written'); END");
        fixture_open(&fixture);
        ck_assert_int_eq(update_sandbox(&fixture, &in, SANDBOX_EVENT_UPDATED), 0);
        in.egress_version = 2;
        ck_assert_int_lt(update_sandbox(&fixture, &in, SANDBOX_EVENT_UPDATED), 0);
        sandbox_record_deinit(&in);
}
END_TEST

START_TEST(an_end_forgets_the_rules_but_not_which_policy_it_was)
{
        struct sandbox_record in = make_sandbox(1, 1000), out;

        in.egress_version = 4;
        in.egress = make_egress(3, 7);
        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);
        in.state = SANDBOX_ENDED;
        in.end_time_usec = 2000;
        ck_assert_int_eq(update_sandbox(&fixture, &in, SANDBOX_EVENT_ENDED), 0);
        ck_assert_int_eq(get_sandbox(&fixture, in.owner, in.sandbox_id, &out), 0);
        ck_assert_int_eq(out.egress_version, 4);
        ck_assert_uint_eq(out.egress->n_bytes, 0);
        ck_assert_mem_eq(out.egress->sha256, in.egress->sha256, 32);
        sandbox_record_deinit(&in);
        sandbox_record_deinit(&out);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(fixture_path(&fixture, "hotcell.db"),
                                 "SELECT count(*) FROM sandbox_egress WHERE rules IS NULL"),
                         1);
        run_sql(fixture_path(&fixture, "hotcell.db"),
                "PRAGMA foreign_keys = ON; DELETE FROM sandboxes");
        ck_assert_int_eq(ask_sql(fixture_path(&fixture, "hotcell.db"),
                                 "SELECT count(*) FROM sandbox_egress"),
                         0);
}
END_TEST

struct versions {
        int n_calls;
        int64_t items[4];
        size_t n;
};

static void on_listed(void *userdata, int result, const struct sandbox_list *list)
{
        struct versions *versions = userdata;

        ck_assert_int_eq(result, 0);
        for (size_t i = 0; i < list->n; i++) {
                ck_assert_ptr_null(list->records[i].egress);
                versions->items[versions->n++] = list->records[i].egress_version;
        }
        versions->n_calls++;
}

static void on_seen(void *userdata, int result, const struct sandbox_event_list *list)
{
        struct versions *versions = userdata;

        ck_assert_int_eq(result, 0);
        for (size_t i = 0; i < list->n; i++) {
                ck_assert_ptr_null(list->records[i].sandbox.egress);
                versions->items[versions->n++] = list->records[i].sandbox.egress_version;
        }
        versions->n_calls++;
}

START_TEST(lists_and_events_have_the_version_only)
{
        const struct sandbox_query query = { .owner = "uid:1000", .limit = 9 };
        const struct sandbox_event_query events = { .owner = "uid:1000", .limit = 9 };
        struct sandbox_record in = make_sandbox(1, 1000);
        struct versions listed = { 0 }, seen = { 0 };

        in.egress_version = 1;
        in.egress = make_egress(2, 7);
        ck_assert_int_eq(insert_sandbox(&fixture, &in), 0);
        in.egress_version = 5;
        ck_assert_int_eq(update_sandbox(&fixture, &in, SANDBOX_EVENT_UPDATED), 0);
        store_list_sandboxes(fixture.store, &query, on_listed, &listed);
        wait_for(&fixture, &listed.n_calls, 1);
        ck_assert_uint_eq(listed.n, 1);
        ck_assert_int_eq(listed.items[0], 5);
        store_list_sandbox_events(fixture.store, &events, on_seen, &seen);
        wait_for(&fixture, &seen.n_calls, 1);
        ck_assert_uint_eq(seen.n, 2);
        ck_assert_int_eq(seen.items[0], 1);
        ck_assert_int_eq(seen.items[1], 5);
        sandbox_record_deinit(&in);
}
END_TEST

int main(void)
{
        TCase *tcase = tcase_create("egress");
        Suite *suite = suite_create("store egress");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        tcase_add_loop_test(tcase, an_egress_policy_comes_back_as_it_was, 0,
                            ARRAY_SIZE(rule_counts));
        tcase_add_test(tcase, the_same_policy_has_the_same_default_and_rules);
        tcase_add_test(tcase, a_policy_may_come_late_and_go_again);
        tcase_add_test(tcase, a_policy_is_not_written_again_with_every_change);
        tcase_add_test(tcase, an_end_forgets_the_rules_but_not_which_policy_it_was);
        tcase_add_test(tcase, lists_and_events_have_the_version_only);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
