/* What upstreams may do to a resolver: break off, lie, be silent. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/macros.h"
#include "runtime/egress/resolver.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"
#include "test/unit/egress/fake_upstream.h"
#include "test/unit/egress/packet.h"
#include "test/unit/egress/resolver.h"

static void give_many_by_tcp(const struct asked *asked)
{
        answer_begin(&packet, asked, asked->is_tcp ? 0 : PACKET_TRUNCATED, asked->is_tcp ? 60 : 0);
        for (unsigned i = 0; asked->is_tcp && i < 60; i++)
                put_address(&packet, asked->name, 60, "192.0.2.1");
        answer_send(&packet, asked);
}

START_TEST(what_does_not_fit_upstream_is_asked_for_by_tcp)
{
        struct waiter waiter = { 0 };

        start_with(give_many_by_tcp);
        put_query(&packet, "www.example", DNS_TYPE_A);
        put_edns(&packet, 4096, 0);
        ck_assert_int_eq(send_packet(&waiter), 0);
        finish(&waiter);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 60);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
        ck_assert_uint_eq(f.upstream.n_tcp, 1);
        ck_assert_uint_eq(f.n_admitted_addresses, 60);
}
END_TEST

START_TEST(what_does_not_fit_the_client_is_cut)
{
        struct waiter waiter = { 0 };

        start_with(give_many_by_tcp);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert(is_truncated(waiter.bytes));
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        put_query(&packet, "www.example", DNS_TYPE_A);
        waiter.is_answered = false;
        ck_assert_int_eq(
                resolver_ask(f.client, DNS_TCP, packet.bytes, packet.n_bytes, &waiter.request), 0);
        finish(&waiter);
        ck_assert(!is_truncated(waiter.bytes));
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 60);
}
END_TEST

static void hang_up(const struct asked *asked)
{
        if (asked->is_tcp)
                fake_upstream_hang_up(asked->upstream);
        else
                give_many_by_tcp(asked);
}

START_TEST(server_that_hangs_up_fails)
{
        struct waiter waiter = { 0 };

        start_with(hang_up);
        for (unsigned i = 0; i < 20; i++)
                ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_SERVFAIL);
        f.upstream.script = give_many_by_tcp;
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
}
END_TEST

static void break_off_by_tcp(const struct asked *asked)
{
        /* A length, and not so many bytes. */
        if (asked->is_tcp)
                ck_assert_int_eq(send(asked->upstream->tcp_fd, "\xff\xff..", 4, MSG_NOSIGNAL), 4);
        else
                give_many_by_tcp(asked);
}

START_TEST(server_that_stops_within_an_answer_fails)
{
        struct waiter waiter = { 0 };

        f.config.upstream.timeout_msec = 200;
        start_with(break_off_by_tcp);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_SERVFAIL);
        expect_sole_event(RESOLVER_UPSTREAM, "www.example", DNS_TYPE_A);
}
END_TEST

static void lie_about_the_name(const struct asked *asked)
{
        struct asked other = *asked;

        memcpy(other.name, "abc", 3);
        give_one_address(&other);
}

static void lie_about_the_type(const struct asked *asked)
{
        struct asked other = *asked;

        other.type = DNS_TYPE_AAAA;
        give_one_address(&other);
}

static void lie_about_the_id(const struct asked *asked)
{
        struct asked other = *asked;

        other.id ^= 1;
        give_one_address(&other);
}

static void send_garbage(const struct asked *asked)
{
        static const uint8_t bytes[300] = { 0xff, 0xff, 0xff };

        for (size_t n = 0; n < sizeof(bytes); n += 7) {
                packet.n_bytes = 0;
                put_bytes(&packet, bytes, n);
                answer_send(&packet, asked);
        }
}

static void (*const lies[])(const struct asked *asked) = {
        stay_silent, lie_about_the_name, lie_about_the_type, lie_about_the_id, send_garbage,
};

START_TEST(lie_is_no_answer)
{
        struct waiter waiter = { 0 };

        f.config.upstream.timeout_msec = 200;
        start_with(lies[_i]);
        begin(&waiter, "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        finish(&waiter);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_SERVFAIL);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
        ck_assert_uint_eq(f.n_admitted, 0);
        expect_sole_event(RESOLVER_UPSTREAM, "www.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].error, ETIMEDOUT);
}
END_TEST

static void lie_and_answer(const struct asked *asked)
{
        lie_about_the_name(asked);
        lie_about_the_type(asked);
        lie_about_the_id(asked);
        send_garbage(asked);
        give_one_address(asked);
}

START_TEST(answer_is_found_among_lies)
{
        struct waiter waiter = { 0 };

        start_with(lie_and_answer);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
}
END_TEST

static void break_off(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 1);
        put_address(&packet, asked->name, 60, "192.0.2.1");
        packet.n_bytes--;
        answer_send(&packet, asked);
}

START_TEST(broken_answer_fails_at_once)
{
        struct waiter waiter = { 0 };

        start_with(break_off);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_SERVFAIL);
        expect_sole_event(RESOLVER_UPSTREAM, "www.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].error, EBADMSG);
}
END_TEST

static unsigned given_rcode;

static void give_rcode(const struct asked *asked)
{
        answer_begin(&packet, asked, given_rcode, 0);
        answer_send(&packet, asked);
}

START_TEST(rcodes_of_an_upstream_are_translated)
{
        static const struct {
                unsigned given;
                unsigned expected;
        } rcodes[] = { { DNS_NOERROR, DNS_NOERROR },   { DNS_NXDOMAIN, DNS_NXDOMAIN },
                       { DNS_SERVFAIL, DNS_SERVFAIL }, { DNS_REFUSED, DNS_SERVFAIL },
                       { DNS_NOTIMP, DNS_SERVFAIL },   { 9, DNS_SERVFAIL } };
        size_t n_failures = 0;
        struct waiter waiter = { 0 };

        start_with(give_rcode);
        for (size_t i = 0; i < ARRAY_SIZE(rcodes); i++) {
                given_rcode = rcodes[i].given;
                ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), rcodes[i].expected);
                ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
                n_failures += rcodes[i].expected == DNS_SERVFAIL;
                ck_assert_uint_eq(f.n_events, n_failures);
                if (rcodes[i].expected == DNS_SERVFAIL)
                        ck_assert_int_eq(f.events[n_failures - 1].error, EREMOTEIO);
        }
        ck_assert_uint_eq(f.n_admitted, 0);
}
END_TEST

START_TEST(next_server_is_asked_when_one_is_silent)
{
        struct waiter waiter = { 0 };
        struct fake_upstream second;
        char servers[80];

        fake_upstream_init(&second, f.loop);
        second.script = give_one_address;
        (void)snprintf(servers, sizeof(servers), "%s,%s", f.upstream.server, second.server);
        f.config.upstream.servers = servers;
        f.config.upstream.timeout_msec = 1000U * (unsigned)test_patience();
        start_with(_i ? give_rcode : stay_silent);
        given_rcode = DNS_SERVFAIL;
        begin(&waiter, "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        finish(&waiter);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_NOERROR);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
        ck_assert_uint_eq(second.n_udp, 1);
        fake_upstream_deinit(&second);
}
END_TEST

START_TEST(server_that_is_not_there_fails)
{
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        fake_upstream_deinit(&f.upstream);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_SERVFAIL);
        expect_sole_event(RESOLVER_UPSTREAM, "www.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].error, EREMOTEIO);
}
END_TEST

static uint32_t given_ttl;

static void give_ttl(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 2);
        put_address(&packet, asked->name, given_ttl, "192.0.2.1");
        put_address(&packet, asked->name, given_ttl + 1000, "192.0.2.2");
        answer_send(&packet, asked);
}

START_TEST(ttl_has_a_floor_and_a_cap)
{
        static const uint32_t ttls[][2] = { { 0, 5 },     { 4, 5 },     { 5, 5 },       { 6, 6 },
                                            { 300, 300 }, { 301, 300 }, { 100000, 300 } };
        struct waiter waiter = { 0 };

        start_with(give_ttl);
        for (size_t i = 0; i < ARRAY_SIZE(ttls); i++) {
                given_ttl = ttls[i][0];
                ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
                ck_assert_uint_eq(f.admitted_ttl_sec, ttls[i][1]);
                ck_assert_uint_eq(get_u16(waiter.bytes, 12 + 17 + 8), ttls[i][1]);
                ck_assert_uint_eq(get_u16(waiter.bytes, 12 + 17 + 16 + 8), ttls[i][1]);
        }
}
END_TEST

enum { QUESTIONS = 12 };

static struct asked questions[QUESTIONS];

static void hold_all(const struct asked *asked)
{
        questions[asked->upstream->n_udp - 1] = *asked;
}

/* How many different ports questions came from, all in flight at once. */
static size_t count_ports(void)
{
        static struct waiter waiters[QUESTIONS];
        char name[32];
        size_t n = 0;

        start_with(hold_all);
        for (unsigned i = 0; i < QUESTIONS; i++) {
                (void)snprintf(name, sizeof(name), "a%u.wild.example", i);
                begin(&waiters[i], name, DNS_TYPE_A);
        }
        wait_for_queries(QUESTIONS);
        for (size_t i = 0; i < QUESTIONS; i++) {
                bool is_new = true;

                for (size_t j = 0; j < i; j++)
                        is_new = is_new && questions[j].peer.sin_port != questions[i].peer.sin_port;
                n += is_new;
                give_one_address(&questions[i]);
        }
        for (size_t i = 0; i < QUESTIONS; i++) {
                run_until(is_answered, &waiters[i]);
                ck_assert_uint_eq(get_rcode(waiters[i].bytes), DNS_NOERROR);
        }
        return n;
}

START_TEST(each_question_comes_from_a_port_of_its_own)
{
        ck_assert_uint_eq(count_ports(), QUESTIONS);
}
END_TEST

START_TEST(too_many_questions_share_ports)
{
        f.config.upstream.channels_max = 5;
        ck_assert_uint_eq(count_ports(), 5);
}
END_TEST

static void add_tests(TCase *all)
{
        tcase_add_checked_fixture(all, setup, teardown);
        tcase_add_test(all, what_does_not_fit_upstream_is_asked_for_by_tcp);
        tcase_add_test(all, what_does_not_fit_the_client_is_cut);
        tcase_add_test(all, server_that_hangs_up_fails);
        tcase_add_test(all, server_that_stops_within_an_answer_fails);
        tcase_add_loop_test(all, lie_is_no_answer, 0, (int)ARRAY_SIZE(lies));
        tcase_add_test(all, answer_is_found_among_lies);
        tcase_add_test(all, broken_answer_fails_at_once);
        tcase_add_test(all, rcodes_of_an_upstream_are_translated);
        tcase_add_loop_test(all, next_server_is_asked_when_one_is_silent, 0, 2);
        tcase_add_test(all, server_that_is_not_there_fails);
        tcase_add_test(all, ttl_has_a_floor_and_a_cap);
        tcase_add_test(all, each_question_comes_from_a_port_of_its_own);
        tcase_add_test(all, too_many_questions_share_ports);
}

int main(void)
{
        Suite *suite = suite_create("resolver_upstream");
        TCase *all = tcase_create("all");

        tcase_set_timeout(all, 60);
        add_tests(all);
        suite_add_tcase(suite, all);
        return suite_main(suite);
}
