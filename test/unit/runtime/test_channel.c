/* Packets on a channel that is held wait; nothing of them is lost, and their order stays. */

#include <check.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "test/lib/suite.h"

static sd_event *loop;
static struct channel *channel;
static int peer_fd = -1;
static uint8_t heard[16];
static size_t n_heard;
static unsigned n_gone;
static bool holds_on_first;

static void on_packet(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds, size_t n_fds)
{
        (void)userdata;
        (void)fds;
        ck_assert_uint_eq(n_bytes, 1);
        ck_assert_uint_eq(n_fds, 0);
        ck_assert_uint_lt(n_heard, ARRAY_SIZE(heard));
        heard[n_heard++] = bytes[0];
        if (holds_on_first)
                channel_hold(channel, true);
}

static void on_disconnect(void *userdata)
{
        (void)userdata;
        n_gone++;
}

static void connect_peer(void)
{
        int ends[2];

        ck_assert_int_eq(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        ck_assert_int_eq(channel_adopt(channel, ends[0]), 0);
        peer_fd = ends[1];
}

static void setup(void)
{
        const struct channel_config config = {
                .peer = "the test",
                .packet_max = 64,
                .queue_bytes_max = 1024,
                .observer = { .on_packet = on_packet, .on_disconnect = on_disconnect },
        };

        n_heard = n_gone = 0;
        holds_on_first = true;
        ck_assert_int_ge(sd_event_new(&loop), 0);
        ck_assert_int_eq(channel_new(loop, &config, &channel), 0);
        connect_peer();
}

static void teardown(void)
{
        channel = channel_free(channel);
        (void)close(peer_fd);
        loop = sd_event_unref(loop);
}

static void send_bytes(const char *bytes)
{
        for (; *bytes; bytes++)
                ck_assert_int_eq(io_send_packet(peer_fd, bytes, 1, NULL, 0), 0);
}

/* All that can be done now. */
static void run(void)
{
        for (unsigned i = 0; i < 100; i++)
                ck_assert_int_ge(sd_event_run(loop, 0), 0);
}

START_TEST(what_comes_while_it_is_held_is_heard_afterwards)
{
        send_bytes("abc");
        run();
        ck_assert_uint_eq(n_heard, 1);
        channel_catch_up(channel);
        ck_assert_uint_eq(n_heard, 1);
        send_bytes("d");
        holds_on_first = false;
        channel_hold(channel, false);
        run();
        ck_assert_uint_eq(n_heard, 4);
        ck_assert_mem_eq(heard, "abcd", 4);
}
END_TEST

START_TEST(it_speaks_while_it_is_held)
{
        char byte;

        channel_hold(channel, true);
        channel_send(channel, "x", 1, NULL, 0);
        run();
        ck_assert_int_eq(recv(peer_fd, &byte, 1, 0), 1);
        ck_assert_int_eq(byte, 'x');
}
END_TEST

START_TEST(that_the_peer_is_gone_is_heard_after_what_it_said)
{
        send_bytes("ab");
        run();
        (void)close(peer_fd);
        run();
        ck_assert_uint_eq(n_heard, 1);
        ck_assert_uint_eq(n_gone, 0);
        holds_on_first = false;
        channel_hold(channel, false);
        run();
        ck_assert_uint_eq(n_heard, 2);
        ck_assert_uint_eq(n_gone, 1);
        peer_fd = -1;
}
END_TEST

START_TEST(another_peer_waits_like_the_one_before)
{
        send_bytes("ab");
        run();
        (void)close(peer_fd);
        connect_peer();
        send_bytes("c");
        run();
        ck_assert_uint_eq(n_heard, 1);
        holds_on_first = false;
        channel_hold(channel, false);
        run();
        ck_assert_uint_eq(n_heard, 2);
        ck_assert_mem_eq(heard, "ac", 2);
        ck_assert_uint_eq(n_gone, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("channel");
        TCase *tests = tcase_create("channel");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, what_comes_while_it_is_held_is_heard_afterwards);
        tcase_add_test(tests, it_speaks_while_it_is_held);
        tcase_add_test(tests, that_the_peer_is_gone_is_heard_after_what_it_said);
        tcase_add_test(tests, another_peer_waits_like_the_one_before);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
