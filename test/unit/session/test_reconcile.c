/* What may happen while the database and the runtime are compared. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

/* A sandbox of a server that was killed; the runtime still has it. */
static void leave_sandbox(char ret_id[static ID_BUFFER])
{
        struct answer sandbox = new_sandbox();

        (void)snprintf(ret_id, ID_BUFFER, "%s", sandbox.sandbox.sandbox_id);
        crash();
        fake_runtime_add_sandbox(f.runtime, ret_id, NULL);
}

START_TEST(an_end_that_comes_after_the_list_counts)
{
        struct answer after;
        char id[ID_BUFFER];

        leave_sandbox(id);
        fake_runtime_script(f.runtime)->end_on_list = id;
        start_session();
        run_until(session_serves, NULL);
        after = get_sandbox(id);
        ck_assert_int_eq(after.sandbox.state, SANDBOX_ENDED);
        ck_assert_int_eq(after.sandbox.end_cause, CAUSE_LIMIT);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
}
END_TEST

START_TEST(a_list_that_is_refused_is_asked_for_again)
{
        char id[ID_BUFFER];

        leave_sandbox(id);
        fake_runtime_script(f.runtime)->n_fail_list = 2;
        start_session();
        run_until(session_serves, NULL);
        ck_assert_int_eq(get_sandbox(id).sandbox.state, SANDBOX_RUNNING);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
}
END_TEST

START_TEST(nothing_that_lives_is_settled_before_it_is_compared)
{
        char id[ID_BUFFER];

        leave_sandbox(id);
        start_session();
        ck_assert(!session_is_settled(f.session));
        run_until(session_serves, NULL);
        ck_assert(session_is_settled(f.session));
        /* It was told once: what the runtime's loss ends is settled, too. */
        fake_runtime_break(f.runtime);
        run_turns(5);
        ck_assert(session_is_settled(f.session));
        run_until(session_serves, NULL);
}
END_TEST

static bool has_ended(void *userdata)
{
        return get_sandbox(userdata).sandbox.state == SANDBOX_ENDED;
}

START_TEST(a_lifetime_goes_on_after_a_takeover)
{
        struct sandbox_request request = sandbox_request();
        struct answer sandbox;

        request.expire_time_usec = time_now_usec() + 2000 * 1000;
        sandbox = create_sandbox(&request);
        ck_assert_int_eq(sandbox.result.outcome, 0);
        crash();
        fake_runtime_add_sandbox(f.runtime, sandbox.sandbox.sandbox_id, NULL);
        start_session();
        run_until(session_serves, NULL);
        run_until(has_ended, sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(get_sandbox(sandbox.sandbox.sandbox_id).sandbox.end_cause, CAUSE_TTL);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
}
END_TEST

static void on_stopped(void *userdata)
{
        *(bool *)userdata = true;
}

static void stop_after(unsigned n_turns)
{
        bool is_stopped = false;
        char id[ID_BUFFER];

        leave_sandbox(id);
        start_session();
        run_turns(n_turns);
        session_stop(f.session, on_stopped, &is_stopped);
        run_until_true(&is_stopped);
        f.session = session_free(f.session);
        f.store = store_close(f.store);
        start_session();
        run_until(session_serves, NULL);
}

START_TEST(a_stop_at_any_moment_of_it_comes_to_its_end)
{
        stop_after((unsigned)_i);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("reconcile");
        TCase *tcase = tcase_create("reconcile");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
        tcase_add_test(tcase, an_end_that_comes_after_the_list_counts);
        tcase_add_test(tcase, a_list_that_is_refused_is_asked_for_again);
        tcase_add_test(tcase, nothing_that_lives_is_settled_before_it_is_compared);
        tcase_add_test(tcase, a_lifetime_goes_on_after_a_takeover);
        tcase_add_loop_test(tcase, a_stop_at_any_moment_of_it_comes_to_its_end, 0, 24);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
