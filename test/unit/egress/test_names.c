/* Which names an address stands for, for how long, and how many there may be. */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/names.h"
#include "test/lib/suite.h"
#include "test/unit/egress/want.h"

enum { NOW = 1000, LATER = 2000 };

static struct names names;
static size_t n_dropped;
static size_t n_all;

static void setup(void)
{
        n_all = 0;
        names = (struct names){ .n_all = &n_all };
        n_dropped = 0;
}

static void teardown(void)
{
        names_deinit(&names);
        ck_assert_uint_eq(names.n_addresses, 0);
}

static void count_dropped(const struct named_address *address, void *userdata)
{
        ck_assert_ptr_eq(userdata, &names);
        ck_assert_uint_eq(address->n_entries, 0);
        n_dropped++;
}

static struct policy_address address_number(uint32_t number)
{
        const uint8_t bytes[4] = { 8, (uint8_t)(number >> 16), (uint8_t)(number >> 8),
                                   (uint8_t)number };

        return policy_address_v4(bytes);
}

static int admit(uint32_t number, const char *name, uint64_t expire_usec, uint64_t now_usec)
{
        const struct policy_address address = address_number(number);
        struct name_entry entry = { .expire_usec = expire_usec };

        (void)snprintf(entry.name, sizeof(entry.name), "%s", name);
        return names_admit(&names, &address, &entry, now_usec, count_dropped, &names);
}

static const struct named_address *find(uint32_t number, uint64_t now_usec)
{
        const struct policy_address address = address_number(number);

        return names_find(&names, &address, now_usec);
}

static bool has_name(uint32_t number, uint64_t now_usec, const char *name)
{
        const struct named_address *found = find(number, now_usec);

        for (size_t i = 0; found && i < found->n_entries; i++)
                if (strcmp(found->entries[i].name, name) == 0)
                        return true;
        return false;
}

START_TEST(an_address_stands_for_its_name_until_it_expires)
{
        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert(has_name(1, NOW, "a.example"));
        ck_assert(has_name(1, LATER - 1, "a.example"));
        ck_assert(!has_name(2, NOW, "a.example"));
        ck_assert_ptr_null(find(1, LATER));
}
END_TEST

START_TEST(families_are_apart)
{
        uint8_t bytes[16] = { 8, 0, 0, 1 };
        const struct policy_address v6 = policy_address_v6(bytes);

        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert_ptr_null(names_find(&names, &v6, NOW));
}
END_TEST

START_TEST(a_name_that_is_given_out_again_lives_longer)
{
        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert_int_eq(admit(1, "a.example", 2 * LATER, NOW), 0);
        ck_assert_uint_eq(find(1, LATER)->n_entries, 1);
}
END_TEST

START_TEST(names_share_an_address)
{
        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert_int_eq(admit(1, "b.example", 2 * LATER, NOW), 0);
        ck_assert(has_name(1, NOW, "a.example"));
        ck_assert(has_name(1, NOW, "b.example"));
        ck_assert(!has_name(1, LATER, "a.example"));
        ck_assert(has_name(1, LATER, "b.example"));
}
END_TEST

START_TEST(one_name_too_many_replaces_that_which_expires_first)
{
        static const char *const all[] = { "a.example", "b.example", "c.example", "d.example" };

        static_assert(ARRAY_SIZE(all) == NAMES_OF_ADDRESS_MAX, "they fill it");
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                ck_assert_int_eq(admit(1, all[i], i == 2 ? LATER : 2 * LATER, NOW), 0);
        ck_assert_int_eq(admit(1, "e.example", LATER, NOW), 0);
        ck_assert(!has_name(1, NOW, "c.example"));
        ck_assert(has_name(1, NOW, "a.example"));
        ck_assert(has_name(1, NOW, "d.example"));
        ck_assert(has_name(1, NOW, "e.example"));
}
END_TEST

static void fill(void)
{
        for (uint32_t i = 0; i < NAMES_ADDRESSES_MAX; i++)
                ck_assert_int_eq(admit(i, "a.example", i == 7 ? LATER : 3 * LATER, NOW), 0);
}

/* Of the places that others leave the half. */
START_TEST(what_all_have_is_shared)
{
        enum { LEFT = 10 };

        n_all = NAMES_ADDRESSES_ALL - LEFT;
        for (uint32_t i = 0; i < LEFT / 2; i++)
                ck_assert_int_eq(admit(i, "a.example", i == 1 ? LATER : 3 * LATER, NOW), 0);
        ck_assert_int_eq(admit(LEFT, "a.example", 3 * LATER, NOW), NAMES_E_FULL);
        ck_assert_int_eq(admit(LEFT, "a.example", 3 * LATER, LATER), 0);
        ck_assert_uint_eq(n_dropped, 1);
        ck_assert_uint_eq(n_all, NAMES_ADDRESSES_ALL - LEFT + LEFT / 2);
}
END_TEST

START_TEST(what_has_expired_is_dropped_when_asked_for)
{
        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert_int_eq(admit(2, "a.example", 3 * LATER, NOW), 0);
        names_expire(&names, LATER, count_dropped, &names);
        ck_assert_uint_eq(n_dropped, 1);
        ck_assert_uint_eq(n_all, 1);
        ck_assert(has_name(2, LATER, "a.example"));
}
END_TEST

START_TEST(when_it_is_full_nothing_new_comes_in)
{
        fill();
        ck_assert_int_eq(admit(NAMES_ADDRESSES_MAX, "b.example", LATER, NOW), NAMES_E_FULL);
        ck_assert_int_eq(admit(1, "b.example", LATER, NOW), 0);
        ck_assert_uint_eq(n_dropped, 0);
        ck_assert_ptr_null(find(NAMES_ADDRESSES_MAX, NOW));
}
END_TEST

START_TEST(what_has_expired_makes_room)
{
        fill();
        ck_assert_int_eq(admit(NAMES_ADDRESSES_MAX, "b.example", 3 * LATER, LATER), 0);
        ck_assert_uint_eq(n_dropped, 1);
        ck_assert_uint_eq(names.n_addresses, NAMES_ADDRESSES_MAX);
        ck_assert(has_name(NAMES_ADDRESSES_MAX, LATER, "b.example"));
}
END_TEST

START_TEST(without_memory_for_a_table_the_address_is_refused)
{
        use_reserve_up();
        for (size_t n_good = 0; n_good < 3; n_good++) {
                begin_want(n_good);
                ck_assert_int_eq(admit(1, "a.example", LATER, NOW), -ENOMEM);
                end_want();
                ck_assert_uint_eq(names.n_addresses, 0);
                ck_assert_ptr_null(find(1, NOW));
        }
        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert(has_name(1, NOW, "a.example"));
        give_reserve_back();
}
END_TEST

/* Each address takes one allocation: what is more is the table's. */
START_TEST(a_table_that_cannot_grow_holds_all_the_same)
{
        use_reserve_up();
        ck_assert_int_eq(admit(0, "a.example", LATER, NOW), 0);
        for (uint32_t i = 1; i < NAMES_ADDRESSES_MAX; i++) {
                begin_want(1);
                ck_assert_int_eq(admit(i, "a.example", LATER, NOW), 0);
                end_want();
        }
        for (uint32_t i = 0; i < NAMES_ADDRESSES_MAX; i++)
                ck_assert(has_name(i, NOW, "a.example"));
        give_reserve_back();
}
END_TEST

static void count_visit(const struct named_address *address, void *userdata)
{
        size_t *n = userdata;

        (void)address;
        (*n)++;
}

START_TEST(only_good_ones_are_visited)
{
        size_t n = 0;

        ck_assert_int_eq(admit(1, "a.example", LATER, NOW), 0);
        ck_assert_int_eq(admit(2, "a.example", 2 * LATER, NOW), 0);
        ck_assert_int_eq(admit(3, "b.example", 2 * LATER, NOW), 0);
        names_for_each(&names, LATER, count_visit, &n);
        ck_assert_uint_eq(n, 2);
        n = 0;
        ck_assert_ptr_null(find(1, LATER));
        names_for_each(&names, 0, count_visit, &n);
        ck_assert_uint_eq(n, 3);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("names");
        TCase *tests = tcase_create("names");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, an_address_stands_for_its_name_until_it_expires);
        tcase_add_test(tests, families_are_apart);
        tcase_add_test(tests, a_name_that_is_given_out_again_lives_longer);
        tcase_add_test(tests, names_share_an_address);
        tcase_add_test(tests, one_name_too_many_replaces_that_which_expires_first);
        tcase_add_test(tests, what_all_have_is_shared);
        tcase_add_test(tests, what_has_expired_is_dropped_when_asked_for);
        tcase_add_test(tests, when_it_is_full_nothing_new_comes_in);
        tcase_add_test(tests, what_has_expired_makes_room);
        tcase_add_test(tests, without_memory_for_a_table_the_address_is_refused);
        tcase_add_test(tests, a_table_that_cannot_grow_holds_all_the_same);
        tcase_add_test(tests, only_good_ones_are_visited);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
