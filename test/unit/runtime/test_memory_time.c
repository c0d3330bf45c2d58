/* Memory over time. */

#include <check.h>
#include <stdbool.h>

#include "runtime/base/macros.h"
#include "runtime/meters/memory_time.h"
#include "test/lib/suite.h"

static const uint64_t second = 1000000;

START_TEST(what_was_found_is_held_until_the_next_look)
{
        struct memory_time time;

        memory_time_begin(&time, 5 * second);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 7 * second), 0);
        memory_time_add(&time, 7 * second, 1000);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 7 * second), 0);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 8 * second), 1000);
        memory_time_add(&time, 9 * second, 3000);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 10 * second), 5000);
        memory_time_add(&time, 10 * second, 0);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 20 * second), 5000);
}
END_TEST

START_TEST(nothing_is_lost_in_short_looks)
{
        struct memory_time time;

        memory_time_begin(&time, 0);
        memory_time_add(&time, 0, 1);
        for (uint64_t usec = 1; usec <= 3 * second; usec++)
                memory_time_add(&time, usec, 1);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 3 * second), 3);
}
END_TEST

START_TEST(a_clock_that_stands_or_goes_back_adds_nothing)
{
        struct memory_time time;

        memory_time_begin(&time, 2 * second);
        memory_time_add(&time, 2 * second, 1 << 20);
        memory_time_add(&time, second, 1 << 20);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, second), 0);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 3 * second), 1 << 20);
}
END_TEST

START_TEST(a_century_of_a_large_machine_fits_and_more_is_cut)
{
        const uint64_t century = 100ULL * 366 * 86400 * second;
        const uint64_t large = 4ULL << 30;
        struct memory_time time;

        memory_time_begin(&time, 0);
        memory_time_add(&time, 0, large);
        memory_time_add(&time, century, UINT64_MAX);
        ck_assert_uint_eq(memory_time_byte_seconds(&time, century), large * (century / second));
        ck_assert_uint_eq(memory_time_byte_seconds(&time, 2 * century), UINT64_MAX);
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
                sum += memory_time_byte_seconds(&parts[i], 100 * second);
        ck_assert_uint_ge(memory_time_byte_seconds(&whole, 100 * second), sum);
        ck_assert_uint_le(memory_time_byte_seconds(&whole, 100 * second), sum + ARRAY_SIZE(parts));
}
END_TEST

/* --- when it is looked at --- */

enum { LOOKS = 200000, MEAN_USEC = 100000 };

static uint64_t draw(void)
{
        static uint64_t state = 1;

        state = state * 6364136223846793005U + 1442695040888963407U;
        return state ^ state >> 32;
}

/* Of all the time that it held memory, in hundredths: of one that sees when it is looked at, and
 * from then on holds memory after @rest_usec, for @hold_usec, as often as there is time. */
static double billed(uint64_t rest_usec, uint64_t hold_usec)
{
        uint64_t period_usec = rest_usec + hold_usec;
        struct memory_time time;
        uint64_t now_usec = 0;
        uint64_t held_usec = 0;

        memory_time_begin(&time, 0);
        for (unsigned i = 0; i < LOOKS; i++) {
                uint64_t gap_usec = memory_time_gap_usec(MEAN_USEC, draw());
                uint64_t rest = gap_usec % period_usec;
                bool is_holding = rest > rest_usec;

                now_usec += gap_usec;
                held_usec += gap_usec / period_usec * hold_usec;
                held_usec += is_holding ? rest - rest_usec : 0;
                memory_time_add(&time, now_usec, is_holding ? second : 0);
        }
        return 100.0 * (double)memory_time_byte_seconds(&time, now_usec) / (double)held_usec;
}

START_TEST(who_knows_when_it_was_looked_at_knows_nothing_of_the_next_time)
{
        static const uint64_t games_usec[][2] = {
                { 0, 10000 },      /* hardly after a look */
                { 10000, 30000 },  /* by turns */
                { 1000, 80000 },   /* until shortly before another could come */
                { 120000, 40000 }, /* after most have come */
        };

        for (size_t i = 0; i < ARRAY_SIZE(games_usec); i++) {
                double share = billed(games_usec[i][0], games_usec[i][1]);

                ck_assert_msg(share > 90 && share < 110, "game %zu: %.1f %%", i, share);
        }
}
END_TEST

START_TEST(a_look_comes_in_good_time_whatever_is_drawn)
{
        uint64_t sum_usec = 0;

        ck_assert_uint_eq(memory_time_gap_usec(MEAN_USEC, 0), 4 * MEAN_USEC);
        ck_assert_uint_eq(memory_time_gap_usec(MEAN_USEC, UINT64_MAX), 0);
        for (unsigned i = 0; i < LOOKS; i++)
                sum_usec += memory_time_gap_usec(MEAN_USEC, draw());
        ck_assert_uint_ge(sum_usec / LOOKS, MEAN_USEC * 95 / 100);
        ck_assert_uint_le(sum_usec / LOOKS, MEAN_USEC * 101 / 100);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("memory_time");
        TCase *tests = tcase_create("memory_time");

        tcase_add_test(tests, what_was_found_is_held_until_the_next_look);
        tcase_add_test(tests, nothing_is_lost_in_short_looks);
        tcase_add_test(tests, a_clock_that_stands_or_goes_back_adds_nothing);
        tcase_add_test(tests, a_century_of_a_large_machine_fits_and_more_is_cut);
        tcase_add_test(tests, a_whole_is_never_less_than_its_parts);
        tcase_add_test(tests, who_knows_when_it_was_looked_at_knows_nothing_of_the_next_time);
        tcase_add_test(tests, a_look_comes_in_good_time_whatever_is_drawn);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
