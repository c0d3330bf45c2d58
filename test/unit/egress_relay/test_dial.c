/* Connections to the outside, and what is not the outside. Each test has a network of its own. */

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/dial.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"
#include "test/unit/egress_relay/net.h"

enum { SECOND_USEC = 1000000 };

static const struct policy_prefix loopback[] = {
        { .n_bits = 8, .bytes = { 127 } },
        { .is_v6 = true, .n_bits = 128, .bytes = { [15] = 1 } },
};

struct fixture {
        sd_event *event;
        struct routes routes;
        struct dial_config config;
        struct dial *dial;
        struct dial_result result;
        unsigned n_results;
        bool is_kept; /* the dial, beyond its end */
};

static bool is_calloc_broken;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
        return is_calloc_broken ? NULL : __real_calloc(n, size);
}

static void on_done(void *userdata, const struct dial_result *result)
{
        struct fixture *fixture = userdata;

        fixture->result = *result;
        fixture->n_results++;
        if (!fixture->is_kept)
                fixture->dial = dial_free(fixture->dial);
}

static void fixture_init(struct fixture *fixture)
{
        sd_event_source *timer;

        *fixture = (struct fixture){ .result.fd = -1 };
        ck_assert_int_ge(sd_event_new(&fixture->event), 0);
        /* With its first timer the loop opens a descriptor, which it keeps. */
        ck_assert_int_ge(sd_event_add_time_relative(fixture->event, &timer, CLOCK_MONOTONIC, 0, 0,
                                                    NULL, NULL),
                         0);
        sd_event_source_disable_unref(timer);
        ck_assert_int_eq(routes_init(&fixture->routes), 0);
        fixture->config = (struct dial_config){
                .event = fixture->event,
                .routes = &fixture->routes,
                .timeout_usec = (uint64_t)10 * SECOND_USEC * (unsigned)test_patience(),
                .on_done = on_done,
                .userdata = fixture,
        };
}

static void fixture_deinit(struct fixture *fixture)
{
        ck_assert_ptr_null(fixture->dial);
        (void)close_fd(fixture->result.fd);
        routes_deinit(&fixture->routes);
        sd_event_unref(fixture->event);
}

static void open_loopback(struct fixture *fixture)
{
        fixture->config.opened = loopback;
        fixture->config.n_opened = ARRAY_SIZE(loopback);
}

static void dial_endpoint(struct fixture *fixture, const struct endpoint *endpoint)
{
        fixture->n_results = 0;
        ck_assert_int_eq(dial_new(&fixture->config, endpoint, &fixture->dial), 0);
        ck_assert_uint_eq(fixture->n_results, 0);
        while (fixture->n_results == 0)
                ck_assert_int_ge(sd_event_run(fixture->event, UINT64_MAX), 0);
}

static void expect(struct fixture *fixture, const char *address, enum dial_outcome outcome,
                   int error)
{
        const struct endpoint endpoint = net_endpoint(address, 9);

        dial_endpoint(fixture, &endpoint);
        ck_assert_msg(fixture->result.outcome == outcome, "%s: %d, not %d", address,
                      (int)fixture->result.outcome, (int)outcome);
        ck_assert_int_eq(fixture->result.error, error);
        ck_assert_int_eq(fixture->result.fd, -1);
}

static void expect_connected(struct fixture *fixture, const char *address)
{
        struct endpoint endpoint = net_endpoint(address, 0);
        _cleanup_(closep) int listen_fd = net_listen(&endpoint);
        _cleanup_(closep) int accepted_fd = -1;
        char byte;

        dial_endpoint(fixture, &endpoint);
        ck_assert_int_eq(fixture->result.outcome, DIAL_CONNECTED);
        ck_assert_int_eq(fixture->result.error, 0);
        accepted_fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_int_ge(accepted_fd, 0);
        ck_assert_int_eq(send(accepted_fd, "x", 1, 0), 1);
        ck_assert_int_eq(recv(fixture->result.fd, &byte, 1, 0), 1);
        ck_assert_int_eq(recv(fixture->result.fd, &byte, 1, 0), -1);
        ck_assert_int_eq(errno, EAGAIN);
        fixture->result.fd = close_fd(fixture->result.fd);
}

START_TEST(connection_is_made_and_handed_over)
{
        struct fixture fixture;
        size_t n_descriptors;

        if (!net_enter())
                return;
        fixture_init(&fixture);
        open_loopback(&fixture);
        n_descriptors = net_n_descriptors();
        expect_connected(&fixture, "127.0.0.1");
        expect_connected(&fixture, "127.1.2.3");
        expect_connected(&fixture, "::1");
        expect_connected(&fixture, "::ffff:127.0.0.1");
        ck_assert_uint_eq(net_n_descriptors(), n_descriptors);
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(host_itself_is_refused_before_anything_is_sent)
{
        static const char *const addresses[] = { "127.0.0.1",        "127.1.2.3",     "192.0.2.1",
                                                 "0.0.0.0",          "::1",           "::",
                                                 "::ffff:127.0.0.1", "::ffff:0.0.0.0" };
        struct fixture fixture;

        if (!net_enter())
                return;
        net_add_address("192.0.2.1");
        fixture_init(&fixture);
        for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
                struct endpoint endpoint =
                        net_endpoint(strchr(addresses[i], ':') ? "::" : "0.0.0.0", 0);
                _cleanup_(closep) int listen_fd = net_listen(&endpoint);
                struct endpoint target = net_endpoint(addresses[i], endpoint.port);

                dial_endpoint(&fixture, &target);
                ck_assert_int_eq(fixture.result.outcome, DIAL_LOCAL);
                ck_assert_int_eq(fixture.result.error, 0);
                ck_assert_int_eq(fixture.result.fd, -1);
                ck_assert_int_eq(accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC), -1);
                ck_assert_int_eq(errno, EAGAIN);
        }
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(only_what_is_within_an_opened_prefix_is_dialled)
{
        static const struct policy_prefix prefixes[] = {
                { .n_bits = 12, .bytes = { 127, 16 } },
                { .n_bits = 32, .bytes = { 127, 0, 0, 9 } },
        };
        struct fixture fixture;

        if (!net_enter())
                return;
        fixture_init(&fixture);
        fixture.config.opened = prefixes;
        fixture.config.n_opened = ARRAY_SIZE(prefixes);
        expect(&fixture, "127.0.0.1", DIAL_LOCAL, 0);
        expect(&fixture, "127.15.255.255", DIAL_LOCAL, 0);
        expect(&fixture, "127.32.0.0", DIAL_LOCAL, 0);
        expect(&fixture, "127.0.0.8", DIAL_LOCAL, 0);
        expect(&fixture, "::1", DIAL_LOCAL, 0);
        expect(&fixture, "127.16.0.1", DIAL_FAILED, ECONNREFUSED);
        expect(&fixture, "127.31.255.254", DIAL_FAILED, ECONNREFUSED);
        expect(&fixture, "127.0.0.9", DIAL_FAILED, ECONNREFUSED);
        expect(&fixture, "::ffff:127.0.0.9", DIAL_FAILED, ECONNREFUSED);
        /* Of each family the bytes begin alike. */
        fixture.config.opened = &(const struct policy_prefix){ .is_v6 = true };
        fixture.config.n_opened = 1;
        expect(&fixture, "127.0.0.1", DIAL_LOCAL, 0);
        expect(&fixture, "::1", DIAL_FAILED, ECONNREFUSED);
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(what_reaches_many_is_refused)
{
        static const struct policy_prefix everything[] = { { 0 }, { .is_v6 = true } };
        struct fixture fixture;

        if (!net_enter())
                return;
        net_add_route("0.0.0.0", "0.0.0.0");
        fixture_init(&fixture);
        for (unsigned i = 0; i < 2; i++) {
                expect(&fixture, "127.255.255.255", DIAL_BROADCAST, 0);
                expect(&fixture, "255.255.255.255", DIAL_BROADCAST, 0);
                expect(&fixture, "224.0.0.1", DIAL_MULTICAST, 0);
                expect(&fixture, "239.1.2.3", DIAL_MULTICAST, 0);
                fixture.config.opened = everything;
                fixture.config.n_opened = ARRAY_SIZE(everything);
        }
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(v6_leads_to_one_or_to_many)
{
        struct fixture fixture;
        _cleanup_(closep) int exit_fd = -1;

        if (!net_enter() || (exit_fd = net_add_v6_exit("2001:db8::", 32)) < 0)
                return;
        fixture_init(&fixture);
        fixture.config.timeout_usec = 1000;
        expect(&fixture, "2001:db8::1", DIAL_TIMED_OUT, ETIMEDOUT);
        expect(&fixture, "ff02::1", DIAL_MULTICAST, 0);
        expect(&fixture, "2001:db9::1", DIAL_FAILED, ENETUNREACH);
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(refusals_of_the_network_are_told_with_their_errno)
{
        struct fixture fixture;
        size_t n_descriptors;

        if (!net_enter())
                return;
        net_add_unreachable("203.0.113.0", "255.255.255.0");
        fixture_init(&fixture);
        open_loopback(&fixture);
        n_descriptors = net_n_descriptors();
        expect(&fixture, "127.0.0.1", DIAL_FAILED, ECONNREFUSED);
        expect(&fixture, "::1", DIAL_FAILED, ECONNREFUSED);
        expect(&fixture, "198.51.100.1", DIAL_FAILED, ENETUNREACH);
        expect(&fixture, "2001:db8::1", DIAL_FAILED, ENETUNREACH);
        expect(&fixture, "203.0.113.1", DIAL_FAILED, EHOSTUNREACH);
        ck_assert_uint_eq(net_n_descriptors(), n_descriptors);
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(black_hole_ends_with_the_timeout)
{
        struct fixture fixture;
        size_t n_descriptors;
        uint64_t start_usec = clock_monotonic_usec();

        if (!net_enter())
                return;
        net_add_route("198.51.100.0", "255.255.255.0");
        fixture_init(&fixture);
        fixture.config.timeout_usec = 50000;
        fixture.is_kept = true;
        n_descriptors = net_n_descriptors();
        expect(&fixture, "198.51.100.1", DIAL_TIMED_OUT, ETIMEDOUT);
        ck_assert_uint_ge(clock_monotonic_usec() - start_usec, 50000);
        ck_assert_uint_eq(net_n_descriptors(), n_descriptors);
        fixture.dial = dial_free(fixture.dial);
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(dial_that_was_given_up_is_not_told)
{
        const struct endpoint hole = net_endpoint("198.51.100.1", 9);
        const struct endpoint local = net_endpoint("127.0.0.1", 9);
        struct fixture fixture;
        size_t n_descriptors;

        if (!net_enter())
                return;
        net_add_route("198.51.100.0", "255.255.255.0");
        fixture_init(&fixture);
        fixture.config.timeout_usec = 1000;
        n_descriptors = net_n_descriptors();
        ck_assert_int_eq(dial_new(&fixture.config, &hole, &fixture.dial), 0);
        fixture.dial = dial_free(fixture.dial);
        ck_assert_int_eq(dial_new(&fixture.config, &local, &fixture.dial), 0);
        fixture.dial = dial_free(fixture.dial);
        ck_assert_int_eq(sd_event_run(fixture.event, 20000), 0);
        ck_assert_uint_eq(fixture.n_results, 0);
        ck_assert_uint_eq(net_n_descriptors(), n_descriptors);
        fixture_deinit(&fixture);
}
END_TEST

START_TEST(want_of_descriptors_and_memory_is_told)
{
        const struct endpoint endpoint = net_endpoint("127.0.0.1", 9);
        struct fixture fixture;

        if (!net_enter())
                return;
        fixture_init(&fixture);
        open_loopback(&fixture);
        net_limit_descriptors(0);
        expect(&fixture, "127.0.0.1", DIAL_NO_ROOM, EMFILE);
        net_limit_descriptors(1);
        expect(&fixture, "127.0.0.1", DIAL_FAILED, ECONNREFUSED);
        is_calloc_broken = true;
        ck_assert_int_eq(dial_new(&fixture.config, &endpoint, &fixture.dial), -ENOMEM);
        is_calloc_broken = false;
        fixture_deinit(&fixture);
}
END_TEST

/* As after a call that failed between question and answer. */
START_TEST(answers_are_told_from_older_ones)
{
        const struct endpoint local = net_endpoint("127.0.0.1", 9);
        const struct endpoint mapped = net_endpoint("::ffff:127.0.0.1", 9);
        const struct endpoint unreachable = net_endpoint("198.51.100.1", 9);
        struct routes routes;
        struct {
                uint32_t length;
                uint16_t type, flags;
                uint32_t number, sender;
                uint8_t family, rest[11];
                uint16_t attribute_length, attribute_type;
                uint8_t address[4];
        } question = { .length = 36,
                       .type = 26,
                       .flags = 1,
                       .number = 77,
                       .family = AF_INET,
                       .attribute_length = 8,
                       .attribute_type = 1,
                       .address = { 127, 0, 0, 1 } };

        if (!net_enter())
                return;
        ck_assert_int_eq(routes_init(&routes), 0);
        ck_assert_int_eq(send(routes.fd, &question, sizeof(question), 0), sizeof(question));
        ck_assert_int_eq(route_check(&routes, &unreachable), -ENETUNREACH);
        ck_assert_int_eq(route_check(&routes, &local), ROUTE_E_LOCAL);
        ck_assert_int_eq(route_check(&routes, &mapped), ROUTE_E_LOCAL);
        routes_deinit(&routes);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("dial");
        TCase *tests = tcase_create("dial");

        tcase_set_timeout(tests, 30.0 * test_patience());
        tcase_add_test(tests, connection_is_made_and_handed_over);
        tcase_add_test(tests, host_itself_is_refused_before_anything_is_sent);
        tcase_add_test(tests, only_what_is_within_an_opened_prefix_is_dialled);
        tcase_add_test(tests, what_reaches_many_is_refused);
        tcase_add_test(tests, v6_leads_to_one_or_to_many);
        tcase_add_test(tests, refusals_of_the_network_are_told_with_their_errno);
        tcase_add_test(tests, black_hole_ends_with_the_timeout);
        tcase_add_test(tests, dial_that_was_given_up_is_not_told);
        tcase_add_test(tests, want_of_descriptors_and_memory_is_told);
        tcase_add_test(tests, answers_are_told_from_older_ones);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
