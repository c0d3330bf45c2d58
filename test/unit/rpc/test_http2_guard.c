/* What a guard lets pass, and what it does not. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/rpc/http2_guard.h"
#include "test/lib/suite.h"

enum {
        DATA = 0,
        HEADERS = 1,
        RST_STREAM = 3,
        SETTINGS = 4,
        PING = 6,
        WINDOW_UPDATE = 8,
        CONTINUATION = 9,
        END_STREAM = 1,
        END_HEADERS = 4,
        PADDED = 8,
        MESSAGE_MAX = 100000,
        STREAMS_MAX = 8,
};

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static struct http2_guard *guard;
static uint64_t now_msec = 1000;

static void setup(void)
{
        const struct http2_limits limits = { .message_max_bytes = MESSAGE_MAX,
                                             .streams_max = STREAMS_MAX };

        ck_assert_int_eq(http2_guard_new(&limits, &guard), 0);
        ck_assert(!http2_guard_has_begun(guard));
        ck_assert_int_eq(http2_guard_take(guard, preface, strlen(preface), now_msec), HTTP2_FINE);
        ck_assert(http2_guard_has_begun(guard));
}

static void teardown(void)
{
        guard = http2_guard_free(guard);
}

static enum http2_verdict frame(uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
                                size_t n)
{
        static const uint8_t nothing[16384];
        const uint8_t head[9] = { (uint8_t)(n >> 16),
                                  (uint8_t)(n >> 8),
                                  (uint8_t)n,
                                  type,
                                  flags,
                                  (uint8_t)(stream >> 24),
                                  (uint8_t)(stream >> 16),
                                  (uint8_t)(stream >> 8),
                                  (uint8_t)stream };
        enum http2_verdict verdict = http2_guard_take(guard, head, sizeof(head), now_msec);

        ck_assert_uint_le(n, sizeof(nothing));
        return verdict ? verdict
                       : http2_guard_take(guard, payload ? payload : nothing, n, now_msec);
}

/* The head of a message of @n bytes. */
static enum http2_verdict begin_message(uint32_t stream, uint32_t n)
{
        const uint8_t head[5] = { 0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
                                  (uint8_t)n };

        return frame(DATA, 0, stream, head, sizeof(head));
}

START_TEST(what_is_not_http2_is_refused)
{
        struct http2_guard *other;
        const struct http2_limits limits = { .message_max_bytes = 1, .streams_max = 1 };

        ck_assert_int_eq(http2_guard_new(&limits, &other), 0);
        ck_assert_int_eq(http2_guard_take(other, "PRI", 3, now_msec), HTTP2_FINE);
        ck_assert_int_eq(http2_guard_take(other, " / HTTP", 7, now_msec), HTTP2_NOT_SPOKEN);
        ck_assert(!http2_guard_has_begun(other));
        /* For good. */
        ck_assert_int_eq(http2_guard_take(other, "", 1, now_msec), HTTP2_NOT_SPOKEN);
        ck_assert_int_eq(http2_guard_verdict(other), HTTP2_NOT_SPOKEN);
        other = http2_guard_free(other);
}
END_TEST

START_TEST(an_honest_client_passes)
{
        for (uint32_t stream = 1; stream < 10000; stream += 2) {
                ck_assert_int_eq(frame(HEADERS, END_HEADERS, stream, NULL, 200), HTTP2_FINE);
                ck_assert_int_eq(begin_message(stream, MESSAGE_MAX), HTTP2_FINE);
                for (uint32_t left = MESSAGE_MAX; left;) {
                        uint32_t n = MIN(left, 16384U);

                        left -= n;
                        ck_assert_int_eq(frame(DATA, left ? 0 : END_STREAM, stream, NULL, n),
                                         HTTP2_FINE);
                }
                ck_assert_int_eq(frame(WINDOW_UPDATE, 0, stream, NULL, 4), HTTP2_FINE);
        }
}
END_TEST

START_TEST(bytes_may_come_one_by_one)
{
        const uint8_t bytes[] = { 0, 0, 3, HEADERS, END_HEADERS, 0, 0, 0, 1, 9, 9, 9, /* */
                                  0, 0, 8, DATA,    END_STREAM,  0, 0, 0, 1, /* a message of 3 */
                                  0, 0, 0, 0,       3,           1, 2, 3 };

        for (size_t i = 0; i < sizeof(bytes); i++)
                ck_assert_int_eq(http2_guard_take(guard, bytes + i, 1, now_msec), HTTP2_FINE);
        ck_assert_int_eq(begin_message(3, MESSAGE_MAX + 1), HTTP2_MESSAGE_TOO_LONG);
}
END_TEST

START_TEST(a_message_may_not_say_that_it_is_longer)
{
        ck_assert_int_eq(begin_message(1, MESSAGE_MAX), HTTP2_FINE);
        ck_assert_int_eq(frame(DATA, 0, 1, NULL, 16384), HTTP2_FINE);
        ck_assert_int_eq(begin_message(3, MESSAGE_MAX + 1), HTTP2_MESSAGE_TOO_LONG);
}
END_TEST

START_TEST(nor_may_a_later_message_of_the_stream)
{
        const uint8_t two[] = { 0, 0, 0, 0, 1, 'x', 0, 0xff, 0xff, 0xff, 0xff };

        ck_assert_int_eq(frame(DATA, 0, 1, two, 8), HTTP2_FINE);
        ck_assert_int_eq(frame(DATA, 0, 1, two + 8, 3), HTTP2_MESSAGE_TOO_LONG);
}
END_TEST

START_TEST(a_message_in_crumbs_is_refused)
{
        enum http2_verdict verdict = begin_message(1, MESSAGE_MAX);
        unsigned n = 0;

        for (; verdict == HTTP2_FINE && n < 10000; n++)
                verdict = frame(DATA, 0, 1, NULL, 1);
        ck_assert_int_eq(verdict, HTTP2_MESSAGE_IN_CRUMBS);
        ck_assert_uint_gt(n, 200);
}
END_TEST

START_TEST(headers_end)
{
        enum http2_verdict verdict = frame(HEADERS, 0, 1, NULL, 16384);
        unsigned n = 0;

        for (; verdict == HTTP2_FINE && n < 100; n++)
                verdict = frame(CONTINUATION, 0, 1, NULL, 16384);
        ck_assert_int_eq(verdict, HTTP2_HEADERS_TOO_LONG);
        ck_assert_uint_eq(n, 4);
}
END_TEST

START_TEST(nothing_comes_between_headers)
{
        ck_assert_int_eq(frame(HEADERS, 0, 1, NULL, 10), HTTP2_FINE);
        ck_assert_int_eq(frame(PING, 0, 0, NULL, 8), HTTP2_MALFORMED);
}
END_TEST

START_TEST(malformed_frames_are_refused)
{
        static const struct {
                uint8_t type, flags;
                uint32_t stream, n;
        } bad[] = {
                { DATA, 0, 0, 5 },
                { DATA, PADDED, 1, 5 },
                { RST_STREAM, 0, 0, 4 },
                { CONTINUATION, END_HEADERS, 1, 4 },
        };
        const uint8_t too_long[9] = { 0, 0x40, 1, SETTINGS };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                ck_assert_int_eq(frame(bad[i].type, bad[i].flags, bad[i].stream, NULL, bad[i].n),
                                 HTTP2_MALFORMED);
                teardown();
                setup();
        }
        ck_assert_int_eq(http2_guard_take(guard, too_long, 9, now_msec), HTTP2_MALFORMED);
}
END_TEST

static unsigned count_resets(unsigned max)
{
        unsigned n = 0;

        while (n < max && frame(RST_STREAM, 0, 2 * n + 1, NULL, 4) == HTTP2_FINE)
                n++;
        return n;
}

START_TEST(strangers_change_their_mind_some_times)
{
        ck_assert_uint_eq(count_resets(1000), 32);
        ck_assert_int_eq(http2_guard_verdict(guard), HTTP2_TOO_MANY_RESETS);
}
END_TEST

START_TEST(others_may_go_on_as_long_as_they_do_not_flood)
{
        http2_guard_trust(guard);
        for (int i = 0; i < 100; i++) {
                ck_assert_uint_eq(count_resets(100), 100);
                now_msec += 1000;
        }
        ck_assert_uint_lt(count_resets(5000), 1300);
        ck_assert_int_eq(http2_guard_verdict(guard), HTTP2_TOO_MANY_RESETS);
}
END_TEST

START_TEST(floods_of_frames_that_carry_nothing_are_refused)
{
        static const struct {
                uint8_t type;
                uint32_t stream, n;
        } idle[] = { { PING, 0, 8 }, { SETTINGS, 0, 0 }, { DATA, 1, 0 }, { 0x55, 0, 3 } };

        for (size_t i = 0; i < ARRAY_SIZE(idle); i++) {
                unsigned n = 0;

                while (n < 10000 &&
                       frame(idle[i].type, 0, idle[i].stream, NULL, idle[i].n) == HTTP2_FINE)
                        n++;
                ck_assert_uint_eq(n, 1000);
                ck_assert_int_eq(http2_guard_verdict(guard), HTTP2_TOO_MANY_FRAMES);
                teardown();
                setup();
        }
        for (int i = 0; i < 10000; i++) {
                ck_assert_int_eq(frame(PING, 0, 0, NULL, 8), HTTP2_FINE);
                now_msec += 2;
        }
        for (int i = 0; i < 50000; i++)
                ck_assert_int_eq(frame(WINDOW_UPDATE, 0, 0, NULL, 4), HTTP2_FINE);
        ck_assert_int_eq(frame(WINDOW_UPDATE, 0, 0, NULL, 4), HTTP2_TOO_MANY_FRAMES);
}
END_TEST

/* Of more streams than there may be the guard does not know where their messages end: none of what
 * follows is taken for a message's head that is one. */
START_TEST(a_message_whose_place_was_lost_is_no_way_around)
{
        for (uint32_t stream = 1; stream < 200; stream += 2)
                ck_assert_int_eq(begin_message(stream, 1000), HTTP2_FINE);
        /* Read as a head, for its place is another's now. */
        ck_assert_int_eq(frame(DATA, 0, 1, "\0\xff\xff\xff\xff", 5), HTTP2_LOST_TRACK);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("http2_guard");
        TCase *all = tcase_create("all");

        tcase_add_checked_fixture(all, setup, teardown);
        tcase_add_test(all, what_is_not_http2_is_refused);
        tcase_add_test(all, an_honest_client_passes);
        tcase_add_test(all, bytes_may_come_one_by_one);
        tcase_add_test(all, a_message_may_not_say_that_it_is_longer);
        tcase_add_test(all, nor_may_a_later_message_of_the_stream);
        tcase_add_test(all, a_message_in_crumbs_is_refused);
        tcase_add_test(all, headers_end);
        tcase_add_test(all, nothing_comes_between_headers);
        tcase_add_test(all, malformed_frames_are_refused);
        tcase_add_test(all, strangers_change_their_mind_some_times);
        tcase_add_test(all, others_may_go_on_as_long_as_they_do_not_flood);
        tcase_add_test(all, floods_of_frames_that_carry_nothing_are_refused);
        tcase_add_test(all, a_message_whose_place_was_lost_is_no_way_around);
        suite_add_tcase(suite, all);
        return suite_main(suite);
}
