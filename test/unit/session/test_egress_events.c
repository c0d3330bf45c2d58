/* Egress events: shown to whom they belong, stored once, bounded. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/egress.h"
#include "test/lib/suite.h"
#include "test/unit/session/egress_events.h"
#include "test/unit/session/fixture.h"

START_TEST(a_denial_is_shown_and_stored)
{
        struct egress_record record = denial(443);
        struct seen seen;
        struct answer answer = begin(&seen);

        (void)strcpy(record.name, "example.org");
        record.reason = EGRESS_REASON_RULE;
        record.rule_index = 3;
        record.policy_version = 9;
        record.pid = 77;
        record.event_time_usec = time_now_usec();
        ck_assert_int_eq(tell(&record), 0);
        wait_for_text(&seen, "egress:192.0.2.1:443*1");
        ck_assert_str_eq(seen.egress.sandbox_id, sandbox_id);
        ck_assert_str_eq(seen.egress.execution_id, answer.execution.execution_id);
        ck_assert_str_eq(seen.egress.name, "example.org");
        ck_assert_str_eq(seen.egress.command, "curl");
        ck_assert_int_eq(seen.egress.reason, EGRESS_REASON_RULE);
        ck_assert_int_eq(seen.egress.rule_index, 3);
        ck_assert_int_eq(seen.egress.policy_version, 9);
        ck_assert_int_eq(seen.egress.pid, 77);
        ck_assert_int_eq(seen.egress.protocol, EGRESS_PROTOCOL_TCP);
        ck_assert_int_eq(seen.egress.event_time_usec, record.event_time_usec);
        go();
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.last_sequence, seen.last_sequence);
        wait_for_stored(1);
        ck_assert_str_eq(stored.records[0].execution_id, answer.execution.execution_id);
        ck_assert_str_eq(stored.records[0].name, "example.org");
        ck_assert_int_eq(stored.records[0].count, 1);
}
END_TEST

static struct egress_record denied_by(int32_t rule_index, int64_t policy_version)
{
        struct egress_record record = denial(1);

        record.reason = EGRESS_REASON_RULE;
        record.rule_index = rule_index;
        record.policy_version = policy_version;
        return record;
}

/* Of a policy that is not the sandbox's any more nobody has the rules. */
START_TEST(a_denial_tells_the_rule_of_the_policy_that_is_there)
{
        static const struct egress_rule rules[] = {
                { .action = POLICY_DENY, .protocol = POLICY_TCP, .destination = "10.0.0.0/8" },
                { .action = POLICY_DENY, .protocol = POLICY_TCP, .destination = "192.0.2.0/24" },
        };
        struct egress *egress = make_egress(POLICY_DEFAULT_DENY, rules, ARRAY_SIZE(rules));
        const struct sandbox_update update = { .set_egress = true, .egress = egress };
        struct egress_record records[] = { denial(1), denied_by(1, 1), denied_by(2, 2),
                                           denied_by(1, 2) };
        struct seen seen, again = { 0 };

        ck_assert_int_eq(update_sandbox(sandbox_id, &update).result.outcome, 0);
        (void)strcpy(records[0].rule, "deny all"); /* what others say it is */
        begin(&seen);
        for (size_t i = 0; i < ARRAY_SIZE(records); i++)
                ck_assert_int_eq(tell(&records[i]), 0);
        go();
        wait_for_end(&seen);
        ck_assert_str_eq(seen.egress.rule, "deny 192.0.2.0/24");
        wait_for_stored(ARRAY_SIZE(records));
        for (size_t i = 0; i < ARRAY_SIZE(records); i++)
                ck_assert_str_eq(stored.records[i].rule, i == 3 ? "deny 192.0.2.0/24" : "");
        attach(seen.ended.execution_id, 0, &again);
        wait_for_end(&again);
        ck_assert_str_eq(again.egress.rule, "deny 192.0.2.0/24");
        (void)egress_release(egress);
}
END_TEST

START_TEST(it_is_found_by_its_cgroup)
{
        struct egress_record record = denial(1);
        struct egress_source source = { .cgroup_id = FAKE_CGROUP_FIRST };
        struct seen seen;

        begin(&seen);
        source.leaf_cgroup_id = FAKE_LEAF_FIRST;
        ck_assert_int_eq(session_egress_event(f.session, &source, &record), 0);
        wait_for_text(&seen, "egress:192.0.2.1:1*1");
        source.cgroup_id = FAKE_CGROUP_FIRST + 1;
        ck_assert_int_eq(session_egress_event(f.session, &source, &record),
                         SESSION_E_SANDBOX_NOT_FOUND);
        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        source.cgroup_id = FAKE_CGROUP_FIRST; /* its directory is gone, and the sandbox forgotten */
        ck_assert_int_eq(session_egress_event(f.session, &source, &record),
                         SESSION_E_SANDBOX_NOT_FOUND);
        wait_for_end(&seen);
}
END_TEST

START_TEST(a_failure_is_shown_and_a_flow_is_only_stored)
{
        struct egress_record flow = denial(1), failure = denial(2);
        struct seen seen;

        begin(&seen);
        flow.type = EGRESS_EVENT_FLOW_ENDED;
        flow.sent_bytes = 10;
        failure.type = EGRESS_EVENT_FAILED;
        failure.error_number = ECONNREFUSED;
        ck_assert_int_eq(tell(&flow), 0);
        ck_assert_int_eq(tell(&failure), 0);
        wait_for_text(&seen, "egress:192.0.2.1:2*1");
        ck_assert_int_eq(seen.egress.error_number, ECONNREFUSED);
        ck_assert_ptr_null(strstr(seen.text, "192.0.2.1:1"));
        wait_for_stored(2);
        ck_assert_int_eq(stored.records[0].sent_bytes, 10);
        go();
        wait_for_end(&seen);
}
END_TEST

/* Each by itself: it has bytes of its own. */
START_TEST(a_flow_that_was_cut_is_shown_with_its_bytes)
{
        struct egress_record flow = denial(1);
        struct seen seen;

        begin(&seen);
        flow.type = EGRESS_EVENT_FLOW_ENDED;
        flow.reason = EGRESS_REASON_POLICY_CHANGED;
        flow.sent_bytes = 10;
        flow.received_bytes = 20;
        flow.duration_usec = 30;
        for (int i = 0; i < 3; i++) {
                flow.sequence = sequence++;
                ck_assert_int_eq(tell(&flow), 0);
        }
        wait_for_text(&seen, "egress:192.0.2.1:1*1 egress:192.0.2.1:1*1 egress:192.0.2.1:1*1");
        ck_assert_int_eq(seen.egress.type, EGRESS_EVENT_FLOW_ENDED);
        ck_assert_int_eq(seen.egress.reason, EGRESS_REASON_POLICY_CHANGED);
        ck_assert_int_eq(seen.egress.sent_bytes, 10);
        ck_assert_int_eq(seen.egress.received_bytes, 20);
        ck_assert_int_eq(seen.egress.duration_usec, 30);
        go();
        wait_for_end(&seen);
}
END_TEST

START_TEST(equal_ones_are_counted_and_told_each_second)
{
        struct seen seen;

        begin(&seen);
        for (int i = 0; i < 100; i++)
                tell_denial(1);
        wait_for_text(&seen, "egress:192.0.2.1:1*1 egress:192.0.2.1:1*99");
        for (int i = 0; i < 7; i++)
                tell_denial(1); /* the next second has begun */
        run_turns(20);
        ck_assert_ptr_null(strstr(seen.text, "*7"));
        tell_denial(2);
        wait_for_text(&seen, "*99 egress:192.0.2.1:1*7 egress:192.0.2.1:2*1");
        for (int i = 0; i < 5; i++)
                tell_denial(2);
        go();
        wait_for_end(&seen);
        ck_assert_ptr_nonnull(strstr(seen.text, "egress:192.0.2.1:2*1 egress:192.0.2.1:2*5 ended"));
        ck_assert_int_eq(seen.n_egress, 113);
        wait_for_stored(113);
}
END_TEST

START_TEST(what_differs_in_any_part_is_told_by_itself)
{
        struct seen seen;
        struct egress_record records[11];
        int64_t n_before;

        begin(&seen);
        n_before = seen.n_events;
        for (size_t i = 0; i < ARRAY_SIZE(records); i++)
                records[i] = denial(1);
        (void)strcpy(records[1].address, "2001:db8::1");
        (void)strcpy(records[2].name, "example.org");
        (void)strcpy(records[3].command, "wget");
        records[4].protocol = EGRESS_PROTOCOL_UDP;
        records[5].reason = EGRESS_REASON_ALWAYS_DENIED;
        records[6].type = EGRESS_EVENT_FAILED;
        records[7].policy_version = 2;
        records[8].rule_index = 1;
        records[9].error_number = ECONNREFUSED;
        records[10].port = 2;
        for (size_t i = 1; i < ARRAY_SIZE(records); i++) {
                tell_denial(1);
                records[i].sequence = sequence++;
                ck_assert_int_eq(tell(&records[i]), 0);
        }
        go();
        wait_for_end(&seen);
        /* All at once: of those that are counted some would be told by the end only. */
        ck_assert_int_eq(seen.n_events - n_before, 2 * (ARRAY_SIZE(records) - 1) + 1);
        ck_assert_int_eq(seen.n_egress, 2 * (ARRAY_SIZE(records) - 1));
        ck_assert_ptr_null(strstr(seen.text, "*2"));
}
END_TEST

START_TEST(an_execution_tells_a_thousand_and_the_last_one_says_how_many_more)
{
        struct seen seen, again = { 0 };
        int64_t n_before;

        begin(&seen);
        n_before = seen.n_events;
        for (int i = 0; i < 1500; i++) {
                struct egress_record record = denial(1 + i);
                int r = tell(&record);

                ck_assert(r == 0 || r == SESSION_E_QUEUE_FULL); /* it is shown in both cases */
        }
        go();
        wait_for_end(&seen);
        ck_assert_int_eq(seen.n_events - n_before, 1000 + 1); /* and `ended` */
        ck_assert_int_eq(seen.n_egress, 1500);
        ck_assert_int_eq(seen.egress.port, 1500);
        ck_assert_int_eq(seen.egress.count, 1);
        ck_assert_int_eq(seen.ended.last_sequence, seen.last_sequence);
        attach(seen.ended.execution_id, 0, &again);
        wait_for_end(&again);
        ck_assert_int_eq(again.n_egress, 1500);
        ck_assert_int_eq(again.gap_events, 0);
        ck_assert_int_eq(again.n_events, seen.n_events);
}
END_TEST

START_TEST(the_next_execution_begins_anew)
{
        struct seen seen, next;

        begin(&seen);
        tell_denial(1);
        go();
        wait_for_end(&seen);
        come_back();
        begin(&next);
        tell_denial(1);
        tell_denial(1);
        go();
        wait_for_end(&next);
        ck_assert_ptr_nonnull(strstr(next.text, "egress:192.0.2.1:1*1 egress:192.0.2.1:1*1 ended"));
        ck_assert_int_eq(seen.n_egress, 1);
}
END_TEST

START_TEST(what_nobody_ran_for_is_only_stored)
{
        struct egress_record record = denial(1);
        struct seen seen = run_code(sandbox_id, "out a");

        record.event_time_usec = time_now_usec();
        ck_assert_int_gt(record.event_time_usec, seen.ended.end_time_usec);
        ck_assert_int_eq(tell(&record), 0);
        wait_for_stored(1);
        ck_assert_str_eq(stored.records[0].execution_id, "");
}
END_TEST

START_TEST(one_that_comes_late_belongs_to_what_ran_then)
{
        struct egress_record late = denial(1), later = denial(2);
        struct seen first, second;
        struct answer answer = begin(&first);

        late.event_time_usec = later.event_time_usec = time_now_usec();
        is_meter_read = false;
        go();
        run_until_true(&is_meter_read);
        ck_assert_int_eq(tell(&late), 0); /* the answer has not come: its stream is still open */
        wait_for_end(&first);
        ck_assert_ptr_nonnull(strstr(first.text, "egress:192.0.2.1:1*1 ended"));
        ck_assert_int_eq(first.ended.last_sequence, first.last_sequence);
        come_back();
        begin(&second);
        ck_assert_int_eq(tell(&later), 0);
        go();
        wait_for_end(&second);
        ck_assert_int_eq(second.n_egress, 0);
        wait_for_stored(2);
        for (int i = 0; i < 2; i++)
                ck_assert_str_eq(stored.records[i].execution_id, answer.execution.execution_id);
}
END_TEST

START_TEST(it_is_not_shown_to_others)
{
        struct egress_record record = denial(2);
        struct egress_source source = { .sandbox_id = sandbox_id };
        struct seen seen;

        begin(&seen);
        source.leaf_cgroup_id = FAKE_LEAF_FIRST + 100;
        ck_assert_int_eq(session_egress_event(f.session, &source, &record), 0);
        go();
        wait_for_end(&seen);
        ck_assert_int_eq(seen.n_egress, 0);
        wait_for_stored(1);
}
END_TEST

START_TEST(one_that_was_seen_is_not_shown_again)
{
        struct egress_record record = denial(1), next = denial(2);
        struct seen seen;

        begin(&seen);
        ck_assert_int_eq(tell(&record), 0);
        ck_assert_int_eq(tell(&record), 0);
        ck_assert_int_eq(tell(&next), 0);
        ck_assert_int_eq(tell(&record), 0);
        go();
        wait_for_end(&seen);
        ck_assert_int_eq(seen.n_egress, 2);
        wait_for_stored(2);
}
END_TEST

START_TEST(one_of_a_sandbox_that_has_ended_is_stored)
{
        struct egress_record record = denial(1);

        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        ck_assert_int_eq(tell(&record), 0);
        wait_for_stored(1);
}
END_TEST

START_TEST(what_is_no_event_is_refused)
{
        struct egress_record record;
        struct egress_source nobody = { .sandbox_id = "No Label" };

#define REFUSED(change)                                                                            \
        do {                                                                                       \
                record = denial(1);                                                                \
                change;                                                                            \
                ck_assert_int_eq(tell(&record), -EINVAL);                                          \
        } while (0)

        REFUSED(record.sequence = 0);
        REFUSED(record.type = 0);
        REFUSED(record.type = _EGRESS_EVENT_TYPE_N);
        REFUSED(record.protocol = _EGRESS_PROTOCOL_N);
        REFUSED(record.reason = _EGRESS_REASON_N);
        REFUSED(record.port = -1);
        REFUSED(record.port = 65536);
        REFUSED(record.rule_index = -2);
        REFUSED(record.count = -1);
        REFUSED(record.event_time_usec = -1);
        REFUSED(record.error_number = -1);
        REFUSED(record.policy_version = -1);
        REFUSED(record.pid = -1);
        REFUSED(record.sent_bytes = -1);
        REFUSED(record.received_bytes = -1);
        REFUSED(record.duration_usec = -1);
        REFUSED((void)strcpy(record.address, "192.0.2.300"));
        REFUSED((void)strcpy(record.address, "example.org"));
        REFUSED(memset(record.address, '1', sizeof(record.address)));
        record = denial(1);
        ck_assert_int_eq(session_egress_event(f.session, &nobody, &record),
                         SESSION_E_SANDBOX_NOT_FOUND);
        ck_assert_uint_eq(n_stored(), 0);
}
END_TEST

START_TEST(names_of_processes_become_text)
{
        struct egress_record record = denial(1);
        struct seen seen;

        begin(&seen);
        memset(record.command, 'a', sizeof(record.command)); /* without a NUL */
        record.command[1] = (char)0xff;
        (void)strcpy(record.name, "m\xc3\xbc.example");
        ck_assert_int_eq(tell(&record), 0);
        wait_for_text(&seen, "egress:");
        ck_assert_str_eq(seen.egress.command, "a?aaaaaaaaaaaaa");
        ck_assert_str_eq(seen.egress.name, "m\xc3\xbc.example");
        go();
        wait_for_end(&seen);
}
END_TEST

START_TEST(what_waits_to_be_stored_is_bounded_and_shared)
{
        struct sandbox_request request = sandbox_request();
        struct egress_record record;
        struct answer other;
        int n_taken = 0, n_of_other = 0;

        request.owner = "key-b";
        other = create_sandbox(&request);
        is_store_stuck = true;
        for (int i = 0; i < 3000; i++) {
                int r;

                record = denial(1);
                r = tell(&record);
                ck_assert(r == 0 || r == SESSION_E_QUEUE_FULL);
                n_taken += r == 0;
        }
        ck_assert_int_eq(n_taken, 512); /* half of all, as others have none */
        for (int i = 0; i < 3000; i++) {
                struct egress_source source = { .sandbox_id = other.sandbox.sandbox_id };

                record = denial(1);
                n_of_other += session_egress_event(f.session, &source, &record) == 0;
        }
        ck_assert_int_eq(n_of_other, 256);
        is_store_stuck = false;
        stuck_on_done(stuck_userdata, -EIO); /* it is tried again */
        wait_for_stored(512);
        record = denial(1);
        ck_assert_int_eq(tell(&record), 0);
        wait_for_stored(513);
}
END_TEST

static int tell_of(const char *id)
{
        const struct egress_source source = { .sandbox_id = id };
        const struct egress_record record = denial(1);

        return session_egress_event(f.session, &source, &record);
}

static unsigned fill_places(const char *id)
{
        unsigned n = 0;

        while (tell_of(id) == 0)
                n++;
        return n;
}

/* Each owner has what waits of its own, also when some of the others' was stored. */
START_TEST(what_still_waits_is_whose_it_was)
{
        struct sandbox_request request = sandbox_request();
        char other[ID_BUFFER];

        request.owner = "key-b";
        (void)strcpy(other, create_sandbox(&request).sandbox.sandbox_id);
        is_store_stuck = true;
        for (int i = 0; i < EGRESS_BATCH_MAX; i++)
                ck_assert_int_eq(tell_of(sandbox_id), 0);
        for (int i = 0; i < 200; i++)
                ck_assert_int_eq(tell_of(other), 0);
        /* One alone is on its way, then as many as go at once. */
        stuck_on_done(stuck_userdata, 0);
        stuck_on_done(stuck_userdata, 0);
        /* The other's, which are half of all with those that still come. */
        ck_assert_uint_eq(fill_places(other), 512 - (200 - 1));
        ck_assert_uint_eq(fill_places(sandbox_id), 256);
        is_store_stuck = false;
        stuck_on_done(stuck_userdata, 0);
}
END_TEST

/* Without the pause before each. */
static void try_again(unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                unsigned n_before = n_inserts;

                egress_queue_flush(f.session);
                ck_assert_uint_eq(n_inserts, n_before + 1);
        }
}

enum { TRIES = 60 }; /* of a batch that cannot be stored for another reason */

START_TEST(a_full_disk_loses_none)
{
        store_result = STORE_E_FULL;
        tell_denial(1);
        tell_denial(2);
        try_again(3 * TRIES);
        store_result = 0;
        wait_for_stored(2);
        ck_assert_int_eq(stored.records[0].port, 1);
        ck_assert_int_eq(stored.records[1].port, 2);
}
END_TEST

START_TEST(a_batch_that_fails_for_ever_makes_way)
{
        store_result = -EIO;
        tell_denial(1);
        try_again(TRIES - 1);
        store_result = 0;
        tell_denial(2);
        wait_for_stored(1);
        ck_assert_int_eq(stored.records[0].port, 2);
        /* The next one has as many tries. */
        store_result = -EIO;
        tell_denial(3);
        try_again(TRIES - 2);
        store_result = 0;
        wait_for_stored(2);
}
END_TEST

/* Also what was shown meanwhile is not lost. */
START_TEST(a_batch_that_fails_is_tried_again)
{
        store_result = -EIO;
        tell_denial(1);
        tell_denial(2);
        ck_assert_uint_ge(n_inserts, 1);
        store_result = 0;
        wait_for_stored(2);
}
END_TEST

START_TEST(a_stop_waits_for_what_is_on_its_way)
{
        unsigned n_before;

        for (int i = 0; i < 300; i++)
                tell_denial(i);
        stop_session();
        start_session();
        run_until(session_serves, NULL);
        ck_assert_uint_eq(n_stored(), 300);
        store_result = -EIO; /* and it does not wait for what cannot be stored */
        n_before = n_inserts;
        tell_denial(1);
        stop_session();
        ck_assert_uint_eq(n_inserts, n_before + 2);
}
END_TEST

static bool execution_runs(void *userdata)
{
        return get_execution(userdata).execution.state == EXECUTION_RUNNING;
}

static bool execution_has_ended(void *userdata)
{
        return get_execution(userdata).execution.state == EXECUTION_ENDED;
}

START_TEST(a_full_ring_blocks_nothing_and_counts)
{
        struct execute_request request = execute_request(sandbox_id, "outbytes 3000000\nout end");
        struct seen seen = { .is_paused = true };
        struct answer answer = execute(&request, &seen);

        run_until(execution_runs, answer.execution.execution_id);
        run_turns(300);
        for (int i = 0; i < 200; i++)
                tell_denial(1 + i);
        seen.is_paused = false;
        read_all(&seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.stdout_bytes, 3000003);
        ck_assert_int_eq(seen.gap_events, 0);
        ck_assert_int_eq(seen.n_egress, 200);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        wait_for_stored(200);
}
END_TEST

START_TEST(a_gap_counts_them)
{
        char code[200];
        struct execute_request request;
        struct seen first = { 0 }, later = { 0 };
        struct answer answer;

        (void)snprintf(code, sizeof(code), "out on\nawait %s/go\noutbytes 5000000", f.home);
        request = execute_request(sandbox_id, code);
        request.goes_on_without_client = true;
        answer = execute(&request, &first);
        wait_for_text(&first, "stdout:on");
        for (int i = 0; i < 10; i++)
                tell_denial(1 + i);
        detach(&first);
        go();
        run_until(execution_has_ended, answer.execution.execution_id);
        attach(answer.execution.execution_id, 0, &later);
        wait_for_end(&later);
        ck_assert_int_gt(later.gap_events, 12);
        ck_assert_int_eq(later.n_egress, 0);
        ck_assert_int_eq(later.gap_stdout_bytes + later.stdout_bytes, 5000002);
        ck_assert_int_eq(later.gap_events + later.n_events - 1, later.last_sequence);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_denial_is_shown_and_stored,
                a_denial_tells_the_rule_of_the_policy_that_is_there,
                it_is_found_by_its_cgroup,
                a_failure_is_shown_and_a_flow_is_only_stored,
                a_flow_that_was_cut_is_shown_with_its_bytes,
                equal_ones_are_counted_and_told_each_second,
                what_differs_in_any_part_is_told_by_itself,
                an_execution_tells_a_thousand_and_the_last_one_says_how_many_more,
                the_next_execution_begins_anew,
                what_nobody_ran_for_is_only_stored,
                one_that_comes_late_belongs_to_what_ran_then,
                it_is_not_shown_to_others,
                one_that_was_seen_is_not_shown_again,
                one_of_a_sandbox_that_has_ended_is_stored,
                what_is_no_event_is_refused,
                names_of_processes_become_text,
                what_waits_to_be_stored_is_bounded_and_shared,
                what_still_waits_is_whose_it_was,
                a_batch_that_fails_is_tried_again,
                a_full_disk_loses_none,
                a_batch_that_fails_for_ever_makes_way,
                a_stop_waits_for_what_is_on_its_way,
                a_full_ring_blocks_nothing_and_counts,
                a_gap_counts_them,
        };
        Suite *suite = suite_create("egress");
        TCase *tcase = tcase_create("egress");

        tcase_set_timeout(tcase, 120);
        tcase_add_checked_fixture(tcase, set_up, fixture_teardown);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
