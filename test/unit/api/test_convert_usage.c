/* Each amount is told as what it is, and what was not measured is named. */
#include <check.h>
#include <stdio.h>

#include "runtime/base/macros.h"
#include "server/api/convert.h"
#include "test/lib/suite.h"

static struct arena arena;

static void tear_down(void)
{
        arena_deinit(&arena);
}

static int64_t usec_of(const Google__Protobuf__Duration *duration)
{
        ck_assert_ptr_nonnull(duration);
        return duration->seconds * 1000000 + duration->nanos / 1000;
}

/* No two are the same; 6,000 byte-seconds in 4 s. */
static const struct usage whole = {
        .cpu_usec = 1000001,
        .cpu_user_usec = 2,
        .cpu_system_usec = 3,
        .wall_usec = 4000000,
        .memory_peak_bytes = 5000,
        .memory_byte_seconds = 6000,
        .oom_kills = 7,
        .throttled_periods = 8,
        .throttled_usec = 9,
        .scheduled_usec = 10,
        .wait_usec = 11,
        .context_switches = 12,
        .earlier_usec = 13,
        .rss_peak_bytes = 14,
        .sent_bytes = 15,
        .received_bytes = 16,
        .stdout_bytes = 17,
        .stderr_bytes = 18,
        .rich_bytes = 19,
};

START_TEST(each_amount_has_its_field)
{
        const Hotcell__V1__Usage *message = convert_usage(&arena, &whole);

        ck_assert_ptr_nonnull(message);
        ck_assert_int_eq(usec_of(message->cpu_time), 1000001);
        ck_assert_int_eq(usec_of(message->cpu_user_time), 2);
        ck_assert_int_eq(usec_of(message->cpu_system_time), 3);
        ck_assert_int_eq(usec_of(message->wall_time), 4000000);
        ck_assert_int_eq(message->memory_peak_bytes, 5000);
        ck_assert_int_eq(message->memory_byte_seconds, 6000);
        ck_assert_int_eq(message->memory_mean_bytes, 1500);
        ck_assert_int_eq(message->oom_kills, 7);
        ck_assert_int_eq(message->throttled_periods, 8);
        ck_assert_int_eq(usec_of(message->throttled_time), 9);
        ck_assert_int_eq(usec_of(message->scheduled_time), 10);
        ck_assert_int_eq(usec_of(message->run_queue_wait), 11);
        ck_assert_int_eq(message->context_switches, 12);
        ck_assert_int_eq(usec_of(message->earlier_work_time), 13);
        ck_assert_int_eq(message->rss_peak_bytes, 14);
        ck_assert_int_eq(message->sent_bytes, 15);
        ck_assert_int_eq(message->received_bytes, 16);
        ck_assert_int_eq(message->stdout_bytes, 17);
        ck_assert_int_eq(message->stderr_bytes, 18);
        ck_assert_int_eq(message->rich_bytes, 19);
        ck_assert_uint_eq(message->n_missing, 0);
}
END_TEST

START_TEST(a_sandbox_has_what_it_holds_now_and_its_total)
{
        const struct sandbox_usage usage = {
                .memory_bytes = 20, .disk_bytes = 21, .processes = 22, .total = whole
        };
        const Hotcell__V1__SandboxUsage *message = convert_sandbox_usage(&arena, &usage);

        ck_assert_ptr_nonnull(message);
        ck_assert_int_eq(usec_of(message->cpu_time), 1000001);
        ck_assert_int_eq(message->memory_peak_bytes, 5000);
        ck_assert_int_eq(message->memory_bytes, 20);
        ck_assert_int_eq(message->disk_bytes, 21);
        ck_assert_int_eq(message->processes, 22);
        ck_assert_int_eq(usec_of(message->total->cpu_system_time), 3);
}
END_TEST

START_TEST(a_sandbox_that_nobody_measured_has_none)
{
        const struct sandbox_usage usage = { .memory_bytes = 20 };

        ck_assert_ptr_null(convert_sandbox_usage(&arena, &usage));
}
END_TEST

static void check_missing(unsigned parts, const char *expected)
{
        char text[512] = "";
        size_t n_text = 0, n;
        char **names = convert_missing(&arena, parts, &n);

        for (size_t i = 0; i < n && n_text < sizeof(text); i++)
                n_text += (size_t)snprintf(text + n_text, sizeof(text) - n_text, "%s%s",
                                           i ? " " : "", names[i]);
        ck_assert_str_eq(text, expected);
}

START_TEST(what_is_missing_is_named_once)
{
        check_missing(0, "");
        check_missing(BIT(USAGE_PART_MEMORY),
                      "memory_peak_bytes memory_byte_seconds memory_mean_bytes oom_kills");
        check_missing(BIT(USAGE_PART_MEMORY) | BIT(USAGE_PART_MEMORY_PEAK),
                      "memory_peak_bytes memory_byte_seconds memory_mean_bytes oom_kills");
        check_missing(BIT(USAGE_PART_MEMORY_PEAK), "memory_peak_bytes");
        check_missing(BIT(USAGE_PART_SCHEDULED),
                      "scheduled_time run_queue_wait context_switches earlier_work_time");
        check_missing(BIT(USAGE_PART_SCHEDULED) | BIT(USAGE_PART_WAIT),
                      "scheduled_time run_queue_wait context_switches earlier_work_time");
        check_missing(BIT(USAGE_PART_WAIT), "run_queue_wait");
        check_missing(BIT(USAGE_PART_RSS_PEAK) | BIT(USAGE_PART_TRAFFIC),
                      "rss_peak_bytes sent_bytes received_bytes");
        check_missing(BIT(USAGE_PART_THROTTLED), "throttled_periods throttled_time");
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("convert_usage");
        TCase *tests = tcase_create("convert_usage");

        tcase_add_checked_fixture(tests, NULL, tear_down);
        tcase_add_test(tests, each_amount_has_its_field);
        tcase_add_test(tests, a_sandbox_has_what_it_holds_now_and_its_total);
        tcase_add_test(tests, a_sandbox_that_nobody_measured_has_none);
        tcase_add_test(tests, what_is_missing_is_named_once);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
