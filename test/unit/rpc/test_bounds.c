/* What a connection, an owner and strangers may take of the server. */
#include <check.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/rpc.h"
#include "test/lib/suite.h"
#include "test/unit/rpc/fixture.h"

static size_t count_open_files(void)
{
        size_t n = 0;
        DIR *folder = opendir("/proc/self/fd");

        if (!folder)
                return SIZE_MAX;
        while (readdir(folder))
                n++;
        (void)closedir(folder);
        return n;
}

START_TEST(full_table_of_open_files_is_survived)
{
        struct rlimit limit = { .rlim_cur = 100, .rlim_max = 100 };
        int fds[200];
        size_t n_before;
        size_t n = 0;

        setup_folder();
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        harness_init(&harness);
        harness_start(&harness, socket_path, true);
        client_init(&client, target);
        assert_echo_works(&client);
        n_before = count_open_files();

        while (n < ARRAY_SIZE(fds) && (fds[n] = raw_connect()) >= 0)
                n++;
        ck_assert_uint_gt(n, 10);
        ck_assert_uint_lt(n, ARRAY_SIZE(fds));
        for (int i = 0; i < 300; i++)
                harness_pause();
        while (n > 0)
                (void)close_fd(fds[--n]);
        /* Both ends are in this process, and gRPC closes its own in its time. */
        ck_assert(harness_eventually(count_open_files() <= n_before));

        assert_echo_works(&client);
        for (int i = 0; i < 5; i++) {
                struct client other;

                client_init(&other, target);
                assert_echo_works(&other);
                client_deinit(&other);
        }
        teardown();
}
END_TEST

static bool is_greeted(int fd)
{
        char byte;

        return read(fd, &byte, 1) == 1;
}

START_TEST(connections_above_the_limit_are_closed)
{
        int fds[3];
        char byte;

        setup_folder();
        harness_init(&harness);
        harness.config.connections_max = 3;
        harness_start(&harness, socket_path, false);
        for (size_t i = 0; i < 3; i++)
                fds[i] = raw_connect();

        /* The server greets the first three with its settings. */
        for (size_t i = 0; i < 3; i++)
                ck_assert(is_greeted(fds[i]));
        for (int i = 0; i < 4; i++) {
                int fd = raw_connect();

                ck_assert_int_ge(fd, 0);
                ck_assert_int_eq(read(fd, &byte, 1), 0);
                (void)close_fd(fd);
        }

        /* Its place is free once gRPC has seen the end. */
        (void)close_fd(fds[0]);
        ck_assert(harness_eventually(is_greeted(fds[0] = raw_connect()) || close_fd(fds[0]) > 0));
        (void)close_fd(fds[0]);
        (void)close_fd(fds[1]);
        (void)close_fd(fds[2]);
        harness_stop(&harness);
        teardown_folder();
}
END_TEST

static void start_bounded(void (*configure)(struct rpc_server_config *config))
{
        setup_folder();
        harness_init(&harness);
        configure(&harness.config);
        harness_start(&harness, socket_path, true);
        client_init(&client, target);
}

static void three_calls(struct rpc_server_config *config)
{
        config->calls_per_owner_max = 3;
}

START_TEST(an_owner_has_so_many_calls_at_once)
{
        struct client_call held[3];
        struct client_result result;

        start_bounded(three_calls);
        for (unsigned i = 0; i < 3; i++) {
                client_open(&client, &held[i], "/test.Test/OwnedHold", 0);
                client_send(&held[i], "", 0);
        }
        ck_assert(harness_eventually(harness.n_held == 3));
        result = unary("/test.Test/OwnedEcho", "more");
        ck_assert_int_eq(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(result.message, "calls");
        /* What is not that owner's. */
        client_abandon(&held[0]);
        ck_assert(harness_eventually(harness.n_gone == 1));
        ck_assert(harness_eventually((result = unary("/test.Test/OwnedEcho", "again")).code ==
                                     GRPC_STATUS_OK));
        client_result_deinit(&result);
        client_abandon(&held[1]);
        client_abandon(&held[2]);
        teardown();
}
END_TEST

static void two_connections(struct rpc_server_config *config)
{
        config->connections_per_owner_max = 2;
}

START_TEST(an_owner_has_so_many_connections)
{
        struct client others[2];
        struct client_result result;

        start_bounded(two_connections);
        for (unsigned i = 0; i < 2; i++)
                client_init(&others[i], target);
        result = client_unary(&others[0], "/test.Test/OwnedEcho", "one", 3, 5000);
        ck_assert_int_eq(result.code, GRPC_STATUS_OK);
        client_result_deinit(&result);
        result = client_unary(&others[1], "/test.Test/OwnedEcho", "two", 3, 5000);
        ck_assert_int_eq(result.code, GRPC_STATUS_OK);
        client_result_deinit(&result);
        result = unary("/test.Test/OwnedEcho", "three");
        ck_assert_int_eq(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(result.message, "connections");
        assert_echo_works(&client);

        client_deinit(&others[1]);
        ck_assert(harness_eventually((result = unary("/test.Test/OwnedEcho", "again")).code ==
                                     GRPC_STATUS_OK));
        client_result_deinit(&result);
        client_deinit(&others[0]);
        teardown();
}
END_TEST

static void little_room(struct rpc_server_config *config)
{
        config->unread_per_owner_max_bytes = MIB(1);
}

static grpc_status_code ask_for(uint32_t n_bytes)
{
        struct client_result result =
                client_unary(&client, "/test.Test/OwnedLarge", &n_bytes, sizeof(n_bytes), 5000);
        grpc_status_code code = result.code;

        ck_assert(code != GRPC_STATUS_OK || result.n_bytes == n_bytes);
        ck_assert(code == GRPC_STATUS_OK || !strcmp(result.message, "no room"));
        client_result_deinit(&result);
        return code;
}

START_TEST(an_owner_has_so_many_bytes_unread)
{
        struct client_call calls[8];

        start_bounded(little_room);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                client_open(&client, &calls[i], "/test.Test/OwnedPour", 0);
                client_send(&calls[i], "", 0);
                client_half_close(&calls[i]);
        }
        /* When they have filled the client's windows, 64 KiB of each wait. */
        ck_assert(harness_eventually(ask_for(KIB(600)) == GRPC_STATUS_RESOURCE_EXHAUSTED));
        ck_assert_int_eq(ask_for(KIB(1)), GRPC_STATUS_OK);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                client_abandon(&calls[i]);
        ck_assert(harness_eventually(ask_for(KIB(600)) == GRPC_STATUS_OK));
        teardown();
}
END_TEST

static void room_for_one_message(struct rpc_server_config *config)
{
        config->unread_per_owner_max_bytes = 1;
}

START_TEST(a_stream_without_room_goes_on_when_there_is_some)
{
        struct client_call unread, waiting;

        start_bounded(room_for_one_message);
        client_open(&client, &unread, "/test.Test/OwnedPour", 0);
        client_send(&unread, "", 0);
        client_half_close(&unread);
        ck_assert(harness_eventually(harness.n_poured == 1));
        client_open(&client, &waiting, "/test.Test/OwnedPour", 0);
        client_send(&waiting, "", 0);
        client_half_close(&waiting);
        ck_assert(harness_eventually(harness.n_poured == 2));

        /* All of its messages had to wait for those that nobody read. */
        client_abandon(&unread);
        for (int i = 0; i < 50; i++)
                ck_assert(client_read(&waiting));
        client_abandon(&waiting);
        ck_assert(harness_eventually(harness.n_gone == 2));
        teardown();
}
END_TEST

static void short_timeouts(struct rpc_server_config *config)
{
        config->request_timeout_usec = 300000;
        config->identify_timeout_usec = 300000;
}

START_TEST(a_request_that_does_not_come_is_given_up)
{
        struct client_call call;

        start_bounded(short_timeouts);
        client_open(&client, &call, "/test.Test/OwnedHold", 0);
        ck_assert(!client_read(&call));
        client_finish(&call);
        ck_assert_int_eq(call.result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
        ck_assert_str_eq(call.result.message, "The request did not come in time.");
        ck_assert(harness_eventually(harness.n_gone == 1)); /* who admitted it was told */
        ck_assert_uint_eq(harness.n_held, 0);
        assert_echo_works(&client);
        teardown();
}
END_TEST

/* More than may be read at once, of which none comes: those that come then are read. */
START_TEST(requests_that_do_not_come_give_others_their_turn)
{
        struct client_call calls[40];
        struct client_result result;

        start_bounded(short_timeouts);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                client_open(&client, &calls[i], "/test.Test/OwnedHold", 0);
        result = unary("/test.Test/OwnedEcho", "last");
        ck_assert(result.code == GRPC_STATUS_OK || result.code == GRPC_STATUS_DEADLINE_EXCEEDED);
        client_result_deinit(&result);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                ck_assert(!client_read(&calls[i]));
                client_finish(&calls[i]);
                ck_assert_int_eq(calls[i].result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
        }
        result = unary("/test.Test/OwnedEcho", "now");
        ck_assert_int_eq(result.code, GRPC_STATUS_OK);
        client_result_deinit(&result);
        teardown();
}
END_TEST

static int tcp_connect(void)
{
        const struct sockaddr_in address = { .sin_family = AF_INET,
                                             .sin_port = htons(harness.port),
                                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

/* Reads to the end. */
static void wait_for_end(int fd)
{
        char bytes[4096];

        while (read(fd, bytes, sizeof(bytes)) > 0)
                ;
}

START_TEST(who_says_nothing_is_hung_up_on)
{
        int fd;

        start_bounded(short_timeouts);
        fd = tcp_connect();
        wait_for_end(fd);
        (void)close_fd(fd);
        teardown();
}
END_TEST

START_TEST(who_has_said_whose_it_is_may_stay)
{
        struct client tcp;
        struct client_call held;
        char tcp_target[32];
        int fd;

        start_bounded(short_timeouts);
        (void)snprintf(tcp_target, sizeof(tcp_target), "127.0.0.1:%u", harness.port);
        client_init(&tcp, tcp_target);
        client_open(&tcp, &held, "/test.Test/OwnedHold", 0);
        client_send(&held, "", 0);
        ck_assert(harness_eventually(harness.n_held == 1));
        fd = tcp_connect(); /* later, and gone before */
        wait_for_end(fd);
        (void)close_fd(fd);
        ck_assert_uint_eq(harness.n_gone, 0);
        client_abandon(&held);
        client_deinit(&tcp);
        teardown();
}
END_TEST

static void sixteen_connections(struct rpc_server_config *config)
{
        config->connections_max = 16;
}

START_TEST(strangers_give_their_places_the_oldest_first)
{
        struct client tcp;
        char tcp_target[32];
        int fds[40];

        start_bounded(sixteen_connections);
        assert_echo_works(&client); /* over the unix socket */
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = tcp_connect();
        for (size_t i = 0; i < ARRAY_SIZE(fds) - 14; i++)
                wait_for_end(fds[i]);
        ck_assert(is_greeted(fds[ARRAY_SIZE(fds) - 1]));
        (void)snprintf(tcp_target, sizeof(tcp_target), "127.0.0.1:%u", harness.port);
        client_init(&tcp, tcp_target);
        assert_echo_works(&tcp);
        client_deinit(&tcp);
        client_init(&tcp, target); /* a place is kept for it */
        assert_echo_works(&tcp);
        client_deinit(&tcp);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                (void)close_fd(fds[i]);
        teardown();
}
END_TEST

START_TEST(a_connection_is_closed_for_a_message_without_end)
{
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                      "\0\0\0\4\0\0\0\0\0"  /* settings */
                                      "\0\0\5\0\0\0\0\0\1"  /* data of stream 1, … */
                                      "\0\xff\xff\xff\xff"; /* … a message of 4 GiB */
        int fd = tcp_connect();

        ck_assert_int_eq(write(fd, preface, sizeof(preface) - 1), sizeof(preface) - 1);
        wait_for_end(fd);
        (void)close_fd(fd);
        assert_echo_works(&client);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("bounds");
        TCase *calls = tcase_create("calls");
        TCase *bare = tcase_create("bare");

        tcase_add_checked_fixture(calls, setup, teardown);
        tcase_set_timeout(calls, 60);
        tcase_add_test(calls, a_connection_is_closed_for_a_message_without_end);
        suite_add_tcase(suite, calls);

        tcase_set_timeout(bare, 60);
        tcase_add_test(bare, full_table_of_open_files_is_survived);
        tcase_add_test(bare, connections_above_the_limit_are_closed);
        tcase_add_test(bare, an_owner_has_so_many_calls_at_once);
        tcase_add_test(bare, an_owner_has_so_many_connections);
        tcase_add_test(bare, an_owner_has_so_many_bytes_unread);
        tcase_add_test(bare, a_stream_without_room_goes_on_when_there_is_some);
        tcase_add_test(bare, a_request_that_does_not_come_is_given_up);
        tcase_add_test(bare, requests_that_do_not_come_give_others_their_turn);
        tcase_add_test(bare, who_says_nothing_is_hung_up_on);
        tcase_add_test(bare, who_has_said_whose_it_is_may_stay);
        tcase_add_test(bare, strangers_give_their_places_the_oldest_first);
        suite_add_tcase(suite, bare);

        log_init("test_bounds", LOG_LEVEL_ERROR);
        return suite_main(suite);
}
