/* What the runtime's meters say is taken for what it is, each of them. */
#include <check.h>

#include "runtime/base/macros.h"
#include "server/session/meters.h"
#include "test/lib/suite.h"

#define PART(name) HOTCELL__RUNTIME__V1__METER_PART__METER_PART_##name

/* No two are the same. */
static Hotcell__Runtime__V1__Usage make_meters(void)
{
        Hotcell__Runtime__V1__Usage meters;

        hotcell__runtime__v1__usage__init(&meters);
        meters.cpu_usec = 1;
        meters.cpu_user_usec = 2;
        meters.cpu_system_usec = 3;
        meters.memory_bytes = 4;
        meters.memory_peak_bytes = 5;
        meters.memory_byte_seconds = 6;
        meters.oom_kills = 7;
        meters.processes = 8;
        meters.disk_bytes = 9;
        meters.scheduled_usec = 10;
        meters.wait_usec = 11;
        meters.n_switches = 12;
        meters.earlier_usec = 13;
        meters.rss_peak_bytes = 14;
        meters.sent_bytes = 15;
        meters.received_bytes = 16;
        meters.n_throttled = 17;
        meters.throttled_usec = 18;
        meters.wall_usec = 19;
        return meters;
}

START_TEST(each_meter_has_its_amount)
{
        const Hotcell__Runtime__V1__Usage meters = make_meters();
        struct sandbox_usage usage;
        const struct usage *total = &usage.total;

        sandbox_usage_from_meters(&meters, &usage);
        ck_assert_int_eq(total->cpu_usec, 1);
        ck_assert_int_eq(total->cpu_user_usec, 2);
        ck_assert_int_eq(total->cpu_system_usec, 3);
        ck_assert_int_eq(usage.memory_bytes, 4);
        ck_assert_int_eq(total->memory_peak_bytes, 5);
        ck_assert_int_eq(total->memory_byte_seconds, 6);
        ck_assert_int_eq(total->oom_kills, 7);
        ck_assert_int_eq(usage.processes, 8);
        ck_assert_int_eq(usage.disk_bytes, 9);
        ck_assert_int_eq(total->scheduled_usec, 10);
        ck_assert_int_eq(total->wait_usec, 11);
        ck_assert_int_eq(total->context_switches, 12);
        ck_assert_int_eq(total->earlier_usec, 13);
        ck_assert_int_eq(total->rss_peak_bytes, 14);
        ck_assert_int_eq(total->sent_bytes, 15);
        ck_assert_int_eq(total->received_bytes, 16);
        ck_assert_int_eq(total->throttled_periods, 17);
        ck_assert_int_eq(total->throttled_usec, 18);
        ck_assert_int_eq(total->wall_usec, 19);
        ck_assert_uint_eq(total->missing, 0);
        /* The runtime knows nothing of these. */
        ck_assert_int_eq(total->stdout_bytes + total->stderr_bytes + total->rich_bytes, 0);
}
END_TEST

START_TEST(what_is_too_much_for_an_amount_is_the_most)
{
        Hotcell__Runtime__V1__Usage meters = make_meters();
        struct sandbox_usage usage;

        meters.cpu_usec = UINT64_MAX;
        meters.memory_byte_seconds = (uint64_t)INT64_MAX + 1;
        meters.processes = UINT32_MAX;
        sandbox_usage_from_meters(&meters, &usage);
        ck_assert_int_eq(usage.total.cpu_usec, INT64_MAX);
        ck_assert_int_eq(usage.total.memory_byte_seconds, INT64_MAX);
        ck_assert_int_eq(usage.processes, INT32_MAX);
}
END_TEST

static const struct {
        Hotcell__Runtime__V1__MeterPart meter;
        enum usage_part part;
} parts[] = {
        { PART(MEMORY), USAGE_PART_MEMORY },       { PART(MEMORY_PEAK), USAGE_PART_MEMORY_PEAK },
        { PART(SCHEDULED), USAGE_PART_SCHEDULED }, { PART(RSS_PEAK), USAGE_PART_RSS_PEAK },
        { PART(TRAFFIC), USAGE_PART_TRAFFIC },     { PART(THROTTLED), USAGE_PART_THROTTLED },
        { PART(WAIT), USAGE_PART_WAIT },
};

START_TEST(each_missing_part_is_missing)
{
        Hotcell__Runtime__V1__MeterPart missing[ARRAY_SIZE(parts)];
        Hotcell__Runtime__V1__Usage meters = make_meters();
        struct usage usage;
        uint32_t all = 0;

        ck_assert_uint_eq(ARRAY_SIZE(parts) + 1, USAGE_PART_REST);
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
                missing[i] = parts[i].meter;
                all |= BIT(parts[i].part);
                ck_assert_uint_eq(usage_missing(&missing[i], 1), BIT(parts[i].part));
        }
        meters.missing = missing;
        meters.n_missing = ARRAY_SIZE(missing);
        usage_from_meters(&meters, &usage);
        ck_assert_uint_eq(usage.missing, all);
}
END_TEST

START_TEST(a_part_that_nobody_knows_is_left_out)
{
        const Hotcell__Runtime__V1__MeterPart missing[] = {
                PART(UNSPECIFIED),
                (Hotcell__Runtime__V1__MeterPart)_USAGE_PART_N,
                (Hotcell__Runtime__V1__MeterPart)-1,
                PART(WAIT),
        };

        ck_assert_uint_eq(usage_missing(missing, ARRAY_SIZE(missing)), BIT(USAGE_PART_WAIT));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("session_meters");
        TCase *tests = tcase_create("session_meters");

        tcase_add_test(tests, each_meter_has_its_amount);
        tcase_add_test(tests, what_is_too_much_for_an_amount_is_the_most);
        tcase_add_test(tests, each_missing_part_is_missing);
        tcase_add_test(tests, a_part_that_nobody_knows_is_left_out);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
