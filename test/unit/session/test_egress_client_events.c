/* Events that come from hotcell-egress: what is taken, dropped, acknowledged and left to wait. */
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/egress_client.h"
#include "test/lib/suite.h"
#include "test/unit/session/egress_client.h"
#include "test/unit/session/fixture.h"

static bool is_heard(void *userdata)
{
        return n_told >= *(const unsigned *)userdata;
}

static void wait_for_packets(unsigned n)
{
        run_until(is_heard, &n);
}

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
        ck_assert_int_eq(event.asked_time_usec, 1000000);
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

/* When it was asked for; not after the decision, whatever is said. */
START_TEST(an_event_was_asked_for_before_it_was_decided)
{
        static const struct {
                int64_t told, asked;
        } times[] = { { 400000, 400000 }, { 1000000, 1000000 }, { 1000001, 1000000 },
                      { 0, 1000000 },     { -1, 1000000 },      { INT64_MAX, 1000000 } };

        for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
                Hotcell__Egress__V1__Event message = good(i + 1);

                message.time_usec = 1000000;
                message.asked_time_usec = times[i].told;
                ck_assert_int_eq(tell_one(&message).asked_time_usec, times[i].asked);
        }
}
END_TEST

START_TEST(each_protocol_has_its_public_one)
{
        static const struct {
                uint32_t number;
                enum egress_protocol protocol;
        } protocols[] = { { 6, EGRESS_PROTOCOL_TCP },   { 17, EGRESS_PROTOCOL_UDP },
                          { 1, EGRESS_PROTOCOL_ICMP },  { 58, EGRESS_PROTOCOL_ICMP },
                          { 0, EGRESS_PROTOCOL_OTHER }, { 132, EGRESS_PROTOCOL_OTHER } };

        for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
                Hotcell__Egress__V1__Event message = good(i + 1);

                message.protocol = protocols[i].number;
                ck_assert_int_eq(tell_one(&message).record.protocol, protocols[i].protocol);
        }
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
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(RECORD_TYPE), EGRESS_REASON_RECORD_TYPE },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(MALFORMED), EGRESS_REASON_MALFORMED },
        { WIRE_SOURCE(RELAY), WIRE_REASON(NAME_ABSENT), EGRESS_REASON_NAME_ABSENT },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(RATE), EGRESS_REASON_LIMIT },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(REBINDING), EGRESS_REASON_ALWAYS_DENIED },
        { WIRE_SOURCE(RELAY), WIRE_REASON(POLICY_CHANGED), EGRESS_REASON_POLICY_CHANGED },
        { WIRE_SOURCE(RELAY), WIRE_REASON(FORGED), EGRESS_REASON_UNAVAILABLE },
        { WIRE_SOURCE(RELAY), WIRE_REASON(OVERWRITTEN), EGRESS_REASON_LIMIT },
        { WIRE_SOURCE(RELAY), WIRE_REASON(TORN), EGRESS_REASON_LIMIT },
        { WIRE_SOURCE(RESOLVER), WIRE_REASON(UNAVAILABLE), EGRESS_REASON_UNAVAILABLE },
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

START_TEST(several_rules_are_told_as_none)
{
        Hotcell__Egress__V1__Event message = good(1);

        message.reason = WIRE_REASON(RULE);
        message.rule = UINT32_MAX;
        ck_assert_int_eq(tell_one(&message).record.rule_index, -1);
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
                message->reason = (Hotcell__Egress__V1__Reason)(WIRE_REASON(UNAVAILABLE) + 1);
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

static bool is_counted(void *userdata)
{
        (void)userdata;
        return n_counts > 0;
}

/* So that their sum is one, too. */
START_TEST(counts_that_cannot_be_are_not_taken)
{
        const uint64_t most = INT64_MAX / 2;

        fake_egress_count(egress, 77, most + 1, 0);
        fake_egress_count(egress, 77, 0, most + 1);
        fake_egress_count(egress, 0, 1, 1);
        fake_egress_count(egress, 78, most, most);
        run_until(is_counted, NULL);
        ck_assert_uint_eq(n_counts, 1);
        ck_assert_uint_eq(counted_cgroup, 78);
        ck_assert(counted.is_known);
        ck_assert_int_eq(counted.logged, (int64_t)most);
        ck_assert_int_eq(counted.dropped, (int64_t)most);
}
END_TEST

static void say_counts(size_t n, uint64_t request)
{
        static Hotcell__Egress__V1__Count items[EGRESS_EVENTS_MAX + 1];
        static Hotcell__Egress__V1__Count *pointers[EGRESS_EVENTS_MAX + 1];
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Counts counts;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__counts__init(&counts);
        for (size_t i = 0; i < n; i++) {
                hotcell__egress__v1__count__init(&items[i]);
                items[i].cgroup_id = i + 1;
                pointers[i] = &items[i];
        }
        counts.counts = pointers;
        counts.n_counts = n;
        message.request = request;
        message.body_case = HOTCELL__EGRESS__V1__TO_SERVER__BODY_COUNTS;
        message.counts = &counts;
        fake_egress_say(egress, &message);
}

static const struct {
        size_t n;
        uint64_t request;
} wrong_counts[] = { { EGRESS_EVENTS_MAX + 1, 0 }, { 1, 1 } };

START_TEST(counts_in_another_way_than_agreed_end_the_connection)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0); /* that they could be an answer to */
        run_turns(4);
        say_counts(EGRESS_EVENTS_MAX, 0);
        run_until(is_counted, NULL);
        ck_assert_uint_eq(n_counts, EGRESS_EVENTS_MAX);
        say_counts(wrong_counts[_i].n, wrong_counts[_i].request);
        wait_for_loss();
        ck_assert_uint_eq(n_counts, EGRESS_EVENTS_MAX);
}
END_TEST

/* None is expected, and none is kept. */
START_TEST(descriptors_that_come_along_are_closed)
{
        const Hotcell__Egress__V1__Event message = good(1);
        int ends[2];
        char byte;

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        fake_egress_script(egress)->descriptor = ends[1];
        (void)tell_one(&message);
        (void)close(ends[1]);
        ck_assert_int_eq(read(ends[0], &byte, 1), 0); /* nobody can write any more */
        (void)close(ends[0]);
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
        Suite *suite = suite_create("egress_client_events");
        TCase *tests = tcase_create("egress_client_events");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_test(tests, an_event_comes_whole);
        tcase_add_test(tests, an_event_was_asked_for_before_it_was_decided);
        tcase_add_test(tests, each_protocol_has_its_public_one);
        tcase_add_test(tests, each_reason_has_its_public_one);
        tcase_add_test(tests, several_rules_are_told_as_none);
        tcase_add_test(tests, text_from_inside_is_made_valid_and_cut);
        tcase_add_test(tests, a_time_that_cannot_be_is_now);
        tcase_add_loop_test(tests, an_event_that_makes_no_sense_is_dropped, 0, 22);
        tcase_add_test(tests, a_number_that_was_told_is_not_told_again);
        tcase_add_test(tests, too_many_events_in_a_packet_end_the_connection);
        tcase_add_test(tests, counts_that_cannot_be_are_not_taken);
        tcase_add_loop_test(tests, counts_in_another_way_than_agreed_end_the_connection, 0,
                            ARRAY_SIZE(wrong_counts));
        tcase_add_test(tests, descriptors_that_come_along_are_closed);
        tcase_add_test(tests, without_room_nothing_is_read_and_nothing_is_lost);
        tcase_add_test(tests, a_loss_without_room_is_seen_later);
        tcase_add_test(tests, another_connection_without_room_begins_anew);
        tcase_add_test(tests, an_acknowledgement_waits_for_room_and_only_the_last_counts);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
