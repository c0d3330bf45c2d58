/* Limits of sandboxes that are changed while programs run: all or nothing, or each by itself. */

#include <check.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/supervisor/peer.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name
#define EVENT(name)  HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name

/* Holds 300 MiB until it is killed. */
#define HOLD                                                                                       \
        "exec /usr/bin/python3 -uc '\n"                                                            \
        "b = bytearray(b\"x\") * (300 << 20)\n"                                                    \
        "print(\"held\")\n"                                                                        \
        "import time; time.sleep(1000)'"

/* Set their limit on open files to what they began with, again and again. */
#define RESTLESS                                                                                   \
        "exec /usr/bin/python3 -uc '\n"                                                            \
        "import resource\n"                                                                        \
        "import os; os.fork(); os.fork()\n"                                                        \
        "print(\"begun\")\n"                                                                       \
        "while True: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))'"
#define TELL_LATER                                                                                 \
        "echo begun; until [ -e /tmp/go ]; do sleep 0.05; done; ulimit -n; echo told; sleep 1000"

static struct daemon runtime;
static struct peer peer;
static char output[OUTPUT_MAX];

static void setup(void)
{
        daemon_start(&runtime, NULL);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
}

static void teardown(void)
{
        peer_disconnect(&peer);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
        ck_assert_uint_eq(daemon_groups_left(&runtime), 0);
}

static Hotcell__Runtime__V1__ToRuntime *limits_request(const char *id,
                                                       Hotcell__Runtime__V1__SandboxLimits *limits)
{
        static Hotcell__Runtime__V1__ToRuntime message;
        static Hotcell__Runtime__V1__UpdateLimits update;

        hotcell__runtime__v1__to_runtime__init(&message);
        hotcell__runtime__v1__update_limits__init(&update);
        update.sandbox_id = (char *)(uintptr_t)id;
        update.limits = limits;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_UPDATE_LIMITS;
        message.update_limits = &update;
        return &message;
}

static void change_limits(Hotcell__Runtime__V1__SandboxLimits *limits)
{
        struct answer answer = peer_ask(&peer, limits_request("sbx-a", limits));

        ck_assert_int_eq(answer.message->body_case, EVENT(DONE));
        answer_deinit(&answer);
}

static bool has_killed_for_memory(const char *group)
{
        char command[640];

        (void)snprintf(command, sizeof(command),
                       "cd %s && grep -qs 'oom_kill [1-9]' sandbox-sbx-a/*/memory.oom_control "
                       "sandbox-sbx-a/*/memory.events",
                       group);
        return system(command) == 0; /* NOLINT(cert-env33-c): of the host */
}

/* Beside the runtime, which stands still meanwhile. */
static void await_kill_for_memory(void)
{
        for (size_t h = 0; !has_killed_for_memory(runtime.groups[h]);
             h = (h + 1) % runtime.n_groups)
                (void)usleep(10000);
}

static void expect_output(const char *code, const char *expected)
{
        event_free(peer_run(&peer, "sbx-a", code, output));
        ck_assert_str_eq(output, expected);
}

#define DISK_SIZE "df -B1M --output=size,itotal / | tail -1 | tr -s ' '"

START_TEST(limits_are_changed_while_it_runs)
{
        Hotcell__Runtime__V1__SandboxLimits limits =
                *create_request("sbx-a")->create_sandbox->limits;

        peer_create(&peer, "sbx-a");
        expect_output(DISK_SIZE "; ulimit -n", " 64 16384\n256\n");
        limits.disk_bytes = 96 << 20;
        limits.disk_inodes = 5000;
        limits.open_files = 100;
        limits.cpu_weight = 300;
        change_limits(&limits);
        expect_output(DISK_SIZE "; ulimit -n; head -c 90m /dev/zero >/tmp/big && echo fits",
                      " 96 5000\n100\nfits\n");
        limits.disk_bytes = 64 << 20;
        peer_expect_failure(&peer, limits_request("sbx-a", &limits), REASON(LIMIT));
        expect_output("rm /tmp/big; " DISK_SIZE, " 96 5000\n");
        change_limits(&limits);
        expect_output(DISK_SIZE, " 64 5000\n");
        peer_destroy(&peer, "sbx-a");
        peer_expect_failure(&peer, limits_request("sbx-a", &limits), REASON(NOT_FOUND));
}
END_TEST

/* /dev/shm comes last, and holds more than it could: what was changed before it is undone. */
START_TEST(limits_that_fail_half_way_are_put_back)
{
        Hotcell__Runtime__V1__SandboxLimits limits =
                *create_request("sbx-a")->create_sandbox->limits;

        peer_create(&peer, "sbx-a");
        expect_output("head -c 60m /dev/zero >/dev/shm/a && echo fits", "fits\n");
        limits.memory_bytes = 160 << 20;
        limits.disk_bytes = 62 << 20;
        peer_expect_failure(&peer, limits_request("sbx-a", &limits), REASON(LIMIT));
        expect_output(DISK_SIZE
                      "; head -c 60m /dev/zero >/tmp/big; "
                      "head -c 60m /dev/zero | tail -c 60m | wc -c; rm /dev/shm/a /tmp/big",
                      " 64 16384\n62914560\n");
        change_limits(&limits);
        expect_output(DISK_SIZE "; df -B1M --output=size /dev/shm | tail -1 | tr -s ' '",
                      " 62 15872\n 49\n");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

/* Each by itself; what is in force then. */
static Hotcell__Runtime__V1__SandboxLimits
approach_limits(Hotcell__Runtime__V1__SandboxLimits *limits)
{
        Hotcell__Runtime__V1__ToRuntime *request = limits_request("sbx-a", limits);
        Hotcell__Runtime__V1__SandboxLimits in_force;
        struct answer answer;

        request->update_limits->each = true;
        answer = peer_ask(&peer, request);
        ck_assert_int_eq(answer.message->body_case, EVENT(DONE));
        ck_assert_ptr_nonnull(answer.message->done->limits);
        in_force = *answer.message->done->limits;
        answer_deinit(&answer);
        return in_force;
}

#define FILL "/usr/bin/python3 -c 'x = bytearray(2 << 30)'"

START_TEST(a_kill_is_told_with_the_limit_that_it_was_for)
{
        Hotcell__Runtime__V1__SandboxLimits limits =
                *create_request("sbx-a")->create_sandbox->limits;
        uint64_t before_bytes = limits.memory_bytes;
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer started, answer;
        uint64_t request;

        peer_create(&peer, "sbx-a");
        started = peer_shell(&peer, "sbx-a", "p", "echo begun; sleep 1; " FILL);
        read_until(started.fds[1], "begun");
        ck_assert_int_eq(kill(runtime.pid, SIGSTOP), 0);
        await_kill_for_memory();
        limits.memory_bytes = 2 * before_bytes;
        request = peer_send(&peer, limits_request("sbx-a", &limits));
        ck_assert_int_eq(kill(runtime.pid, SIGCONT), 0);
        answer = peer_await(&peer, request);
        ck_assert_int_eq(answer.message->body_case, EVENT(DONE));
        event = peer_await_event(&peer, EVENT(PROCESS_ENDED));
        ck_assert(event->process_ended->oom);
        ck_assert_uint_eq(event->process_ended->memory_limit_bytes, before_bytes);
        event_free(event);
        event = peer_run(&peer, "sbx-a", FILL, output);
        ck_assert_uint_eq(event->process_ended->memory_limit_bytes, limits.memory_bytes);
        event_free(event);
        answer_deinit(&answer);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

static uint64_t listed_memory(void)
{
        Hotcell__Runtime__V1__ListSandboxes list;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer answer;
        uint64_t memory_bytes;

        hotcell__runtime__v1__list_sandboxes__init(&list);
        hotcell__runtime__v1__to_runtime__init(&message);
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_LIST_SANDBOXES;
        message.list_sandboxes = &list;
        answer = peer_ask(&peer, &message);
        ck_assert_int_eq(answer.message->body_case, EVENT(SANDBOX_LIST));
        ck_assert_uint_eq(answer.message->sandbox_list->n_sandboxes, 1);
        memory_bytes = answer.message->sandbox_list->sandboxes[0]->limits->memory_bytes;
        answer_deinit(&answer);
        return memory_bytes;
}

/* What holds memory keeps what it holds, and nothing else of what it was given. */
START_TEST(what_is_held_comes_as_near_as_it_can)
{
        Hotcell__Runtime__V1__SandboxLimits before =
                *create_request("sbx-a")->create_sandbox->limits;
        Hotcell__Runtime__V1__SandboxLimits limits = before, in_force;
        struct answer held;

        peer_create(&peer, "sbx-a");
        ck_assert_uint_eq(listed_memory(), before.memory_bytes);
        limits.memory_bytes = MIB(640);
        limits.cpu_millis = 2000;
        limits.cpu_weight = 300;
        limits.processes = 48;
        limits.disk_bytes = MIB(96);
        limits.disk_inodes = 5000;
        limits.open_files = 512;
        change_limits(&limits);
        ck_assert_uint_eq(listed_memory(), MIB(640));
        held = peer_shell(&peer, "sbx-a", "held", HOLD);
        read_until(held.fds[1], "held");
        peer_expect_failure(&peer, limits_request("sbx-a", &before), REASON(LIMIT));
        in_force = approach_limits(&before);
        ck_assert_uint_gt(in_force.memory_bytes, MIB(300));
        ck_assert_uint_lt(in_force.memory_bytes, MIB(400));
        ck_assert_uint_eq(listed_memory(), in_force.memory_bytes);
        ck_assert_uint_eq(in_force.cpu_millis, before.cpu_millis);
        ck_assert_uint_eq(in_force.cpu_weight, 100);    /* the usual one */
        ck_assert_uint_eq(in_force.disk_inodes, 16384); /* as many as fit */
        ck_assert_uint_eq(in_force.processes, before.processes);
        ck_assert_uint_eq(in_force.disk_bytes, before.disk_bytes);
        ck_assert_uint_eq(in_force.open_files, before.open_files);
        expect_output(DISK_SIZE "; ulimit -n", " 64 16384\n256\n");
        peer_signal(&peer, "sbx-a", "held", SIGKILL);
        event_free(peer_await_event(&peer, EVENT(PROCESS_ENDED)));
        in_force = approach_limits(&before);
        ck_assert_uint_eq(in_force.memory_bytes, before.memory_bytes);
        /* More of both at once: the memory has to have room for the disk at each step. */
        limits.disk_bytes = MIB(400);
        in_force = approach_limits(&limits);
        ck_assert_uint_eq(in_force.memory_bytes, limits.memory_bytes);
        ck_assert_uint_eq(in_force.disk_bytes, limits.disk_bytes);
        ck_assert_uint_eq(in_force.cpu_weight, limits.cpu_weight);
        answer_deinit(&held);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

/* Those of open files are the last, and take time; the others wait for nobody. */
START_TEST(what_programs_undo_is_put_back_in_all)
{
        Hotcell__Runtime__V1__SandboxLimits before =
                *create_request("sbx-a")->create_sandbox->limits;
        Hotcell__Runtime__V1__SandboxLimits limits = before;
        struct answer quiet, restless, answer;
        uint64_t request, memory_bytes;
        bool is_beside;

        before.cpu_millis = 4000;
        limits = before;
        peer_create(&peer, "sbx-a");
        quiet = peer_shell(&peer, "sbx-a", "quiet", TELL_LATER);
        read_until(quiet.fds[1], "begun");
        restless = peer_shell(&peer, "sbx-a", "restless", RESTLESS);
        read_until(restless.fds[1], "begun");
        change_limits(&before);
        limits.memory_bytes = MIB(160);
        limits.disk_bytes = MIB(80);
        limits.open_files = 100;
        /* Where there is much to do they get no CPU between two looks, and it succeeds. */
        for (;;) {
                request = peer_send(&peer, limits_request("sbx-a", &limits));
                memory_bytes = listed_memory();
                is_beside = peer.n_early == 0;
                answer = peer_await(&peer, request);
                if (answer.message->body_case != EVENT(DONE))
                        break;
                answer_deinit(&answer);
                change_limits(&before);
        }
        ck_assert(is_beside);
        ck_assert_uint_eq(memory_bytes, limits.memory_bytes);
        ck_assert_int_eq(answer.message->body_case, EVENT(FAILURE));
        ck_assert_int_eq(answer.message->failure->reason, REASON(LIMIT));
        ck_assert_uint_eq(answer.message->failure->limits->memory_bytes, before.memory_bytes);
        ck_assert_uint_eq(listed_memory(), before.memory_bytes);
        expect_output(DISK_SIZE "; df -B1M --output=size /dev/shm | tail -1 | tr -s ' '; "
                                "ulimit -n; touch /tmp/go",
                      " 64 16384\n 64\n256\n");
        read_until(quiet.fds[1], "256\ntold");
        answer_deinit(&answer);
        answer_deinit(&quiet);
        answer_deinit(&restless);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(a_sandbox_ends_while_its_limits_are_changed)
{
        Hotcell__Runtime__V1__SandboxLimits limits =
                *create_request("sbx-a")->create_sandbox->limits;
        Hotcell__Runtime__V1__DestroySandbox destroy;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer restless;
        uint64_t requests[2];

        hotcell__runtime__v1__destroy_sandbox__init(&destroy);
        hotcell__runtime__v1__to_runtime__init(&message);
        destroy.sandbox_id = (char *)(uintptr_t) "sbx-a";
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_DESTROY_SANDBOX;
        message.destroy_sandbox = &destroy;
        peer_create(&peer, "sbx-a");
        restless = peer_shell(&peer, "sbx-a", "restless", RESTLESS);
        read_until(restless.fds[1], "begun");
        limits.open_files = 100;
        requests[0] = peer_send(&peer, limits_request("sbx-a", &limits));
        requests[1] = peer_send(&peer, &message);
        peer_await_all(&peer, requests, ARRAY_SIZE(requests));
        answer_deinit(&restless);
}
END_TEST

int main(void)
{
        const char *missing = daemon_missing();
        Suite *suite = suite_create("runtime-limits");
        TCase *tests = tcase_create("limits");

        if (missing) {
                printf("1..0 # SKIP %s\n", missing);
                return EXIT_SUCCESS;
        }
        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, limits_are_changed_while_it_runs);
        tcase_add_test(tests, limits_that_fail_half_way_are_put_back);
        tcase_add_test(tests, a_kill_is_told_with_the_limit_that_it_was_for);
        tcase_add_test(tests, what_is_held_comes_as_near_as_it_can);
        tcase_add_test(tests, what_programs_undo_is_put_back_in_all);
        tcase_add_test(tests, a_sandbox_ends_while_its_limits_are_changed);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
