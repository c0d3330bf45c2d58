/* The gRPC layer, against a client on the same library. */
#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/rpc.h"
#include "test/unit/rpc/client.h"
#include "test/unit/rpc/harness.h"

static struct harness harness;
static struct client client;
static char folder[64];
static char socket_path[96];
static char target[128];

/* --- fixtures: each test has a process of its own --- */

static void setup_folder(void)
{
        strcpy(folder, "/tmp/hotcell-rpc-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(folder));
        (void)snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
        (void)snprintf(target, sizeof(target), "unix:%s", socket_path);
        grpc_init();
}

static void teardown_folder(void)
{
        char lock_path[128];

        grpc_shutdown();
        (void)snprintf(lock_path, sizeof(lock_path), "%s.lock", socket_path);
        (void)unlink(socket_path);
        (void)unlink(lock_path);
        ck_assert_int_eq(rmdir(folder), 0);
}

static void setup(void)
{
        setup_folder();
        harness_init(&harness);
        harness_start(&harness, socket_path, true);
        client_init(&client, target);
}

static void teardown(void)
{
        client_deinit(&client);
        harness_stop(&harness);
        teardown_folder();
}

static struct client_result unary(const char *path, const char *text)
{
        return client_unary(&client, path, text, strlen(text), 5000);
}

#define assert_echo_works(a_client)                                                                \
        do {                                                                                       \
                struct client_result echoed =                                                      \
                        client_unary((a_client), "/test.Test/Echo", "hello", 5, 5000);             \
                                                                                                   \
                ck_assert_int_eq(echoed.code, GRPC_STATUS_OK);                                     \
                ck_assert_str_eq((const char *)echoed.bytes, "hello");                             \
                client_result_deinit(&echoed);                                                     \
        } while (0)

static long memory_kib(void)
{
        long pages = 0;
        _cleanup_(fclosep) FILE *file = fopen("/proc/self/statm", "re");

        ck_assert_ptr_nonnull(file);
        ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
        return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static uint64_t now_msec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int raw_connect(void)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -1;
        strcpy(address.sun_path, socket_path);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                fd = close_fd(fd);
        return fd;
}

/* --- calls --- */

START_TEST(unary_answers)
{
        struct client_result empty = unary("/test.Test/Echo", "");
        struct client_result large;
        char *bytes = calloc(1, MIB(3));

        ck_assert_int_eq(empty.code, GRPC_STATUS_OK);
        ck_assert_uint_eq(empty.n_bytes, 0);
        client_result_deinit(&empty);
        assert_echo_works(&client);

        large = client_unary(&client, "/test.Test/Echo", bytes, MIB(3), 10000);
        ck_assert_int_eq(large.code, GRPC_STATUS_OK);
        ck_assert_uint_eq(large.n_bytes, MIB(3));
        client_result_deinit(&large);
        free(bytes);
}
END_TEST

START_TEST(unknown_method_is_unimplemented_at_once)
{
        uint64_t start = now_msec();
        struct client_result result = unary("/test.Test/Nothing", "x");

        ck_assert_int_eq(result.code, GRPC_STATUS_UNIMPLEMENTED);
        ck_assert_uint_lt(now_msec() - start, 2000);
}
END_TEST

START_TEST(call_without_request_is_refused)
{
        struct client_call call;

        client_open(&client, &call, "/test.Test/Echo", 5000);
        client_half_close(&call);
        ck_assert(!client_read(&call));
        client_finish(&call);
        ck_assert_int_eq(call.result.code, GRPC_STATUS_INVALID_ARGUMENT);
}
END_TEST

START_TEST(too_large_request_is_refused)
{
        char *bytes = calloc(1, MIB(5));
        struct client_result result =
                client_unary(&client, "/test.Test/Echo", bytes, MIB(5), 10000);

        ck_assert_int_eq(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
        assert_echo_works(&client);
        free(bytes);
}
END_TEST

START_TEST(compressed_request_is_read_up_to_the_limit)
{
        struct client gzip;
        struct client_result result;
        char *bytes = calloc(1, MIB(64));

        client_init_gzip(&gzip, target);
        result = client_unary(&gzip, "/test.Test/Echo", bytes, MIB(4), 10000);
        ck_assert_int_eq(result.code, GRPC_STATUS_OK);
        ck_assert_uint_eq(result.n_bytes, MIB(4));
        client_result_deinit(&result);

        result = client_unary(&gzip, "/test.Test/Echo", bytes, MIB(4) + 1, 10000);
        ck_assert_int_eq(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(result.message, "The request is too large.");
        result = client_unary(&gzip, "/test.Test/Echo", bytes, MIB(64), 20000);
        ck_assert_int_eq(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(result.message, "The request is too large.");
        free(bytes);
        client_deinit(&gzip);
}
END_TEST

START_TEST(handler_knows_peer_and_metadata)
{
        struct client tcp;
        struct client_result result = unary("/test.Test/Who", "");
        char expected[128];

        (void)snprintf(expected, sizeof(expected), "unix %u %d value", getuid(), getpid());
        ck_assert_str_eq((const char *)result.bytes, expected);
        client_result_deinit(&result);

        (void)snprintf(expected, sizeof(expected), "127.0.0.1:%u", harness.port);
        client_init(&tcp, expected);
        result = client_unary(&tcp, "/test.Test/Who", "", 0, 5000);
        ck_assert_str_eq((const char *)result.bytes, "tcp value");
        client_result_deinit(&result);
        client_deinit(&tcp);
}
END_TEST

START_TEST(details_come_with_the_error)
{
        struct client_result result = unary("/test.Test/Fail", "");

        ck_assert_int_eq(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(result.message, "There are 8 of 8 sandboxes – “full”.\n100 %");
        ck_assert_uint_gt(result.n_details, 100);
}
END_TEST

/* --- streams and ends --- */

START_TEST(reader_that_stops_stops_the_writer)
{
        struct client_call call;
        unsigned n_written;
        long memory;

        client_open(&client, &call, "/test.Test/Pour", 0);
        client_send(&call, "", 0);
        client_half_close(&call);
        ck_assert(client_read(&call));
        do {
                n_written = harness.n_written;
                for (int i = 0; i < 100; i++)
                        harness_pause();
        } while (n_written != harness.n_written);

        memory = memory_kib();
        for (int i = 0; i < 300; i++)
                harness_pause();
        ck_assert_uint_eq(harness.n_written, n_written);
        ck_assert_uint_lt(n_written, 1000);
        ck_assert_int_lt(memory_kib() - memory, 1024);

        for (unsigned i = 0; i < 2000; i++) {
                ck_assert(client_read(&call));
                ck_assert_uint_eq(call.result.n_bytes, KIB(64));
        }
        ck_assert_uint_gt(harness.n_written, n_written);
        client_abandon(&call);
        ck_assert(harness_eventually(harness.n_gone == 1));
}
END_TEST

START_TEST(cancel_reaches_the_observer)
{
        struct client_call stream;
        struct client_call held;

        client_open(&client, &stream, "/test.Test/Pour", 0);
        client_send(&stream, "", 0);
        ck_assert(client_read(&stream));
        client_abandon(&stream);
        ck_assert(harness_eventually(harness.n_gone == 1));

        client_open(&client, &held, "/test.Test/Hold", 0);
        client_send(&held, "", 0);
        ck_assert(harness_eventually(harness.n_held == 1));
        ck_assert_uint_eq(harness.n_gone, 1);
        client_abandon(&held);
        ck_assert(harness_eventually(harness.n_gone == 2));
}
END_TEST

START_TEST(deadline_reaches_the_observer)
{
        struct client_result result = client_unary(&client, "/test.Test/Hold", "", 0, 200);

        ck_assert_int_eq(result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
        ck_assert(harness_eventually(harness.n_gone == 1));
}
END_TEST

START_TEST(lost_connection_reaches_the_observer)
{
        struct client other;
        struct client_call call;
        int fd = raw_connect();

        ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
        client_init_fd(&other, fd);
        client_open(&other, &call, "/test.Test/Hold", 0);
        client_send(&call, "", 0);
        ck_assert(harness_eventually(harness.n_held == 1));
        ck_assert_int_eq(shutdown(fd, SHUT_RDWR), 0);
        ck_assert(harness_eventually(harness.n_gone == 1));
        client_abandon(&call);
        client_deinit(&other);
        assert_echo_works(&client);
}
END_TEST

START_TEST(call_that_nobody_observes_waits_for_its_answer)
{
        struct client_result result = client_unary(&client, "/test.Test/Blind", "", 0, 100);

        ck_assert_int_eq(result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
        ck_assert(harness_eventually(harness.n_blind == 1));
        for (int i = 0; i < 50; i++)
                harness_pause();
        harness_answer_blind(&harness);
        assert_echo_works(&client);
        ck_assert_uint_eq(harness.n_gone, 0);
}
END_TEST

START_TEST(late_observer_hears_that_the_call_is_gone)
{
        struct client_result result = client_unary(&client, "/test.Test/Blind", "", 0, 100);

        ck_assert_int_eq(result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
        ck_assert(harness_eventually(harness.n_blind == 1));
        for (int i = 0; i < 50; i++)
                harness_pause();
        harness_observe_blind(&harness);
        ck_assert(harness_eventually(harness.n_gone == 1));
}
END_TEST

START_TEST(chat_answers_each_message_and_ends)
{
        struct client_call call;
        char text[16];

        client_open(&client, &call, "/test.Test/Chat", 5000);
        for (int i = 0; i < 50; i++) {
                (void)snprintf(text, sizeof(text), "message %d", i);
                client_send(&call, text, strlen(text));
                ck_assert(client_read(&call));
                ck_assert_str_eq((const char *)call.result.bytes, text);
        }
        client_half_close(&call);
        ck_assert(!client_read(&call));
        client_finish(&call);
        client_result_deinit(&call.result);
        ck_assert_int_eq(call.result.code, GRPC_STATUS_OK);
        ck_assert_uint_eq(harness.n_ended, 1);
}
END_TEST

START_TEST(chat_that_is_cancelled_ends_for_its_handler)
{
        struct client_call call;

        client_open(&client, &call, "/test.Test/Chat", 5000);
        client_send(&call, "x", 1);
        ck_assert(client_read(&call));
        client_abandon(&call);
        ck_assert(harness_eventually(harness.n_ended == 1));
}
END_TEST

START_TEST(many_calls_at_once_all_end)
{
        enum { N = 200 };
        struct client_call *calls = calloc(N, sizeof(*calls));

        /* More than streams_max: the client's library holds the rest back. */
        for (int i = 0; i < 60; i++) {
                client_open(&client, &calls[i], "/test.Test/Hold", 10000);
                client_send(&calls[i], "", 0);
        }
        for (int i = 0; i < N; i++)
                assert_echo_works(&client);
        ck_assert(harness_eventually(harness.n_held == 60));
        for (int i = 0; i < 60; i++)
                client_abandon(&calls[i]);
        ck_assert(harness_eventually(harness.n_gone == 60));
        free(calls);
}
END_TEST

/* --- connections --- */

START_TEST(a_thousand_connections_come_and_go)
{
        for (int i = 0; i < 1000; i++) {
                struct client other;

                client_init(&other, target);
                assert_echo_works(&other);
                client_deinit(&other);
        }
}
END_TEST

START_TEST(full_table_of_open_files_is_survived)
{
        struct rlimit limit = { .rlim_cur = 100, .rlim_max = 100 };
        int fds[200];
        size_t n = 0;

        setup_folder();
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        harness_init(&harness);
        harness_start(&harness, socket_path, true);
        client_init(&client, target);
        assert_echo_works(&client);

        while (n < ARRAY_SIZE(fds) && (fds[n] = raw_connect()) >= 0)
                n++;
        ck_assert_uint_gt(n, 10);
        ck_assert_uint_lt(n, ARRAY_SIZE(fds));
        for (int i = 0; i < 300; i++)
                harness_pause();
        while (n > 0)
                (void)close_fd(fds[--n]);

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

/* --- bounds --- */

static void start_bounded(void (*configure)(struct rpc_server_config *config))
{
        setup_folder();
        harness_init(&harness);
        configure(&harness.config);
        harness_start(&harness, socket_path, true);
        client_init(&client, target);
}

START_TEST(what_is_not_admitted_is_not_waited_for)
{
        struct client_call call;

        /* The answer comes though no request does. */
        client_open(&client, &call, "/test.Test/Refused", 5000);
        ck_assert(!client_read(&call));
        client_finish(&call);
        ck_assert_int_eq(call.result.code, GRPC_STATUS_UNAUTHENTICATED);
        ck_assert_str_eq(call.result.message, "nobody gets in");
        assert_echo_works(&client);
}
END_TEST

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

static Suite *suite(void)
{
        Suite *all = suite_create("rpc");
        TCase *calls = tcase_create("calls");
        TCase *bare = tcase_create("bare");

        tcase_add_checked_fixture(calls, setup, teardown);
        tcase_set_timeout(calls, 60);
        tcase_add_test(calls, unary_answers);
        tcase_add_test(calls, unknown_method_is_unimplemented_at_once);
        tcase_add_test(calls, call_without_request_is_refused);
        tcase_add_test(calls, too_large_request_is_refused);
        tcase_add_test(calls, compressed_request_is_read_up_to_the_limit);
        tcase_add_test(calls, handler_knows_peer_and_metadata);
        tcase_add_test(calls, details_come_with_the_error);
        tcase_add_test(calls, what_is_not_admitted_is_not_waited_for);
        tcase_add_test(calls, a_connection_is_closed_for_a_message_without_end);
        tcase_add_test(calls, reader_that_stops_stops_the_writer);
        tcase_add_test(calls, cancel_reaches_the_observer);
        tcase_add_test(calls, deadline_reaches_the_observer);
        tcase_add_test(calls, lost_connection_reaches_the_observer);
        tcase_add_test(calls, call_that_nobody_observes_waits_for_its_answer);
        tcase_add_test(calls, late_observer_hears_that_the_call_is_gone);
        tcase_add_test(calls, chat_answers_each_message_and_ends);
        tcase_add_test(calls, chat_that_is_cancelled_ends_for_its_handler);
        tcase_add_test(calls, many_calls_at_once_all_end);
        tcase_add_test(calls, a_thousand_connections_come_and_go);
        tcase_add_test(calls, second_server_on_a_socket_is_refused);
        tcase_add_test(calls, port_in_use_is_refused);
        tcase_add_test(calls, stop_waits_for_calls_and_then_cancels_them);
        tcase_add_test(calls, stop_without_calls_is_quick);
        suite_add_tcase(all, calls);

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
        tcase_add_test(bare, stale_socket_is_replaced);
        tcase_add_test(bare, living_socket_without_our_lock_is_left_alone);
        tcase_add_test(bare, file_in_the_place_of_a_socket_is_kept);
        tcase_add_test(bare, only_loopback_is_served);
        tcase_add_test(bare, server_that_never_started_can_stop);
        suite_add_tcase(all, bare);
        return all;
}

int main(void)
{
        SRunner *runner = srunner_create(suite());
        int n_failed;

        log_init("test_rpc", LOG_LEVEL_ERROR);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
