/* What is done with all fields of a usage: each of them has its rule, and none is left out. */
#include <check.h>
#include <stddef.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/store/usage.h"
#include "test/lib/suite.h"

#define ROW(field, kind) { #field, offsetof(struct usage, field), USAGE_##kind },

static const struct row {
        const char *name;
        size_t offset;
        enum usage_kind kind;
} rows[] = { USAGE_FIELDS(ROW) };

static int64_t get(const struct usage *usage, size_t i)
{
        int64_t value;

        memcpy(&value, (const char *)usage + rows[i].offset, sizeof(value));
        return value;
}

/* Every byte that is an amount's, also one that the list does not know. */
static struct usage make_usage(int64_t value)
{
        struct usage usage = { 0 };

        for (size_t at = 0; at < offsetof(struct usage, missing); at += sizeof(value))
                memcpy((char *)&usage + at, &value, sizeof(value));
        return usage;
}

/* Of the CPU time: not only a difference. */
static bool is_part(size_t row)
{
        return rows[row].offset == offsetof(struct usage, cpu_user_usec) ||
               rows[row].offset == offsetof(struct usage, cpu_system_usec);
}

static void check_each(const struct usage *is, const int64_t should_be[static USAGE_PEAK + 1])
{
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                ck_assert_msg(is_part(i) || get(is, i) == should_be[rows[i].kind],
                              "%s: %lld, not %lld", rows[i].name, (long long)get(is, i),
                              (long long)should_be[rows[i].kind]);
}

START_TEST(each_field_is_in_the_list_once)
{
        char seen[sizeof(struct usage)] = { 0 };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                ck_assert_int_eq(seen[rows[i].offset], 0);
                memset(&seen[rows[i].offset], 1, sizeof(int64_t));
        }
        memset(&seen[offsetof(struct usage, missing)], 1,
               sizeof(struct usage) - offsetof(struct usage, missing));
        ck_assert_ptr_null(memchr(seen, 0, sizeof(seen)));
}
END_TEST

START_TEST(amounts_add_up_and_peaks_are_the_highest)
{
        struct usage sum = make_usage(5), low = make_usage(3);

        low.missing = BIT(USAGE_PART_WAIT);
        usage_add(&sum, &low);
        check_each(&sum, (const int64_t[]){ 8, 8, 8, 8, 5 });
        ck_assert_uint_eq(sum.missing, BIT(USAGE_PART_WAIT));
        low = make_usage(INT64_MAX - 1);
        usage_add(&sum, &low);
        check_each(&sum,
                   (const int64_t[]){ INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX - 1 });
}
END_TEST

START_TEST(differences_are_never_below_zero)
{
        struct usage high = make_usage(9), low = make_usage(4), since;

        low.missing = BIT(USAGE_PART_TRAFFIC);
        usage_since(&high, &low, &since);
        check_each(&since, (const int64_t[]){ 5, 5, 5, 5, 9 });
        ck_assert_uint_eq(since.missing, BIT(USAGE_PART_TRAFFIC));
        usage_since(&low, &high, &since);
        check_each(&since, (const int64_t[]){ 0, 0, 0, 0, 4 });
}
END_TEST

START_TEST(parts_of_a_difference_add_up_to_it)
{
        /* Two readings of which one has less of a part than the one before. */
        struct usage now = { .cpu_usec = 1000, .cpu_user_usec = 500, .cpu_system_usec = 500 };
        struct usage before = { .cpu_usec = 941, .cpu_user_usec = 404, .cpu_system_usec = 537 };
        struct usage rest, sum = before;

        usage_rest(&now, &before, &rest);
        ck_assert_int_eq(rest.cpu_usec, 59);
        ck_assert_int_eq(rest.cpu_user_usec, 59);
        ck_assert_int_eq(rest.cpu_system_usec, 0);
        usage_add(&sum, &rest);
        now = (struct usage){ .cpu_usec = 1100, .cpu_user_usec = 510, .cpu_system_usec = 590 };
        usage_rest(&now, &sum, &rest);
        usage_add(&sum, &rest); /* what one row has too little of, the next one has */
        ck_assert_int_eq(sum.cpu_user_usec, 510);
        ck_assert_int_eq(sum.cpu_system_usec, 590);
}
END_TEST

START_TEST(a_rest_is_what_a_sandbox_can_have_of_its_own)
{
        struct usage total = make_usage(9), billed = make_usage(4), rest;

        billed.missing = BIT(USAGE_PART_TRAFFIC); /* of another row */
        usage_rest(&total, &billed, &rest);
        check_each(&rest, (const int64_t[]){ 5, 5, 0, 5, 9 });
        ck_assert_uint_eq(rest.missing, 0);
}
END_TEST

START_TEST(what_is_of_a_sandbox_is_none_of_an_execution_and_no_gap)
{
        struct usage usage = make_usage(9);

        usage.missing = BIT(USAGE_PART_THROTTLED);
        usage_drop_of_sandbox(&usage);
        check_each(&usage, (const int64_t[]){ 9, 0, 9, 9, 9 });
        ck_assert_uint_eq(usage.missing, 0);
}
END_TEST

START_TEST(each_amount_alone_is_something)
{
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                bool is_amount = rows[i].kind != USAGE_TIME && rows[i].kind != USAGE_PEAK;
                struct usage usage = { .missing = 1 };
                int64_t one = 1;

                memcpy((char *)&usage + rows[i].offset, &one, sizeof(one));
                ck_assert_msg(usage_is_nothing(&usage) != is_amount, "%s", rows[i].name);
        }
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("store_usage");
        TCase *tcase = tcase_create("usage");
        const TTest *const tests[] = {
                each_field_is_in_the_list_once,
                amounts_add_up_and_peaks_are_the_highest,
                differences_are_never_below_zero,
                parts_of_a_difference_add_up_to_it,
                a_rest_is_what_a_sandbox_can_have_of_its_own,
                what_is_of_a_sandbox_is_none_of_an_execution_and_no_gap,
                each_amount_alone_is_something,
        };

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
