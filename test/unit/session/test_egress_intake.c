/*
 * Decisions of hotcell-egress on their way into the database: each once, acknowledged when it is
 * there and not before, whoever is killed or started anew. The store's insert is wrapped by the
 * linker (meson.build).
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

#define SOURCE(name) HOTCELL__EGRESS__V1__SOURCE__SOURCE_##name

typedef Hotcell__Egress__V1__Event Event;

/* What a killed server had in memory stays and is nobody's; see test_crashes.c. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
        return 1;
}

/* --- the store --- */

static bool is_store_stuck; /* inserts are not begun until store_go_on */
static bool is_answer_lost; /* they are done, and nobody hears of it */
static int store_result;    /* they fail with that */
static unsigned n_inserts;
static size_t n_handed; /* events in these */

static struct {
        struct store *store;
        struct egress_record records[EGRESS_BATCH_MAX];
        size_t n;
        store_on_done on_done;
        void *userdata;
} stuck;

void __real_store_insert_egress_events(struct store *store, const struct egress_record *records,
                                       size_t n, store_on_done on_done, void *userdata);
void __wrap_store_insert_egress_events(struct store *store, const struct egress_record *records,
                                       size_t n, store_on_done on_done, void *userdata);

static bool is_inserted;

static void on_inserted(void *userdata, int result)
{
        (void)userdata;
        ck_assert_int_eq(result, 0);
        is_inserted = true;
}

void __wrap_store_insert_egress_events(struct store *store, const struct egress_record *records,
                                       size_t n, store_on_done on_done, void *userdata)
{
        n_inserts++;
        n_handed += n;
        if (is_store_stuck) {
                stuck.store = store;
                memcpy(stuck.records, records, n * sizeof(*records));
                stuck.n = n;
                stuck.on_done = on_done;
                stuck.userdata = userdata;
        } else if (store_result) {
                on_done(userdata, store_result);
        } else {
                __real_store_insert_egress_events(store, records, n,
                                                  is_answer_lost ? on_inserted : on_done, userdata);
        }
}

static void store_go_on(void)
{
        is_store_stuck = false;
        __real_store_insert_egress_events(stuck.store, stuck.records, stuck.n, stuck.on_done,
                                          stuck.userdata);
}

/* --- what is there --- */

static char sandbox_id[ID_BUFFER];
static uint64_t cgroup_id;

static struct stored {
        bool is_done;
        int result;
        struct egress_record records[1000];
        size_t n;
} stored;

static void on_listed(void *userdata, int result, const struct egress_list *list)
{
        (void)userdata;
        stored.is_done = true;
        stored.result = result;
        stored.n = list ? list->n : 0;
        for (size_t i = 0; i < stored.n; i++)
                stored.records[i] = list->records[i];
}

static size_t read_stored(void)
{
        const struct egress_query query = { .owner = "uid:1",
                                            .sandbox_id = sandbox_id,
                                            .limit = 1000 };

        stored.is_done = false;
        store_list_egress_events(f.store, &query, on_listed, NULL);
        run_until_true(&stored.is_done);
        ck_assert_int_eq(stored.result, 0);
        for (size_t i = 1; i < stored.n; i++)
                ck_assert_int_gt(stored.records[i].sequence, stored.records[i - 1].sequence);
        return stored.n;
}

static bool is_acknowledged(void *userdata)
{
        return fake_egress_acknowledged(f.egress) >= *(const uint64_t *)userdata;
}

/* Up to this number, and no further. */
static void wait_for_acknowledgement(uint64_t number)
{
        run_until(is_acknowledged, &number);
        ck_assert_uint_eq(fake_egress_acknowledged(f.egress), number);
}

static Event event(uint64_t number, uint64_t serial)
{
        return fake_egress_event(number, serial, cgroup_id);
}

static void tell(const Event *events, size_t n)
{
        fake_egress_tell(f.egress, events, n);
}

static void tell_range(uint64_t first, uint64_t last)
{
        static Event events[256];
        size_t n = 0;

        for (uint64_t i = first; i <= last; i++)
                events[n++] = event(i, i);
        tell(events, n);
}

static void reconnect(void)
{
        fake_runtime_egress_ready(f.runtime);
        run_turns(4);
}

static void make_sandbox(void)
{
        struct answer answer = new_sandbox();

        (void)strcpy(sandbox_id, answer.sandbox.sandbox_id);
        cgroup_id = answer.sandbox.cgroup_id;
}

static void set_up(void)
{
        is_store_stuck = is_answer_lost = is_inserted = false;
        store_result = 0;
        n_inserts = 0;
        n_handed = 0;
        fixture_setup();
        start_with_egress();
        make_sandbox();
}

/* --- one connection --- */

START_TEST(events_are_stored_and_then_acknowledged)
{
        Event events[] = { event(1, 1), event(2, 2), event(3, 1) };
        int64_t before = time_now_usec();

        events[2].source = SOURCE(RELAY);
        events[2].decision = HOTCELL__EGRESS__V1__DECISION__DECISION_FLOW_ENDED;
        events[2].reason = HOTCELL__EGRESS__V1__REASON__REASON_UNSPECIFIED;
        events[2].name = (char *)(uintptr_t) "example.org";
        events[2].sent_bytes = 5;
        is_store_stuck = true;
        tell(events, 3);
        run_turns(20);
        ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
        ck_assert_uint_eq(n_inserts, 1);
        store_go_on();
        wait_for_acknowledgement(3);
        ck_assert_uint_eq(read_stored(), 3);
        ck_assert_str_eq(stored.records[0].address, "192.0.2.1");
        ck_assert_int_eq(stored.records[0].type, EGRESS_EVENT_DENIED);
        ck_assert_int_eq(stored.records[0].source, EGRESS_DECIDER_WALL);
        ck_assert_int_eq(stored.records[1].serial, 2);
        ck_assert_int_eq(stored.records[2].sent_bytes, 5);
        ck_assert_str_eq(stored.records[2].name, "example.org");
        ck_assert_int_gt(stored.records[0].sequence, before - 1000000);
}
END_TEST

START_TEST(an_event_that_is_not_stored_is_not_acknowledged)
{
        store_result = -EIO;
        tell_range(1, 3);
        run_turns(50);
        ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
        store_result = 0; /* tried again after a second */
        wait_for_acknowledgement(3);
        ck_assert_uint_eq(read_stored(), 3);
}
END_TEST

START_TEST(events_of_nobody_and_of_no_sense_are_acknowledged_and_not_stored)
{
        Event events[] = { event(1, 1), event(2, 2), event(3, 3) };

        events[0].cgroup_id = 4711;
        events[1].port = 70000;
        events[2].cgroup_id = 4712;
        tell(events, 3);
        wait_for_acknowledgement(3);
        ck_assert_uint_eq(n_inserts, 0);
        ck_assert_uint_eq(read_stored(), 0);
}
END_TEST

START_TEST(the_same_number_or_serial_is_one_event)
{
        Event events[] = { event(1, 1), event(1, 2), event(2, 1), event(3, 1), event(4, 2) };

        events[2].time_usec++; /* the clock of another hotcell-egress */
        events[3].source = SOURCE(RESOLVER);
        tell(events, 5);
        wait_for_acknowledgement(4);
        ck_assert_uint_eq(n_handed, 3); /* nobody is shown it twice */
        ck_assert_uint_eq(read_stored(), 3);
        ck_assert_int_eq(stored.records[0].serial, 1);
        ck_assert_int_eq(stored.records[1].source, EGRESS_DECIDER_RESOLVER);
        ck_assert_int_eq(stored.records[2].serial, 2);
}
END_TEST

START_TEST(the_same_serial_of_two_sandboxes_is_two_events)
{
        Event events[] = { event(1, 1), event(2, 1) };

        make_sandbox();
        events[1].cgroup_id = cgroup_id;
        tell(events, 2);
        wait_for_acknowledgement(2);
        ck_assert_uint_eq(read_stored(), 1);
}
END_TEST

START_TEST(equal_and_falling_times_have_rising_sequences)
{
        Event events[] = { event(1, 1), event(2, 2), event(3, 3), event(4, 4) };

        for (size_t i = 0; i < 4; i++)
                events[i].time_usec = i == 3 ? 1000 : 5000000;
        tell(events, 4);
        wait_for_acknowledgement(4);
        ck_assert_uint_eq(read_stored(), 4);
        ck_assert_int_eq(stored.records[0].sequence, 5000000);
        ck_assert_int_eq(stored.records[2].sequence, 5000002);
        ck_assert_int_eq(stored.records[3].event_time_usec, 1000);
}
END_TEST

/* A flood: what has no room waits in the socket, and nothing of it is lost. */
START_TEST(a_flood_waits_and_is_stored_whole)
{
        enum { N = 900 };
        uint64_t n_sent = 0;

        is_store_stuck = true;
        for (uint64_t i = 0; i < N; i += 100) {
                tell_range(i + 1, i + 100);
                run_turns(4);
                n_sent = i + 100;
        }
        run_turns(50);
        ck_assert_uint_eq(n_inserts, 1);
        ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
        /* Of one owner no more than half of the room is taken. */
        store_go_on();
        wait_for_acknowledgement(n_sent);
        ck_assert_uint_eq(read_stored(), N);
        for (size_t i = 0; i < N; i++)
                ck_assert_int_eq(stored.records[i].serial, (int64_t)i + 1);
}
END_TEST

START_TEST(what_a_sandbox_did_last_is_stored_after_its_end)
{
        Event last = event(2, 1);

        tell_range(1, 1);
        wait_for_acknowledgement(1);
        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        last.source = SOURCE(RELAY);
        last.decision = HOTCELL__EGRESS__V1__DECISION__DECISION_FLOW_ENDED;
        tell(&last, 1);
        wait_for_acknowledgement(2);
        ck_assert_uint_eq(read_stored(), 2);
        ck_assert_int_eq(stored.records[1].type, EGRESS_EVENT_FLOW_ENDED);
        /* And not twice. */
        reconnect();
        tell(&last, 1);
        wait_for_acknowledgement(2);
        ck_assert_uint_eq(read_stored(), 2);
}
END_TEST

START_TEST(only_the_last_that_ended_are_remembered)
{
        uint64_t first_cgroup = cgroup_id;
        char first[ID_BUFFER];
        Event events[2];

        (void)strcpy(first, sandbox_id);
        ck_assert_int_eq(delete_sandbox(first).result.outcome, 0);
        for (size_t i = 0; i < 256; i++) {
                make_sandbox();
                ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        }
        events[0] = fake_egress_event(1, 1, first_cgroup);
        events[1] = fake_egress_event(2, 1, cgroup_id);
        tell(events, 2);
        wait_for_acknowledgement(2);
        ck_assert_uint_eq(read_stored(), 1);
        (void)strcpy(sandbox_id, first);
        ck_assert_uint_eq(read_stored(), 0);
}
END_TEST

/* --- again --- */

/* The connection broke before the acknowledgement: the same hotcell-egress tells them again. */
START_TEST(what_was_not_acknowledged_is_told_again_and_stored_once)
{
        Event events[] = { event(1, 1), event(2, 2), event(3, 3) };

        is_store_stuck = true;
        tell(events, 2);
        run_turns(20);
        reconnect();
        tell(events, 3);
        run_turns(20);
        ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
        store_go_on();
        wait_for_acknowledgement(3);
        ck_assert_uint_eq(read_stored(), 3);
}
END_TEST

/* What is on its way to the database from the last connection says nothing of this one. */
START_TEST(numbers_of_the_last_connection_are_not_acknowledged_to_the_next)
{
        Event other = event(1, 19);

        is_store_stuck = true;
        tell_range(11, 15);
        run_turns(20);
        fake_egress_restart(f.egress);
        reconnect();
        if (_i) {
                tell(&other, 1);
                run_turns(20);
                ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
                store_go_on();
        } else {
                store_go_on();
                run_turns(50);
                ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
                tell(&other, 1);
        }
        wait_for_acknowledgement(1);
        ck_assert_uint_eq(read_stored(), 6);
}
END_TEST

/* Also if the clock was set back, by which it numbers them; the wall's count goes on. */
START_TEST(events_of_a_new_relay_are_others)
{
        Event events[] = { event(1, 1), event(2, 7) };

        events[0].source = SOURCE(RELAY);
        events[0].time_usec = 1000000;
        events[1].time_usec = 1000000;
        tell(events, 2);
        wait_for_acknowledgement(2);
        fake_egress_restart(f.egress);
        reconnect();
        events[0].time_usec = 1000001; /* another one */
        events[1].time_usec = 1000001; /* the same, still in the ring, by another clock */
        tell(events, 2);
        wait_for_acknowledgement(2);
        ck_assert_uint_eq(read_stored(), 3);
        ck_assert_int_eq(stored.records[2].source, EGRESS_DECIDER_RELAY);
}
END_TEST

static void serve_again(void)
{
        start_session();
        run_until(session_serves, NULL);
}

/* Killed between the commit of the first and its acknowledgement, before any, or after all. */
static const size_t handed_again[] = { 3, 4, 1 };

START_TEST(a_successor_stores_each_once)
{
        Event events[] = { event(1, 1), event(2, 2), event(3, 1), event(4, 3) };

        for (size_t i = 0; i < 4; i++)
                events[i].time_usec = 5000000;
        events[2].source = SOURCE(RELAY);
        is_answer_lost = _i == 0;
        is_store_stuck = _i == 1;
        tell(events, 3);
        if (_i == 0)
                run_until_true(&is_inserted);
        else if (_i == 1)
                run_turns(20);
        else
                wait_for_acknowledgement(3);
        is_answer_lost = is_store_stuck = false;
        crash_server();
        serve_again();
        n_handed = 0;
        if (_i == 2)
                tell(&events[3], 1);
        else
                tell(events, 4);
        wait_for_acknowledgement(4);
        ck_assert_uint_eq(n_handed, handed_again[_i]);
        ck_assert_uint_eq(read_stored(), 4);
        for (size_t i = 0; i < 4; i++)
                ck_assert_int_eq(stored.records[i].sequence, 5000000 + (int64_t)i);
}
END_TEST

/* They come before it is known what lives. */
START_TEST(events_wait_for_a_successor_that_takes_over)
{
        Event events[] = { event(1, 1), event(2, 2) };
        uint64_t n_requests = fake_egress_n_requests(f.egress);

        crash_server();
        fake_runtime_script(f.runtime)->n_fail_list = 1; /* tried again after a second */
        start_session();
        while (fake_runtime_script(f.runtime)->n_fail_list > 0)
                run_turns(1);
        tell(events, 2);
        run_turns(50);
        ck_assert_uint_eq(fake_egress_acknowledged(f.egress), 0);
        ck_assert_uint_eq(fake_egress_n_requests(f.egress), n_requests);
        run_until(session_serves, NULL);
        wait_for_acknowledgement(2);
        ck_assert_uint_eq(read_stored(), 2);
}
END_TEST

/* The policies of a takeover are answered behind events that wait. */
START_TEST(events_that_wait_do_not_keep_a_takeover)
{
        Event events[256];

        for (size_t i = 0; i < ARRAY_SIZE(events); i++)
                events[i] = event(i + 1, i + 1);
        crash_server();
        fake_egress_script(f.egress)->hold = true;
        start_session();
        while (fake_egress_n_held(f.egress) == 0)
                run_turns(1);
        tell(events, 256);
        fake_egress_release(f.egress);
        run_until(session_serves, NULL);
        wait_for_acknowledgement(256);
        ck_assert_uint_eq(read_stored(), 256);
}
END_TEST

START_TEST(garbage_among_events_costs_the_connection_and_no_event)
{
        static const char garbage[] = "\xff\xff\xff";

        tell_range(1, 2);
        fake_egress_send(f.egress, garbage, sizeof(garbage));
        run_turns(50);
        reconnect();
        tell_range(1, 4);
        wait_for_acknowledgement(4);
        ck_assert_uint_eq(read_stored(), 4);
}
END_TEST

START_TEST(a_stop_stores_what_it_heard)
{
        tell_range(1, 3);
        run_turns(4);
        stop_session();
        ck_assert_uint_ge(n_inserts, 1);
        start_session();
        run_until(session_serves, NULL);
        ck_assert_uint_eq(read_stored(), 3);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("egress_intake");
        TCase *tests = tcase_create("egress_intake");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, fixture_teardown);
        tcase_add_test(tests, events_are_stored_and_then_acknowledged);
        tcase_add_test(tests, an_event_that_is_not_stored_is_not_acknowledged);
        tcase_add_test(tests, events_of_nobody_and_of_no_sense_are_acknowledged_and_not_stored);
        tcase_add_test(tests, the_same_number_or_serial_is_one_event);
        tcase_add_test(tests, the_same_serial_of_two_sandboxes_is_two_events);
        tcase_add_test(tests, equal_and_falling_times_have_rising_sequences);
        tcase_add_test(tests, a_flood_waits_and_is_stored_whole);
        tcase_add_test(tests, what_a_sandbox_did_last_is_stored_after_its_end);
        tcase_add_test(tests, only_the_last_that_ended_are_remembered);
        tcase_add_test(tests, what_was_not_acknowledged_is_told_again_and_stored_once);
        tcase_add_loop_test(tests, numbers_of_the_last_connection_are_not_acknowledged_to_the_next,
                            0, 2);
        tcase_add_test(tests, events_of_a_new_relay_are_others);
        tcase_add_loop_test(tests, a_successor_stores_each_once, 0, 3);
        tcase_add_test(tests, events_wait_for_a_successor_that_takes_over);
        tcase_add_test(tests, events_that_wait_do_not_keep_a_takeover);
        tcase_add_test(tests, garbage_among_events_costs_the_connection_and_no_event);
        tcase_add_test(tests, a_stop_stores_what_it_heard);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
