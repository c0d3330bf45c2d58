/* Memory over time. */

#include <check.h>

#include "runtime/base/macros.h"
#include "runtime/supervisor/memory_time.h"
#include "test/lib/suite.h"

static const uint64_t second = 1000000;

START_TEST(between_two_looks_it_is_the_average)
{
        struct memory_time time;

        memory_time_begin(&time, 5 * second);
        memory_time_add(&time, 7 * second, 1000);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 1000);
        memory_time_add(&time, 8 * second, 3000);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 3000);
        memory_time_add(&time, 10 * second, 0);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 6000);
        memory_time_add(&time, 12 * second, 0);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 6000);
}
END_TEST

START_TEST(nothing_is_lost_in_short_looks)
{
        struct memory_time time;

        memory_time_begin(&time, 0);
        memory_time_add(&time, 0, 1);
        for (uint64_t usec = 1; usec <= 3 * second; usec++)
                memory_time_add(&time, usec, 1);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 3);
}
END_TEST

START_TEST(a_clock_that_stands_or_goes_back_adds_nothing)
{
        struct memory_time time;

        memory_time_begin(&time, 2 * second);
        memory_time_add(&time, 2 * second, 1 << 20);
        memory_time_add(&time, second, 1 << 20);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 0);
        memory_time_add(&time, 3 * second, 1 << 20);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), 1 << 20);
}
END_TEST

START_TEST(a_century_of_a_large_machine_fits_and_more_is_cut)
{
        const uint64_t century = 100ULL * 366 * 86400 * second;
        const uint64_t large = 4ULL << 30;
        struct memory_time time;

        memory_time_begin(&time, 0);
        memory_time_add(&time, 0, large);
        memory_time_add(&time, century, large);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), large * (century / second));
        memory_time_add(&time, 2 * century, UINT64_MAX);
        ck_assert_uint_eq(memory_time_byte_seconds(&time), UINT64_MAX);
}
END_TEST

/* As hotcell-runtime samples them: the whole at the instants of its parts, and never below them. */
START_TEST(a_whole_is_never_less_than_its_parts)
{
        struct memory_time parts[3];
        struct memory_time whole;
        uint64_t random = 1;
        uint64_t sum = 0;

        memory_time_begin(&whole, 0);
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
                memory_time_begin(&parts[i], 0);
        for (uint64_t usec = 0; usec < 100 * second; usec += 1 + random % second) {
                uint64_t bytes = 0;

                for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
                        random = random * 6364136223846793005U + 1442695040888963407U;
                        memory_time_add(&parts[i], usec, random >> 40);
                        bytes += random >> 40;
                }
                memory_time_add(&whole, usec, bytes);
        }
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
                sum += memory_time_byte_seconds(&parts[i]);
        ck_assert_uint_ge(memory_time_byte_seconds(&whole), sum);
        ck_assert_uint_le(memory_time_byte_seconds(&whole), sum + ARRAY_SIZE(parts));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("memory_time");
        TCase *tests = tcase_create("memory_time");

        tcase_add_test(tests, between_two_looks_it_is_the_average);
        tcase_add_test(tests, nothing_is_lost_in_short_looks);
        tcase_add_test(tests, a_clock_that_stands_or_goes_back_adds_nothing);
        tcase_add_test(tests, a_century_of_a_large_machine_fits_and_more_is_cut);
        tcase_add_test(tests, a_whole_is_never_less_than_its_parts);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
