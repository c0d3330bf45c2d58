/* What a policy compiles to, and what the tables say. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/compile.h"
#include "test/unit/policy/written.h"

#define RULES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void compile(struct policy_table *table, const char *const *rules)
{
        _cleanup_(policy_deinit) struct policy policy = { .default_action = POLICY_DEFAULT_DENY };
        size_t rule;

        for (; *rules; rules++)
                add_written(&policy, *rules);
        ck_assert_int_eq(policy_compile(&policy, table, &rule), 0);
}

/* Ranges as `deny 80-90 #0, allow 443 #1`. */
static void print_ranges(const struct policy_range *ranges, size_t n, char text[512])
{
        size_t used = 0;

        for (size_t i = 0; i < n; i++) {
                used += (size_t)snprintf(text + used, 512 - used, "%s%s %u-%u #%u", i ? ", " : "",
                                         ranges[i].action == POLICY_DENY ? "deny" : "allow",
                                         ranges[i].low, ranges[i].high, ranges[i].rule);
        }
}

static void expect_entry(const struct policy_table *table, const char *prefix, const char *expected)
{
        struct policy_prefix wanted = prefix_of(prefix);
        char text[512] = "none";

        for (size_t i = 0; i < table->n_entries; i++) {
                const struct policy_entry *entry = &table->entries[i];

                if (policy_prefix_compare(&entry->prefix, &wanted) == 0)
                        print_ranges(entry->ranges, entry->n_ranges, text);
        }
        ck_assert_str_eq(text, expected);
}

static void expect_name(const struct policy_table *table, const char *name, const char *expected)
{
        const struct policy_name *found = policy_table_find_name(table, name);
        char text[512] = "none";

        if (found)
                print_ranges(found->ranges, found->n_ranges, text);
        ck_assert_str_eq(text, expected);
}

START_TEST(enclosing_prefixes_are_merged_into_longer_ones)
{
        _cleanup_(policy_table_deinit) struct policy_table table;

        compile(&table, RULES("allow 8.1.2.0/24 443", "allow 8.0.0.0/8 80", "deny 8.1.0.0/16 22",
                              "allow 0.0.0.0/0 7", "allow ::/0 9", "allow 2600::/16 10",
                              "allow 8.1.3.0/24 5"));
        ck_assert_uint_eq(table.n_entries, 7);
        expect_entry(&table, "0.0.0.0/0", "allow 7-7 #3");
        expect_entry(&table, "8.0.0.0/8", "allow 7-7 #3, allow 80-80 #1");
        expect_entry(&table, "8.1.0.0/16", "deny 22-22 #2, allow 7-7 #3, allow 80-80 #1");
        expect_entry(&table, "8.1.2.0/24",
                     "deny 22-22 #2, allow 7-7 #3, allow 80-80 #1, allow 443-443 #0");
        expect_entry(&table, "8.1.3.0/24",
                     "deny 22-22 #2, allow 5-5 #6, allow 7-7 #3, allow 80-80 #1");
        expect_entry(&table, "::/0", "allow 9-9 #4");
        expect_entry(&table, "2600::/16", "allow 9-9 #4, allow 10-10 #5");
}
END_TEST

START_TEST(entries_are_sorted_so_that_each_prefix_precedes_those_inside)
{
        _cleanup_(policy_table_deinit) struct policy_table table;

        compile(&table, RULES("deny ::/0", "deny 8.0.0.0/9", "deny 8.0.0.0/8", "deny 7.0.0.0/8",
                              "deny ::/64", "deny 8.128.0.0/9"));
        ck_assert_uint_eq(table.n_entries, 6);
        for (size_t i = 1; i < table.n_entries; i++)
                ck_assert_int_lt(policy_prefix_compare(&table.entries[i - 1].prefix,
                                                       &table.entries[i].prefix),
                                 0);
        ck_assert(!table.entries[3].prefix.is_v6);
        ck_assert(table.entries[4].prefix.is_v6);
}
END_TEST

START_TEST(what_others_cover_is_left_out)
{
        _cleanup_(policy_table_deinit) struct policy_table table;

        compile(&table,
                RULES("allow 8.0.0.0/16 80-90,85-86,91-100,88-95", /* the last by two together */
                      "allow 8.1.0.0/16 50-60", "deny 8.1.0.0/16 40-70", "deny 8.2.0.0/16 50-60",
                      "allow 8.2.0.0/16 40-70", /* the weaker covers none */
                      "allow 8.3.0.0/16", "deny 8.3.0.0/16", "deny 8.3.1.0/24 80",
                      "deny 8.4.0.0/16 1-9", "allow 8.4.0.0/16 5-15", "deny 8.4.0.0/16 10-20"));
        expect_entry(&table, "8.0.0.0/16", "allow 80-90 #0, allow 91-100 #0");
        expect_entry(&table, "8.1.0.0/16", "deny 40-70 #2");
        expect_entry(&table, "8.2.0.0/16", "deny 50-60 #3, allow 40-70 #4");
        expect_entry(&table, "8.3.0.0/16", "deny 0-65535 #6");
        expect_entry(&table, "8.3.1.0/24", "deny 0-65535 #6");
        expect_entry(&table, "8.4.0.0/16", "deny 1-9 #8, deny 10-20 #10");
}
END_TEST

START_TEST(what_is_equal_names_the_first_rule)
{
        _cleanup_(policy_table_deinit) struct policy_table table;

        compile(&table,
                RULES("allow 8.0.0.0/16 1", "allow 8.0.0.0/16 80-90", "allow 8.0.0.0/16 80-90"));
        expect_entry(&table, "8.0.0.0/16", "allow 1-1 #0, allow 80-90 #1");
}
END_TEST

START_TEST(an_entry_holds_eight_ranges_of_its_own_and_enclosing_rules)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        struct policy_table table;
        size_t rule = 99;

        add_written(&policy, "allow 8.1.0.0/16 20,22,24,26");
        add_written(&policy, "allow 9.0.0.0/8 99");
        add_written(&policy, "allow 8.0.0.0/8 10,12,14,16");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        expect_entry(&table, "8.1.0.0/16",
                     "allow 10-10 #2, allow 12-12 #2, allow 14-14 #2, allow 16-16 #2, "
                     "allow 20-20 #0, allow 22-22 #0, allow 24-24 #0, allow 26-26 #0");
        policy_table_deinit(&table);

        add_written(&policy, "allow 8.1.0.0/16 12"); /* is there already */
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        policy_table_deinit(&table);

        add_written(&policy, "allow 8.1.0.0/16 13");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), POLICY_E_TOO_COMPLEX);
        ck_assert_uint_eq(rule, 4);

        add_written(&policy, "deny 8.1.0.0/16 7");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), POLICY_E_TOO_COMPLEX);
        ck_assert_uint_eq(rule, 4);

        /* What joins the others makes room for all. */
        add_written(&policy, "allow 8.0.0.0/8 10-30");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        expect_entry(&table, "8.1.0.0/16", "deny 7-7 #5, allow 10-30 #6");
        policy_table_deinit(&table);
}
END_TEST

/* More than eight ranges; which rule is refused. */
START_TEST(what_does_not_fit_is_refused_by_its_rule)
{
        static const struct {
                const char *rules[4];
                size_t refused;
        } policies[] = {
                /* The one inside, not the one that encloses it. */
                { { "deny 2600::/32 1", "allow ::/0 10,12,14,16,18,20,22,24" }, 0 },
                /* Denied ranges are ranges, too. */
                { { "deny 8.0.0.0/8 10,12,14,16,18,20,22,24", "deny 8.0.0.0/8 30,32",
                    "allow 8.0.0.0/8 31" },
                  1 },
                { { "allow example.org 1", "allow *.org 10,12,14,16,18,20,22,24",
                    "allow org 30,32" },
                  0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
                _cleanup_(policy_deinit) struct policy policy = { 0 };
                struct policy_table table;
                size_t rule = 99;

                for (const char *const *written = policies[i].rules; *written; written++)
                        add_written(&policy, *written);
                ck_assert_int_eq(policy_compile(&policy, &table, &rule), POLICY_E_TOO_COMPLEX);
                ck_assert_msg(rule == policies[i].refused, "%s: %zu", policies[i].rules[0], rule);
        }
}
END_TEST

START_TEST(the_longest_prefix_is_found)
{
        static const char *const found[][2] = {
                { "7.255.255.255", NULL },
                { "8.0.0.0", "8.0.0.0/8" },
                { "8.0.255.255", "8.0.0.0/8" },
                { "8.1.0.0", "8.1.0.0/24" },
                { "8.1.0.255", "8.1.0.0/24" },
                { "8.1.1.0", "8.1.0.0/16" },
                { "8.1.255.254", "8.1.0.0/16" },
                { "8.1.255.255", "8.1.255.255/32" },
                { "8.2.0.0", "8.0.0.0/8" },
                { "9.0.0.0", NULL },
                { "255.255.255.255", "255.255.255.255/32" },
                { "::", "::/128" },
                { "::1", "::/1" },
                { "::8.1.0.0", "::/1" },
                { "::ffff:8.1.0.1", "8.1.0.0/24" },
                { "7fff::", "::/1" },
                { "8000::", NULL },
                { "2600::ffff:ffff:ffff:ffff", "2600::/64" },
                { "2600:0:0:1::", "::/1" },
                { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff::/16" },
        };
        _cleanup_(policy_table_deinit) struct policy_table table;

        compile(&table, RULES("deny 8.0.0.0/8", "deny 8.1.0.0/24", "deny 8.1.0.0/16",
                              "deny 8.1.255.255", "deny 255.255.255.255", "deny ::/1",
                              "deny 2600::/64", "deny ::/128", "deny ffff::/16"));
        for (size_t i = 0; i < ARRAY_SIZE(found); i++) {
                struct policy_address address = address_of(found[i][0]);
                const struct policy_entry *entry = policy_table_find(&table, &address);
                char text[POLICY_CIDR_BUFFER] = "none";

                if (entry)
                        policy_format_cidr(&entry->prefix, text);
                ck_assert_msg(strcmp(text, found[i][1] ? found[i][1] : "none") == 0, "%s: %s",
                              found[i][0], text);
        }
}
END_TEST

START_TEST(prefixes_of_all_addresses_hold_all)
{
        _cleanup_(policy_table_deinit) struct policy_table table;
        const char *const addresses[] = { "0.0.0.0", "255.255.255.255",
                                          "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" };

        compile(&table, RULES("deny 0.0.0.0/0", "deny ::/0"));
        for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
                struct policy_address address = address_of(addresses[i]);

                ck_assert_ptr_eq(policy_table_find(&table, &address), &table.entries[i / 2]);
        }
}
END_TEST

START_TEST(a_prefix_encloses_itself_and_what_is_inside)
{
        struct policy_prefix host = prefix_of("2600::1"), net = prefix_of("2600::/13");
        struct policy_prefix half = prefix_of("2600::/12"), other = prefix_of("2608::/13");
        struct policy_prefix v4 = prefix_of("0.0.0.0/0");

        ck_assert(policy_prefix_encloses(&host, &host));
        ck_assert(policy_prefix_encloses(&net, &host));
        ck_assert(!policy_prefix_encloses(&host, &net));
        ck_assert(policy_prefix_encloses(&half, &other));
        ck_assert(!policy_prefix_encloses(&net, &other));
        ck_assert(!policy_prefix_encloses(&v4, &host));
}
END_TEST

START_TEST(an_empty_policy_has_tables)
{
        _cleanup_(policy_table_deinit) struct policy_table table;
        struct policy_address v4 = address_of("8.8.8.8"), v6 = address_of("2600::1");

        compile(&table, RULES(NULL));
        ck_assert_ptr_null(policy_table_find(&table, &v4));
        ck_assert_ptr_null(policy_table_find(&table, &v6));
        ck_assert_ptr_null(policy_table_find_name(&table, "example.org"));
}
END_TEST

START_TEST(protocols_share_an_entry_and_not_their_ranges)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        _cleanup_(policy_table_deinit) struct policy_table table;
        const struct policy_range *ranges;
        size_t rule;

        add_written(&policy, "allow udp 8.8.8.8 53");
        add_written(&policy, "allow 8.8.8.8 50-60");
        add_written(&policy, "deny udp 8.0.0.0/8 50-60");
        add_written(&policy, "allow icmp 8.0.0.0/8");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        ck_assert_uint_eq(table.n_entries, 2);
        ck_assert_uint_eq(table.entries[1].n_ranges, 3);
        ranges = table.entries[1].ranges;
        ck_assert_uint_eq(policy_ranges_find(ranges, 3, POLICY_TCP, 53)->action, POLICY_ALLOW);
        ck_assert_uint_eq(policy_ranges_find(ranges, 3, POLICY_UDP, 53)->action, POLICY_DENY);
        ck_assert_uint_eq(policy_ranges_find(ranges, 3, POLICY_ICMP, 0)->rule, 3);
        ck_assert_ptr_null(policy_ranges_find(ranges, 3, POLICY_TCP, 61));
}
END_TEST

START_TEST(eight_ranges_are_those_of_all_protocols_together)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        _cleanup_(policy_table_deinit) struct policy_table table = { 0 };
        size_t rule = 0;

        add_written(&policy, "allow udp 8.8.8.8 1,3,5,7");
        add_written(&policy, "allow 8.8.8.8 1,3,5");
        add_written(&policy, "allow icmp 8.8.8.8");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        ck_assert_uint_eq(table.entries[0].n_ranges, 8);
        policy_table_deinit(&table);
        add_written(&policy, "deny udp 8.8.8.8 9");
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), POLICY_E_TOO_COMPLEX);
        ck_assert_uint_eq(rule, 3);
}
END_TEST

START_TEST(wildcards_are_merged_into_names_below)
{
        _cleanup_(policy_table_deinit) struct policy_table table;

        compile(&table, RULES("allow a.b.example 1", "allow *.example 2", "deny *.b.example 3",
                              "allow example 4", "allow b.example 5", "allow *.a.b.example 6",
                              "allow *.xb.example 7", "allow *.b.example 8"));
        expect_name(&table, "example", "allow 4-4 #3");
        expect_name(&table, "c.example", "allow 2-2 #1");
        expect_name(&table, "b.example", "allow 2-2 #1, allow 5-5 #4");
        expect_name(&table, "a.b.example", "deny 3-3 #2, allow 1-1 #0, allow 2-2 #1, allow 8-8 #7");
        expect_name(&table, "x.b.example", "deny 3-3 #2, allow 2-2 #1, allow 8-8 #7");
        expect_name(&table, "y.x.b.example", "deny 3-3 #2, allow 2-2 #1, allow 8-8 #7");
        expect_name(&table, "x.a.b.example",
                    "deny 3-3 #2, allow 2-2 #1, allow 6-6 #5, allow 8-8 #7");
        expect_name(&table, "xb.example", "allow 2-2 #1");
        expect_name(&table, "notexample", "none");
        expect_name(&table, "x.notexample", "none");
        expect_name(&table, "example.other", "none");
        expect_name(&table, "", "none");
        expect_name(&table, ".", "none");
}
END_TEST

START_TEST(each_failed_allocation_is_told_and_leaves_nothing)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        struct policy_table table = { .n_names = 77 };
        unsigned n = 0;
        size_t rule;
        int r;

        add_written(&policy, "allow 8.0.0.0/8");
        add_written(&policy, "allow example.org");
        do {
                fail_allocation(++n);
                r = policy_compile(&policy, &table, &rule);
                ck_assert(r == 0 || (r == -ENOMEM && table.n_names == 77));
        } while (r);
        ck_assert_uint_eq(n, 9);
        policy_table_deinit(&table);
}
END_TEST

/* Each inside the one before, so that every look-up has the deepest answer possible. */
START_TEST(prefixes_may_be_as_deep_as_addresses_are_long)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        _cleanup_(policy_table_deinit) struct policy_table table;
        struct policy_rule added = { .action = POLICY_DENY, .protocol = POLICY_TCP };
        struct policy_address address = address_of("::");
        size_t rule;

        added.prefix.is_v6 = true;
        for (unsigned i = 0; i <= 128; i++) {
                added.prefix.n_bits = (uint8_t)i;
                ck_assert_int_eq(policy_add(&policy, &added), 0);
        }
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        for (unsigned i = 0; i <= 128; i++) {
                const struct policy_entry *entry;

                memset(address.bytes, 0, 16);
                if (i < 128)
                        address.bytes[i / 8] = (uint8_t)(0x80 >> i % 8);
                entry = policy_table_find(&table, &address);
                ck_assert_uint_eq(entry->prefix.n_bits, i);
        }
}
END_TEST

START_TEST(ten_thousand_rules_compile)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        _cleanup_(policy_table_deinit) struct policy_table table;
        struct policy_address address = address_of("8.0.0.0");
        char text[64];
        size_t rule;

        for (unsigned i = 0; i < 10000; i++) {
                (void)snprintf(text, sizeof(text), "%s 8.%u.%u.0/24 %u-%u",
                               i % 3 ? "allow" : "deny", i / 100, i % 100, i % 7 + 1, i % 11 + 10);
                add_written(&policy, text);
        }
        ck_assert_int_eq(policy_compile(&policy, &table, &rule), 0);
        ck_assert_uint_eq(table.n_entries, 10000);
        for (unsigned i = 0; i < 10000; i++) {
                address.bytes[1] = (uint8_t)(i / 100);
                address.bytes[2] = (uint8_t)(i % 100);
                address.bytes[3] = (uint8_t)i;
                ck_assert_uint_eq(policy_table_find(&table, &address)->ranges[0].rule, i);
        }
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                enclosing_prefixes_are_merged_into_longer_ones,
                entries_are_sorted_so_that_each_prefix_precedes_those_inside,
                what_others_cover_is_left_out,
                what_is_equal_names_the_first_rule,
                an_entry_holds_eight_ranges_of_its_own_and_enclosing_rules,
                what_does_not_fit_is_refused_by_its_rule,
                the_longest_prefix_is_found,
                prefixes_of_all_addresses_hold_all,
                a_prefix_encloses_itself_and_what_is_inside,
                an_empty_policy_has_tables,
                protocols_share_an_entry_and_not_their_ranges,
                eight_ranges_are_those_of_all_protocols_together,
                wildcards_are_merged_into_names_below,
                each_failed_allocation_is_told_and_leaves_nothing,
                prefixes_may_be_as_deep_as_addresses_are_long,
                ten_thousand_rules_compile,
        };

        return run_tests("policy_tables", tests, ARRAY_SIZE(tests));
}
