/* What is too much to be told one by one is told in sums, by kind, of which nothing is lost. */

#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/egress/teller.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

enum { PATIENCE_SEC = 30, CGROUP = 5 };

/* What hotcelld would have been told. */
struct told {
        size_t n_several; /* of different rules */
        int64_t sum_of_versions;
        uint64_t n; /* events */
        uint64_t count;
        uint64_t sent_bytes;
        uint64_t received_bytes;
        int64_t longest_usec;
        Hotcell__Egress__V1__Event last; /* texts and address: not to be read */
        char name[POLICY_DOMAIN_BUFFER];
        size_t n_address;
};

static sd_event *loop;
static sd_event_source *sending;
static struct events events;
static struct tellers tellers;
static struct teller *teller;
static struct events_share others[16];
static struct told told[32]; /* by reason; of FLOW_ENDED those behind */

enum { ENDED = 16 };

static int on_sending(sd_event_source *source, void *userdata)
{
        (void)source;
        (void)userdata;
        return 0;
}

static void setup(void)
{
        log_init("test", LOG_LEVEL_ERROR);
        (void)memset(others, 0, sizeof(others));
        (void)memset(told, 0, sizeof(told));
        ck_assert_int_ge(sd_event_new(&loop), 0);
        ck_assert_int_ge(sd_event_add_defer(loop, &sending, on_sending, NULL), 0);
        ck_assert_int_ge(sd_event_source_set_enabled(sending, SD_EVENT_OFF), 0);
        ck_assert_int_eq(events_init(&events), 0);
        ck_assert_int_eq(tellers_init(&tellers, loop, &events, sending), 0);
        ck_assert_int_eq(teller_new(&tellers, &teller), 0);
}

static void teardown(void)
{
        teller = teller_end(teller);
        tellers_deinit(&tellers);
        events_deinit(&events);
        sending = sd_event_source_disable_unref(sending);
        loop = sd_event_unref(loop);
}

static struct event event_of(Hotcell__Egress__V1__Decision decision,
                             Hotcell__Egress__V1__Reason reason)
{
        return (struct event){ .cgroup_id = CGROUP,
                               .leaf_cgroup_id = 6,
                               .source = EGRESS_SOURCE(RELAY),
                               .time_usec = 1000,
                               .decision = decision,
                               .reason = reason,
                               .policy_version = 1,
                               .address = { .bytes = { 9, 9, 9, 9 } },
                               .has_address = true,
                               .port = 443,
                               .protocol = IPPROTO_TCP,
                               .name = "a.test",
                               .pid = 77,
                               .command = "curl",
                               .count = 1 };
}

static struct event denied(Hotcell__Egress__V1__Reason reason)
{
        return event_of(EGRESS_DECISION(DENIED), reason);
}

/* --- hotcelld ----------------------------------------------------------------------------------
 */

static void note(const Hotcell__Egress__V1__Event *event)
{
        size_t kind = (event->decision == EGRESS_DECISION(FLOW_ENDED) ? ENDED : 0) +
                      (size_t)event->reason;

        ck_assert_uint_lt(kind, ARRAY_SIZE(told));
        told[kind].n++;
        told[kind].n_several += event->rule == EVENT_RULES_SEVERAL;
        told[kind].sum_of_versions += event->policy_version;
        told[kind].count += event->count;
        told[kind].sent_bytes += event->sent_bytes;
        told[kind].received_bytes += event->received_bytes;
        told[kind].longest_usec = MAX(told[kind].longest_usec, event->duration_usec);
        told[kind].last = *event;
        told[kind].n_address = event->address.len;
        (void)snprintf(told[kind].name, sizeof(told[kind].name), "%s", event->name);
}

/* All that is in the queue, and acknowledges it. */
static void record(void)
{
        static uint8_t bytes[128 << 10];
        size_t n_bytes;

        while ((n_bytes = events_pack(&events, bytes, sizeof(bytes))) > 0) {
                Hotcell__Egress__V1__ToServer *packet =
                        hotcell__egress__v1__to_server__unpack(NULL, n_bytes, bytes);

                ck_assert_ptr_nonnull(packet);
                for (size_t i = 0; i < packet->events->n_events; i++)
                        note(packet->events->events[i]);
                hotcell__egress__v1__to_server__free_unpacked(packet, NULL);
                events_acknowledge(&events, events.n_sent);
        }
        tellers_go_on(&tellers);
}

static void run_until_told(size_t kind, uint64_t count)
{
        time_t end = time(NULL) + (time_t)PATIENCE_SEC * test_patience();

        for (record(); told[kind].count < count; record()) {
                ck_assert_int_ge(sd_event_run(loop, 100000), 0);
                ck_assert_msg(time(NULL) < end, "waited for too long");
        }
}

static void push_many(struct event event, size_t n)
{
        for (size_t i = 0; i < n; i++)
                teller_push(teller, &event);
}

/* So that all is summed up. */
static void fill_queue(void)
{
        const struct event event = denied(EGRESS_REASON(TORN));

        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                while (events_push(&events, &others[i], &event))
                        ;
}

static void tell_sums(void)
{
        record();
        ck_assert(teller_flush(teller));
        record();
}

/* --- the rate ----------------------------------------------------------------------------------
 */

START_TEST(what_is_too_much_is_summed_up_by_kind)
{
        struct event ended = event_of(EGRESS_DECISION(FLOW_ENDED), EGRESS_REASON(UNSPECIFIED));

        push_many(denied(EGRESS_REASON(DEFAULT)), TELLER_BURST);
        push_many(denied(EGRESS_REASON(DEFAULT)), 150);
        push_many(denied(EGRESS_REASON(FORGED)), 40);
        ended.sent_bytes = 1000;
        ended.received_bytes = UINT64_C(1) << 33;
        ended.duration_usec = 5;
        push_many(ended, 3);
        ended.duration_usec = 9;
        push_many(ended, 1);
        run_until_told(ENDED, 4);
        run_until_told(EGRESS_REASON(DEFAULT), TELLER_BURST + 150);
        run_until_told(EGRESS_REASON(FORGED), 40);
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].count, TELLER_BURST + 150);
        ck_assert_uint_eq(told[EGRESS_REASON(FORGED)].count, 40);
        ck_assert_uint_eq(told[ENDED].count, 4);
        ck_assert_uint_eq(told[ENDED].sent_bytes, 4000);
        ck_assert_uint_eq(told[ENDED].received_bytes, UINT64_C(4) << 33);
        ck_assert_int_eq(told[ENDED].longest_usec, 9);
        /* One event each, but for what the rate let through meanwhile. */
        ck_assert_uint_lt(told[EGRESS_REASON(DEFAULT)].n, TELLER_BURST + 50);
        ck_assert_uint_lt(told[EGRESS_REASON(FORGED)].n, 40);
}
END_TEST

START_TEST(only_the_relays_are_rationed)
{
        struct event event = denied(EGRESS_REASON(DEFAULT));

        for (event.source = EGRESS_SOURCE(WALL); event.source <= EGRESS_SOURCE(RESOLVER);
             event.source += 2) {
                push_many(event, 2 * TELLER_BURST);
                record();
        }
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].n, 4 * (uint64_t)TELLER_BURST);
}
END_TEST

/* --- sums --------------------------------------------------------------------------------------
 */

START_TEST(one_alone_is_told_as_it_was)
{
        const Hotcell__Egress__V1__Event *last = &told[EGRESS_REASON(RULE)].last;
        struct event event = denied(EGRESS_REASON(RULE));

        event.rule = 3;
        fill_queue();
        teller_push(teller, &event);
        tell_sums();
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].count, 1);
        ck_assert_uint_eq(last->rule, 3);
        ck_assert_uint_eq(last->port, 443);
        ck_assert_uint_eq(last->pid, 77);
        ck_assert_uint_eq(last->leaf_cgroup_id, 6);
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].n_address, 4);
        ck_assert_str_eq(told[EGRESS_REASON(RULE)].name, "a.test");
}
END_TEST

static void change_port(struct event *event)
{
        event->port = 80;
}

static void change_address(struct event *event)
{
        event->address.bytes[0] = 8;
}

static void change_process(struct event *event)
{
        event->pid = 78;
        event->leaf_cgroup_id = 7;
}

static void change_name(struct event *event)
{
        (void)memcpy(event->name, "b.test", sizeof("b.test"));
}

static void change_nothing(struct event *event)
{
        event->time_usec++;
}

START_TEST(what_differs_is_left_empty)
{
        static void (*const changes[])(struct event * event) = {
                change_nothing, change_port, change_address, change_process, change_name,
        };
        const Hotcell__Egress__V1__Event *last = &told[EGRESS_REASON(FORGED)].last;
        struct event event = denied(EGRESS_REASON(FORGED));

        fill_queue();
        teller_push(teller, &event);
        changes[_i](&event);
        teller_push(teller, &event);
        event = denied(EGRESS_REASON(FORGED)); /* it comes back, and stays empty */
        teller_push(teller, &event);
        tell_sums();
        ck_assert_uint_eq(told[EGRESS_REASON(FORGED)].n, 1);
        ck_assert_uint_eq(told[EGRESS_REASON(FORGED)].count, 3);
        ck_assert_uint_eq(last->port, changes[_i] == change_port ? 0 : 443);
        ck_assert_uint_eq(told[EGRESS_REASON(FORGED)].n_address,
                          changes[_i] == change_address ? 0 : 4);
        ck_assert_uint_eq(last->pid, changes[_i] == change_process ? 0 : 77);
        ck_assert_uint_eq(last->leaf_cgroup_id, changes[_i] == change_process ? 0 : 6);
        ck_assert_str_eq(told[EGRESS_REASON(FORGED)].name,
                         changes[_i] == change_name ? "" : "a.test");
}
END_TEST

START_TEST(rules_and_errors_are_kinds_of_their_own_up_to_a_number)
{
        struct event event = denied(EGRESS_REASON(RULE));
        const uint32_t n_rules = 4 * TELLER_KINDS_MAX;

        fill_queue();
        for (event.rule = 0; event.rule < n_rules; event.rule++)
                teller_push(teller, &event);
        tell_sums();
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].count, n_rules);
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].n, TELLER_KINDS_MAX);
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].n_several, 1);
}
END_TEST

/* A rule is one of a policy: of another version it is another one. */
START_TEST(versions_of_the_policy_are_kinds_of_their_own)
{
        struct event event = denied(EGRESS_REASON(RULE));

        fill_queue();
        for (event.policy_version = 1; event.policy_version <= 3; event.policy_version++)
                push_many(event, 100);
        tell_sums();
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].count, 300);
        ck_assert_uint_eq(told[EGRESS_REASON(RULE)].n, 3);
        ck_assert_int_eq(told[EGRESS_REASON(RULE)].sum_of_versions, 1 + 2 + 3);
}
END_TEST

START_TEST(an_error_is_a_kind_of_its_own)
{
        struct event event = event_of(EGRESS_DECISION(FAILED), EGRESS_REASON(UNSPECIFIED));

        fill_queue();
        for (event.error_number = 1; event.error_number <= 3; event.error_number++)
                teller_push(teller, &event);
        tell_sums();
        ck_assert_uint_eq(told[EGRESS_REASON(UNSPECIFIED)].n, 3);
        ck_assert_uint_eq(told[EGRESS_REASON(UNSPECIFIED)].count, 3);
        ck_assert_int_ne(told[EGRESS_REASON(UNSPECIFIED)].last.error_number, 0);
}
END_TEST

/* How many kinds there were in sums that were told does not count. */
START_TEST(kinds_that_were_told_make_room_for_others)
{
        struct event event = denied(EGRESS_REASON(RULE));

        for (unsigned round = 1; round <= 3; round++) {
                fill_queue();
                for (event.rule = 0; event.rule < TELLER_KINDS_MAX; event.rule++)
                        teller_push(teller, &event);
                tell_sums();
                ck_assert_uint_eq(told[EGRESS_REASON(RULE)].n, round * TELLER_KINDS_MAX);
        }
}
END_TEST

START_TEST(a_sum_has_the_times_of_the_last)
{
        const Hotcell__Egress__V1__Event *last = &told[EGRESS_REASON(DEFAULT)].last;
        struct event event = denied(EGRESS_REASON(DEFAULT));

        fill_queue();
        event.asked_usec = 900;
        teller_push(teller, &event);
        event.time_usec = 2000;
        event.asked_usec = 1900;
        teller_push(teller, &event);
        tell_sums();
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].n, 1);
        ck_assert_int_eq(last->time_usec, 2000);
        ck_assert_int_eq(last->asked_time_usec, 1900);
}
END_TEST

/* --- room --------------------------------------------------------------------------------------
 */

START_TEST(without_room_all_are_summed_up_and_told_when_there_is)
{
        struct event event = denied(EGRESS_REASON(DEFAULT));

        event.source = EGRESS_SOURCE(WALL);
        fill_queue();
        push_many(event, 5000);
        ck_assert(!teller_flush(teller));
        record();
        run_until_told(EGRESS_REASON(DEFAULT), 5000);
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].count, 5000);
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].n, 1);
        ck_assert_uint_eq(events.n_lost, 0);
}
END_TEST

START_TEST(a_loud_neighbour_leaves_room_for_one)
{
        struct event event = denied(EGRESS_REASON(DEFAULT));
        struct teller *quiet;

        event.source = EGRESS_SOURCE(WALL);
        push_many(event, 10 * (size_t)EVENTS_MAX);
        ck_assert_int_eq(teller_new(&tellers, &quiet), 0);
        event = denied(EGRESS_REASON(FORGED));
        teller_push(quiet, &event);
        record();
        ck_assert_uint_eq(told[EGRESS_REASON(FORGED)].count, 1);
        ck_assert_ptr_null(teller_end(quiet));
        run_until_told(EGRESS_REASON(DEFAULT), 10 * (uint64_t)EVENTS_MAX);
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].count, 10 * (uint64_t)EVENTS_MAX);
}
END_TEST

START_TEST(a_network_that_ends_tells_its_sums_once_there_is_room)
{
        fill_queue();
        push_many(denied(EGRESS_REASON(DEFAULT)), 1234);
        teller = teller_end(teller);
        run_until_told(EGRESS_REASON(DEFAULT), 1234);
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].count, 1234);
        ck_assert(LIST_EMPTY(&tellers.busy));
        ck_assert_int_eq(teller_new(&tellers, &teller), 0);
}
END_TEST

/* The queue says whose an event is until it is recorded. */
START_TEST(a_network_that_ends_is_there_until_its_events_are_recorded)
{
        push_many(denied(EGRESS_REASON(DEFAULT)), TELLER_BURST + 2);
        teller = teller_end(teller);
        ck_assert(!LIST_EMPTY(&tellers.busy));
        record();
        ck_assert_uint_eq(told[EGRESS_REASON(DEFAULT)].count, TELLER_BURST + 2);
        ck_assert(LIST_EMPTY(&tellers.busy));
        ck_assert_int_eq(teller_new(&tellers, &teller), 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("teller");
        TCase *tests = tcase_create("teller");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, what_is_too_much_is_summed_up_by_kind);
        tcase_add_test(tests, only_the_relays_are_rationed);
        tcase_add_test(tests, one_alone_is_told_as_it_was);
        tcase_add_loop_test(tests, what_differs_is_left_empty, 0, 5);
        tcase_add_test(tests, rules_and_errors_are_kinds_of_their_own_up_to_a_number);
        tcase_add_test(tests, versions_of_the_policy_are_kinds_of_their_own);
        tcase_add_test(tests, an_error_is_a_kind_of_its_own);
        tcase_add_test(tests, kinds_that_were_told_make_room_for_others);
        tcase_add_test(tests, a_sum_has_the_times_of_the_last);
        tcase_add_test(tests, without_room_all_are_summed_up_and_told_when_there_is);
        tcase_add_test(tests, a_loud_neighbour_leaves_room_for_one);
        tcase_add_test(tests, a_network_that_ends_tells_its_sums_once_there_is_room);
        tcase_add_test(tests, a_network_that_ends_is_there_until_its_events_are_recorded);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
