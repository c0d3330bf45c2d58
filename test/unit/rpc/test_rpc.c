/* The gRPC layer, against a client on the same library: calls, streams and their ends. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/rpc.h"
#include "test/lib/suite.h"
#include "test/unit/rpc/fixture.h"

static long memory_kib(void)
{
        long pages = 0;
        _cleanup_(fclosep) FILE *file = fopen("/proc/self/statm", "re");

        ck_assert_ptr_nonnull(file);
        ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
        return pages * (sysconf(_SC_PAGESIZE) / 1024);
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

int main(void)
{
        Suite *suite = suite_create("rpc");
        TCase *calls = tcase_create("calls");

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
        suite_add_tcase(suite, calls);

        log_init("test_rpc", LOG_LEVEL_ERROR);
        return suite_main(suite);
}
