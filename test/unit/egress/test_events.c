/* The queue of events: order, numbers, bounds, and what another hotcelld is told again. */

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/egress/events.h"
#include "test/lib/suite.h"

static struct events events;
static struct events_share share, others[16];
static uint64_t first; /* number before the first */
static uint8_t bytes[128 << 10];

static void setup(void)
{
        log_init("test", LOG_LEVEL_ERROR);
        share = (struct events_share){ 0 };
        (void)memset(others, 0, sizeof(others));
        ck_assert_int_eq(events_init(&events), 0);
        first = events.n_pushed;
}

static void teardown(void)
{
        events_deinit(&events);
}

static bool push_to(struct events_share *to, uint32_t port)
{
        struct event event = { .cgroup_id = 5, .port = (uint16_t)port, .count = 1 };

        return events_push(&events, to, &event);
}

static void push(uint32_t port)
{
        ck_assert(push_to(&share, port));
}

/* How many were packed; they are in order and begin with @number. */
static size_t pack(uint64_t number, uint16_t port)
{
        size_t n_bytes = events_pack(&events, bytes, sizeof(bytes));
        Hotcell__Egress__V1__ToServer *packet;
        size_t n;

        if (n_bytes == 0)
                return 0;
        packet = hotcell__egress__v1__to_server__unpack(NULL, n_bytes, bytes);
        ck_assert_ptr_nonnull(packet);
        ck_assert_uint_eq(packet->request, 0);
        ck_assert_int_eq(packet->body_case, HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS);
        n = packet->events->n_events;
        for (size_t i = 0; i < n; i++) {
                ck_assert_uint_eq(packet->events->events[i]->number, number + i);
                ck_assert_uint_eq(packet->events->events[i]->port, (uint16_t)(port + i));
        }
        hotcell__egress__v1__to_server__free_unpacked(packet, NULL);
        return n;
}

START_TEST(events_are_sent_in_order_and_once)
{
        ck_assert_uint_eq(pack(0, 0), 0);
        push(1);
        push(2);
        ck_assert_uint_eq(pack(first + 1, 1), 2);
        ck_assert_uint_eq(pack(0, 0), 0);
        push(3);
        ck_assert_uint_eq(pack(first + 3, 3), 1);
}
END_TEST

/* So those of the next process are above these: no process tells an event each microsecond. */
START_TEST(numbers_begin_at_the_time)
{
        uint64_t before = clock_monotonic_usec();
        struct events later;

        ck_assert_int_eq(events_init(&later), 0);
        ck_assert_uint_ge(later.n_pushed, before);
        ck_assert_uint_le(later.n_pushed, clock_monotonic_usec());
        events_deinit(&later);
}
END_TEST

START_TEST(what_was_not_recorded_is_sent_again)
{
        for (uint32_t i = 1; i <= 4; i++)
                push(i);
        ck_assert_uint_eq(pack(first + 1, 1), 4);
        events_acknowledge(&events, first + 2);
        events_rewind(&events);
        ck_assert_uint_eq(pack(first + 3, 3), 2);
}
END_TEST

START_TEST(numbers_that_were_not_sent_are_not_acknowledged)
{
        push(1);
        push(2);
        events_acknowledge(&events, first + 1);
        ck_assert_uint_eq(events.n_recorded, first);
        ck_assert_uint_eq(pack(first + 1, 1), 2);
        events_acknowledge(&events, first + 2);
        events_acknowledge(&events, first + 1);
        events_acknowledge(&events, UINT64_MAX);
        ck_assert_uint_eq(events.n_recorded, first + 2);
}
END_TEST

START_TEST(only_so_many_are_in_flight)
{
        uint64_t n = 0;
        size_t packed;

        for (uint32_t i = 0; i < EVENTS_MAX / 2; i++)
                push(i);
        while ((packed = pack(first + 1 + n, (uint16_t)n)) > 0)
                n += packed;
        ck_assert_uint_eq(n, EVENTS_IN_FLIGHT_MAX);
        events_acknowledge(&events, first + 1);
        ck_assert_uint_eq(pack(0, 0), 0);
        events_acknowledge(&events, first + EVENTS_BATCH_MAX);
        ck_assert_uint_eq(pack(first + 1 + n, (uint16_t)n), EVENTS_BATCH_MAX);
}
END_TEST

START_TEST(a_share_is_half_of_what_the_others_leave)
{
        for (uint32_t i = 1; i <= EVENTS_MAX / 2; i++)
                push(i);
        ck_assert(!push_to(&share, 9));
        for (size_t left = EVENTS_MAX / 2, i = 0; left > 1; left -= left / 2, i++) {
                for (size_t n = 0; n < left / 2; n++)
                        ck_assert(push_to(&others[i], 9));
                ck_assert(!push_to(&others[i], 9));
        }
        ck_assert_uint_eq(events.n_pushed - first, EVENTS_MAX - 1);
        ck_assert(!push_to(&others[15], 9));
        ck_assert_uint_eq(events.n_lost, 0);
}
END_TEST

START_TEST(what_is_recorded_is_given_back_to_its_share)
{
        ck_assert(push_to(&others[0], 1));
        for (uint32_t i = 2; push_to(&share, i); i++)
                ;
        ck_assert_uint_eq(share.n_queued, (EVENTS_MAX - 1) / 2);
        ck_assert_uint_eq(pack(first + 1, 1), EVENTS_BATCH_MAX);
        events_acknowledge(&events, first + 2);
        ck_assert_uint_eq(others[0].n_queued, 0);
        ck_assert_uint_eq(share.n_queued, (EVENTS_MAX - 1) / 2 - 1);
        push(1);
        push(2); /* since the other one has none any more */
        ck_assert(!push_to(&share, 3));
}
END_TEST

START_TEST(an_event_is_told_whole)
{
        const struct event event = { .cgroup_id = 1,
                                     .leaf_cgroup_id = 2,
                                     .source = EGRESS_SOURCE(RELAY),
                                     .time_usec = 3,
                                     .asked_usec = 4,
                                     .decision = EGRESS_DECISION(FLOW_ENDED),
                                     .reason = EGRESS_REASON(POLICY_CHANGED),
                                     .rule = 5,
                                     .policy_version = 6,
                                     .address = policy_address_v4("\x08\x09\x0a\x0b"),
                                     .has_address = true,
                                     .port = 7,
                                     .protocol = 8,
                                     .name = "example.org",
                                     .pid = 9,
                                     .command = "curl",
                                     .count = 10,
                                     .error_number = 11,
                                     .sent_bytes = 12,
                                     .received_bytes = 13,
                                     .duration_usec = 14 };
        Hotcell__Egress__V1__ToServer *packet;
        const Hotcell__Egress__V1__Event *told;

        ck_assert(events_push(&events, &share, &event));
        packet = hotcell__egress__v1__to_server__unpack(
                NULL, events_pack(&events, bytes, sizeof(bytes)), bytes);
        ck_assert_ptr_nonnull(packet);
        told = packet->events->events[0];
        ck_assert_uint_eq(told->number, first + 1);
        ck_assert_uint_eq(told->serial, first + 1);
        ck_assert_uint_eq(told->cgroup_id, 1);
        ck_assert_uint_eq(told->leaf_cgroup_id, 2);
        ck_assert_int_eq(told->source, EGRESS_SOURCE(RELAY));
        ck_assert_int_eq(told->time_usec, 3);
        ck_assert_int_eq(told->asked_time_usec, 4);
        ck_assert_int_eq(told->decision, EGRESS_DECISION(FLOW_ENDED));
        ck_assert_int_eq(told->reason, EGRESS_REASON(POLICY_CHANGED));
        ck_assert_uint_eq(told->rule, 5);
        ck_assert_int_eq(told->policy_version, 6);
        ck_assert_uint_eq(told->address.len, 4);
        ck_assert_mem_eq(told->address.data, "\x08\x09\x0a\x0b", 4);
        ck_assert_uint_eq(told->port, 7);
        ck_assert_uint_eq(told->protocol, 8);
        ck_assert_str_eq(told->name, "example.org");
        ck_assert_uint_eq(told->pid, 9);
        ck_assert_str_eq(told->command, "curl");
        ck_assert_uint_eq(told->count, 10);
        ck_assert_int_eq(told->error_number, 11);
        ck_assert_uint_eq(told->sent_bytes, 12);
        ck_assert_uint_eq(told->received_bytes, 13);
        ck_assert_int_eq(told->duration_usec, 14);
        hotcell__egress__v1__to_server__free_unpacked(packet, NULL);
}
END_TEST

START_TEST(a_batch_of_the_largest_fits_into_a_packet)
{
        struct event event = { .cgroup_id = UINT64_MAX,
                               .leaf_cgroup_id = UINT64_MAX,
                               .source = EGRESS_SOURCE(RESOLVER),
                               .time_usec = INT64_MAX,
                               .decision = EGRESS_DECISION(FLOW_ENDED),
                               .reason = EGRESS_REASON(FORGED),
                               .rule = UINT32_MAX,
                               .policy_version = INT64_MAX,
                               .address = { .is_v6 = true },
                               .has_address = true,
                               .port = UINT16_MAX,
                               .protocol = UINT32_MAX,
                               .pid = UINT32_MAX,
                               .count = UINT32_MAX,
                               .error_number = -1,
                               .sent_bytes = UINT64_MAX,
                               .received_bytes = UINT64_MAX,
                               .duration_usec = INT64_MAX };

        (void)memset(event.name, 'a', sizeof(event.name) - 1);
        (void)memset(event.command, 'c', sizeof(event.command) - 1);
        for (size_t i = 0; i < EVENTS_BATCH_MAX; i++)
                ck_assert(events_push(&events, &share, &event));
        ck_assert_uint_gt(events_pack(&events, bytes, sizeof(bytes)), EVENTS_BATCH_MAX * 300);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("events");
        TCase *tests = tcase_create("events");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, events_are_sent_in_order_and_once);
        tcase_add_test(tests, numbers_begin_at_the_time);
        tcase_add_test(tests, what_was_not_recorded_is_sent_again);
        tcase_add_test(tests, numbers_that_were_not_sent_are_not_acknowledged);
        tcase_add_test(tests, only_so_many_are_in_flight);
        tcase_add_test(tests, a_share_is_half_of_what_the_others_leave);
        tcase_add_test(tests, what_is_recorded_is_given_back_to_its_share);
        tcase_add_test(tests, an_event_is_told_whole);
        tcase_add_test(tests, a_batch_of_the_largest_fits_into_a_packet);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
