/* How many lines a log gets. */

#include <check.h>
#include <stdlib.h>

#include "runtime/base/log_limit.h"
#include "test/lib/suite.h"

/* Offers @n lines at once; returns how many were taken. */
static uint64_t offer(struct log_limit *limit, uint64_t n, uint64_t now_msec)
{
        uint64_t n_taken = 0, n_left_out;

        for (uint64_t i = 0; i < n; i++)
                n_taken += log_limit_take(limit, now_msec, &n_left_out);
        return n_taken;
}

START_TEST(a_burst_is_taken_and_no_more)
{
        struct log_limit limit = { 0 };

        ck_assert_uint_eq(offer(&limit, 5000, 1), LOG_LIMIT_BURST);
}
END_TEST

START_TEST(after_a_burst_so_many_a_second)
{
        struct log_limit limit = { 0 };

        (void)offer(&limit, 5000, 1);
        ck_assert_uint_eq(offer(&limit, 5000, 1001), LOG_LIMIT_PER_SECOND);
        ck_assert_uint_eq(offer(&limit, 5000, 3001), 2 * LOG_LIMIT_PER_SECOND);
}
END_TEST

START_TEST(a_steady_trickle_is_all_taken)
{
        struct log_limit limit = { 0 };

        for (uint64_t second = 0; second < 1000; second++)
                ck_assert_uint_eq(offer(&limit, LOG_LIMIT_PER_SECOND, second * 1000),
                                  LOG_LIMIT_PER_SECOND);
}
END_TEST

START_TEST(the_next_line_says_how_many_were_left_out)
{
        struct log_limit limit = { 0 };
        uint64_t n_left_out = 1;

        ck_assert(log_limit_take(&limit, 1, &n_left_out));
        ck_assert_uint_eq(n_left_out, 0);
        (void)offer(&limit, LOG_LIMIT_BURST + 6, 1);
        ck_assert(log_limit_take(&limit, 1001, &n_left_out));
        ck_assert_uint_eq(n_left_out, 7);
        ck_assert(log_limit_take(&limit, 1001, &n_left_out));
        ck_assert_uint_eq(n_left_out, 0);
}
END_TEST

START_TEST(a_long_pause_gives_one_burst)
{
        struct log_limit limit = { 0 };

        (void)offer(&limit, 5000, 1);
        ck_assert_uint_eq(offer(&limit, 5000, UINT64_MAX / 2), LOG_LIMIT_BURST);
        ck_assert_uint_eq(offer(&limit, 5000, 1), 0); /* a clock that goes back gives nothing */
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("log_limit");
        TCase *test_case = tcase_create("log_limit");

        tcase_add_test(test_case, a_burst_is_taken_and_no_more);
        tcase_add_test(test_case, after_a_burst_so_many_a_second);
        tcase_add_test(test_case, a_steady_trickle_is_all_taken);
        tcase_add_test(test_case, the_next_line_says_how_many_were_left_out);
        tcase_add_test(test_case, a_long_pause_gives_one_burst);
        suite_add_tcase(suite, test_case);
        return suite_main(suite);
}
