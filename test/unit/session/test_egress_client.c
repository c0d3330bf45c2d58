/* The connection to hotcell-egress: what is asked, what is answered, and what makes no sense. */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/egress_client.h"
#include "server/session/egress_file.h"
#include "test/unit/session/fixture.h"

enum { PATIENCE_USEC = 60 * 1000 * 1000, IMPATIENCE_USEC = 300 * 1000 };

#define REASON(name) HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

static struct egress_client *client;
static struct fake_egress *egress;

/* What the observer heard. */
static unsigned n_lost, n_told;
static struct egress_event events[600];
static size_t n_events, n_room;
static uint64_t counted_cgroup;
static struct egress_refusals counted;
static unsigned n_counts;

/* What came of the last requests, in the order of their answers. */
static struct heard {
        unsigned tag;
        enum egress_result result;
        char message[400];
        struct egress_enforced enforced;
} outcomes[EGRESS_REQUESTS_MAX + 8];
static size_t n_outcomes;

static void on_lost(void *userdata)
{
        ck_assert_ptr_eq(userdata, &client);
        n_lost++;
}

static bool on_event(void *userdata, const struct egress_event *event)
{
        ck_assert_ptr_eq(userdata, &client);
        if (n_room == 0)
                return false;
        n_room--;
        ck_assert_uint_lt(n_events, ARRAY_SIZE(events));
        events[n_events++] = *event;
        return true;
}

static void on_events_told(void *userdata)
{
        ck_assert_ptr_eq(userdata, &client);
        n_told++;
}

static void on_count(void *userdata, uint64_t cgroup_id, const struct egress_refusals *refusals)
{
        ck_assert_ptr_eq(userdata, &client);
        counted_cgroup = cgroup_id;
        counted = *refusals;
        n_counts++;
}

static const struct egress_client_observer observer = {
        .on_lost = on_lost,
        .on_event = on_event,
        .on_count = on_count,
        .on_events_told = on_events_told,
};

static void on_answer(void *userdata, const struct egress_answer *answer)
{
        struct heard *outcome = &outcomes[n_outcomes++];

        outcome->tag = *(unsigned *)userdata;
        outcome->result = answer->result;
        outcome->enforced = answer->enforced;
        (void)snprintf(outcome->message, sizeof(outcome->message), "%s",
                       answer->message ? answer->message : "");
}

static void set_up_with(uint64_t answer_usec)
{
        log_init("test", LOG_LEVEL_ERROR);
        memset(&f, 0, sizeof(f));
        n_lost = n_told = 0;
        n_events = n_outcomes = 0;
        n_room = ARRAY_SIZE(events);
        ck_assert_int_ge(sd_event_new(&f.loop), 0);
        egress = fake_egress_new();
        ck_assert_int_eq(egress_client_new(f.loop, answer_usec, &observer, &client, &client), 0);
        egress_client_resume(client);
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
}

static void set_up(void)
{
        set_up_with(PATIENCE_USEC);
}

static void set_up_impatient(void)
{
        set_up_with(IMPATIENCE_USEC);
}

static void tear_down(void)
{
        client = egress_client_free(client);
        egress = fake_egress_free(egress);
        f.loop = sd_event_unref(f.loop);
}

static unsigned tags[EGRESS_REQUESTS_MAX + 8];

static int ask(unsigned tag, const struct egress *policy, struct egress_request **ret_request)
{
        const struct egress_order order = { .sandbox_id = "sbx-a",
                                            .version = tag + 1,
                                            .egress = policy };

        tags[tag] = tag;
        return egress_client_set_policy(client, &order, on_answer, &tags[tag], ret_request);
}

static void ask_surely(unsigned tag)
{
        struct egress_request *request;

        ck_assert_int_eq(ask(tag, NULL, &request), 0);
}

static bool has_outcomes(void *userdata)
{
        return n_outcomes >= *(const size_t *)userdata;
}

static void wait_for_outcomes(size_t n)
{
        run_until(has_outcomes, &n);
        run_turns(4);
        ck_assert_uint_eq(n_outcomes, n);
}

static bool is_lost(void *userdata)
{
        (void)userdata;
        return n_lost > 0;
}

static void wait_for_loss(void)
{
        run_until(is_lost, NULL);
        ck_assert(!egress_client_is_connected(client));
}

static bool is_heard(void *userdata)
{
        return n_told >= *(const unsigned *)userdata;
}

static void wait_for_packets(unsigned n)
{
        run_until(is_heard, &n);
}

/* --- policies --- */

START_TEST(the_default_policy_goes_without_a_file)
{
        const struct fake_policy *policy;

        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_uint_eq(outcomes[0].enforced.n_program_ids, 2);
        ck_assert_uint_eq(outcomes[0].enforced.program_ids[1], 12);
        policy = fake_egress_policy(egress, "sbx-a");
        ck_assert_int_eq(policy->version, 1);
        ck_assert_int_eq(policy->default_action, POLICY_DEFAULT_DENY);
        ck_assert_uint_eq(policy->n_bytes, 0);
}
END_TEST

START_TEST(rules_go_in_a_sealed_file_in_their_order_and_in_one_form)
{
        const struct egress_rule rules[] = {
                { .action = POLICY_ALLOW,
                  .protocol = POLICY_TCP,
                  .is_domain = true,
                  .destination = "*.BÜCHER.example.",
                  .ports = { { 443, 443 }, { 8000, 8080 } },
                  .n_ports = 2 },
                { .action = POLICY_DENY, .protocol = POLICY_TCP, .destination = "10.0.0.0/8" },
                { .action = POLICY_ALLOW, .protocol = POLICY_TCP, .destination = "2001:DB8::1" },
        };
        struct egress *policy = make_egress(POLICY_DEFAULT_ALLOW_PUBLIC, rules, ARRAY_SIZE(rules));
        struct egress_request *request;
        const struct fake_policy *set;

        ck_assert_int_eq(ask(0, policy, &request), 0);
        wait_for_outcomes(1);
        set = fake_egress_policy(egress, "sbx-a");
        ck_assert(set->is_sealed);
        ck_assert_int_eq(set->default_action, POLICY_DEFAULT_ALLOW_PUBLIC);
        ck_assert_uint_eq(set->n_rules, 3);
        ck_assert_str_eq(fake_egress_rule(egress, 0),
                         "allow *.xn--bcher-kva.example 443-443,8000-8080");
        ck_assert_str_eq(fake_egress_rule(egress, 1), "deny 10.0.0.0/8");
        ck_assert_str_eq(fake_egress_rule(egress, 2), "allow 2001:db8::1/128");
        /* What is in force means what was asked for. */
        ck_assert_mem_eq(outcomes[0].enforced.sha256, policy->sha256, 32);
        (void)egress_release(policy);
}
END_TEST

START_TEST(as_many_rules_as_there_may_be_fit)
{
        enum { N = POLICY_RULES_MAX };
        static char names[N][254];
        struct egress_rule *rules = calloc(N, sizeof(*rules));
        struct egress_request *request;
        struct egress *policy;

        for (size_t i = 0; i < N; i++) {
                char *name = names[i];

                memset(name, 'a', 253);
                name[253] = '\0';
                name[63] = name[127] = name[191] = '.';
                (void)snprintf(name, 7, "n%05zu", i);
                name[6] = 'x';
                rules[i] = (struct egress_rule){ .action = POLICY_ALLOW,
                                                 .protocol = POLICY_TCP,
                                                 .is_domain = true,
                                                 .destination = name,
                                                 .n_ports = POLICY_PORTS_MAX };
                for (size_t k = 0; k < POLICY_PORTS_MAX; k++)
                        rules[i].ports[k] = (struct policy_ports){ (uint16_t)(60000 + 2 * k),
                                                                   (uint16_t)(60000 + 2 * k) };
        }
        policy = make_egress(POLICY_DEFAULT_DENY, rules, N);
        ck_assert_int_eq(ask(0, policy, &request), 0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_mem_eq(outcomes[0].enforced.sha256, policy->sha256, 32);
        ck_assert_uint_le(fake_egress_policy(egress, "sbx-a")->n_bytes, EGRESS_FILE_MAX);
        (void)egress_release(policy);
        free(rules);
}
END_TEST

/* Of the database, when it was tampered with. */
START_TEST(what_is_no_policy_is_not_asked_for)
{
        static const struct {
                const char *text;
                int64_t n_rules;
        } bad[] = { { "allow tcp - cidr 10.0.0.1/8", 1 }, { "allow tcp - domain 10.0.0.1", 1 },
                    { "allow udp - cidr 10.0.0.0/8", 1 }, { "allow tcp - cidr 10.0.0.0/8", 2 },
                    { "allow icmp - domain a.b", 1 },     { "nonsense", 1 } };
        struct egress_request *request;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct egress *policy = egress_new(strlen(bad[i].text) + 1);

                (void)strcpy(policy->bytes, bad[i].text);
                policy->n_rules = bad[i].n_rules;
                ck_assert_int_eq(ask(0, policy, &request), -EUCLEAN);
                (void)egress_release(policy);
        }
        run_turns(4);
        ck_assert_uint_eq(fake_egress_n_requests(egress), 0);
}
END_TEST

/* --- answers --- */

START_TEST(answers_in_any_order_find_their_request)
{
        fake_egress_script(egress)->hold = true;
        for (unsigned i = 0; i < 3; i++)
                ask_surely(i);
        run_turns(8);
        ck_assert_uint_eq(fake_egress_n_held(egress), 3);
        fake_egress_script(egress)->hold = false;
        ask_surely(3);
        wait_for_outcomes(1);
        ck_assert_uint_eq(outcomes[0].tag, 3);
        fake_egress_release(egress);
        wait_for_outcomes(4);
        ck_assert_uint_eq(outcomes[1].tag, 0);
        ck_assert_uint_eq(outcomes[3].tag, 2);
}
END_TEST

static const struct {
        int reason;
        enum egress_result result;
} refusals[] = {
        { REASON(INVALID), EGRESS_E_REFUSED },         { REASON(NOT_FOUND), EGRESS_E_REFUSED },
        { REASON(EXHAUSTED), EGRESS_E_REFUSED },       { REASON(NOT_PROVEN), EGRESS_E_REFUSED },
        { REASON(TOO_COMPLEX), EGRESS_E_TOO_COMPLEX }, { 4711, EGRESS_E_REFUSED },
};

START_TEST(a_refusal_is_told_with_its_sentence)
{
        fake_egress_script(egress)->fail = refusals[_i].reason;
        fake_egress_script(egress)->message = "rule 7\n\x1b[2J \xff";
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, refusals[_i].result);
        ck_assert_str_eq(outcomes[0].message, "rule 7  [2J ?");
        ck_assert(egress_client_is_connected(client));
}
END_TEST

START_TEST(a_long_sentence_is_cut_between_characters)
{
        static char text[2000];

        for (size_t i = 1; i + 2 < sizeof(text); i += 2)
                memcpy(text + i, "\xC3\xA4", 2);
        text[0] = 'x';
        fake_egress_script(egress)->fail = REASON(INVALID);
        fake_egress_script(egress)->message = text;
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_uint_eq(strlen(outcomes[0].message), 159);
        ck_assert_mem_eq(outcomes[0].message, text, 159);
}
END_TEST

START_TEST(whoever_waits_for_too_long_is_told_so)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        ask_surely(1);
        wait_for_outcomes(2);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_SILENT);
        ck_assert_int_eq(outcomes[1].result, EGRESS_E_SILENT);
        ck_assert(egress_client_is_connected(client));

        /* Its answer comes nevertheless, and is nobody's. */
        fake_egress_release(egress);
        ask_surely(2);
        wait_for_outcomes(3);
        ck_assert_uint_eq(outcomes[2].tag, 2);
        ck_assert_int_eq(outcomes[2].result, EGRESS_ENFORCED);
}
END_TEST

START_TEST(what_nobody_waits_for_is_not_answered)
{
        struct egress_request *request;

        fake_egress_script(egress)->hold = true;
        ck_assert_int_eq(ask(0, NULL, &request), 0);
        ask_surely(1);
        request = egress_request_free(request);
        ck_assert_ptr_null(request);
        run_turns(8);
        ck_assert_uint_eq(fake_egress_n_held(egress), 2);
        fake_egress_release(egress);
        wait_for_outcomes(1);
        ck_assert_uint_eq(outcomes[0].tag, 1);
        ck_assert(egress_client_is_connected(client));
}
END_TEST

/* Nothing is read: what fits the socket is sent, and the rest waits, up to the bound. */
START_TEST(a_peer_that_hangs_is_not_asked_without_bound)
{
        struct egress_request *request, *first = NULL;
        unsigned n = 0;
        int r;

        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        ck_assert_uint_eq(n_lost, 1);
        while ((r = ask(n, NULL, &request)) == 0) {
                if (n++ == 0)
                        first = request;
        }
        ck_assert_int_eq(r, EGRESS_CLIENT_E_BUSY);
        ck_assert_uint_eq(n, EGRESS_REQUESTS_MAX);
        ck_assert_ptr_null(egress_request_free(first)); /* was sent: it still counts */
        ck_assert_int_eq(ask(n, NULL, &request), EGRESS_CLIENT_E_BUSY);

        wait_for_outcomes(n - 1);
        ck_assert_int_eq(outcomes[n - 2].result, EGRESS_E_SILENT);
        /* Those that were never sent are gone, the others are waited for. */
        n_outcomes = 0;
        fake_egress_listen(egress);
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_uint_lt(fake_egress_n_requests(egress), EGRESS_REQUESTS_MAX);
}
END_TEST

START_TEST(what_did_not_fit_the_socket_is_sent_later_and_in_order)
{
        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++)
                ask_surely(i);
        fake_egress_listen(egress);
        wait_for_outcomes(EGRESS_REQUESTS_MAX);
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++) {
                ck_assert_int_eq(outcomes[i].result, EGRESS_ENFORCED);
                ck_assert_uint_eq(outcomes[i].tag, i);
        }
        ck_assert_int_eq(fake_egress_policy(egress, "sbx-a")->version, EGRESS_REQUESTS_MAX);
}
END_TEST

/* --- losses --- */

START_TEST(a_loss_is_told_to_all_who_wait)
{
        struct egress_request *request;

        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        ask_surely(1);
        run_turns(8);
        fake_egress_disconnect(egress);
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, 2);
        ck_assert_int_eq(outcomes[1].result, EGRESS_E_LOST);
        ck_assert_uint_eq(n_lost, 1);
        ck_assert_int_eq(ask(2, NULL, &request), EGRESS_CLIENT_E_DISCONNECTED);

        fake_egress_script(egress)->hold = false;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        ck_assert_uint_eq(n_lost, 1);
        ask_surely(3);
        wait_for_outcomes(3);
        ck_assert_int_eq(outcomes[2].result, EGRESS_ENFORCED);
}
END_TEST

START_TEST(another_connection_takes_the_place_of_the_first)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(4);
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        ck_assert_uint_eq(n_outcomes, 1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
        ck_assert_uint_eq(n_lost, 1);
        ck_assert(egress_client_is_connected(client));
}
END_TEST

/* Of a socket that is good for nothing. */
START_TEST(a_wrong_descriptor_is_a_loss)
{
        int ends[2];

        ck_assert_int_eq(pipe(ends), 0);
        (void)close(ends[1]);
        egress_client_connect(client, ends[0]);
        n_lost = 0;
        wait_for_loss();
}
END_TEST

/* --- what makes no sense --- */

static void say(uint64_t request, Hotcell__Egress__V1__ToServer__BodyCase body_case, void *body)
{
        Hotcell__Egress__V1__ToServer message;

        hotcell__egress__v1__to_server__init(&message);
        message.request = request;
        message.body_case = body_case;
        message.events = body;
        fake_egress_say(egress, &message);
}

START_TEST(bytes_that_are_no_message_end_the_connection)
{
        static const char garbage[] = "\xff\xff\xff\xff nonsense";

        ask_surely(0);
        fake_egress_send(egress, garbage, sizeof(garbage));
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, 1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
}
END_TEST

START_TEST(a_packet_that_is_too_large_ends_the_connection)
{
        static uint8_t bytes[(128 << 10) + 1];

        fake_egress_send(egress, bytes, sizeof(bytes));
        wait_for_loss();
}
END_TEST

START_TEST(an_answer_to_nothing_ends_the_connection)
{
        Hotcell__Egress__V1__Failure failure;

        hotcell__egress__v1__failure__init(&failure);
        say(4711, HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE, &failure);
        wait_for_loss();
}
END_TEST

START_TEST(an_answer_to_what_was_not_sent_ends_the_connection)
{
        Hotcell__Egress__V1__Failure failure;

        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        n_lost = 0;
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++)
                ask_surely(i);
        hotcell__egress__v1__failure__init(&failure);
        say(EGRESS_REQUESTS_MAX, HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE, &failure);
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, EGRESS_REQUESTS_MAX);
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++)
                ck_assert_int_eq(outcomes[i].result, EGRESS_E_LOST);
}
END_TEST

START_TEST(a_message_without_a_body_ends_the_connection)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(4);
        say(1, HOTCELL__EGRESS__V1__TO_SERVER__BODY__NOT_SET, NULL);
        wait_for_loss();
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
}
END_TEST

START_TEST(events_as_an_answer_end_the_connection)
{
        Hotcell__Egress__V1__Events list;

        hotcell__egress__v1__events__init(&list);
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(4);
        say(1, HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS, &list);
        wait_for_loss();
}
END_TEST

START_TEST(an_answer_of_the_wrong_size_ends_the_connection)
{
        if (_i < 2)
                fake_egress_script(egress)->n_digest = _i ? 33 - 2 : 20;
        else
                fake_egress_script(egress)->n_program_ids = EGRESS_PROGRAMS_MAX + 1;
        ask_surely(0);
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, 1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
}
END_TEST

/* --- events --- */

static Hotcell__Egress__V1__Event good(uint64_t number)
{
        return fake_egress_event(number, number, 77);
}

static struct egress_event tell_one(const Hotcell__Egress__V1__Event *event)
{
        n_events = 0;
        n_told = 0;
        fake_egress_tell(egress, event, 1);
        wait_for_packets(1);
        ck_assert_uint_eq(n_events, 1);
        return events[0];
}

START_TEST(an_event_comes_whole)
{
        Hotcell__Egress__V1__Event message = good(5);
        struct egress_event event;
        uint8_t v6[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 };

        message.leaf_cgroup_id = 78;
        message.time_usec = 1000000;
        event = tell_one(&message);
        ck_assert_uint_eq(event.number, 5);
        ck_assert_uint_eq(event.cgroup_id, 77);
        ck_assert_uint_eq(event.leaf_cgroup_id, 78);
        ck_assert_int_eq(event.record.source, EGRESS_DECIDER_WALL);
        ck_assert_int_eq(event.record.serial, 5);
        ck_assert_int_eq(event.record.event_time_usec, 1000000);
        ck_assert_int_eq(event.record.type, EGRESS_EVENT_DENIED);
        ck_assert_int_eq(event.record.reason, EGRESS_REASON_DEFAULT);
        ck_assert_int_eq(event.record.protocol, EGRESS_PROTOCOL_TCP);
        ck_assert_str_eq(event.record.address, "192.0.2.1");
        ck_assert_int_eq(event.record.port, 443);
        ck_assert_int_eq(event.record.pid, 4711);
        ck_assert_str_eq(event.record.command, "curl");
        ck_assert_int_eq(event.record.policy_version, 1);

        message = good(6);
        message.decision = HOTCELL__EGRESS__V1__DECISION__DECISION_FLOW_ENDED;
        message.reason = HOTCELL__EGRESS__V1__REASON__REASON_UNSPECIFIED;
        message.source = HOTCELL__EGRESS__V1__SOURCE__SOURCE_RELAY;
        message.address.data = v6;
        message.address.len = sizeof(v6);
        message.name = (char *)(uintptr_t) "example.org";
        message.sent_bytes = INT64_MAX;
        message.received_bytes = 3;
        message.duration_usec = 4;
        message.count = 0;
        message.serial = 0; /* only the wall counts by itself */
        event = tell_one(&message);
        ck_assert_int_eq(event.record.serial, 6);
        ck_assert_int_eq(event.record.type, EGRESS_EVENT_FLOW_ENDED);
        ck_assert_int_eq(event.record.reason, EGRESS_REASON_NONE);
        ck_assert_int_eq(event.record.source, EGRESS_DECIDER_RELAY);
        ck_assert_str_eq(event.record.address, "2001:db8::1");
        ck_assert_str_eq(event.record.name, "example.org");
        ck_assert_int_eq(event.record.sent_bytes, INT64_MAX);
        ck_assert_int_eq(event.record.received_bytes, 3);
        ck_assert_int_eq(event.record.duration_usec, 4);
        ck_assert_int_eq(event.record.count, 1);
}
END_TEST

#define WIRE_REASON(name)   HOTCELL__EGRESS__V1__REASON__REASON_##name
#define WIRE_SOURCE(name)   HOTCELL__EGRESS__V1__SOURCE__SOURCE_##name
#define WIRE_DECISION(name) HOTCELL__EGRESS__V1__DECISION__DECISION_##name

static const struct {
        int source, wire;
        enum egress_reason reason;
} reasons[] = {
        { WIRE_SOURCE(WALL), WIRE_REASON(DEFAULT), EGRESS_REASON_DEFAULT },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(DEFAULT), EGRESS_REASON_RESOLVER },
        { WIRE_SOURCE(WALL), WIRE_REASON(RULE), EGRESS_REASON_RULE },
        { WIRE_SOURCE(WALL), WIRE_REASON(ALWAYS_DENIED), EGRESS_REASON_ALWAYS_DENIED },
        { WIRE_SOURCE(WALL), WIRE_REASON(PROTOCOL), EGRESS_REASON_PROTOCOL },
        { WIRE_SOURCE(RELAY), WIRE_REASON(NAME_MISMATCH), EGRESS_REASON_NAME_MISMATCH },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(RECORD_TYPE), EGRESS_REASON_RESOLVER },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(RATE), EGRESS_REASON_LIMIT },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(REBINDING), EGRESS_REASON_ALWAYS_DENIED },
        { WIRE_SOURCE(RELAY), WIRE_REASON(POLICY_CHANGED), EGRESS_REASON_POLICY_CHANGED },
        { WIRE_SOURCE(RELAY), WIRE_REASON(FORGED), EGRESS_REASON_UNAVAILABLE },
        { WIRE_SOURCE(RELAY), WIRE_REASON(OVERWRITTEN), EGRESS_REASON_LIMIT },
        { WIRE_SOURCE(RELAY), WIRE_REASON(TORN), EGRESS_REASON_LIMIT },
};

START_TEST(each_reason_has_its_public_one)
{
        for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
                Hotcell__Egress__V1__Event message = good(i + 1);
                struct egress_event event;

                message.source = (Hotcell__Egress__V1__Source)reasons[i].source;
                message.reason = (Hotcell__Egress__V1__Reason)reasons[i].wire;
                message.rule = 9999;
                event = tell_one(&message);
                ck_assert_int_eq(event.record.reason, reasons[i].reason);
                ck_assert_int_eq(event.record.rule_index,
                                 reasons[i].wire == WIRE_REASON(RULE) ? 9999 : 0);
        }
}
END_TEST

START_TEST(text_from_inside_is_made_valid_and_cut)
{
        Hotcell__Egress__V1__Event message = good(1);
        char name[400];
        struct egress_event event;

        memset(name, 'n', sizeof(name));
        memcpy(name + 254, "\xC3\xA4", 2);
        name[sizeof(name) - 1] = '\0';
        message.name = name;
        message.command = (char *)(uintptr_t) "a\xff\xfe-long-command-name";
        event = tell_one(&message);
        ck_assert_uint_eq(strlen(event.record.name), 254);
        ck_assert_str_eq(event.record.command, "a?"
                                               "?-long-comman");
}
END_TEST

START_TEST(a_time_that_cannot_be_is_now)
{
        const int64_t times[] = { 0, -1, INT64_MIN, INT64_MAX, time_now_usec() + 3600000000LL };

        for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
                Hotcell__Egress__V1__Event message = good(i + 1);
                int64_t before = time_now_usec();
                struct egress_event event;

                message.time_usec = times[i];
                event = tell_one(&message);
                ck_assert_int_ge(event.record.event_time_usec, before);
                ck_assert_int_le(event.record.event_time_usec, time_now_usec());
        }
}
END_TEST

static void break_event(Hotcell__Egress__V1__Event *message, size_t how)
{
        switch (how) {
        case 0:
                message->number = 0;
                break;
        case 1:
                message->cgroup_id = 0;
                break;
        case 2:
                message->serial = 0;
                break;
        case 3:
                message->serial = UINT64_MAX;
                break;
        case 4:
                message->source = WIRE_SOURCE(UNSPECIFIED);
                break;
        case 5:
                message->source = (Hotcell__Egress__V1__Source)4;
                break;
        case 6:
                message->decision = WIRE_DECISION(UNSPECIFIED);
                break;
        case 7:
                message->decision = (Hotcell__Egress__V1__Decision)4;
                break;
        case 8:
                message->decision = (Hotcell__Egress__V1__Decision)-1;
                break;
        case 9:
                message->reason = (Hotcell__Egress__V1__Reason)(WIRE_REASON(TORN) + 1);
                break;
        case 10:
                message->reason = (Hotcell__Egress__V1__Reason)INT_MIN;
                break;
        case 11:
                message->reason = WIRE_REASON(RULE);
                message->rule = 10000;
                break;
        case 12:
                message->address.len = 3;
                break;
        case 13:
                message->port = 65536;
                break;
        case 14:
                message->protocol = 65536;
                break;
        case 15:
                message->policy_version = -1;
                break;
        case 16:
                message->error_number = 4096;
                break;
        case 17:
                message->error_number = -1;
                break;
        case 18:
                message->sent_bytes = (uint64_t)INT64_MAX + 1;
                break;
        case 19:
                message->received_bytes = UINT64_MAX;
                break;
        case 20:
                message->duration_usec = -1;
                break;
        case 21:
                message->source = WIRE_SOURCE(RELAY);
                message->number = UINT64_MAX;
                break;
        default:
                ck_abort();
        }
}

/* Its neighbours are told: one that makes no sense costs nothing but itself. */
START_TEST(an_event_that_makes_no_sense_is_dropped)
{
        Hotcell__Egress__V1__Event messages[] = { good(1), good(2), good(3) };

        break_event(&messages[1], (size_t)_i);
        fake_egress_tell(egress, messages, 3);
        wait_for_packets(1);
        ck_assert_uint_eq(n_events, 2);
        ck_assert_uint_eq(events[0].number, 1);
        ck_assert_uint_eq(events[1].number, 3);
        ck_assert(egress_client_is_connected(client));
}
END_TEST

START_TEST(a_number_that_was_told_is_not_told_again)
{
        Hotcell__Egress__V1__Event messages[] = { good(1), good(2), good(2), good(1), good(3) };

        fake_egress_tell(egress, messages, 5);
        fake_egress_tell(egress, messages, 5);
        wait_for_packets(2);
        ck_assert_uint_eq(n_events, 3);
        ck_assert_uint_eq(events[2].number, 3);

        /* Another hotcell-egress counts anew. */
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        fake_egress_tell(egress, messages, 1);
        wait_for_packets(3);
        ck_assert_uint_eq(n_events, 4);
}
END_TEST

START_TEST(too_many_events_in_a_packet_end_the_connection)
{
        static Hotcell__Egress__V1__Event messages[EGRESS_EVENTS_MAX + 1];

        for (size_t i = 0; i < ARRAY_SIZE(messages); i++)
                messages[i] = good(i + 1);
        fake_egress_tell(egress, messages, EGRESS_EVENTS_MAX);
        wait_for_packets(1);
        ck_assert_uint_eq(n_events, EGRESS_EVENTS_MAX);
        fake_egress_tell(egress, messages, EGRESS_EVENTS_MAX + 1);
        wait_for_loss();
        ck_assert_uint_eq(n_events, EGRESS_EVENTS_MAX);
}
END_TEST

START_TEST(without_room_nothing_is_read_and_nothing_is_lost)
{
        Hotcell__Egress__V1__Event messages[] = { good(1), good(2), good(3) };

        n_room = 1;
        fake_egress_tell(egress, messages, 3);
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(8);
        ck_assert_uint_eq(n_events, 1);
        fake_egress_release(egress);
        run_turns(8);
        ck_assert_uint_eq(n_outcomes, 0);             /* behind what there is no room for */
        ck_assert_int_eq(sd_event_run(f.loop, 0), 0); /* and the loop has nothing to do */

        n_room = 1;
        egress_client_resume(client);
        ck_assert_uint_eq(n_events, 2);
        run_turns(8);
        ck_assert_uint_eq(n_outcomes, 0);
        n_room = 9;
        egress_client_resume(client);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_uint_eq(n_events, 3);
        ck_assert_uint_eq(events[2].number, 3);
}
END_TEST

/* The peer is gone while nothing is read: no loop is kept busy, and it is seen once there is room.
 */
START_TEST(a_loss_without_room_is_seen_later)
{
        Hotcell__Egress__V1__Event messages[] = { good(1), good(2) };

        n_room = 0;
        fake_egress_tell(egress, messages, 2);
        run_turns(4);
        fake_egress_disconnect(egress);
        run_turns(20);
        ck_assert_uint_eq(n_lost, 0);
        n_room = 9;
        egress_client_resume(client);
        wait_for_loss();
        ck_assert_uint_eq(n_events, 2);
}
END_TEST

START_TEST(another_connection_without_room_begins_anew)
{
        Hotcell__Egress__V1__Event messages[] = { good(1), good(2) };

        n_room = 0;
        fake_egress_tell(egress, messages, 2);
        run_turns(4);
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        fake_egress_tell(egress, messages, 1);
        run_turns(8);
        ck_assert_uint_eq(n_events, 0);
        n_room = 9;
        n_told = 0;
        egress_client_resume(client);
        wait_for_packets(1);
        ck_assert_uint_eq(n_events, 1);
}
END_TEST

static bool is_acknowledged(void *userdata)
{
        return fake_egress_acknowledged(egress) == *(const uint64_t *)userdata;
}

START_TEST(an_acknowledgement_waits_for_room_and_only_the_last_counts)
{
        uint64_t last = 4000;

        egress_client_acknowledge(client, 1);
        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        for (uint64_t i = 2; i <= last; i++)
                egress_client_acknowledge(client, i);
        ask_surely(0);
        fake_egress_listen(egress);
        wait_for_outcomes(1);
        run_until(is_acknowledged, &last);
        ck_assert_uint_eq(n_lost, 1);

        /* Without a connection there is nobody to tell. */
        fake_egress_disconnect(egress);
        n_lost = 0;
        wait_for_loss();
        egress_client_acknowledge(client, 7);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("egress_client");
        TCase *tests = tcase_create("egress_client"), *impatient = tcase_create("impatient");
        SRunner *runner;
        int n_failed;

        tcase_set_timeout(tests, 60);
        tcase_set_timeout(impatient, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_checked_fixture(impatient, set_up_impatient, tear_down);
        tcase_add_test(tests, the_default_policy_goes_without_a_file);
        tcase_add_test(tests, rules_go_in_a_sealed_file_in_their_order_and_in_one_form);
        tcase_add_test(tests, as_many_rules_as_there_may_be_fit);
        tcase_add_test(tests, what_is_no_policy_is_not_asked_for);
        tcase_add_test(tests, answers_in_any_order_find_their_request);
        tcase_add_loop_test(tests, a_refusal_is_told_with_its_sentence, 0, ARRAY_SIZE(refusals));
        tcase_add_test(tests, a_long_sentence_is_cut_between_characters);
        tcase_add_test(impatient, whoever_waits_for_too_long_is_told_so);
        tcase_add_test(tests, what_nobody_waits_for_is_not_answered);
        tcase_add_test(impatient, a_peer_that_hangs_is_not_asked_without_bound);
        tcase_add_test(tests, what_did_not_fit_the_socket_is_sent_later_and_in_order);
        tcase_add_test(tests, a_loss_is_told_to_all_who_wait);
        tcase_add_test(tests, another_connection_takes_the_place_of_the_first);
        tcase_add_test(tests, a_wrong_descriptor_is_a_loss);
        tcase_add_test(tests, bytes_that_are_no_message_end_the_connection);
        tcase_add_test(tests, a_packet_that_is_too_large_ends_the_connection);
        tcase_add_test(tests, an_answer_to_nothing_ends_the_connection);
        tcase_add_test(tests, an_answer_to_what_was_not_sent_ends_the_connection);
        tcase_add_test(tests, a_message_without_a_body_ends_the_connection);
        tcase_add_test(tests, events_as_an_answer_end_the_connection);
        tcase_add_loop_test(tests, an_answer_of_the_wrong_size_ends_the_connection, 0, 3);
        tcase_add_test(tests, an_event_comes_whole);
        tcase_add_test(tests, each_reason_has_its_public_one);
        tcase_add_test(tests, text_from_inside_is_made_valid_and_cut);
        tcase_add_test(tests, a_time_that_cannot_be_is_now);
        tcase_add_loop_test(tests, an_event_that_makes_no_sense_is_dropped, 0, 22);
        tcase_add_test(tests, a_number_that_was_told_is_not_told_again);
        tcase_add_test(tests, too_many_events_in_a_packet_end_the_connection);
        tcase_add_test(tests, without_room_nothing_is_read_and_nothing_is_lost);
        tcase_add_test(tests, a_loss_without_room_is_seen_later);
        tcase_add_test(tests, another_connection_without_room_begins_anew);
        tcase_add_test(tests, an_acknowledgement_waits_for_room_and_only_the_last_counts);
        suite_add_tcase(suite, tests);
        suite_add_tcase(suite, impatient);
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
