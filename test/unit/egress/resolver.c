#include "test/unit/egress/resolver.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/patience.h"

enum { PATIENCE_SEC = 20 };

struct fixture f;
struct packet packet;

static bool has_type(uint16_t type)
{
        for (size_t i = 0; i < ARRAY_SIZE(f.types); i++)
                if (f.types[i] == type)
                        return true;
        return false;
}

static struct resolver_verdict judge_name(const char *name)
{
        static const char wildcard[] = ".wild.example";
        size_t n = strlen(name);

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

static struct resolver_verdict judge(const char *name, uint16_t type, void *userdata)
{
        struct resolver_verdict verdict = judge_name(name);

        ck_assert_ptr_eq(userdata, &f);
        verdict.is_type_allowed = has_type(type);
        return verdict;
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

static bool has_route(const struct dns_address *address, void *userdata)
{
        ck_assert_ptr_eq(userdata, &f);
        ck_assert(address->is_v6);
        return !f.is_without_v6;
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
                                .asked_usec = event->asked_usec,
                                .has_address = event->address };
        (void)snprintf(kept->name, sizeof(kept->name), "%s", event->name);
        if (event->address)
                kept->address = *event->address;
}

const struct resolver_policy policy = {
        .judge = judge,
        .has_route = has_route,
        .is_address_denied = is_denied,
        .admit = admit,
        .report = record,
};

void setup(void)
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

void start_with(void (*script)(const struct asked *asked))
{
        f.upstream.script = script;
        start();
}

void teardown(void)
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

int send_packet(struct waiter *waiter)
{
        waiter->is_answered = false;
        waiter->request.on_answer = on_answer;
        return resolver_ask(f.client, DNS_UDP, packet.bytes, packet.n_bytes, &waiter->request);
}

void begin(struct waiter *waiter, const char *name, unsigned type)
{
        put_query(&packet, name, type);
        ck_assert_int_eq(send_packet(waiter), 0);
}

void run_until(bool (*condition)(const void *userdata), const void *userdata)
{
        time_t end = time(NULL) + (time_t)PATIENCE_SEC * test_patience();

        while (!condition(userdata)) {
                ck_assert_int_ge(sd_event_run(f.loop, 100000), 0);
                ck_assert_msg(time(NULL) < end, "waited for too long");
        }
}

bool is_answered(const void *userdata)
{
        return ((const struct waiter *)userdata)->is_answered;
}

static bool is_asked(const void *userdata)
{
        return f.upstream.n_udp >= *(const unsigned *)userdata;
}

void wait_for_queries(unsigned n)
{
        run_until(is_asked, &n);
}

void finish(struct waiter *waiter)
{
        run_until(is_answered, waiter);
        ck_assert_uint_ge(waiter->n_bytes, 12);
        ck_assert_uint_eq(get_u16(waiter->bytes, 0), PACKET_ID);
}

unsigned ask(struct waiter *waiter, const char *name, unsigned type)
{
        begin(waiter, name, type);
        finish(waiter);
        return get_rcode(waiter->bytes);
}

void expect_event(size_t at, enum resolver_reason reason, const char *name, unsigned type)
{
        ck_assert_uint_gt(f.n_events, at);
        ck_assert_int_eq(f.events[at].reason, reason);
        ck_assert_str_eq(f.events[at].name, name);
        ck_assert_uint_eq(f.events[at].type, type);
}

void expect_sole_event(enum resolver_reason reason, const char *name, unsigned type)
{
        ck_assert_uint_eq(f.n_events, 1);
        ck_assert_uint_eq(f.events[0].count, 1);
        ck_assert_int_gt(f.events[0].asked_usec, 0);
        ck_assert_int_le(f.events[0].asked_usec, time_now_usec());
        expect_event(0, reason, name, type);
}

void stay_silent(const struct asked *asked)
{
        (void)asked;
}

void give_one_address(const struct asked *asked)
{
        answer_begin(&packet, asked, 0, 1);
        put_address(&packet, asked->name, 60,
                    asked->type == DNS_TYPE_A ? "192.0.2.1" : "2001:db8::1");
        answer_send(&packet, asked);
}

uint64_t sum_of(enum resolver_reason reason)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < f.n_events; i++)
                sum += f.events[i].reason == reason ? f.events[i].count : 0;
        return sum;
}

struct asked held;

void hold(const struct asked *asked)
{
        held = *asked;
}
