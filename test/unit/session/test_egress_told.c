/*
 * What an execution is told of its egress, and when: whose an event is, that `ended` waits for what
 * came before it, and what was counted.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/egress_client.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

typedef Hotcell__Egress__V1__Event Event;

#define SOURCE(name)   HOTCELL__EGRESS__V1__SOURCE__SOURCE_##name
#define DECISION(name) HOTCELL__EGRESS__V1__DECISION__DECISION_##name
#define REASON(name)   HOTCELL__EGRESS__V1__REASON__REASON_##name

static char sandbox_id[ID_BUFFER];
static uint64_t cgroup_id, number;

static void set_up(void)
{
        struct answer made;

        fixture_setup();
        start_with_egress();
        made = new_sandbox();
        (void)strcpy(sandbox_id, made.sandbox.sandbox_id);
        cgroup_id = made.sandbox.cgroup_id;
        number = 0;
}

/* --- running --- */

static void place(const char *name, char path[static 128])
{
        (void)snprintf(path, 128, "%s/%s", f.home, name);
}

static struct answer begin_in(const char *context_id, const char *name, struct seen *seen)
{
        char code[200];
        struct execute_request request;
        struct answer answer;

        (void)snprintf(code, sizeof(code), "out on\nawait %s/%s", f.home, name);
        request = execute_request(sandbox_id, code);
        request.context_id = context_id;
        memset(seen, 0, sizeof(*seen));
        answer = execute(&request, seen);
        ck_assert_int_eq(answer.result.outcome, 0);
        wait_for_text(seen, "stdout:on");
        return answer;
}

static struct answer begin(struct seen *seen)
{
        return begin_in("", "go", seen);
}

static void go(const char *name)
{
        char path[128];
        FILE *file;

        place(name, path);
        file = fopen(path, "w");
        ck_assert_ptr_nonnull(file);
        (void)fclose(file);
}

static void come_back(const char *name)
{
        char path[128];

        place(name, path);
        (void)remove(path);
}

/* --- telling --- */

static Event event_of(uint32_t port)
{
        Event event = fake_egress_event(number + 1, number + 1, cgroup_id);

        number++;
        event.port = port;
        event.leaf_cgroup_id = FAKE_LEAF_FIRST;
        return event;
}

/* The resolver does not know who asks. */
static Event name_of(const char *name)
{
        Event event = event_of(53);

        event.source = SOURCE(RESOLVER);
        event.leaf_cgroup_id = 0;
        event.address.len = 0;
        event.name = (char *)(uintptr_t)name;
        return event;
}

static Event flow_of(uint32_t port, int64_t asked_usec)
{
        Event event = event_of(port);

        event.source = SOURCE(RELAY);
        event.decision = DECISION(FLOW_ENDED);
        event.reason = REASON(UNSPECIFIED);
        event.asked_time_usec = asked_usec;
        event.sent_bytes = 11;
        event.received_bytes = 22;
        event.duration_usec = 33;
        return event;
}

static void tell(Event event)
{
        fake_egress_tell(f.egress, &event, 1);
}

static bool is_stored(void *userdata)
{
        (void)userdata;
        return fake_egress_acknowledged(f.egress) >= number;
}

static struct stored {
        bool is_done;
        struct egress_record records[100];
        size_t n;
} stored;

static void on_listed(void *userdata, int result, const struct egress_list *list)
{
        (void)userdata;
        ck_assert_int_eq(result, 0);
        ck_assert_uint_le(list->n, ARRAY_SIZE(stored.records));
        stored.n = list->n;
        for (size_t i = 0; i < list->n; i++)
                stored.records[i] = list->records[i];
        stored.is_done = true;
}

/* The execution of the newest event that is stored; all are. */
static const char *stored_execution(void)
{
        const struct egress_query query = { .owner = "uid:1",
                                            .sandbox_id = sandbox_id,
                                            .limit = 100 };

        run_until(is_stored, NULL);
        stored.is_done = false;
        store_list_egress_events(f.store, &query, on_listed, NULL);
        run_until_true(&stored.is_done);
        ck_assert_uint_eq(stored.n, number);
        return stored.records[stored.n - 1].execution_id;
}

/* --- whose it is --- */

START_TEST(a_refused_name_is_the_only_executions)
{
        struct seen seen;
        struct answer answer = begin(&seen);

        tell(name_of("evil.test"));
        wait_for_text(&seen, "egress::53*1");
        ck_assert_str_eq(seen.egress.name, "evil.test");
        ck_assert_str_eq(stored_execution(), answer.execution.execution_id);
        go("go");
        wait_for_end(&seen);
}
END_TEST

START_TEST(a_refused_name_is_nobodys_when_two_run)
{
        struct seen first, second;
        struct answer other = create_context(sandbox_id, "", ""), answer;
        Event event;

        (void)begin(&first);
        answer = begin_in(other.context.context_id, "other", &second);
        event = name_of("evil.test");
        tell(event);
        ck_assert_str_eq(stored_execution(), "");
        go("go");
        wait_for_end(&first);
        ck_assert_int_eq(first.n_egress + second.n_egress, 0);

        /* Of then; now it would be another one. */
        event = name_of("late.test");
        event.time_usec = first.ended.end_time_usec - 1;
        tell(event);
        ck_assert_str_eq(stored_execution(), "");
        tell(name_of("now.test"));
        ck_assert_str_eq(stored_execution(), answer.execution.execution_id);
        go("other");
        wait_for_end(&second);
}
END_TEST

START_TEST(a_refused_name_is_nobodys_when_none_runs)
{
        struct seen seen;

        (void)begin(&seen);
        go("go");
        wait_for_end(&seen);
        run_turns(20);
        tell(name_of("evil.test"));
        ck_assert_str_eq(stored_execution(), "");
}
END_TEST

START_TEST(a_flow_is_of_who_asked_for_it)
{
        struct seen first, second;
        struct answer answer = begin(&first);
        int64_t asked_usec = time_now_usec();

        go("go");
        wait_for_end(&first);
        come_back("go");
        (void)begin(&second);
        tell(flow_of(1, asked_usec));
        ck_assert_str_eq(stored_execution(), answer.execution.execution_id);
        ck_assert_int_eq(second.n_egress, 0);
        go("go");
        wait_for_end(&second);
}
END_TEST

START_TEST(the_flow_of_a_one_shot_run_is_its_when_the_sandbox_is_gone)
{
        struct sandbox_request spec = sandbox_request();
        struct execute_request request = execute_request("", "out x");
        struct seen seen = { 0 };
        struct answer answer;

        request.one_shot = &spec;
        answer = execute(&request, &seen);
        (void)strcpy(sandbox_id, answer.execution.sandbox_id);
        cgroup_id = FAKE_CGROUP_FIRST + 1;
        wait_for_end(&seen);
        while (get_sandbox(sandbox_id).sandbox.state != SANDBOX_ENDED)
                run_turns(1);
        tell(flow_of(1, seen.ended.start_time_usec + 1));
        ck_assert_str_eq(stored_execution(), answer.execution.execution_id);
}
END_TEST

START_TEST(what_came_before_the_answer_at_the_end_is_of_what_ended)
{
        struct seen seen;
        struct answer answer = begin(&seen);
        Event event;

        fake_egress_script(f.egress)->hold_syncs = true;
        go("go");
        while (fake_egress_n_syncs(f.egress) == 0)
                run_turns(1);
        event = flow_of(1, time_now_usec());
        event.time_usec = time_now_usec();
        tell(event); /* already now */
        ck_assert_str_eq(stored_execution(), answer.execution.execution_id);
        event = flow_of(2, time_now_usec());
        fake_egress_release_syncs(f.egress);
        wait_for_end(&seen);
        ck_assert_int_gt(event.asked_time_usec, seen.ended.end_time_usec);
        event.time_usec = time_now_usec();
        tell(event);
        ck_assert_str_eq(stored_execution(), answer.execution.execution_id);
        /* And no more than that. */
        tell(flow_of(3, time_now_usec()));
        ck_assert_str_eq(stored_execution(), "");
}
END_TEST

START_TEST(a_flow_that_a_new_policy_cut_is_told)
{
        struct seen seen;
        Event event;

        (void)begin(&seen);
        tell(flow_of(1, time_now_usec()));
        event = flow_of(2, time_now_usec());
        event.reason = REASON(POLICY_CHANGED);
        tell(event);
        wait_for_text(&seen, "egress:192.0.2.1:2*1");
        ck_assert_int_eq(seen.n_egress, 1);
        ck_assert_int_eq(seen.egress.type, EGRESS_EVENT_FLOW_ENDED);
        ck_assert_int_eq(seen.egress.reason, EGRESS_REASON_POLICY_CHANGED);
        ck_assert_int_eq(seen.egress.sent_bytes, 11);
        ck_assert_int_eq(seen.egress.received_bytes, 22);
        ck_assert_int_eq(seen.egress.duration_usec, 33);
        /* Each has its own bytes. */
        event = flow_of(2, time_now_usec());
        event.reason = REASON(POLICY_CHANGED);
        tell(event);
        go("go");
        wait_for_end(&seen);
        ck_assert_ptr_nonnull(strstr(seen.text, "egress:192.0.2.1:2*1 egress:192.0.2.1:2*1"));
}
END_TEST

/* --- the end --- */

START_TEST(the_end_waits_for_what_came_before_it)
{
        struct seen seen;
        Event event;

        (void)begin(&seen);
        fake_egress_script(f.egress)->hold_syncs = true;
        event = event_of(443);
        go("go");
        while (fake_egress_n_syncs(f.egress) == 0)
                run_turns(1);
        ck_assert_str_eq(fake_egress_synced(f.egress), sandbox_id);
        tell(event);
        fake_egress_release_syncs(f.egress);
        wait_for_end(&seen);
        ck_assert_ptr_nonnull(strstr(seen.text, "egress:192.0.2.1:443*1 ended"));
        ck_assert_int_eq(seen.ended.last_sequence, seen.last_sequence);
}
END_TEST

START_TEST(the_end_of_what_asked_for_nothing_does_not_wait)
{
        struct seen seen;

        fake_egress_script(f.egress)->hold_syncs = true;
        fake_runtime_script(f.runtime)->n_asked = 5;
        (void)begin(&seen);
        go("go");
        wait_for_end(&seen);
        ck_assert_uint_eq(fake_egress_n_syncs(f.egress), 0);

        come_back("go");
        (void)begin(&seen);
        fake_runtime_script(f.runtime)->n_asked = 6;
        go("go");
        while (fake_egress_n_syncs(f.egress) == 0)
                run_turns(1);
        ck_assert(!seen.is_over);
        fake_egress_release_syncs(f.egress);
        wait_for_end(&seen);
}
END_TEST

START_TEST(the_end_does_not_wait_for_ever)
{
        uint64_t start_usec;
        struct seen seen;

        (void)begin(&seen);
        fake_egress_script(f.egress)->hold_syncs = true;
        start_usec = clock_monotonic_usec();
        go("go");
        wait_for_end(&seen);
        ck_assert_uint_ge(clock_monotonic_usec() - start_usec, EGRESS_SYNC_USEC);
        ck_assert_uint_eq(fake_egress_n_syncs(f.egress), 1);

        /* One that does not answer is not asked again before it has. */
        come_back("go");
        (void)begin(&seen);
        go("go");
        wait_for_end(&seen);
        ck_assert_uint_eq(fake_egress_n_syncs(f.egress), 1);
        fake_egress_release_syncs(f.egress);
        run_turns(20);
        come_back("go");
        (void)begin(&seen);
        go("go");
        wait_for_end(&seen);
        ck_assert_uint_eq(fake_egress_n_syncs(f.egress), 2);
}
END_TEST

START_TEST(the_end_goes_on_when_hotcell_egress_is_gone)
{
        struct seen seen;

        (void)begin(&seen);
        fake_egress_script(f.egress)->hold_syncs = true;
        go("go");
        while (fake_egress_n_syncs(f.egress) == 0)
                run_turns(1);
        fake_egress_disconnect(f.egress);
        wait_for_end(&seen);

        come_back("go");
        (void)begin(&seen);
        go("go");
        wait_for_end(&seen);
        ck_assert_uint_eq(fake_egress_n_syncs(f.egress), 1);
}
END_TEST

START_TEST(a_sync_that_is_refused_is_over)
{
        struct seen seen;

        (void)begin(&seen);
        fake_egress_script(f.egress)->refuse_syncs = true;
        go("go");
        wait_for_end(&seen);
        ck_assert_uint_eq(fake_egress_n_syncs(f.egress), 1);
}
END_TEST

START_TEST(syncs_do_not_keep_policies_from_being_answered)
{
        struct seen seen;
        struct answer other;

        (void)begin(&seen);
        fake_egress_script(f.egress)->hold_syncs = true;
        go("go");
        while (fake_egress_n_syncs(f.egress) == 0)
                run_turns(1);
        other = new_sandbox();
        ck_assert_int_eq(other.result.outcome, 0);
        wait_for_end(&seen);
}
END_TEST

/* --- counts --- */

static struct egress_refusals refusals_of(const char *id)
{
        return get_sandbox(id).sandbox.egress_refusals;
}

static bool is_counted(void *userdata)
{
        const int64_t *n = userdata;
        struct egress_refusals refusals;

        ck_assert(session_find_refusals(f.session, sandbox_id, &refusals));
        return refusals.is_known && refusals.logged == *n;
}

START_TEST(what_is_counted_is_told_while_it_lives_and_after)
{
        struct egress_refusals refusals = refusals_of(sandbox_id);
        int64_t n = 71;

        ck_assert(!refusals.is_known);
        fake_egress_count(f.egress, cgroup_id, 71, 4429);
        fake_egress_count(f.egress, cgroup_id + 1000, 1, 1); /* of nobody */
        run_until(is_counted, &n);
        refusals = refusals_of(sandbox_id);
        ck_assert_int_eq(refusals.logged, 71);
        ck_assert_int_eq(refusals.dropped, 4429);

        fake_egress_script(f.egress)->hold_syncs = true;
        fake_egress_count(f.egress, cgroup_id, 72, 4430);
        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        refusals = refusals_of(sandbox_id);
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.state, SANDBOX_ENDED);
        ck_assert(refusals.is_known);
        ck_assert_int_eq(refusals.logged, 72);
        ck_assert_int_eq(refusals.dropped, 4430);
        ck_assert(!session_find_refusals(f.session, sandbox_id, &refusals));
}
END_TEST

static void on_ended(void *userdata, const struct session_result *result,
                     const struct sandbox_record *record, bool created)
{
        (void)created;
        (void)record;
        ck_assert_int_eq(result->outcome, 0);
        *(bool *)userdata = true;
}

START_TEST(the_end_of_a_sandbox_waits_for_its_last_counts)
{
        bool is_over = false;
        struct egress_refusals refusals;

        fake_egress_script(f.egress)->hold_syncs = true;
        session_delete_sandbox(f.session, "uid:1", sandbox_id, NULL, CAUSE_CLIENT, on_ended,
                               &is_over);
        while (fake_egress_n_syncs(f.egress) == 0)
                run_turns(1);
        fake_egress_count(f.egress, cgroup_id, 5, 6);
        fake_egress_release_syncs(f.egress);
        run_until_true(&is_over);
        refusals = refusals_of(sandbox_id);
        ck_assert(refusals.is_known);
        ck_assert_int_eq(refusals.logged, 5);
        ck_assert_int_eq(refusals.dropped, 6);
}
END_TEST

int main(void)
{
        const TTest *const all[] = {
                a_refused_name_is_the_only_executions,
                a_refused_name_is_nobodys_when_two_run,
                a_refused_name_is_nobodys_when_none_runs,
                a_flow_is_of_who_asked_for_it,
                the_flow_of_a_one_shot_run_is_its_when_the_sandbox_is_gone,
                what_came_before_the_answer_at_the_end_is_of_what_ended,
                a_flow_that_a_new_policy_cut_is_told,
                the_end_waits_for_what_came_before_it,
                the_end_of_what_asked_for_nothing_does_not_wait,
                the_end_does_not_wait_for_ever,
                the_end_goes_on_when_hotcell_egress_is_gone,
                a_sync_that_is_refused_is_over,
                syncs_do_not_keep_policies_from_being_answered,
                what_is_counted_is_told_while_it_lives_and_after,
                the_end_of_a_sandbox_waits_for_its_last_counts,
        };
        Suite *suite = suite_create("egress_told");
        TCase *tests = tcase_create("egress_told");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, fixture_teardown);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                tcase_add_test(tests, all[i]);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
