/*
 * What a sandbox is told, what leaves the host for it, and what is reported, with an upstream on
 * loopback that does as each test says.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "runtime/base/macros.h"
#include "runtime/egress/resolver.h"
#include "test/lib/patience.h"
#include "test/unit/egress/fake_upstream.h"
#include "test/unit/egress/packet.h"

enum { PATIENCE_SEC = 20, EVENTS_MAX = 1000, HOUR_USEC = 3600U * 1000000 };

/* What waits for an answer. */
struct waiter {
        struct resolver_request request;
        bool is_answered;
        unsigned n_answers;
        size_t n_bytes;
        uint8_t bytes[DNS_ANSWER_BUFFER];
        void (*on_answered)(struct waiter *waiter);
};

struct event {
        enum resolver_reason reason;
        uint64_t count;
        char name[DNS_NAME_BUFFER];
        unsigned type;
        int rule;
        int error;
        bool has_address;
        struct dns_address address;
};

static struct {
        sd_event *loop;
        struct fake_upstream upstream;
        struct resolver_config config;
        struct resolver *resolver;
        struct resolver_client *client;
        /* The policy. */
        bool is_closed; /* no name is allowed any more */
        int admit_result;
        /* What was seen. */
        size_t n_events;
        struct event events[EVENTS_MAX];
        unsigned n_admitted;
        size_t n_admitted_addresses;
        uint32_t admitted_ttl_sec;
        char admitted_name[DNS_NAME_BUFFER];
} f;

static struct packet packet;

static struct resolver_verdict judge_name(const char *name, void *userdata)
{
        static const char wildcard[] = ".wild.example";
        size_t n = strlen(name);

        ck_assert_ptr_eq(userdata, &f);
        if (f.is_closed)
                return (struct resolver_verdict){ .rule = 9 };
        if (strcmp(name, "denied.example") == 0)
                return (struct resolver_verdict){ .rule = 3 };
        if (strcmp(name, "www.example") == 0 || strcmp(name, "two.example") == 0 ||
            strcmp(name, "three.example") == 0)
                return (struct resolver_verdict){ .is_allowed = true, .rule = 1 };
        if (n >= sizeof(wildcard) && strcmp(name + n - sizeof(wildcard) + 1, wildcard) == 0)
                return (struct resolver_verdict){ .is_allowed = true,
                                                  .is_wildcard = true,
                                                  .rule = 2 };
        return (struct resolver_verdict){ .rule = -1 };
}

static bool is_denied(const struct dns_address *address, void *userdata)
{
        static const uint8_t loopback[16] = { [15] = 1 };

        ck_assert_ptr_eq(userdata, &f);
        if (address->is_v6)
                return memcmp(address->bytes, loopback, 16) == 0 || address->bytes[0] == 0xfd;
        return address->bytes[0] == 127 || address->bytes[0] == 10 ||
               (address->bytes[0] == 169 && address->bytes[1] == 254);
}

static int admit(const char *name, const struct dns_address *addresses, size_t n_addresses,
                 uint32_t ttl_sec, void *userdata)
{
        ck_assert_ptr_eq(userdata, &f);
        for (size_t i = 0; i < n_addresses; i++)
                ck_assert(!is_denied(&addresses[i], userdata));
        f.n_admitted++;
        f.n_admitted_addresses = n_addresses;
        f.admitted_ttl_sec = ttl_sec;
        (void)snprintf(f.admitted_name, sizeof(f.admitted_name), "%s", name);
        return f.admit_result;
}

static void record(const struct resolver_event *event, void *userdata)
{
        struct event *kept = &f.events[f.n_events];

        ck_assert_ptr_eq(userdata, &f);
        ck_assert_uint_ge(event->count, 1);
        ck_assert_uint_lt(f.n_events, EVENTS_MAX);
        f.n_events++;
        *kept = (struct event){ .reason = event->reason,
                                .count = event->count,
                                .type = event->type,
                                .rule = event->rule,
                                .error = event->error,
                                .has_address = event->address };
        (void)snprintf(kept->name, sizeof(kept->name), "%s", event->name);
        if (event->address)
                kept->address = *event->address;
}

static const struct resolver_policy policy = {
        .is_name_allowed = judge_name,
        .is_address_denied = is_denied,
        .admit = admit,
        .report = record,
};

static void setup(void)
{
        memset(&f, 0, sizeof(f));
        ck_assert_int_ge(sd_event_new(&f.loop), 0);
        fake_upstream_init(&f.upstream, f.loop);
        resolver_config_init(&f.config);
        f.config.upstream.servers = f.upstream.server;
        f.config.upstream.n_attempts = 1;
        f.config.upstream.timeout_msec = 10000;
}

static void start(void)
{
        ck_assert_int_eq(resolver_new(f.loop, &f.config, &f.resolver), 0);
        ck_assert_int_eq(resolver_client_new(f.resolver, &policy, &f, &f.client), 0);
}

static void start_with(void (*script)(const struct asked *asked))
{
        f.upstream.script = script;
        start();
}

static void teardown(void)
{
        f.client = resolver_client_free(f.client);
        f.resolver = resolver_free(f.resolver);
        fake_upstream_deinit(&f.upstream);
        f.loop = sd_event_unref(f.loop);
}

static void on_answer(struct resolver_request *request, const uint8_t *bytes, size_t n_bytes)
{
        struct waiter *waiter = CONTAINER_OF(request, struct waiter, request);

        waiter->is_answered = true;
        waiter->n_answers++;
        waiter->n_bytes = n_bytes;
        if (n_bytes > 0)
                memcpy(waiter->bytes, bytes, n_bytes);
        if (waiter->on_answered)
                waiter->on_answered(waiter);
}

/* Sends what is in the packet. */
static int send_packet(struct waiter *waiter)
{
        waiter->is_answered = false;
        waiter->request.on_answer = on_answer;
        return resolver_ask(f.client, DNS_UDP, packet.bytes, packet.n_bytes, &waiter->request);
}

static void begin(struct waiter *waiter, const char *name, unsigned type)
{
        put_query(&packet, name, type);
        ck_assert_int_eq(send_packet(waiter), 0);
}

static void run_until(bool (*condition)(const void *userdata), const void *userdata)
{
        time_t end = time(NULL) + (time_t)PATIENCE_SEC * test_patience();

        while (!condition(userdata)) {
                ck_assert_int_ge(sd_event_run(f.loop, 100000), 0);
                ck_assert_msg(time(NULL) < end, "waited for too long");
        }
}

static bool is_answered(const void *userdata)
{
        return ((const struct waiter *)userdata)->is_answered;
}

static bool is_asked(const void *userdata)
{
        return f.upstream.n_udp >= *(const unsigned *)userdata;
}

static void wait_for_queries(unsigned n)
{
        run_until(is_asked, &n);
}

static void finish(struct waiter *waiter)
{
        run_until(is_answered, waiter);
        ck_assert_uint_ge(waiter->n_bytes, 12);
        ck_assert_uint_eq(get_u16(waiter->bytes, 0), PACKET_ID);
}

/* Asks and waits: the rcode. */
static unsigned ask(struct waiter *waiter, const char *name, unsigned type)
{
        begin(waiter, name, type);
        finish(waiter);
        return get_rcode(waiter->bytes);
}

static void expect_event(size_t at, enum resolver_reason reason, const char *name, unsigned type)
{
        ck_assert_uint_gt(f.n_events, at);
        ck_assert_int_eq(f.events[at].reason, reason);
        ck_assert_str_eq(f.events[at].name, name);
        ck_assert_uint_eq(f.events[at].type, type);
}

static void expect_sole_event(enum resolver_reason reason, const char *name, unsigned type)
{
        ck_assert_uint_eq(f.n_events, 1);
        ck_assert_uint_eq(f.events[0].count, 1);
        expect_event(0, reason, name, type);
}

/* What upstreams do. */

static void stay_silent(const struct asked *asked)
{
        (void)asked;
}

static void give_one_address(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 1);
        put_address(&packet, asked->name, 60,
                    asked->type == DNS_TYPE_A ? "192.0.2.1" : "2001:db8::1");
        answer_send(&packet, asked);
}

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

START_TEST(configured_types_are_forwarded)
{
        struct waiter waiter = { 0 };

        f.config.forwarded[0] = DNS_TYPE_MX;
        f.config.forwarded[1] = DNS_TYPE_TXT;
        f.config.n_forwarded = 2;
        start_with(give_text);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_TXT), DNS_NOERROR);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 1);
        ck_assert_mem_eq(waiter.bytes + waiter.n_bytes - 6, "\5hello", 6);
        ck_assert_uint_eq(f.n_admitted, 0);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_SRV), DNS_REFUSED);
}
END_TEST

START_TEST(configuration_is_checked)
{
        static const uint16_t types[] = { DNS_TYPE_ANY, DNS_TYPE_HTTPS, DNS_TYPE_A };
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

        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                f.config.forwarded[0] = types[i];
                f.config.n_forwarded = 1;
                ck_assert_int_eq(resolver_new(f.loop, &f.config, &f.resolver), RESOLVER_E_TYPE);
        }
        f.config.n_forwarded = 0;
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

/* Lies, of which an upstream should not hear any more. */

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

static uint64_t sum_of(enum resolver_reason reason)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < f.n_events; i++)
                sum += f.events[i].reason == reason ? f.events[i].count : 0;
        return sum;
}

START_TEST(more_than_the_rate_is_refused_and_counted)
{
        struct waiter waiter = { 0 };

        f.config.queries = (struct token_rate){ .interval_usec = HOUR_USEC, .burst = 3 };
        start_with(give_one_address);
        for (unsigned i = 0; i < 3; i++)
                ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        for (unsigned i = 0; i < 50; i++) {
                begin(&waiter, "www.example", DNS_TYPE_A);
                ck_assert(waiter.is_answered);
                ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
        }
        expect_sole_event(RESOLVER_RATE, "www.example", DNS_TYPE_A);
        f.client = resolver_client_free(f.client);
        ck_assert_uint_eq(f.n_events, 2);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 50);
        ck_assert_uint_eq(f.upstream.n_udp, 3);
}
END_TEST

static bool has_events(const void *userdata)
{
        return f.n_events >= *(const size_t *)userdata;
}

START_TEST(counted_denials_are_reported_in_time)
{
        struct waiter waiter = { 0 };
        size_t n_events = 2;

        f.config.queries = (struct token_rate){ .interval_usec = HOUR_USEC, .burst = 1 };
        start_with(give_one_address);
        for (unsigned i = 0; i < 11; i++)
                begin(&waiter, "other.example", DNS_TYPE_A);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 1);
        n_events = f.n_events + 1;
        run_until(has_events, &n_events);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 10);
        /* And again after the next pause, in which there is one that is not reported at once. */
        begin(&waiter, "other.example", DNS_TYPE_A);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 10);
        n_events = f.n_events + 1;
        run_until(has_events, &n_events);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 11);
}
END_TEST

START_TEST(too_many_in_flight_are_refused)
{
        static struct waiter waiters[3];

        f.config.in_flight_max = 2;
        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        ck_assert(!waiters[0].is_answered && !waiters[1].is_answered && waiters[2].is_answered);
        ck_assert_uint_eq(get_rcode(waiters[2].bytes), DNS_REFUSED);
        expect_sole_event(RESOLVER_IN_FLIGHT, "two.example", DNS_TYPE_A);
        resolver_cancel(&waiters[1].request);
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        ck_assert(!waiters[2].is_answered);
}
END_TEST

START_TEST(all_sandboxes_together_are_bounded)
{
        static struct waiter waiters[2];

        f.config.upstream.in_flight_max = 1;
        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "two.example", DNS_TYPE_A);
        ck_assert(!waiters[0].is_answered && waiters[1].is_answered);
        ck_assert_uint_eq(get_rcode(waiters[1].bytes), DNS_SERVFAIL);
        expect_sole_event(RESOLVER_BUSY, "two.example", DNS_TYPE_A);
}
END_TEST

static struct asked held;

static void hold(const struct asked *asked)
{
        held = *asked;
}

START_TEST(equal_questions_in_flight_are_asked_once)
{
        struct waiter waiters[3] = { 0 };

        start_with(hold);
        begin(&waiters[2], "www.example", DNS_TYPE_AAAA);
        wait_for_queries(1);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "WWW.example", DNS_TYPE_A);
        wait_for_queries(2);
        give_one_address(&held);
        finish(&waiters[0]);
        finish(&waiters[1]);
        ck_assert_mem_eq(waiters[0].bytes + 13, "www", 3);
        ck_assert_mem_eq(waiters[1].bytes + 13, "WWW", 3);
        ck_assert_uint_eq(f.n_admitted, 1);
        ck_assert_uint_eq(f.upstream.n_udp, 2);
        /* Another type is another question. */
        ck_assert(!waiters[2].is_answered);
        resolver_cancel(&waiters[2].request);
}
END_TEST

START_TEST(sandboxes_do_not_share_questions)
{
        static struct waiter waiters[2];
        struct resolver_client *first;

        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        first = f.client;
        ck_assert_int_eq(resolver_client_new(f.resolver, &policy, &f, &f.client), 0);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        wait_for_queries(2);
        resolver_client_free(first);
        ck_assert(waiters[0].is_answered && !waiters[1].is_answered);
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

        start_with(hold);
        begin(&waiter, "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        f.is_closed = true;
        give_one_address(&held);
        finish(&waiter);
        ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
        ck_assert_uint_eq(get_n_answers(waiter.bytes), 0);
        ck_assert_uint_eq(f.n_admitted, 0);
        expect_sole_event(RESOLVER_NAME, "www.example", DNS_TYPE_A);
        ck_assert_int_eq(f.events[0].rule, 9);
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

START_TEST(cancelled_request_is_not_answered)
{
        struct waiter waiters[2] = { 0 };

        start_with(hold);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        resolver_cancel(&waiters[0].request);
        give_one_address(&held);
        /* Its answer has been passed over when that of a later question is there. */
        f.upstream.script = give_one_address;
        ck_assert_uint_eq(ask(&waiters[1], "two.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert(!waiters[0].is_answered);
        ck_assert_uint_eq(f.n_admitted, 1);
        ck_assert_str_eq(f.admitted_name, "two.example");
}
END_TEST

START_TEST(requests_end_with_their_client)
{
        struct waiter waiters[3] = { 0 };

        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        f.client = resolver_client_free(f.client);
        for (size_t i = 0; i < ARRAY_SIZE(waiters); i++) {
                ck_assert_uint_eq(waiters[i].n_answers, 1);
                ck_assert_uint_eq(waiters[i].n_bytes, 0);
        }
}
END_TEST

static struct waiter *others; /* three */

static void begin_and_cancel(struct waiter *waiter)
{
        (void)waiter;
        resolver_cancel(&others[0].request);
        begin(&others[1], "www.example", DNS_TYPE_A);
        begin(&others[2], "two.example", DNS_TYPE_A);
}

START_TEST(answers_may_begin_and_cancel_requests)
{
        struct waiter first = { .on_answered = begin_and_cancel };
        struct waiter waiters[3] = { 0 };

        others = waiters;
        start_with(hold);
        begin(&first, "www.example", DNS_TYPE_A);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        f.upstream.script = give_one_address;
        give_one_address(&held);
        finish(&waiters[1]);
        finish(&waiters[2]);
        ck_assert_uint_eq(first.n_answers, 1);
        ck_assert_uint_eq(waiters[0].n_answers, 0);
        ck_assert_uint_eq(f.upstream.n_udp, 3);
}
END_TEST

static void cancel_others(struct waiter *waiter)
{
        (void)waiter;
        resolver_cancel(&others[0].request);
        resolver_cancel(&others[1].request);
}

START_TEST(requests_that_end_with_their_client_may_cancel_others)
{
        struct waiter first = { .on_answered = cancel_others };
        struct waiter waiters[3] = { 0 };

        others = waiters;
        start_with(stay_silent);
        begin(&waiters[1], "two.example", DNS_TYPE_A);
        begin(&waiters[2], "three.example", DNS_TYPE_A);
        begin(&first, "www.example", DNS_TYPE_A);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        f.client = resolver_client_free(f.client);
        ck_assert_uint_eq(first.n_answers, 1);
        ck_assert_uint_eq(waiters[0].n_answers + waiters[1].n_answers, 0);
        ck_assert_uint_eq(waiters[2].n_answers, 1);
}
END_TEST

/* Each kind of query of which a sandbox can send as many as it likes. */
static void flood(struct waiter *waiters, size_t n_waiters, unsigned n_rounds)
{
        for (unsigned i = 0; i < n_rounds; i++) {
                struct waiter *waiter = &waiters[i % n_waiters];
                char name[64];

                if (waiter->request.lookup)
                        resolver_cancel(&waiter->request);
                (void)snprintf(name, sizeof(name), "n%u.%s", i, i % 2 ? "wild.example" : "other");
                begin(waiter, name, i % 3 ? DNS_TYPE_A : DNS_TYPE_TXT);
                ck_assert_int_ge(sd_event_run(f.loop, 0), 0);
                f.n_events = 0;
        }
}

START_TEST(memory_is_bounded)
{
        static struct waiter waiters[100];
        size_t before;

        f.config.queries = (struct token_rate){ .interval_usec = 0, .burst = 1 };
        f.config.new_names = (struct token_rate){ .interval_usec = 0, .burst = 1 };
        f.config.upstream.in_flight_max = 200;
        start_with(_i ? give_one_address : stay_silent);
        flood(waiters, ARRAY_SIZE(waiters), 2000);
        before = mallinfo2().uordblks;
        flood(waiters, ARRAY_SIZE(waiters), 20000);
        ck_assert_uint_le(mallinfo2().uordblks, before + 65536);
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
        tcase_add_test(all, configured_types_are_forwarded);
        tcase_add_test(all, configuration_is_checked);
        tcase_add_test(all, forms_of_servers_are_taken);
        tcase_add_test(all, names_of_a_chain_are_not_judged);
        tcase_add_test(all, chain_without_end_fails);
        tcase_add_loop_test(all, denied_addresses_are_no_answer, 0, (int)ARRAY_SIZE(rebound));
        tcase_add_test(all, denied_addresses_are_dropped_among_others);
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
        tcase_add_test(all, more_than_the_rate_is_refused_and_counted);
        tcase_add_test(all, counted_denials_are_reported_in_time);
        tcase_add_test(all, too_many_in_flight_are_refused);
        tcase_add_test(all, all_sandboxes_together_are_bounded);
        tcase_add_test(all, equal_questions_in_flight_are_asked_once);
        tcase_add_test(all, sandboxes_do_not_share_questions);
        tcase_add_test(all, new_names_below_a_wildcard_are_rationed);
        tcase_add_test(all, malformed_queries_are_answered_as_such);
        tcase_add_test(all, policy_that_is_tightened_meanwhile_holds);
        tcase_add_test(all, what_is_not_admitted_fails);
        tcase_add_test(all, cancelled_request_is_not_answered);
        tcase_add_test(all, requests_end_with_their_client);
        tcase_add_test(all, requests_that_end_with_their_client_may_cancel_others);
        tcase_add_test(all, answers_may_begin_and_cancel_requests);
        tcase_add_loop_test(all, memory_is_bounded, 0, 2);
}

int main(void)
{
        Suite *suite = suite_create("resolver");
        TCase *all = tcase_create("all");
        SRunner *runner;
        int n_failed;

        tcase_set_timeout(all, 60);
        add_tests(all);
        suite_add_tcase(suite, all);
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
