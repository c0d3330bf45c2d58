/* What is short is told from its threshold on, seldom, and until it is over. */

#include <check.h>
#include <stdlib.h>

#include "runtime/base/macros.h"
#include "runtime/supervisor/pressure_rules.h"
#include "test/lib/suite.h"

#define SECOND ((uint64_t)1000000)

static const struct pressure_counters start = { .time_usec = 100 * SECOND, .n_periods = 7 };

static bool tell(struct pressure_told *told, Hotcell__Runtime__V1__PressureKind kind, uint64_t used,
                 uint64_t limit, uint64_t second)
{
        const struct pressure_level level = { .kind = kind, .used = used, .limit = limit };

        return pressure_is_to_be_told(told, &level, second * SECOND);
}

/* Of that kind in thousandths; UINT64_MAX: it is not known. */
static uint64_t rate(Hotcell__Runtime__V1__PressureKind kind,
                     const struct pressure_counters *before, const struct pressure_counters *now)
{
        struct pressure_level levels[PRESSURE_RATES_MAX];
        size_t n = pressure_rates(before, now, levels);

        for (size_t i = 0; i < n; i++) {
                ck_assert_uint_eq(levels[i].limit, 0);
                if (levels[i].kind == kind)
                        return levels[i].used;
        }
        return UINT64_MAX;
}

START_TEST(each_kind_has_its_threshold)
{
        static const struct {
                Hotcell__Runtime__V1__PressureKind kind;
                uint64_t below, at, limit;
        } rows[] = {
                { PRESSURE(MEMORY_LIMIT), 899, 900, 1000 },
                { PRESSURE(MEMORY_LIMIT), (uint64_t)1 << 60, (uint64_t)15 << 60, UINT64_MAX },
                { PRESSURE(MEMORY_STALL), 199, 200, 0 },
                { PRESSURE(CPU_STALL), 199, 200, 0 },
                { PRESSURE(IO_STALL), 199, 200, 0 },
                { PRESSURE(CPU_THROTTLED), 499, 500, 0 },
                { PRESSURE(PROCESSES), 57, 58, 64 },
                { PRESSURE(PROCESSES), 0, 1, 1 },
                { PRESSURE(DISK), 89, 91, 100 },
                { PRESSURE(DISK), 89, 150, 100 },
                { PRESSURE(INODES), 1799, 1800, 2000 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct pressure_told told = { 0 };

                ck_assert(!tell(&told, rows[i].kind, rows[i].below, rows[i].limit, 1));
                ck_assert(tell(&told, rows[i].kind, rows[i].at, rows[i].limit, 2));
        }
}
END_TEST

START_TEST(what_stays_high_is_told_once_in_ten_seconds)
{
        struct pressure_told told = { 0 };
        unsigned n = 0;

        for (uint64_t second = 0; second < 60; second += 2)
                n += tell(&told, PRESSURE(MEMORY_LIMIT), 950, 1000, second);
        ck_assert_uint_eq(n, 6);
}
END_TEST

START_TEST(what_swings_around_the_threshold_is_told_once_in_ten_seconds)
{
        struct pressure_told told = { 0 };
        unsigned n = 0;

        for (uint64_t second = 0; second < 60; second++)
                n += tell(&told, PRESSURE(MEMORY_LIMIT), second % 2 ? 100 : 950, 1000, second);
        ck_assert_uint_eq(n, 6);
}
END_TEST

START_TEST(what_is_a_little_below_is_not_over)
{
        struct pressure_told told = { 0 };

        ck_assert(!tell(&told, PRESSURE(DISK), 870, 1000, 0)); /* it never was above */
        ck_assert(tell(&told, PRESSURE(DISK), 900, 1000, 1));
        ck_assert(tell(&told, PRESSURE(DISK), 850, 1000, 11));
        ck_assert(!tell(&told, PRESSURE(DISK), 849, 1000, 21));
        ck_assert(!tell(&told, PRESSURE(DISK), 899, 1000, 22));
        ck_assert(tell(&told, PRESSURE(DISK), 900, 1000, 23));
}
END_TEST

START_TEST(stalls_are_parts_of_the_time_between_two_looks)
{
        struct pressure_counters now = start;

        now.time_usec += 4 * SECOND;
        now.memory_stall_usec += SECOND;
        now.io_stall_usec += 100 * SECOND;
        ck_assert_uint_eq(rate(PRESSURE(MEMORY_STALL), &start, &now), 250);
        ck_assert_uint_eq(rate(PRESSURE(CPU_STALL), &start, &now), 0);
        ck_assert_uint_eq(rate(PRESSURE(IO_STALL), &start, &now), 1000);
}
END_TEST

START_TEST(throttling_is_a_part_of_periods_if_there_are_some)
{
        struct pressure_counters now = start;

        now.time_usec += 2 * SECOND;
        ck_assert_uint_eq(rate(PRESSURE(CPU_THROTTLED), &start, &now), 0);
        now.n_periods += 20;
        now.n_throttled += 10;
        ck_assert_uint_eq(rate(PRESSURE(CPU_THROTTLED), &start, &now), 500);
        now.n_periods = start.n_periods + 4;
        now.n_throttled = start.n_throttled + 4;
        ck_assert_uint_eq(rate(PRESSURE(CPU_THROTTLED), &start, &now), 0); /* a short burst */
        now.n_periods++;
        now.n_throttled++;
        ck_assert_uint_eq(rate(PRESSURE(CPU_THROTTLED), &start, &now), 1000);
}
END_TEST

START_TEST(what_is_not_counted_is_not_told)
{
        struct pressure_counters now = start;
        struct pressure_counters before = start;
        struct pressure_level levels[PRESSURE_RATES_MAX];

        now.time_usec += SECOND;
        now.memory_stall_usec = PRESSURE_UNKNOWN;
        ck_assert_uint_eq(rate(PRESSURE(MEMORY_STALL), &before, &now), UINT64_MAX);
        before.cpu_stall_usec = PRESSURE_UNKNOWN;
        ck_assert_uint_eq(rate(PRESSURE(CPU_STALL), &before, &now), UINT64_MAX);
        before.io_stall_usec = 5; /* it went back */
        ck_assert_uint_eq(rate(PRESSURE(IO_STALL), &before, &now), UINT64_MAX);
        now.n_throttled = PRESSURE_UNKNOWN;
        ck_assert_uint_eq(pressure_rates(&before, &now, levels), 0);
        ck_assert_uint_eq(pressure_rates(&start, &start, levels), 0); /* no time passed */
}
END_TEST

START_TEST(it_is_quiet_only_when_nothing_waited_for_anything)
{
        const struct pressure_counters rows[] = {
                { .memory_stall_usec = 1 },
                { .cpu_stall_usec = 1 },
                { .io_stall_usec = 1 },
        };
        const struct pressure_counters later = { .time_usec = 102 * SECOND, .n_periods = 9 };
        const struct pressure_counters unknown = { .memory_stall_usec = PRESSURE_UNKNOWN,
                                                   .cpu_stall_usec = PRESSURE_UNKNOWN,
                                                   .io_stall_usec = PRESSURE_UNKNOWN };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                ck_assert_uint_eq(pressure_count_quiet(2, &start, &rows[i]), 0);
        ck_assert_uint_eq(pressure_count_quiet(0, &start, &later), 1);
        ck_assert_uint_eq(pressure_count_quiet(1, &start, &later), 2);
        ck_assert_uint_eq(pressure_count_quiet(2, &unknown, &unknown), PRESSURE_QUIET_LOOKS);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("pressure_rules");
        TCase *tests = tcase_create("pressure_rules");

        tcase_add_test(tests, each_kind_has_its_threshold);
        tcase_add_test(tests, what_stays_high_is_told_once_in_ten_seconds);
        tcase_add_test(tests, what_swings_around_the_threshold_is_told_once_in_ten_seconds);
        tcase_add_test(tests, what_is_a_little_below_is_not_over);
        tcase_add_test(tests, stalls_are_parts_of_the_time_between_two_looks);
        tcase_add_test(tests, throttling_is_a_part_of_periods_if_there_are_some);
        tcase_add_test(tests, what_is_not_counted_is_not_told);
        tcase_add_test(tests, it_is_quiet_only_when_nothing_waited_for_anything);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
