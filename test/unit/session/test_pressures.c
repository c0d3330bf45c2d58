/* That something is short in a sandbox: who is told, how often, and what is kept of it. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/session/pressure.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

static char sandbox_id[ID_BUFFER];

static void set_up(void)
{
        fixture_setup();
        (void)strcpy(sandbox_id, new_sandbox().sandbox.sandbox_id);
}

static struct answer begin_in(const char *sandbox, const char *context_id, const char *what,
                              struct seen *seen)
{
        char code[300];
        struct execute_request request;
        struct answer answer;

        (void)snprintf(code, sizeof(code), "out on\nawait %s/go\n%s", f.home, what);
        request = execute_request(sandbox, code);
        request.context_id = context_id;
        memset(seen, 0, sizeof(*seen));
        answer = execute(&request, seen);
        ck_assert_int_eq(answer.result.outcome, 0);
        wait_for_text(seen, "stdout:on");
        return answer;
}

static struct answer begin(struct seen *seen)
{
        return begin_in(sandbox_id, "", "", seen);
}

static void go(void)
{
        char path[128];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/go", f.home);
        file = fopen(path, "w");
        ck_assert_ptr_nonnull(file);
        (void)fclose(file);
}

static void press(int kind, uint64_t used, uint64_t limit)
{
        fake_runtime_press(f.runtime, sandbox_id, kind, used, limit);
}

static size_t count(const struct seen *seen, const char *text)
{
        size_t n = 0;

        for (const char *at = seen->text; (at = strstr(at, text)); at++)
                n++;
        return n;
}

/* What was told last to whom it may concern. */
static struct sandbox_pressure kept(size_t *ret_n)
{
        struct sandbox_pressure pressures[_PRESSURE_KIND_N] = { 0 };

        *ret_n = sandbox_pressures(session_find_sandbox(f.session, NULL, sandbox_id), pressures);
        return pressures[0];
}

static bool is_kept(void *userdata)
{
        size_t n;

        (void)kept(&n);
        return n >= *(const size_t *)userdata;
}

START_TEST(all_that_runs_in_the_sandbox_is_told)
{
        struct answer context = create_context(sandbox_id, "", "");
        struct answer other = new_sandbox();
        struct seen first, second, elsewhere;

        (void)begin(&first);
        (void)begin_in(sandbox_id, context.context.context_id, "", &second);
        (void)begin_in(other.sandbox.sandbox_id, "", "", &elsewhere);
        press(PRESSURE_MEMORY_LIMIT, 486, 512);
        wait_for_text(&first, "pressure:1:486/512");
        wait_for_text(&second, "pressure:1:486/512");
        go();
        wait_for_end(&first);
        wait_for_end(&second);
        wait_for_end(&elsewhere);
        ck_assert_uint_eq(count(&elsewhere, "pressure"), 0);
}
END_TEST

START_TEST(one_that_is_over_is_not_told)
{
        struct seen seen;
        struct answer answer = begin(&seen);
        size_t wanted = 1;

        go();
        wait_for_end(&seen);
        press(PRESSURE_DISK, 9, 10);
        run_until(is_kept, &wanted);
        attach(answer.execution.execution_id, 0, &seen);
        wait_for_end(&seen);
        ck_assert_uint_eq(count(&seen, "pressure"), 0);
}
END_TEST

START_TEST(what_was_told_last_is_kept_by_kind)
{
        size_t n, wanted = 2;
        struct sandbox_pressure first;

        press(PRESSURE_PROCESSES, 60, 64);
        press(PRESSURE_CPU_STALL, 300, 0);
        press(PRESSURE_CPU_STALL, UINT64_MAX, 0);
        run_until(is_kept, &wanted);
        while ((first = kept(&n)).used != INT64_MAX)
                run_turns(1);
        ck_assert_uint_eq(n, 2);
        ck_assert_int_eq(first.kind, PRESSURE_CPU_STALL);
        ck_assert_int_gt(first.time_usec, 0);
        /* After a while it is over, if nobody tells it again. */
        session_find_sandbox(f.session, NULL, sandbox_id)
                ->pressures.last[PRESSURE_CPU_STALL]
                .time_usec -= PRESSURE_KEPT_USEC;
        ck_assert_int_eq(kept(&n).kind, PRESSURE_PROCESSES);
        ck_assert_uint_eq(n, 1);
}
END_TEST

START_TEST(what_is_not_known_is_left_out)
{
        size_t n, wanted = 1;
        struct seen seen;

        (void)begin(&seen);
        press(0, 1, 1);
        press(-1, 1, 1);
        press(_PRESSURE_KIND_N, 1, 1);
        press(INT32_MAX, 1, 1);
        fake_runtime_press(f.runtime, "sbx-none", PRESSURE_DISK, 1, 1);
        press(PRESSURE_DISK, 1, 1);
        run_until(is_kept, &wanted);
        (void)kept(&n);
        ck_assert_uint_eq(n, 1);
        go();
        wait_for_end(&seen);
        ck_assert_uint_eq(count(&seen, "pressure"), 1);
}
END_TEST

START_TEST(an_execution_is_told_a_hundred_times)
{
        struct seen seen;

        (void)begin(&seen);
        for (unsigned i = 1; i <= PRESSURES_TOLD_MAX + 10; i++)
                press(PRESSURE_CPU_THROTTLED, i, 0);
        wait_for_text(&seen, "pressure:5:100/0");
        go();
        wait_for_end(&seen);
        ck_assert_uint_eq(count(&seen, "pressure"), PRESSURES_TOLD_MAX);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
}
END_TEST

/* A client that does not read has a right to what is in the ring. */
START_TEST(a_full_ring_keeps_its_output)
{
        struct execute_request request = execute_request(sandbox_id, "outbytes 5000000");
        struct seen seen = { .is_paused = true };
        size_t wanted = 1;

        ck_assert_int_eq(execute(&request, &seen).result.outcome, 0);
        run_turns(300);
        for (unsigned i = 0; i < 2 * PRESSURES_TOLD_MAX; i++)
                press(PRESSURE_MEMORY_STALL, 500, 0);
        run_until(is_kept, &wanted);
        seen.is_paused = false;
        read_all(&seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.gap_events, 0);
        ck_assert_int_eq(seen.stdout_bytes, 5000000);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_uint_le(count(&seen, "pressure"), PRESSURES_TOLD_MAX);
}
END_TEST

START_TEST(a_successor_counts_on)
{
        struct seen seen;
        struct answer answer = begin(&seen);

        for (unsigned i = 1; i <= 60; i++)
                press(PRESSURE_CPU_THROTTLED, i, 0);
        wait_for_text(&seen, "pressure:5:60/0");
        crash_server();
        start_session();
        run_until(session_serves, NULL);
        memset(&seen, 0, sizeof(seen));
        attach(answer.execution.execution_id, 0, &seen);
        wait_for_text(&seen, "pressure:5:60/0");
        for (unsigned i = 61; i <= 120; i++)
                press(PRESSURE_CPU_THROTTLED, i, 0);
        wait_for_text(&seen, "pressure:5:100/0");
        go();
        wait_for_end(&seen);
        ck_assert_uint_eq(count(&seen, "pressure"), PRESSURES_TOLD_MAX);
}
END_TEST

/* Rings outlive those who wrote them. */
START_TEST(other_bytes_are_no_pressure)
{
        const struct {
                int64_t used, limit, number;
                int32_t kind, unused;
        } payloads[] = { { 1, 2, 1, 0, 0 }, { 1, 2, 1, -1, 0 }, { 1, 2, 1, _PRESSURE_KIND_N, 0 } };
        struct sandbox_pressure pressure;

        for (size_t i = 0; i < ARRAY_SIZE(payloads); i++)
                ck_assert(!pressure_payload_read((const uint8_t *)&payloads[i], sizeof(payloads[i]),
                                                 &pressure));
        ck_assert(!pressure_payload_read((const uint8_t *)payloads, 0, &pressure));
        ck_assert(!pressure_payload_read((const uint8_t *)payloads, 31, &pressure));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("session_pressures");
        TCase *tests = tcase_create("session_pressures");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, set_up, fixture_teardown);
        tcase_add_test(tests, all_that_runs_in_the_sandbox_is_told);
        tcase_add_test(tests, one_that_is_over_is_not_told);
        tcase_add_test(tests, what_was_told_last_is_kept_by_kind);
        tcase_add_test(tests, what_is_not_known_is_left_out);
        tcase_add_test(tests, an_execution_is_told_a_hundred_times);
        tcase_add_test(tests, a_full_ring_keeps_its_output);
        tcase_add_test(tests, a_successor_counts_on);
        tcase_add_test(tests, other_bytes_are_no_pressure);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
