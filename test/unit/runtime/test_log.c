/* Lines of the log, and how many of them others may cause. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/token_bucket.h"
#include "test/lib/suite.h"

static int captured;
static int standard_error;

static void begin_capture(void)
{
        log_init("test", LOG_LEVEL_INFO);
        captured = memfd_create("log", MFD_CLOEXEC);
        ck_assert_int_ge(captured, 0);
        standard_error = dup(STDERR_FILENO);
        ck_assert_int_ge(dup2(captured, STDERR_FILENO), 0);
}

/* What was logged since; good until the next call. */
static const char *end_capture(void)
{
        static char text[65536];
        ssize_t n;

        ck_assert_int_ge(dup2(standard_error, STDERR_FILENO), 0);
        (void)close(standard_error);
        n = pread(captured, text, sizeof(text) - 1, 0);
        ck_assert_int_ge(n, 0);
        text[n] = '\0';
        (void)close(captured);
        return text;
}

static size_t count_lines(const char *text)
{
        size_t n = 0;

        for (; *text; text++)
                n += *text == '\n';
        return n;
}

START_TEST(a_flood_of_lines_is_cut_and_counted)
{
        struct log_quota a = { 0 }, b = { 0 };
        const char *text;

        begin_capture();
        for (unsigned i = 0; i < 10000; i++)
                log_info_of(&a, "something happened number=%u", i);
        log_info_of(&b, "to another one");
        a.bucket = (struct token_bucket){ 0 }; /* as if time had passed */
        log_info_of(&a, "at last");
        text = end_capture();

        ck_assert_uint_ge(count_lines(text), 52);
        ck_assert_uint_lt(count_lines(text), 200);
        ck_assert_ptr_nonnull(strstr(text, "to another one\n"));
        ck_assert_ptr_nonnull(strstr(text, "at last left_out=9"));
        ck_assert_uint_eq(a.n_left_out, 0);
}
END_TEST

START_TEST(a_value_writes_no_line_and_moves_no_cursor)
{
        const char *text;

        begin_capture();
        log_info("a value=%s", "x\ny\x1b[2J\x7f\xc2\x9b"
                               "1m gr\xc3\xbcn");
        text = end_capture();
        ck_assert_ptr_nonnull(strstr(text, "a value=x?y?[2J???1m gr\xc3\xbcn\n"));
        ck_assert_uint_eq(count_lines(text), 1);
}
END_TEST

START_TEST(a_line_that_is_too_long_is_cut)
{
        static char value[5000];
        struct log_quota quota = { .n_left_out = UINT64_MAX };
        const char *text;

        memset(value, 'x', sizeof(value) - 1);
        begin_capture();
        log_info_of(&quota, "%s", value);
        text = end_capture();
        ck_assert_uint_eq(count_lines(text), 1);
        ck_assert_uint_le(strlen(text), 2048);
        ck_assert_ptr_nonnull(strstr(text, " left_out=18446744073709551615\n"));
}
END_TEST

START_TEST(a_bucket_gives_a_burst_and_then_one_every_so_often)
{
        static const struct token_rate rate = { .interval_usec = 100, .burst = 3 };
        struct token_bucket bucket = { 0 };

        for (unsigned i = 0; i < 3; i++)
                ck_assert_uint_eq(token_bucket_take(&bucket, &rate, 1000), 0);
        ck_assert_uint_eq(token_bucket_take(&bucket, &rate, 1000), 100);
        ck_assert_uint_eq(token_bucket_take(&bucket, &rate, 1060), 40);
        ck_assert_uint_eq(token_bucket_take(&bucket, &rate, 1100), 0);
        ck_assert_uint_eq(token_bucket_take(&bucket, &rate, 1100), 100);
        /* However long nothing came, it is full, and not more. */
        for (unsigned i = 0; i < 3; i++)
                ck_assert_uint_eq(token_bucket_take(&bucket, &rate, 1000000), 0);
        ck_assert_uint_gt(token_bucket_take(&bucket, &rate, 1000000), 0);
}
END_TEST

int main(void)
{
        TCase *tests = tcase_create("log");
        Suite *suite = suite_create("log");

        tcase_add_test(tests, a_flood_of_lines_is_cut_and_counted);
        tcase_add_test(tests, a_value_writes_no_line_and_moves_no_cursor);
        tcase_add_test(tests, a_line_that_is_too_long_is_cut);
        tcase_add_test(tests, a_bucket_gives_a_burst_and_then_one_every_so_often);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
