/* Which questions a network takes of its programs: how many new names, in which pieces, and in how
 * many streams. */

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/bpf/asking.h"
#include "test/lib/suite.h"
#include "test/unit/egress/fake_upstream.h"

enum {
        QUERY_BUFFER = 512,
        STREAMS_MAX = 16, /* of a network */
        STREAM_IDLE_USEC = 10 * 1000000,
};

/* --- names that are rationed -------------------------------------------------------------------
 */

static const struct wanted rationed[] = {
        { .domain = "*.wild.test" },
        { .is_public = true },
        { .is_public = true, .domain = "*.wild.test" },
};

/* What a tunnel would be, also where any name is allowed. */
START_TEST(new_labels_are_rationed_where_any_may_be_asked_for)
{
        char name[64];

        enforce(1, &rationed[_i]);
        for (unsigned i = 0; i < ASKING_NEW_NAMES; i++) {
                (void)snprintf(name, sizeof(name), "%u.wild.test", i);
                ck_assert_uint_eq(ask_name(name), 0);
        }
        ck_assert_uint_eq(asking_upstream.n_udp, ASKING_NEW_NAMES);
        ck_assert_uint_eq(ask_name("more.wild.test"), REFUSED);
        ck_assert_uint_eq(asking_upstream.n_udp, ASKING_NEW_NAMES);
        /* One that is not new. */
        ck_assert_uint_eq(ask_name("0.wild.test"), 0);
}
END_TEST

START_TEST(a_name_that_a_rule_has_whole_is_not_rationed)
{
        char name[64];

        enforce(1, &(struct wanted){ .is_public = true, .domain = "exact.test" });
        for (unsigned i = 0; i < ASKING_NEW_NAMES; i++) {
                (void)snprintf(name, sizeof(name), "%u.wild.test", i);
                ck_assert_uint_eq(ask_name(name), 0);
        }
        ck_assert_uint_eq(ask_name("more.wild.test"), REFUSED);
        ck_assert_uint_eq(ask_name("exact.test"), 0);
}
END_TEST

/* Each of them, though not each by itself. */
static uint64_t count_told(uint64_t after)
{
        uint64_t n = 0;

        for (uint64_t i = after + 1; i <= egress.events.n_pushed; i++)
                n += egress.events.ring[i % EVENTS_MAX].event.count;
        return n;
}

static uint64_t n_told_before;

static bool is_all_told(const void *userdata)
{
        return count_told(n_told_before) >= *(const uint64_t *)userdata;
}

START_TEST(refusals_that_are_many_are_told_by_their_number)
{
        uint64_t n_refused = 50;
        char name[64];

        enforce(1, &rationed[0]);
        for (unsigned i = 0; i < ASKING_NEW_NAMES; i++) {
                (void)snprintf(name, sizeof(name), "%u.wild.test", i);
                ck_assert_uint_eq(ask_name(name), 0);
        }
        n_told_before = egress.events.n_pushed;
        for (uint64_t i = 0; i < n_refused; i++)
                ck_assert_uint_eq(ask_name("more.wild.test"), REFUSED);
        run_until(is_all_told, &n_refused);
        ck_assert_uint_eq(count_told(n_told_before), n_refused);
        ck_assert_uint_lt(egress.events.n_pushed - n_told_before, n_refused);
        ck_assert_int_eq(last_event()->reason, EGRESS_REASON(RATE));
}
END_TEST

/* --- questions by streams ----------------------------------------------------------------------
 */

static bool is_over(int fd)
{
        struct pollfd ready = { .fd = fd, .events = POLLIN };

        return poll(&ready, 1, 0) == 1;
}

static bool is_last_over(const void *userdata)
{
        return is_over(*(const int *)userdata);
}

static bool are_streams(const void *userdata)
{
        return network->n_dns_streams == *(const size_t *)userdata;
}

static void wait_for_streams(size_t n)
{
        run_until(are_streams, &n);
}

/* With its length, as streams have it. Returns its bytes. */
static size_t make_question(const char *name, uint8_t bytes[static QUERY_BUFFER])
{
        static struct packet packet;

        packet = (struct packet){ 0 };
        put_query(&packet, name, DNS_A);
        bytes[0] = (uint8_t)(packet.n_bytes >> 8);
        bytes[1] = (uint8_t)packet.n_bytes;
        (void)memcpy(bytes + 2, packet.bytes, packet.n_bytes);
        return packet.n_bytes + 2;
}

static int stream_fd;

static bool has_bytes(const void *userdata)
{
        uint8_t bytes[QUERY_BUFFER];

        return recv(stream_fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT) >=
               *(const ssize_t *)userdata;
}

/* The code of the next answer. */
static unsigned read_stream(void)
{
        uint8_t bytes[QUERY_BUFFER];
        ssize_t n = 2;

        run_until(has_bytes, &n);
        ck_assert_int_eq(recv(stream_fd, bytes, 2, MSG_WAITALL), 2);
        n = bytes[0] << 8 | bytes[1];
        ck_assert_int_gt(n, 12);
        run_until(has_bytes, &n);
        ck_assert_int_eq(recv(stream_fd, bytes, (size_t)n, MSG_WAITALL), n);
        return get_rcode(bytes);
}

START_TEST(questions_of_a_stream_come_in_any_pieces)
{
        uint8_t bytes[3 * QUERY_BUFFER];
        size_t n, n_half;

        enforce(1, &wild);
        stream_fd = connect_client(SOCK_STREAM);
        n = make_question("a.wild.test", bytes);
        for (size_t i = 0; i < n; i++) {
                ck_assert_int_eq(send(stream_fd, bytes + i, 1, 0), 1);
                turn();
        }
        ck_assert_uint_eq(read_stream(), 0);
        /* Two at once, and half of a third one. */
        n += make_question("other.test", bytes + n);
        n_half = n + 5;
        n += make_question("b.wild.test", bytes + n);
        ck_assert_int_eq(send(stream_fd, bytes, n_half, 0), n_half);
        ck_assert_uint_eq(read_stream(), 0);
        ck_assert_uint_eq(read_stream(), REFUSED);
        ck_assert_int_eq(send(stream_fd, bytes + n_half, n - n_half, 0), n - n_half);
        ck_assert_uint_eq(read_stream(), 0);
        (void)close(stream_fd);
}
END_TEST

START_TEST(streams_are_bounded_and_make_room_when_they_end)
{
        int fds[STREAMS_MAX + 1], more;

        for (size_t i = 0; i < STREAMS_MAX; i++) {
                fds[i] = connect_client(SOCK_STREAM);
                wait_for_streams(i + 1);
        }
        fds[STREAMS_MAX] = connect_client(SOCK_STREAM);
        run_until(is_last_over, &fds[STREAMS_MAX]);
        ck_assert_uint_eq(network->n_dns_streams, STREAMS_MAX);
        for (size_t i = 0; i < STREAMS_MAX; i++)
                ck_assert(!is_over(fds[i]));
        (void)close(fds[0]);
        wait_for_streams(STREAMS_MAX - 1);
        more = connect_client(SOCK_STREAM);
        wait_for_streams(STREAMS_MAX);
        ck_assert(!is_over(more));
        (void)close(more);
        for (size_t i = 1; i < ARRAY_SIZE(fds); i++)
                (void)close(fds[i]);
}
END_TEST

static bool is_time(const void *userdata)
{
        return clock_monotonic_usec() >= *(const uint64_t *)userdata;
}

START_TEST(a_stream_ends_when_nothing_is_asked_for_long)
{
        const uint64_t start_usec = clock_monotonic_usec();
        const uint64_t later_usec = start_usec + STREAM_IDLE_USEC / 2;
        uint8_t bytes[QUERY_BUFFER];
        int idle_fd;

        enforce(1, &wild);
        stream_fd = connect_client(SOCK_STREAM);
        idle_fd = connect_client(SOCK_STREAM);
        wait_for_streams(2);
        run_until(is_time, &later_usec);
        ck_assert_int_gt(send(stream_fd, bytes, make_question("a.wild.test", bytes), 0), 0);
        ck_assert_uint_eq(read_stream(), 0);
        run_until(is_last_over, &idle_fd);
        ck_assert_uint_ge(clock_monotonic_usec(), start_usec + STREAM_IDLE_USEC);
        ck_assert_uint_eq(network->n_dns_streams, 1);
        ck_assert_int_gt(send(stream_fd, bytes, make_question("b.wild.test", bytes), 0), 0);
        ck_assert_uint_eq(read_stream(), 0);
        (void)close(idle_fd);
        (void)close(stream_fd);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("questions");
        TCase *tests = tcase_create("questions");

        tcase_add_checked_fixture(tests, asking_setup, asking_teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_loop_test(tests, new_labels_are_rationed_where_any_may_be_asked_for, 0,
                            ARRAY_SIZE(rationed));
        tcase_add_test(tests, a_name_that_a_rule_has_whole_is_not_rationed);
        tcase_add_test(tests, refusals_that_are_many_are_told_by_their_number);
        tcase_add_test(tests, questions_of_a_stream_come_in_any_pieces);
        tcase_add_test(tests, streams_are_bounded_and_make_room_when_they_end);
        tcase_add_test(tests, a_stream_ends_when_nothing_is_asked_for_long);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
