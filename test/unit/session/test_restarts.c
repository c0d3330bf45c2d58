/*
 * The server is killed and another one goes on: what becomes of everything that was going on. The
 * store's function that records ends is wrapped by the linker (meson.build).
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

static bool is_disk_stuck; /* ends are not recorded; nobody is told */

void __real_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);
void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);

void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata)
{
        if (!is_disk_stuck)
                __real_store_end_execution(store, record, output, on_done, userdata);
}

static char sandbox_id[ID_BUFFER];

static void make_sandbox(void)
{
        (void)strcpy(sandbox_id, new_sandbox().sandbox.sandbox_id);
}

/* A file of this test. */
static const char *file(const char *name)
{
        static char paths[4][128];
        static size_t n;
        char *path = paths[n++ % ARRAY_SIZE(paths)];

        (void)snprintf(path, sizeof(paths[0]), "%s/%s", f.home, name);
        return path;
}

static void make_file(const char *name)
{
        int fd = open(file(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        ck_assert_int_ge(fd, 0);
        (void)close(fd);
}

/* How often code touched it. */
static int64_t n_touched(const char *name)
{
        struct stat status;

        return stat(file(name), &status) ? 0 : (int64_t)status.st_size;
}

/* Code that runs until the file `go` is there; @last follows. */
static const char *code_that_waits(const char *name, const char *last)
{
        static char codes[4][400];
        static size_t n;
        char *code = codes[n++ % ARRAY_SIZE(codes)];

        (void)snprintf(code, sizeof(codes[0]), "touch %s\nout one\nawait %s\n%s", file(name),
                       file("go"), last);
        return code;
}

static struct execution_record begin_request(const struct execute_request *request,
                                             struct seen *seen)
{
        struct answer answer;

        memset(seen, 0, sizeof(*seen));
        answer = execute(request, seen);
        ck_assert_msg(answer.result.outcome == 0, "%s", answer.result.message);
        return answer.execution;
}

static struct execution_record begin(const char *code, struct seen *seen)
{
        struct execute_request request = execute_request(sandbox_id, code);

        return begin_request(&request, seen);
}

static void serve_again(void)
{
        start_session();
        run_until(session_serves, NULL);
}

static void restart(void)
{
        crash_server();
        serve_again();
}

/* A client comes back. */
static void come_back(const struct execution_record *record, struct seen *seen)
{
        attach(record->execution_id, seen->last_sequence, seen);
}

static bool has_ended(void *userdata)
{
        const struct execution_record *record = userdata;

        return get_execution(record->execution_id).execution.state == EXECUTION_ENDED;
}

static bool nothing_lives(void *userdata)
{
        (void)userdata;
        return fake_runtime_n_living(f.runtime) == 0;
}

START_TEST(running_code_goes_on)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        record = begin(code_that_waits("ran", "barrier\nout two"), &seen);
        wait_for_text(&seen, "stdout:one");
        restart();
        come_back(&record, &seen);
        make_file("go");
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:one stdout:two ended");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_int_eq(seen.ended.usage.stdout_bytes, 6);
        ck_assert_int_gt(seen.ended.usage.cpu_usec, 0);
        ck_assert_int_eq(n_touched("ran"), 1);
        /* The interpreter is the same. */
        seen = run_code(sandbox_id, "out next");
        ck_assert_str_eq(seen.text, "queued:0 started:1.2 stdout:next ended");
}
END_TEST

START_TEST(what_is_written_while_no_server_runs_is_there_after)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        record = begin(code_that_waits("ran", "out more\nexit 4"), &seen);
        wait_for_text(&seen, "stdout:one");
        crash_server();
        make_file("go");
        run_until(nothing_lives, NULL);
        serve_again();
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:one stdout:more ended");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_EXITED);
        ck_assert_int_eq(seen.ended.exit_code, 4);
        ck_assert(seen.ended.state_lost);
        seen = run_code(sandbox_id, "out next");
        ck_assert_str_eq(seen.text, "queued:0 started:2.1 stdout:next ended");
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 1);
}
END_TEST

START_TEST(an_interpreter_that_ran_out_of_memory_meanwhile_is_judged_so)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        record = begin(code_that_waits("ran", "kill 9"), &seen);
        wait_for_text(&seen, "stdout:one");
        crash_server();
        fake_runtime_script(f.runtime)->oom = true;
        make_file("go");
        run_until(nothing_lives, NULL);
        serve_again();
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OOM);
        ck_assert_int_eq(seen.ended.cause, CAUSE_LIMIT);
}
END_TEST

START_TEST(what_waits_waits_again_in_order)
{
        static struct seen first, second, third;
        struct execution_record records[3];

        make_sandbox();
        records[0] = begin(code_that_waits("ran", ""), &first);
        wait_for_text(&first, "stdout:one");
        records[1] = begin("out second", &second);
        records[2] = begin("out third", &third);
        restart();
        second = third = (struct seen){ 0 };
        come_back(&records[0], &first);
        come_back(&records[2], &third);
        come_back(&records[1], &second);
        run_turns(3);
        ck_assert_str_eq(second.text, "queued:1");
        ck_assert_str_eq(third.text, "queued:2");
        make_file("go");
        wait_for_end(&first);
        wait_for_end(&second);
        wait_for_end(&third);
        ck_assert_str_eq(second.text, "queued:1 started:1.2 stdout:second ended");
        ck_assert_str_eq(third.text, "queued:2 started:1.3 stdout:third ended");
}
END_TEST

START_TEST(waiting_requests_count_against_the_budget_again)
{
        static struct seen first, second;
        static char code[3 << 20];
        struct execute_request request;
        struct answer answer = { 0 };

        make_sandbox();
        (void)begin(code_that_waits("ran", ""), &first);
        wait_for_text(&first, "stdout:one");
        memset(code, '#', sizeof(code) - 1);
        code[1 << 20] = '\0';
        code[0] = '\n';
        for (int i = 0; i < 2; i++)
                (void)begin(code, &second);
        restart();
        code[1 << 20] = '#'; /* with this one it is too much */
        request = execute_request(sandbox_id, code);
        request.n_code = (1 << 20) + (1 << 19);
        session_execute(f.session, &request, on_execution_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_ne(answer.result.outcome, 0);
        make_file("go");
}
END_TEST

/* The pipe takes 64 KiB of it, the kernel is stopped: the rest waits in the server. */
START_TEST(code_that_was_half_sent_runs_once)
{
        static char code[1 << 20];
        static struct seen seen;
        struct execution_record record;
        size_t n = (size_t)snprintf(code, sizeof(code), "touch %s\nout big\n", file("ran"));

        make_sandbox();
        (void)run_code(sandbox_id, "out before");
        fake_runtime_signal(f.runtime, SIGSTOP);
        memset(code + n, '#', sizeof(code) - 1000 - n);
        record = begin(code, &seen);
        wait_for_text(&seen, "started");
        run_turns(5);
        for (int i = 0; i < 2; i++) {
                restart();
                come_back(&record, &seen);
                run_turns(5);
        }
        fake_runtime_signal(f.runtime, SIGCONT);
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.2 stdout:big ended");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_int_eq(n_touched("ran"), 1);
        seen = run_code(sandbox_id, "out after");
        ck_assert_str_eq(seen.text, "queued:0 started:1.3 stdout:after ended");
}
END_TEST

/* Frames that want to be acknowledged, with a kernel that is stopped right after each. */
START_TEST(an_acknowledgement_comes_once)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        record = begin(code_that_waits("ran", "result a/b 1\nresult a/b 2\nbarrier\nout end"),
                       &seen);
        wait_for_text(&seen, "stdout:one");
        make_file("go");
        for (unsigned i = 1; !seen.is_over; i++) {
                restart();
                come_back(&record, &seen);
                run_turns(i);
        }
        detach(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:one result:a/b=1 result:a/b=2 "
                                    "stdout:end ended");
        ck_assert_int_eq(n_touched("ran"), 1);
}
END_TEST

START_TEST(an_end_that_was_not_recorded_is_recorded)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        is_disk_stuck = true;
        record = begin("out x\nsysexit 5", &seen);
        wait_for_text(&seen, "stdout:x");
        run_turns(20);
        ck_assert(!seen.is_over);
        is_disk_stuck = false;
        restart();
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.1 stdout:x ended");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_EXITED);
        ck_assert_int_eq(seen.ended.exit_code, 5);
}
END_TEST

static bool has_started_two(void *userdata)
{
        (void)userdata;
        return n_touched("second") == 1;
}

/* Its context has a new interpreter already, in which something else runs. */
START_TEST(an_end_in_an_older_interpreter_is_recorded_and_runs_nothing_again)
{
        static struct seen first, second;
        struct execution_record records[2];
        char code[300];

        make_sandbox();
        is_disk_stuck = true;
        (void)snprintf(code, sizeof(code), "touch %s\nexit 3", file("first"));
        records[0] = begin(code, &first);
        records[1] = begin(code_that_waits("second", "out two"), &second);
        run_until(has_started_two, NULL);
        /* The second of these servers is killed before it has recorded anything, too. */
        for (int i = 0; i < 2; i++) {
                restart();
                run_turns(10);
        }
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 2);
        is_disk_stuck = false;
        restart();
        come_back(&records[0], &first);
        come_back(&records[1], &second);
        wait_for_end(&first);
        make_file("go");
        wait_for_end(&second);
        ck_assert_int_eq(first.ended.outcome, OUTCOME_EXITED);
        ck_assert_int_eq(first.ended.exit_code, 3);
        ck_assert_int_eq(second.ended.outcome, OUTCOME_OK);
        ck_assert_ptr_nonnull(strstr(second.text, "started:2.1"));
        ck_assert_int_eq(n_touched("first"), 1);
        ck_assert_int_eq(n_touched("second"), 1);
        run_turns(5);
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 1);
}
END_TEST

/* Interrupts. */

static void interrupt(const struct execution_record *record, bool is_kill)
{
        struct answer answer = { 0 };

        session_interrupt_execution(f.session, "uid:1", record->execution_id, is_kill, CAUSE_CLIENT,
                                    on_execution_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
}

START_TEST(an_interrupt_that_was_not_heard_is_sent_again)
{
        static struct seen seen;
        struct execution_record record;

        f.config.interrupt_first_usec = f.config.interrupt_second_usec = 600LL * 1000 * 1000;
        stop_session();
        serve_again();
        make_sandbox();
        record = begin("out x\ndoze", &seen);
        wait_for_text(&seen, "stdout:x");
        interrupt(&record, false);
        run_turns(5);
        restart();
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_INTERRUPTED);
        ck_assert_int_eq(seen.ended.cause, CAUSE_CLIENT);
        ck_assert(!seen.ended.state_lost);
}
END_TEST

START_TEST(the_ladder_is_climbed_to_its_end)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        record = begin("deaf\nout x\nhold", &seen);
        wait_for_text(&seen, "stdout:x");
        interrupt(&record, false);
        restart();
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_KILLED);
        ck_assert_int_eq(seen.ended.cause, CAUSE_CLIENT);
        ck_assert(seen.ended.state_lost);
}
END_TEST

START_TEST(a_timeout_stays_one)
{
        static struct seen seen;
        struct execute_request request;
        struct execution_record record;

        make_sandbox();
        request = execute_request(sandbox_id, "deaf\nout x\nhold");
        request.has_timeout = true;
        request.limits.timeout_usec = 300 * 1000;
        record = begin_request(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        /* The second of its servers finds it on the ladder, or killed. */
        for (int i = 0; i < 2; i++) {
                uint64_t end = clock_monotonic_usec() + 350 * 1000;

                while (clock_monotonic_usec() < end)
                        ck_assert_int_ge(sd_event_run(f.loop, 10000), 0);
                restart();
        }
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_TIMEOUT);
        ck_assert_int_eq(seen.ended.cause, CAUSE_LIMIT);
}
END_TEST

START_TEST(time_without_a_server_counts)
{
        enum { TIMEOUT_USEC = 3000 * 1000 };
        static struct seen seen;
        struct execute_request request;
        struct execution_record record;
        uint64_t start, served;

        make_sandbox();
        request = execute_request(sandbox_id, "out x\nsleep");
        request.has_timeout = true;
        request.limits.timeout_usec = TIMEOUT_USEC;
        record = begin_request(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        crash_server();
        start = clock_monotonic_usec();
        while (clock_monotonic_usec() < start + TIMEOUT_USEC)
                ck_assert_int_ge(sd_event_run(f.loop, 100000), 0);
        serve_again();
        served = clock_monotonic_usec();
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_TIMEOUT);
        ck_assert_int_gt(seen.ended.usage.wall_usec, TIMEOUT_USEC);
        ck_assert_uint_lt(clock_monotonic_usec() - served, TIMEOUT_USEC);
}
END_TEST

/* Clients. */

START_TEST(a_client_that_does_not_come_back_is_waited_for_as_long_as_it_asked)
{
        static struct seen seen;
        struct execute_request request;
        struct execution_record record, after;

        make_sandbox();
        request = execute_request(sandbox_id, "out x\nsleep");
        request.disconnect_grace_usec = 100 * 1000;
        record = begin_request(&request, &seen);
        wait_for_text(&seen, "stdout:x");
        restart();
        run_until(has_ended, &record);
        after = get_execution(record.execution_id).execution;
        ck_assert_int_eq(after.outcome, OUTCOME_INTERRUPTED);
        ck_assert_int_eq(after.cause, CAUSE_CLIENT_GONE);
}
END_TEST

START_TEST(code_that_needs_no_client_goes_on_without_one)
{
        static struct seen seen;
        struct execute_request request;
        struct execution_record record;

        make_sandbox();
        request = execute_request(sandbox_id, code_that_waits("ran", "outbytes 3000000\nout end"));
        request.goes_on_without_client = true;
        request.disconnect_grace_usec = 1;
        record = begin_request(&request, &seen);
        wait_for_text(&seen, "stdout:one");
        restart();
        make_file("go");
        run_until(has_ended, &record);
        ck_assert_int_eq(get_execution(record.execution_id).execution.outcome, OUTCOME_OK);
}
END_TEST

START_TEST(a_client_that_does_not_read_still_blocks_the_program)
{
        enum { BYTES = 5000000 };
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        record = begin("out x\nbarrier\noutbytes 5000000", &seen);
        wait_for_text(&seen, "stdout:x");
        seen.is_paused = true;
        run_turns(200);
        restart();
        run_turns(200);
        restart();
        seen.is_paused = false;
        come_back(&record, &seen);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.gap_events, 0);
        ck_assert_int_eq(seen.stdout_bytes, BYTES + 1);
        ck_assert_int_eq(seen.ended.usage.stdout_bytes, BYTES + 1);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
}
END_TEST

static bool has_said_all(void *userdata)
{
        (void)userdata;
        return n_touched("said") == 1;
}

START_TEST(what_was_cut_stays_counted)
{
        static struct seen seen;
        struct execute_request request;
        struct execution_record record;
        char code[400];

        make_sandbox();
        (void)snprintf(code, sizeof(code),
                       "barrier\noutbytes 3000\ntouch %s\nawait %s\noutbytes 2000", file("said"),
                       file("go"));
        request = execute_request(sandbox_id, code);
        request.truncate_output = true;
        request.has_output_bytes = true;
        request.limits.output_bytes = 1000;
        record = begin_request(&request, &seen);
        run_until(has_said_all, NULL);
        run_turns(10);
        restart();
        come_back(&record, &seen);
        make_file("go");
        wait_for_end(&seen);
        ck_assert_int_eq(seen.stdout_bytes, 1000);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_int_eq(seen.ended.usage.stdout_bytes, 5000);
        ck_assert_int_eq(seen.ended.truncated_bytes, 4000);
}
END_TEST

/* What a client of the first server sees up to event @last. */
static void see_until(int64_t last, struct seen *seen)
{
        struct execution_event event;

        for (int64_t i = 0; i < last; i++) {
                ck_assert_int_eq(execution_reader_next(seen->reader, &event), 0);
                see(seen, &event);
        }
}

/* All but the padding behind the last part of its usage. */
static void check_same_record(const struct execution_record *record,
                              const struct execution_record *other)
{
        size_t n = offsetof(struct execution_record, usage) + offsetof(struct usage, missing);

        ck_assert_mem_eq(record, other, n);
        ck_assert_uint_eq(record->usage.missing, other->usage.missing);
        ck_assert_int_eq(record->truncated_bytes, other->truncated_bytes);
        ck_assert_int_eq(record->last_sequence, other->last_sequence);
}

START_TEST(what_was_said_can_be_read_after_a_restart_from_any_event_on)
{
        enum { EVENTS_MAX = 16 };
        static struct seen whole, parts[EVENTS_MAX];
        struct execution_record record;

        make_sandbox();
        record = begin("out one\nbarrier\nerr two\npart 300000\nout last", &whole);
        wait_for_end(&whole);
        ck_assert_int_lt(whole.last_sequence, EVENTS_MAX);
        for (int64_t i = 0; i < whole.last_sequence; i++) {
                attach(record.execution_id, 0, &parts[i]);
                see_until(i, &parts[i]);
        }
        restart();
        for (int64_t i = 0; i < whole.last_sequence; i++) {
                come_back(&record, &parts[i]);
                wait_for_end(&parts[i]);
                ck_assert_str_eq(parts[i].text, whole.text);
                ck_assert_int_eq(parts[i].part_bytes, whole.part_bytes);
                ck_assert_int_eq(parts[i].last_sequence, whole.last_sequence);
                check_same_record(&parts[i].ended, &whole.ended);
        }
}
END_TEST

/* Sandboxes. */

START_TEST(a_one_shot_sandbox_goes_on_and_ends_with_its_execution)
{
        static struct seen seen;
        struct sandbox_request sandbox = sandbox_request();
        struct execute_request request = execute_request("", code_that_waits("ran", "out two"));
        struct execution_record record;

        request.one_shot = &sandbox;
        record = begin_request(&request, &seen);
        wait_for_text(&seen, "stdout:one");
        restart();
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
        come_back(&record, &seen);
        make_file("go");
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        while (get_sandbox(record.sandbox_id).sandbox.state != SANDBOX_ENDED)
                run_turns(1);
        ck_assert_int_eq(get_sandbox(record.sandbox_id).sandbox.end_cause, CAUSE_PROGRAM);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
}
END_TEST

START_TEST(a_sandbox_that_was_being_ended_ends_with_its_cause)
{
        static struct seen seen;
        struct execution_record record;
        struct answer answer = { 0 };
        struct answer sandbox;

        make_sandbox();
        record = begin("out x\nhold", &seen);
        wait_for_text(&seen, "stdout:x");
        fake_runtime_script(f.runtime)->deaf_destroy = true;
        session_delete_sandbox(f.session, "uid:1", sandbox_id, NULL, CAUSE_OPERATOR,
                               on_sandbox_answer, &answer);
        while (get_sandbox(sandbox_id).sandbox.state != SANDBOX_ENDING)
                run_turns(1);
        (void)new_sandbox(); /* recorded after it */
        crash_server();
        fake_runtime_script(f.runtime)->deaf_destroy = false;
        serve_again();
        while ((sandbox = get_sandbox(sandbox_id)).sandbox.state != SANDBOX_ENDED)
                run_turns(1);
        ck_assert_int_eq(sandbox.sandbox.end_cause, CAUSE_OPERATOR);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
        answer = get_execution(record.execution_id);
        ck_assert_int_eq(answer.execution.outcome, OUTCOME_SANDBOX_ENDED);
        ck_assert_int_eq(answer.execution.cause, CAUSE_OPERATOR);
}
END_TEST

START_TEST(an_idle_context_keeps_its_interpreter)
{
        struct answer context;
        struct seen seen;

        make_sandbox();
        context = create_context(sandbox_id, "", "");
        ck_assert_int_eq(context.result.outcome, 0);
        restart();
        ck_assert_uint_eq(fake_runtime_n_living(f.runtime), 1);
        ck_assert_int_eq(list_contexts(sandbox_id).context_state, CONTEXT_IDLE);
        restart();
        (void)restart_context(sandbox_id, context.context.context_id);
        seen = run_code(sandbox_id, "out x");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_uint_eq(fake_runtime_n_started(f.runtime), 3);
}
END_TEST

/* What cannot be taken over. */

/* Whether the second was sent nobody can know: what says that it began may be on its way. */
static void expect_loss(const struct execution_record *running,
                        const struct execution_record *waits)
{
        const struct execution_record *const records[] = { running, waits };
        struct seen seen;

        for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
                struct answer answer = get_execution(records[i]->execution_id);

                ck_assert_int_eq(answer.execution.state, EXECUTION_ENDED);
                ck_assert_int_eq(answer.execution.outcome, OUTCOME_LOST);
                ck_assert_int_eq(answer.execution.cause, CAUSE_HOST_LOST);
        }
        seen = run_code(sandbox_id, "out next");
        ck_assert_str_eq(seen.text, "queued:0 started:2.1 stdout:next ended");
        ck_assert_int_eq(n_touched("ran"), 1);
        while (fake_runtime_n_processes(f.runtime) > 1)
                run_turns(1);
}

START_TEST(a_journal_that_cannot_be_read_loses_what_ran_and_nothing_else)
{
        static struct seen seen, waits;
        struct execution_record records[2];

        make_sandbox();
        records[0] = begin(code_that_waits("ran", ""), &seen);
        records[1] = begin("out waited", &waits);
        wait_for_text(&seen, "stdout:one");
        crash_server();
        fake_runtime_spoil(f.runtime, (size_t)_i);
        serve_again();
        expect_loss(&records[0], &records[1]);
}
END_TEST

START_TEST(an_older_runtime_keeps_nothing)
{
        static struct seen seen, waits;
        struct execution_record records[2];

        stop_session();
        fake_runtime_script(f.runtime)->protocol = 1;
        serve_again();
        make_sandbox();
        records[0] = begin(code_that_waits("ran", ""), &seen);
        records[1] = begin("out waited", &waits);
        wait_for_text(&seen, "stdout:one");
        restart();
        expect_loss(&records[0], &records[1]);
}
END_TEST

START_TEST(an_interpreter_that_is_not_kept_is_not_used)
{
        static struct seen seen;
        struct answer context;

        make_sandbox();
        fake_runtime_script(f.runtime)->fail_keep = true;
        fake_runtime_script(f.runtime)->fail_message = "there is no room";
        (void)begin("out x", &seen);
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 ended");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_NOT_STARTED);
        ck_assert_int_eq(seen.ended.cause, CAUSE_LIMIT);
        ck_assert_msg(strstr(seen.ended.message, "there is no room"), "%s", seen.ended.message);
        context = create_context(sandbox_id, "", "");
        ck_assert_int_eq(context.result.outcome, SESSION_E_KERNEL_FAILED);
        ck_assert_ptr_nonnull(strstr(context.result.message, "there is no room"));
        fake_runtime_script(f.runtime)->fail_keep = false;
        seen = run_code(sandbox_id, "out y");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 1);
}
END_TEST

/* More than a ring gives back: a new one is to be kept, while the next code runs. */
START_TEST(a_ring_that_is_not_kept_ends_the_interpreter)
{
        static struct seen seen, next;

        make_sandbox();
        (void)begin("outbytes 600000\nout x", &seen);
        wait_for_text(&seen, "started");
        fake_runtime_script(f.runtime)->fail_keep = true;
        (void)begin("sleep", &next);
        wait_for_end(&seen);
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        wait_for_end(&next);
        ck_assert(next.ended.outcome == OUTCOME_KILLED ||
                  next.ended.outcome == OUTCOME_NOT_STARTED);
        ck_assert_int_eq(next.ended.cause, CAUSE_LIMIT);
        fake_runtime_script(f.runtime)->fail_keep = false;
        seen = run_code(sandbox_id, "out y");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 1);
}
END_TEST

START_TEST(large_output_leaves_rings_that_are_kept)
{
        static struct seen seen;
        struct execution_record record;

        make_sandbox();
        for (int i = 0; i < 5; i++) {
                seen = run_code(sandbox_id, "outbytes 700000");
                ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        }
        record = begin(code_that_waits("ran", "out two"), &seen);
        wait_for_text(&seen, "stdout:one");
        restart();
        come_back(&record, &seen);
        make_file("go");
        wait_for_end(&seen);
        ck_assert_str_eq(seen.text, "queued:0 started:1.6 stdout:one stdout:two ended");
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("restarts");
        TCase *tcase = tcase_create("restarts");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
        tcase_add_test(tcase, running_code_goes_on);
        tcase_add_test(tcase, what_is_written_while_no_server_runs_is_there_after);
        tcase_add_test(tcase, an_interpreter_that_ran_out_of_memory_meanwhile_is_judged_so);
        tcase_add_test(tcase, what_waits_waits_again_in_order);
        tcase_add_test(tcase, waiting_requests_count_against_the_budget_again);
        tcase_add_test(tcase, code_that_was_half_sent_runs_once);
        tcase_add_test(tcase, an_acknowledgement_comes_once);
        tcase_add_test(tcase, an_end_that_was_not_recorded_is_recorded);
        tcase_add_test(tcase, an_end_in_an_older_interpreter_is_recorded_and_runs_nothing_again);
        tcase_add_test(tcase, an_interrupt_that_was_not_heard_is_sent_again);
        tcase_add_test(tcase, the_ladder_is_climbed_to_its_end);
        tcase_add_test(tcase, a_timeout_stays_one);
        tcase_add_test(tcase, time_without_a_server_counts);
        tcase_add_test(tcase, a_client_that_does_not_come_back_is_waited_for_as_long_as_it_asked);
        tcase_add_test(tcase, code_that_needs_no_client_goes_on_without_one);
        tcase_add_test(tcase, a_client_that_does_not_read_still_blocks_the_program);
        tcase_add_test(tcase, what_was_cut_stays_counted);
        tcase_add_test(tcase, what_was_said_can_be_read_after_a_restart_from_any_event_on);
        tcase_add_test(tcase, a_one_shot_sandbox_goes_on_and_ends_with_its_execution);
        tcase_add_test(tcase, a_sandbox_that_was_being_ended_ends_with_its_cause);
        tcase_add_test(tcase, an_idle_context_keeps_its_interpreter);
        tcase_add_loop_test(tcase, a_journal_that_cannot_be_read_loses_what_ran_and_nothing_else, 0,
                            4);
        tcase_add_test(tcase, an_older_runtime_keeps_nothing);
        tcase_add_test(tcase, an_interpreter_that_is_not_kept_is_not_used);
        tcase_add_test(tcase, a_ring_that_is_not_kept_ends_the_interpreter);
        tcase_add_test(tcase, large_output_leaves_rings_that_are_kept);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
