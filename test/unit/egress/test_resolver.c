/* What a sandbox is told, what leaves the host for it, and what is reported. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/resolver.h"
#include "test/lib/suite.h"
#include "test/unit/egress/fake_upstream.h"
#include "test/unit/egress/packet.h"
#include "test/unit/egress/resolver.h"

START_TEST(name_without_a_rule_is_refused_at_once)
{
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        begin(&waiter, "Other.Example", DNS_TYPE_A);
        ck_assert(waiter.is_answered);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
        expect_sole_event(RESOLVER_NAME, "other.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].rule, -1);
        /* What is asked for later is all that the upstream hears. */
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
        ck_assert_str_eq(f.upstream.last.name, "www.example");
}
END_TEST

START_TEST(refusal_names_the_rule)
{
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "denied.example", DNS_TYPE_A), DNS_REFUSED);
        expect_sole_event(RESOLVER_NAME, "denied.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].rule, 3);
}
END_TEST

static void expect_admitted(struct waiter *waiter)
{
        (void)waiter;
        ck_assert_uint_eq(f.n_admitted, 1);
}

START_TEST(addresses_are_admitted_before_the_answer)
{
        struct waiter waiter = { .on_answered = expect_admitted };
        unsigned type = _i ? DNS_TYPE_AAAA : DNS_TYPE_A;

        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "www.example", type), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
        ck_assert_uint_eq(waiter.n_bytes, 12 + 17 + (_i ? 28U : 16U));
        ck_assert_uint_eq(waiter.bytes[waiter.n_bytes - 1], 1);
        ck_assert_str_eq(f.admitted_name, "www.example");
        ck_assert_uint_eq(f.n_admitted_addresses, 1);
        ck_assert_uint_eq(f.n_events, 0);
}
END_TEST

START_TEST(capital_letters_come_back_but_do_not_go_upstream)
{
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "wWw.eXAMPLE", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_mem_eq(waiter.bytes + 12, "\3wWw\7eXAMPLE", 13);
        ck_assert_str_eq(f.upstream.last.name, "www.example");
        ck_assert_str_eq(f.admitted_name, "www.example");
}
END_TEST

START_TEST(other_types_are_refused)
{
        static const unsigned types[] = { DNS_TYPE_TXT,   DNS_TYPE_NULL, DNS_TYPE_ANY, DNS_TYPE_MX,
                                          DNS_TYPE_SRV,   DNS_TYPE_PTR,  DNS_TYPE_NS,  6,
                                          DNS_TYPE_CNAME, 252,           65280,        0 };
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                begin(&waiter, "www.example", types[i]);
                ck_assert(waiter.is_answered);
                ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
                expect_event(i, RESOLVER_TYPE, "www.example", types[i]);
        }
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
}
END_TEST

START_TEST(hints_of_services_have_no_data)
{
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        begin(&waiter, "www.example", _i ? DNS_TYPE_HTTPS : DNS_TYPE_SVCB);
        ck_assert(waiter.is_answered);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        ck_assert_uint_eq(f.n_events, 0);
        begin(&waiter, "other.example", _i ? DNS_TYPE_HTTPS : DNS_TYPE_SVCB);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
}
END_TEST

static void give_text(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 1);
        put_record(&packet, asked->name, DNS_TYPE_TXT, 60, "\5hello", 6);
        answer_send(&packet, asked);
}

START_TEST(types_that_the_policy_allows_are_forwarded)
{
        struct waiter waiter = { 0 };

        f.types[0] = DNS_TYPE_MX;
        f.types[1] = DNS_TYPE_TXT;
        start_with(give_text);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_TXT), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
        ck_assert_mem_eq(waiter.bytes + waiter.n_bytes - 6, "\5hello", 6);
        ck_assert_uint_eq(f.n_admitted, 0);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_SRV), DNS_REFUSED);
        expect_sole_event(RESOLVER_TYPE, "www.example", DNS_TYPE_SRV);
        ck_assert_uint_eq(ask(&waiter, "other.example", DNS_TYPE_TXT), DNS_REFUSED);
        expect_event(1, RESOLVER_NAME, "other.example", DNS_TYPE_TXT);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
}
END_TEST

/* Of these nobody knows how to pass on the data, or they are orders to a server. */
START_TEST(types_that_cannot_be_forwarded_are_refused_whatever_the_policy_says)
{
        enum { SOA = 6, RRSIG = 46, AXFR = 252 };
        static const uint16_t types[] = { SOA, RRSIG, AXFR, DNS_TYPE_OPT };
        struct waiter waiter = { 0 };

        memcpy(f.types, types, sizeof(types));
        start_with(give_text);
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                ck_assert_uint_eq(ask(&waiter, "www.example", types[i]), DNS_REFUSED);
                expect_event(i, RESOLVER_TYPE, "www.example", types[i]);
        }
        ck_assert_uint_eq(f.upstream.n_udp, 0);
}
END_TEST

static unsigned asked_type;

static void give_address_and_tell(const struct asked *asked)
{
        asked_type = asked->type;
        give_one_address(asked);
}

START_TEST(any_is_answered_with_the_addresses)
{
        struct waiter waiter = { 0 };

        f.types[0] = DNS_TYPE_ANY;
        start_with(give_address_and_tell);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_ANY), DNS_NOERROR);
        ck_assert_uint_eq(asked_type, DNS_TYPE_A);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
        ck_assert_uint_eq(get_u16(waiter.bytes, 12 + 13), DNS_TYPE_ANY); /* the question */
        ck_assert_uint_eq(get_u16(waiter.bytes, 12 + 17 + 2), DNS_TYPE_A);
        ck_assert_mem_eq(waiter.bytes + 12 + 17 + 12, "\xc0\0\2\1", 4);
        ck_assert_uint_eq(f.n_admitted_addresses, 1);
        ck_assert_str_eq(f.admitted_name, "www.example");
        ck_assert_uint_eq(ask(&waiter, "other.example", DNS_TYPE_ANY), DNS_REFUSED);
}
END_TEST

static void give_loopback(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 1);
        put_address(&packet, asked->name, 60, "127.0.0.1");
        answer_send(&packet, asked);
}

START_TEST(addresses_for_any_are_judged_too)
{
        struct waiter waiter = { 0 };

        f.types[0] = DNS_TYPE_ANY;
        start_with(give_loopback);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_ANY), DNS_REFUSED);
        expect_sole_event(RESOLVER_REBINDING, "www.example", DNS_TYPE_ANY);
        ck_assert_uint_eq(f.n_admitted, 0);
}
END_TEST

START_TEST(configuration_is_checked)
{
        static const char *const servers[] = {
                "",
                "localhost",
                "127.0.0.1.5",
                "1.2.3.4,x",
                "x,1.2.3.4",
                "1.2.3.4:0",
                "1.2.3.4:65536",
                "1.2.3.4:",
                "1.2.3.4:5x",
                "1.2.3.4,",
                ",",
                "1.2.3.4, 1.2.3.5",
                "[::1",
                "[::1]53",
                "[1.2.3.4]:53",
                "[::1]:",
                "fe80::1%lo",
                "1.2.3.4:-1",
                "1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1",
        };

        for (size_t i = 0; i < ARRAY_SIZE(servers); i++) {
                f.config.upstream.servers = servers[i];
                ck_assert_int_eq(resolver_new(f.loop, &f.config, &f.resolver), RESOLVER_E_SERVERS);
        }
}
END_TEST

START_TEST(forms_of_servers_are_taken)
{
        static const char *const servers[] = { "192.0.2.1", "::1", "[::1]", "[2001:db8::1]:53",
                                               "192.0.2.1:5353,::1,[::1]:65535" };

        for (size_t i = 0; i < ARRAY_SIZE(servers); i++) {
                f.config.upstream.servers = servers[i];
                ck_assert_int_eq(resolver_new(f.loop, &f.config, &f.resolver), 0);
                f.resolver = resolver_free(f.resolver);
        }
        f.config.upstream.servers = NULL; /* /etc/resolv.conf, or loopback */
        ck_assert_int_eq(resolver_new(f.loop, &f.config, &f.resolver), 0);
}
END_TEST

static void give_chain(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 3);
        put_cname(&packet, asked->name, 500, "no-rule.example");
        put_cname(&packet, "no-rule.example", 40, "denied.example");
        put_address(&packet, "denied.example", 70, "192.0.2.7");
        answer_send(&packet, asked);
}

START_TEST(names_of_a_chain_are_not_judged)
{
        struct waiter waiter = { 0 };

        start_with(give_chain);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 3);
        ck_assert_str_eq(f.admitted_name, "www.example");
        ck_assert_uint_eq(f.admitted_ttl_sec, 40);
        ck_assert_uint_eq(f.n_events, 0);
}
END_TEST

static void give_loop(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 2);
        put_cname(&packet, asked->name, 500, "b.example");
        put_cname(&packet, "b.example", 40, asked->name);
        answer_send(&packet, asked);
}

START_TEST(chain_without_end_fails)
{
        struct waiter waiter = { 0 };

        start_with(give_loop);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_SERVFAIL);
        expect_sole_event(RESOLVER_UPSTREAM, "www.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].error, EBADMSG);
        ck_assert_uint_eq(f.n_admitted, 0);
}
END_TEST

static const char *const rebound[] = { "127.0.0.1",       "169.254.169.254",
                                       "10.1.2.3",        "::1",
                                       "fd00:ec2::254",   "::ffff:127.0.0.1",
                                       "::ffff:192.0.2.1" };

static void give_rebound(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 2);
        put_cname(&packet, asked->name, 1, "b.example");
        put_address(&packet, "b.example", 1, rebound[asked->name[0] - '0']);
        answer_send(&packet, asked);
}

START_TEST(denied_addresses_are_no_answer)
{
        bool is_v6 = strchr(rebound[_i], ':');
        struct waiter waiter = { 0 };
        uint8_t address[16];
        char name[32];

        start_with(give_rebound);
        (void)snprintf(name, sizeof(name), "%d.wild.example", _i);
        ck_assert_uint_eq(ask(&waiter, name, is_v6 ? DNS_TYPE_AAAA : DNS_TYPE_A), DNS_REFUSED);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        ck_assert_uint_eq(f.n_admitted, 0);
        expect_sole_event(RESOLVER_REBINDING, name, is_v6 ? DNS_TYPE_AAAA : DNS_TYPE_A);
        ck_assert(f.events[0].has_address);
        ck_assert_int_eq(inet_pton(is_v6 ? AF_INET6 : AF_INET, rebound[_i], address), 1);
        ck_assert_mem_eq(f.events[0].address.bytes, address, is_v6 ? 16 : 4);
}
END_TEST

static void give_mixed(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 4);
        put_address(&packet, asked->name, 60, "127.0.0.1");
        put_address(&packet, asked->name, 60, "192.0.2.1");
        put_address(&packet, asked->name, 60, "169.254.169.254");
        put_address(&packet, asked->name, 60, "192.0.2.2");
        answer_send(&packet, asked);
}

START_TEST(denied_addresses_are_dropped_among_others)
{
        struct waiter waiter = { 0 };

        start_with(give_mixed);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 2);
        ck_assert_uint_eq(f.n_admitted_addresses, 2);
        ck_assert_mem_eq(waiter.bytes + 12 + 17 + 12, "\xc0\0\2\1", 4);
        ck_assert_mem_eq(waiter.bytes + 12 + 17 + 28, "\xc0\0\2\2", 4);
}
END_TEST

/* The name is there, and so are its addresses of the other family: no denial, and no event. */
START_TEST(addresses_without_a_route_are_dropped)
{
        struct waiter waiter = { 0 };

        f.is_without_v6 = true;
        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_AAAA), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        ck_assert_uint_eq(f.n_admitted, 0);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
        f.is_without_v6 = false;
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_AAAA), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
        ck_assert_uint_eq(f.n_admitted, 2);
        ck_assert_uint_eq(f.n_events, 0);
}
END_TEST

START_TEST(new_names_below_a_wildcard_are_rationed)
{
        struct waiter waiter = { 0 };

        f.config.new_names = (struct token_rate){ .interval_usec = HOUR_USEC, .burst = 2 };
        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "a.wild.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(ask(&waiter, "a.wild.example", DNS_TYPE_AAAA), DNS_NOERROR);
        ck_assert_uint_eq(ask(&waiter, "b.wild.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(ask(&waiter, "c.wild.example", DNS_TYPE_A), DNS_REFUSED);
        expect_sole_event(RESOLVER_NEW_NAMES, "c.wild.example", DNS_TYPE_A);
        ck_assert_uint_eq(ask(&waiter, "A.wild.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(ask(&waiter, "two.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert_uint_eq(ask(&waiter, "three.example", DNS_TYPE_A), DNS_NOERROR);
}
END_TEST

START_TEST(malformed_queries_are_answered_as_such)
{
        struct waiter waiter = { 0 };

        start_with(give_one_address);
        put_query(&packet, "www.example", DNS_TYPE_A);
        put_u8(&packet, 0);
        ck_assert_int_eq(send_packet(&waiter), 0);
        ck_assert(waiter.is_answered);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_FORMERR);

        put_query(&packet, "w w.example", DNS_TYPE_A);
        ck_assert_int_eq(send_packet(&waiter), 0);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);

        put_header(&packet, PACKET_ID, PACKET_ANSWER, 0);
        ck_assert_int_eq(send_packet(&waiter), RESOLVER_E_SILENT);
        ck_assert(!waiter.is_answered);
        f.client = resolver_client_free(f.client);
        ck_assert_uint_eq(sum_of(RESOLVER_MALFORMED), 3);
        ck_assert_uint_eq(f.n_events, 2);
}
END_TEST

START_TEST(policy_that_is_tightened_meanwhile_holds)
{
        struct waiter waiter = { 0 };
        int64_t sent_usec;

        start_with(hold);
        begin(&waiter, "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        sent_usec = time_now_usec();
        f.is_closed = true;
        give_one_address(&held);
        finish(&waiter);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        ck_assert_uint_eq(f.n_admitted, 0);
        expect_sole_event(RESOLVER_NAME, "www.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].rule, 9);
        /* When it was asked for, not when it was refused. */
        ck_assert_int_le(f.events[0].asked_usec, sent_usec);
}
END_TEST

START_TEST(types_that_are_taken_away_meanwhile_are_refused)
{
        const uint16_t type = _i ? DNS_TYPE_ANY : DNS_TYPE_TXT;
        struct waiter waiter = { 0 };

        f.types[0] = type;
        start_with(hold);
        begin(&waiter, "www.example", type);
        wait_for_queries(1);
        f.types[0] = 0;
        if (_i)
                give_one_address(&held);
        else
                give_text(&held);
        finish(&waiter);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        ck_assert_uint_eq(f.n_admitted, 0);
        expect_sole_event(RESOLVER_TYPE, "www.example", type);
        ck_assert_int_eq(f.events[0].rule, -1);
}
END_TEST

START_TEST(what_is_not_admitted_fails)
{
        struct waiter waiter = { 0 };

        f.admit_result = -ENOSPC;
        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_SERVFAIL);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        expect_sole_event(RESOLVER_NOT_ADMITTED, "www.example", DNS_TYPE_A);
}
END_TEST

static void add_tests(TCase *all)
{
        tcase_add_checked_fixture(all, setup, teardown);
        tcase_add_test(all, name_without_a_rule_is_refused_at_once);
        tcase_add_test(all, refusal_names_the_rule);
        tcase_add_loop_test(all, addresses_are_admitted_before_the_answer, 0, 2);
        tcase_add_test(all, capital_letters_come_back_but_do_not_go_upstream);
        tcase_add_test(all, other_types_are_refused);
        tcase_add_loop_test(all, hints_of_services_have_no_data, 0, 2);
        tcase_add_test(all, types_that_the_policy_allows_are_forwarded);
        tcase_add_test(all, types_that_cannot_be_forwarded_are_refused_whatever_the_policy_says);
        tcase_add_test(all, any_is_answered_with_the_addresses);
        tcase_add_test(all, addresses_for_any_are_judged_too);
        tcase_add_loop_test(all, types_that_are_taken_away_meanwhile_are_refused, 0, 2);
        tcase_add_test(all, configuration_is_checked);
        tcase_add_test(all, forms_of_servers_are_taken);
        tcase_add_test(all, names_of_a_chain_are_not_judged);
        tcase_add_test(all, chain_without_end_fails);
        tcase_add_loop_test(all, denied_addresses_are_no_answer, 0, (int)ARRAY_SIZE(rebound));
        tcase_add_test(all, denied_addresses_are_dropped_among_others);
        tcase_add_test(all, addresses_without_a_route_are_dropped);
        tcase_add_test(all, new_names_below_a_wildcard_are_rationed);
        tcase_add_test(all, malformed_queries_are_answered_as_such);
        tcase_add_test(all, policy_that_is_tightened_meanwhile_holds);
        tcase_add_test(all, what_is_not_admitted_fails);
}

int main(void)
{
        Suite *suite = suite_create("resolver");
        TCase *all = tcase_create("all");

        tcase_set_timeout(all, 60);
        add_tests(all);
        suite_add_tcase(suite, all);
        return suite_main(suite);
}
