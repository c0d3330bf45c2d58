/* Where a server may listen, and how it stops. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/rpc.h"
#include "test/lib/suite.h"
#include "test/unit/rpc/fixture.h"

/* --- listening --- */

static struct rpc_server *new_server(sd_event *loop)
{
        const struct rpc_server_config config = {
                .receive_max_bytes = 1024,
                .connections_max = 8,
                .streams_max = 8,
        };
        struct rpc_server *server;

        ck_assert_int_eq(rpc_server_new(loop, &config, &server), 0);
        return server;
}

START_TEST(second_server_on_a_socket_is_refused)
{
        sd_event *loop;
        struct rpc_server *server;

        ck_assert_int_ge(sd_event_new(&loop), 0);
        server = new_server(loop);
        ck_assert_int_eq(rpc_server_listen_unix(server, socket_path, (gid_t)-1), RPC_E_IN_USE);
        (void)rpc_server_free(server);
        (void)sd_event_unref(loop);
        assert_echo_works(&client);
}
END_TEST

static void bind_and_leave(bool is_listening)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, socket_path);
        ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        if (is_listening)
                ck_assert_int_eq(listen(fd, 1), 0); /* and stays open */
        else
                (void)close_fd(fd);
}

START_TEST(stale_socket_is_replaced)
{
        struct stat file;

        setup_folder();
        bind_and_leave(false);
        harness_init(&harness);
        harness_start(&harness, socket_path, false);
        client_init(&client, target);
        assert_echo_works(&client);
        ck_assert_int_eq(stat(socket_path, &file), 0);
        ck_assert_uint_eq(file.st_mode, S_IFSOCK | 0660);
        client_deinit(&client);
        harness_stop(&harness);
        ck_assert_int_ne(stat(socket_path, &file), 0);
        teardown_folder();
}
END_TEST

START_TEST(living_socket_without_our_lock_is_left_alone)
{
        sd_event *loop;
        struct rpc_server *server;

        setup_folder();
        bind_and_leave(true);
        ck_assert_int_ge(sd_event_new(&loop), 0);
        server = new_server(loop);
        ck_assert_int_eq(rpc_server_listen_unix(server, socket_path, (gid_t)-1), RPC_E_IN_USE);
        (void)rpc_server_free(server);
        ck_assert_int_eq(access(socket_path, F_OK), 0);
        (void)sd_event_unref(loop);
        teardown_folder();
}
END_TEST

START_TEST(file_in_the_place_of_a_socket_is_kept)
{
        sd_event *loop;
        struct rpc_server *server;
        char long_path[200];

        setup_folder();
        (void)close(open(socket_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        ck_assert_int_ge(sd_event_new(&loop), 0);
        server = new_server(loop);
        ck_assert_int_eq(rpc_server_listen_unix(server, socket_path, (gid_t)-1), RPC_E_BAD_ADDRESS);
        ck_assert_int_eq(access(socket_path, F_OK), 0);
        memset(long_path, 'x', sizeof(long_path));
        long_path[sizeof(long_path) - 1] = '\0';
        ck_assert_int_eq(rpc_server_listen_unix(server, long_path, (gid_t)-1), RPC_E_BAD_ADDRESS);
        ck_assert_int_eq(rpc_server_listen_unix(server, "", (gid_t)-1), RPC_E_BAD_ADDRESS);
        (void)rpc_server_free(server);
        (void)sd_event_unref(loop);
        teardown_folder();
}
END_TEST

static const struct {
        const char *address;
        int outcome;
} addresses[] = {
        { "127.0.0.1:0", 0 },
        { "127.8.9.1:0", 0 },
        { "localhost:0", 0 },
        { "0.0.0.0:0", RPC_E_NOT_LOOPBACK },
        { "10.0.0.1:80", RPC_E_NOT_LOOPBACK },
        { "[::]:0", RPC_E_NOT_LOOPBACK },
        { "[::ffff:127.0.0.1]:0", RPC_E_NOT_LOOPBACK },
        { "[2001:db8::1]:0", RPC_E_NOT_LOOPBACK },
        { "example.com:80", RPC_E_NOT_LOOPBACK },
        { "localhost.:80", RPC_E_NOT_LOOPBACK },
        { "127.1:80", RPC_E_NOT_LOOPBACK },
        { "127.0.0.1", RPC_E_BAD_ADDRESS },
        { "127.0.0.1:", RPC_E_BAD_ADDRESS },
        { "127.0.0.1:65536", RPC_E_BAD_ADDRESS },
        { "127.0.0.1:-1", RPC_E_BAD_ADDRESS },
        { ":80", RPC_E_BAD_ADDRESS },
        { "::1:80", RPC_E_BAD_ADDRESS },
        { "", RPC_E_BAD_ADDRESS },
};

START_TEST(only_loopback_is_served)
{
        sd_event *loop;
        struct rpc_server *server;

        setup_folder();
        ck_assert_int_ge(sd_event_new(&loop), 0);
        server = new_server(loop);
        for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
                uint16_t port = 0;
                int r = rpc_server_listen_tcp(server, addresses[i].address, &port);

                ck_assert_msg(r == addresses[i].outcome, "%s: %d", addresses[i].address, r);
                if (r == 0)
                        ck_assert_uint_ne(port, 0);
        }
        (void)rpc_server_free(server);
        (void)sd_event_unref(loop);
        teardown_folder();
}
END_TEST

START_TEST(port_in_use_is_refused)
{
        sd_event *loop;
        struct rpc_server *server;
        char address[32];

        ck_assert_int_ge(sd_event_new(&loop), 0);
        server = new_server(loop);
        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", harness.port);
        ck_assert_int_eq(rpc_server_listen_tcp(server, address, NULL), RPC_E_IN_USE);
        (void)rpc_server_free(server);
        (void)sd_event_unref(loop);
}
END_TEST

/* --- stopping --- */

START_TEST(stop_waits_for_calls_and_then_cancels_them)
{
        struct client_call held;
        struct client_call pouring;
        struct client_call blind;
        uint64_t start;

        client_open(&client, &held, "/test.Test/Hold", 0);
        client_send(&held, "", 0);
        client_open(&client, &pouring, "/test.Test/Pour", 0);
        client_send(&pouring, "", 0);
        ck_assert(client_read(&pouring));
        client_open(&client, &blind, "/test.Test/Blind", 0);
        client_send(&blind, "", 0);
        ck_assert(harness_eventually(harness.n_blind == 1));

        start = now_msec();
        harness_begin_stop(&harness, 400000);
        harness_answer_blind(&harness); /* in its grace */
        ck_assert(client_read(&blind));
        client_finish(&blind);
        ck_assert_int_eq(blind.result.code, GRPC_STATUS_OK);
        ck_assert(!harness.is_stopped);

        ck_assert(!client_read(&held));
        client_finish(&held);
        ck_assert_int_eq(held.result.code, GRPC_STATUS_UNAVAILABLE);
        while (client_read(&pouring))
                ;
        client_finish(&pouring);
        ck_assert_int_eq(pouring.result.code, GRPC_STATUS_UNAVAILABLE);
        ck_assert(harness_eventually(harness.is_stopped));
        ck_assert_uint_ge(now_msec() - start, 390);
        ck_assert_uint_lt(now_msec() - start, 3000);
        ck_assert_uint_eq(harness.n_gone, 2);
        ck_assert_int_lt(raw_connect(), 0);
        client_result_deinit(&blind.result);
        client_result_deinit(&pouring.result);
}
END_TEST

START_TEST(stop_without_calls_is_quick)
{
        uint64_t start = now_msec();

        assert_echo_works(&client);
        harness_begin_stop(&harness, 10000000);
        ck_assert(harness_eventually(harness.is_stopped));
        ck_assert_uint_lt(now_msec() - start, 2000);
}
END_TEST

static void on_stopped(void *userdata)
{
        (void)sd_event_exit(userdata, 7);
}

START_TEST(server_that_never_started_can_stop)
{
        sd_event *loop;
        struct rpc_server *server;

        setup_folder();
        ck_assert_int_ge(sd_event_new(&loop), 0);
        server = new_server(loop);
        ck_assert_int_eq(rpc_server_listen_unix(server, socket_path, (gid_t)-1), 0);
        rpc_server_stop(server, 0, on_stopped, loop);
        ck_assert_int_eq(sd_event_loop(loop), 7);
        (void)rpc_server_free(server);
        ck_assert_int_ne(access(socket_path, F_OK), 0);
        (void)sd_event_unref(loop);
        teardown_folder();
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("listening");
        TCase *calls = tcase_create("calls");
        TCase *bare = tcase_create("bare");

        tcase_add_checked_fixture(calls, setup, teardown);
        tcase_set_timeout(calls, 60);
        tcase_add_test(calls, second_server_on_a_socket_is_refused);
        tcase_add_test(calls, port_in_use_is_refused);
        tcase_add_test(calls, stop_waits_for_calls_and_then_cancels_them);
        tcase_add_test(calls, stop_without_calls_is_quick);
        suite_add_tcase(suite, calls);

        tcase_set_timeout(bare, 60);
        tcase_add_test(bare, stale_socket_is_replaced);
        tcase_add_test(bare, living_socket_without_our_lock_is_left_alone);
        tcase_add_test(bare, file_in_the_place_of_a_socket_is_kept);
        tcase_add_test(bare, only_loopback_is_served);
        tcase_add_test(bare, server_that_never_started_can_stop);
        suite_add_tcase(suite, bare);

        log_init("test_listening", LOG_LEVEL_ERROR);
        return suite_main(suite);
}
