/* The relay's tables in the kernel: what it writes, and that it finds nothing of the one before. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "runtime/base/macros.h"
#include "runtime/egress/tables.h"
#include "test/bpf/fixture.h"
#include "test/lib/suite.h"

static struct fixture f;
static struct tables tables;

static void open_tables(void)
{
        int fds[_EGRESS_MAP_N];

        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = fcntl(egress_wall_map_fd(f.wall, (enum egress_map)i), F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(tables_init(&tables, fds, BOXES), 0);
}

static void setup(void)
{
        fixture_init(&f);
        open_tables();
}

static void teardown(void)
{
        tables_deinit(&tables);
        fixture_deinit(&f);
}

/* How many entries a table has. */
static size_t count(enum egress_map map)
{
        uint8_t key[64], next[64];
        const void *previous = NULL;
        size_t n = 0;

        while (bpf_map_get_next_key(tables.fds[map], previous, next) == 0) {
                (void)memcpy(key, next, sizeof(key));
                previous = key;
                n++;
        }
        return n;
}

static int put_table(const struct policy_table *table, uint32_t *ret_number)
{
        int r = 0;

        *ret_number = tables_new_number(&tables);
        for (size_t i = 0; i < table->n_entries && !r; i++)
                r = tables_put_entry(&tables, *ret_number, &table->entries[i]);
        return r;
}

static void remove_table(const struct policy_table *table, uint32_t number)
{
        for (size_t i = 0; i < table->n_entries; i++)
                tables_remove_entry(&tables, number, &table->entries[i]);
}

static void put(const char *const *cidrs, size_t n, struct policy_table *ret_table,
                uint32_t *ret_number)
{
        struct policy policy = { .default_action = POLICY_DEFAULT_DENY };
        size_t rule;

        for (size_t i = 0; i < n; i++) {
                struct policy_rule added = { .action = POLICY_ALLOW, .protocol = POLICY_TCP };

                ck_assert_int_eq(policy_parse_cidr(cidrs[i], &added.prefix), 0);
                ck_assert_int_eq(policy_add(&policy, &added), 0);
        }
        ck_assert_int_eq(policy_compile(&policy, ret_table, &rule), 0);
        policy_deinit(&policy);
        ck_assert_int_eq(put_table(ret_table, ret_number), 0);
}

static const char *const cidrs[] = { "8.8.8.0/24", "9.9.0.0/16", "2606:2800::/32" };

static struct egress_sandbox entry_of(const struct box *box)
{
        struct egress_sandbox entry;

        ck_assert_int_eq(
                bpf_map_lookup_elem(tables.fds[EGRESS_MAP_SANDBOXES], &box->group.id, &entry), 0);
        return entry;
}

START_TEST(a_policy_comes_and_goes_whole)
{
        struct policy_table table;
        uint32_t first, second;

        put(cidrs, ARRAY_SIZE(cidrs), &table, &first);
        ck_assert_uint_ne(first, EGRESS_POLICY_ALWAYS);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES4), 2);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES6), 1);
        ck_assert_int_eq(put_table(&table, &second), 0);
        ck_assert_uint_ne(first, second);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES4), 4);
        remove_table(&table, first);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES4), 2);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES6), 1);
        remove_table(&table, second);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES4), 0);
        policy_table_deinit(&table);
}
END_TEST

/* Another process begins with the same numbers. */
START_TEST(nothing_is_left_of_the_one_before)
{
        const struct policy_range range = { 1, 65535, POLICY_ALLOW, POLICY_TCP, 0 };
        const struct policy_address address = policy_address_v4("\x08\x08\x08\x08");
        struct egress_sandbox entry = { .relay_port = 9, .slot = 1 };
        struct policy_table table;

        put(cidrs, ARRAY_SIZE(cidrs), &table, &entry.policy);
        ck_assert_int_eq(tables_put_name(&tables, entry.policy, &address, &range, 1, UINT64_MAX),
                         0);
        ck_assert_int_eq(tables_set_sandbox(&tables, f.boxes[1].group.id, &entry), 0);
        policy_table_deinit(&table);
        tables_deinit(&tables);

        open_tables();
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES4), 2);
        ck_assert_uint_eq(count(EGRESS_MAP_NAMES), 1);
        ck_assert_int_eq(tables_sweep(&tables), 0);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES4), 0);
        ck_assert_uint_eq(count(EGRESS_MAP_PREFIXES6), 0);
        ck_assert_uint_eq(count(EGRESS_MAP_NAMES), 0);
        ck_assert_uint_eq(count(EGRESS_MAP_SANDBOXES), BOXES);
        ck_assert_uint_eq(entry_of(&f.boxes[1]).policy, EGRESS_POLICY_ALWAYS);
        ck_assert_uint_eq(entry_of(&f.boxes[1]).relay_port, 9);
        ck_assert_uint_eq(entry_of(&f.boxes[1]).slot, 1);
}
END_TEST

START_TEST(a_sandbox_that_is_gone_gets_no_entry)
{
        const struct egress_sandbox entry = { .policy = 1 };

        egress_wall_forget(f.wall, f.boxes[0].group.id);
        ck_assert_int_eq(tables_set_sandbox(&tables, f.boxes[0].group.id, &entry), -ENOENT);
        ck_assert_uint_eq(count(EGRESS_MAP_SANDBOXES), BOXES - 1);
}
END_TEST

enum { SANDBOX = 7, PLACE = 5 };

static void write_token(uint64_t serial, uint64_t cgroup_id)
{
        const struct egress_token token = { .serial = serial, .cgroup_id = cgroup_id };
        const uint32_t place = EGRESS_TOKENS + PLACE; /* of slot 1 */

        ck_assert_int_eq(
                bpf_map_update_elem(tables.fds[EGRESS_MAP_TOKENS], &place, &token, BPF_ANY), 0);
}

static int find_token(uint32_t slot, uint32_t number, unsigned n_bits)
{
        struct egress_token found;

        return tables_find_token(&tables, slot, SANDBOX, number, n_bits, &found);
}

START_TEST(tokens_are_found_by_all_of_their_number)
{
        const uint32_t number = 3 * EGRESS_TOKENS + PLACE;

        write_token(3, SANDBOX);
        ck_assert_int_eq(find_token(1, number, EGRESS_RELAY4_BITS), 0);
        ck_assert_int_eq(find_token(0, number, EGRESS_RELAY4_BITS), TABLES_E_FORGED);
        ck_assert_int_eq(find_token(1, number + 1, EGRESS_RELAY4_BITS), TABLES_E_FORGED);
        ck_assert_int_eq(find_token(BOXES, number, EGRESS_RELAY4_BITS), TABLES_E_FORGED);
        /* An address holds only the lower bits. */
        write_token(3 + ((uint64_t)1 << EGRESS_RELAY4_BITS), SANDBOX);
        ck_assert_int_eq(find_token(1, number, EGRESS_RELAY4_BITS), 0);
        static_assert(EGRESS_RELAY4_BITS < 32, "the other family has more");
        ck_assert_int_eq(find_token(1, number, 32), TABLES_E_OVERWRITTEN);
}
END_TEST

START_TEST(a_token_that_a_later_one_replaced_is_told_from_one_that_never_was)
{
        const unsigned bits[] = { EGRESS_RELAY4_BITS, 32 };

        for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
                write_token(3, SANDBOX);
                ck_assert_int_eq(find_token(1, 2 * EGRESS_TOKENS + PLACE, bits[i]),
                                 TABLES_E_OVERWRITTEN);
                ck_assert_int_eq(find_token(1, EGRESS_TOKENS + PLACE, bits[i]),
                                 TABLES_E_OVERWRITTEN);
                ck_assert_int_eq(find_token(1, PLACE, bits[i]), TABLES_E_FORGED);
                ck_assert_int_eq(find_token(1, 4 * EGRESS_TOKENS + PLACE, bits[i]),
                                 TABLES_E_FORGED);
                /* Of the sandbox that had the slot before. */
                write_token(3, SANDBOX + 1);
                ck_assert_int_eq(find_token(1, 3 * EGRESS_TOKENS + PLACE, bits[i]),
                                 TABLES_E_FORGED);
                ck_assert_int_eq(find_token(1, 2 * EGRESS_TOKENS + PLACE, bits[i]),
                                 TABLES_E_FORGED);
        }
}
END_TEST

/* As the wall leaves it between its first store and its last. */
START_TEST(a_token_that_is_being_written_is_torn)
{
        write_token(0, SANDBOX);
        ck_assert_int_eq(find_token(1, 3 * EGRESS_TOKENS + PLACE, EGRESS_RELAY4_BITS),
                         TABLES_E_TORN);
        write_token(0, 0);
        ck_assert_int_eq(find_token(1, PLACE, EGRESS_RELAY4_BITS), TABLES_E_FORGED);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("tables");
        TCase *tests = tcase_create("tables");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 60);
        tcase_add_test(tests, a_policy_comes_and_goes_whole);
        tcase_add_test(tests, nothing_is_left_of_the_one_before);
        tcase_add_test(tests, a_sandbox_that_is_gone_gets_no_entry);
        tcase_add_test(tests, tokens_are_found_by_all_of_their_number);
        tcase_add_test(tests, a_token_that_a_later_one_replaced_is_told_from_one_that_never_was);
        tcase_add_test(tests, a_token_that_is_being_written_is_torn);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
