/* hotcell-runtime, driven as hotcelld drives it: sandboxes, processes and their ends. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"
#include "test/supervisor/peer.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name
#define EVENT(name)  HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name

static struct daemon runtime;
static struct peer peer;
static char output[OUTPUT_MAX];

static void setup(void)
{
        daemon_start(&runtime, NULL);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
}

/* Every test ends with a clean stop that leaves nothing. */
static void teardown(void)
{
        int status;

        if (peer.fd >= 0)
                peer_disconnect(&peer);
        if (runtime.pid <= 0)
                return;
        status = daemon_stop(&runtime);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 0);
        ck_assert_uint_eq(daemon_groups_left(&runtime), 0);
        ck_assert_int_eq(access(runtime.run_dir, F_OK), -1);
}

static void pause_msec(long msec)
{
        (void)nanosleep(
                &(struct timespec){ .tv_sec = msec / 1000, .tv_nsec = msec % 1000 * 1000000 },
                NULL);
}

/* A script's loop that ends when it is told to; it listens from "ready" on. */
#define UNTIL_TOLD "trap told=1 TERM; echo ready; while [ -z \"$told\" ]; do sleep 0.01; done; "

static void tell(int pidfd)
{
        ck_assert_int_eq(syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0), 0);
}

/* Until the process is a zombie, or gone. */
static void await_exit(int pidfd)
{
        struct pollfd poll_fd = { .fd = pidfd, .events = POLLIN };

        while (poll(&poll_fd, 1, -1) < 0)
                ck_assert_int_eq(errno, EINTR);
}

/* Clean-up goes on after the answer; its end shows only in the traces. */
static void await_traces(const struct traces *wanted)
{
        struct traces now = daemon_traces(&runtime);

        for (unsigned i = 0; i < 200 && memcmp(&now, wanted, sizeof(now)) != 0; i++) {
                pause_msec(25);
                now = daemon_traces(&runtime);
        }
        ck_assert_uint_eq(now.n_fds, wanted->n_fds);
        ck_assert_uint_eq(now.n_groups, wanted->n_groups);
        ck_assert_uint_eq(now.n_children, wanted->n_children);
        ck_assert_uint_eq(now.n_mounts, wanted->n_mounts);
        ck_assert_uint_eq(now.n_netns, wanted->n_netns);
}

/* The pool of network namespaces fills by and by after the start. */
static struct traces settled_traces(void)
{
        struct traces before = daemon_traces(&runtime);

        for (;;) {
                struct traces now;

                pause_msec(300);
                now = daemon_traces(&runtime);
                if (memcmp(&before, &now, sizeof(now)) == 0)
                        return now;
                before = now;
        }
}

START_TEST(program_runs_and_its_end_is_told)
{
        Hotcell__Runtime__V1__FromRuntime *event;

        peer_create(&peer, "sbx-a");
        event = peer_run(&peer, "sbx-a", "echo out; id -u; pwd; echo $PATH; hostname; exit 7",
                         output);
        ck_assert_str_eq(output, "out\n1000\n/tmp\n/usr/bin:/bin\nbox\n");
        ck_assert_str_eq(event->process_ended->sandbox_id, "sbx-a");
        ck_assert_uint_eq(event->process_ended->exit_code, 7);
        ck_assert(!event->process_ended->with_sandbox);
        ck_assert_uint_eq(event->process_ended->signal, 0);
        ck_assert(!event->process_ended->oom);
        ck_assert_uint_gt(event->process_ended->usage->cpu_usec, 0);
        ck_assert_uint_gt(event->process_ended->usage->memory_peak_bytes, 0);
        event_free(event);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(standard_streams_are_usable_by_path)
{
        peer_create(&peer, "sbx-a");
        event_free(peer_run(&peer, "sbx-a",
                            "echo a >/dev/stdout; cat </dev/stdin; cat; echo b >/dev/fd/1",
                            output));
        ck_assert_str_eq(output, "a\nb\n");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(kernel_channel_is_two_pipes)
{
        struct answer answer;
        Hotcell__Runtime__V1__ToRuntime *request;

        peer_create(&peer, "sbx-a");
        request = shell_request("sbx-a", "kernel",
                                "ls /proc/self/fd | wc -l; read x <&$HOTCELL_COMMANDS_FD; "
                                "echo got-$x >&$HOTCELL_EVENTS_FD");
        request->start_process->kernel_channel = true;
        /* dash knows no descriptors of three digits. */
        request->start_process->argv[0] = (char *)(uintptr_t) "/bin/bash";
        answer = peer_ask(&peer, request);
        ck_assert_int_eq(answer.message->body_case, EVENT(PROCESS_STARTED));
        ck_assert_uint_eq(answer.n_fds, 5);
        for (size_t i = 1; i < answer.n_fds; i++)
                ck_assert(fcntl(answer.fds[i], F_GETFL) & O_NONBLOCK);
        ck_assert_int_eq(write(answer.fds[3], "hello\n", 6), 6);
        read_all(answer.fds[4], output);
        ck_assert_str_eq(output, "got-hello\n");
        read_all(answer.fds[1], output);
        /* 0, 1, 2, the channel, and the directory that ls reads */
        ck_assert_str_eq(output, "6\n");
        answer_deinit(&answer);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(program_that_is_not_there_is_an_exec_failure)
{
        Hotcell__Runtime__V1__ToRuntime *request;
        struct answer answer;

        peer_create(&peer, "sbx-a");
        request = shell_request("sbx-a", "p", "true");
        request->start_process->argv[0] = (char *)(uintptr_t) "/no/such/program";
        answer = peer_ask(&peer, request);
        ck_assert_int_eq(answer.message->body_case, EVENT(FAILURE));
        ck_assert_int_eq(answer.message->failure->reason, REASON(EXEC));
        ck_assert_int_eq(answer.message->failure->error_number, ENOENT);
        answer_deinit(&answer);
        /* Nothing of it remains: its id is free again. */
        answer = peer_shell(&peer, "sbx-a", "p", "true");
        answer_deinit(&answer);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(bad_working_directory_has_a_reason_of_its_own)
{
        static const struct {
                const char *path;
                int error;
        } wrong[] = {
                { "/no/such/directory", ENOENT },
                { "/etc/passwd", ENOTDIR },
                { "/root", EACCES },
        };

        peer_create(&peer, "sbx-a");
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                Hotcell__Runtime__V1__ToRuntime *request = shell_request("sbx-a", "p", "true");
                struct answer answer;

                request->start_process->working_directory = (char *)(uintptr_t)wrong[i].path;
                answer = peer_ask(&peer, request);
                ck_assert_int_eq(answer.message->body_case, EVENT(FAILURE));
                ck_assert_int_eq(answer.message->failure->reason, REASON(WORKING_DIRECTORY));
                ck_assert_int_eq(answer.message->failure->error_number, wrong[i].error);
                answer_deinit(&answer);
        }
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(what_a_process_leaves_behind_ends_with_it)
{
        Hotcell__Runtime__V1__FromRuntime *event;

        peer_create(&peer, "sbx-a");
        event = peer_run(&peer, "sbx-a",
                         "(trap '' TERM HUP; setsid sleep 1000) >/dev/null 2>&1 & exit 3", output);
        ck_assert_uint_eq(event->process_ended->exit_code, 3);
        event_free(event);
        event_free(peer_run(&peer, "sbx-a", "pgrep sleep; true", output));
        ck_assert_str_eq(output, "");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(out_of_memory_is_told_and_takes_the_whole_process)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;

        peer_create(&peer, "sbx-a");
        /* The hungry one is a child; its parent would go on. */
        answer = peer_shell(
                &peer, "sbx-a", "hungry",
                "/usr/bin/python3 -c 'x = bytearray(1 << 30)'; echo survived; sleep 1000");
        read_all(answer.fds[1], output);
        ck_assert_str_eq(output, "");
        event = peer_await_event(&peer, EVENT(PROCESS_ENDED));
        ck_assert_uint_eq(event->process_ended->signal, SIGKILL);
        ck_assert(event->process_ended->oom);
        ck_assert(!event->process_ended->with_sandbox);
        ck_assert_uint_ge(event->process_ended->usage->oom_kills, 1);
        ck_assert_uint_gt(event->process_ended->usage->memory_peak_bytes, 128 << 20);
        event_free(event);
        answer_deinit(&answer);
        /* The sandbox lives on, and the next process is not to blame. */
        event = peer_run(&peer, "sbx-a", "echo alive", output);
        ck_assert_str_eq(output, "alive\n");
        ck_assert(!event->process_ended->oom);
        event_free(event);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

/* Until a bomb has grown. It forks and dies by turns, so it need not be at its limit when asked. */
static void await_processes(const char *sandbox_id, uint64_t n_wanted)
{
        Hotcell__Runtime__V1__ReadUsage read;
        Hotcell__Runtime__V1__ToRuntime message;
        uint64_t n = 0;

        hotcell__runtime__v1__read_usage__init(&read);
        hotcell__runtime__v1__to_runtime__init(&message);
        read.sandbox_id = (char *)(uintptr_t)sandbox_id;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_USAGE;
        message.read_usage = &read;
        while (n < n_wanted) {
                struct answer answer = peer_ask(&peer, &message);

                ck_assert_int_eq(answer.message->body_case, EVENT(USAGE));
                n = answer.message->usage->processes;
                answer_deinit(&answer);
        }
}

START_TEST(fork_bomb_is_held_and_ends_at_once)
{
        struct answer answer;
        struct timespec begin;
        struct timespec end;

        peer_create(&peer, "sbx-a");
        peer_create(&peer, "sbx-b");
        answer = peer_shell(&peer, "sbx-a", "bomb", "b() { b | b & }; b; echo started; sleep 1000");
        await_processes("sbx-a", 16);
        event_free(peer_run(&peer, "sbx-b", "echo neighbour", output));
        ck_assert_str_eq(output, "neighbour\n");
        (void)clock_gettime(CLOCK_MONOTONIC, &begin);
        peer_destroy(&peer, "sbx-a");
        (void)clock_gettime(CLOCK_MONOTONIC, &end);
        ck_assert_int_lt(end.tv_sec - begin.tv_sec, 5 * test_patience());
        answer_deinit(&answer);
        peer_destroy(&peer, "sbx-b");
}
END_TEST

START_TEST(full_disk_says_so_and_is_metered)
{
        Hotcell__Runtime__V1__ReadUsage read;
        Hotcell__Runtime__V1__ToRuntime message;
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;

        hotcell__runtime__v1__read_usage__init(&read);
        hotcell__runtime__v1__to_runtime__init(&message);
        peer_create(&peer, "sbx-a");
        event = peer_run(&peer, "sbx-a",
                         "head -c 100m /dev/zero >/tmp/big || echo full; ls /tmp | wc -l", output);
        ck_assert_str_eq(output, "full\n1\n");
        ck_assert(!event->process_ended->oom);
        event_free(event);
        read.sandbox_id = (char *)(uintptr_t) "sbx-a";
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_USAGE;
        message.read_usage = &read;
        answer = peer_ask(&peer, &message);
        ck_assert_int_eq(answer.message->body_case, EVENT(USAGE));
        ck_assert_uint_gt(answer.message->usage->disk_bytes, 60 << 20);
        ck_assert_uint_ge(answer.message->usage->memory_bytes, 60 << 20);
        ck_assert_uint_eq(answer.message->usage->processes, 1);
        answer_deinit(&answer);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(usage_of_a_process_is_its_own_and_its_peak_can_begin_anew)
{
        Hotcell__Runtime__V1__ReadUsage read;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer started;
        struct answer first;
        struct answer second;

        hotcell__runtime__v1__read_usage__init(&read);
        hotcell__runtime__v1__to_runtime__init(&message);
        peer_create(&peer, "sbx-a");
        started =
                peer_shell(&peer, "sbx-a", "p",
                           "/usr/bin/python3 -c 'x = bytearray(80 << 20)'; echo done; sleep 1000");
        read_until(started.fds[1], "done");
        read.sandbox_id = (char *)(uintptr_t) "sbx-a";
        read.process_id = (char *)(uintptr_t) "p";
        read.reset_peak = true;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_USAGE;
        message.read_usage = &read;
        first = peer_ask(&peer, &message);
        second = peer_ask(&peer, &message);
        ck_assert_uint_gt(first.message->usage->memory_peak_bytes, 80 << 20);
        /* Pure cgroup2 can do it from Linux 6.12 on. */
        if (runtime.n_groups > 1)
                ck_assert_uint_lt(second.message->usage->memory_peak_bytes, 40 << 20);
        ck_assert_uint_gt(first.message->usage->cpu_usec, 1000);
        answer_deinit(&first);
        answer_deinit(&second);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(signals_reach_whom_they_should)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;

        peer_create(&peer, "sbx-a");
        /* SIGINT: also the child of the same process group. */
        answer = peer_shell(&peer, "sbx-a", "int",
                            "trap 'echo parent' INT; (trap 'echo child; exit' INT; echo ready; "
                            "while :; do sleep 0.05; done); wait; echo over");
        read_until(answer.fds[1], "ready");
        peer_signal(&peer, "sbx-a", "int", SIGINT);
        read_all(answer.fds[1], output);
        ck_assert_ptr_nonnull(strstr(output, "child"));
        ck_assert_ptr_nonnull(strstr(output, "parent"));
        event = peer_await_event(&peer, EVENT(PROCESS_ENDED));
        ck_assert_uint_eq(event->process_ended->exit_code, 0);
        event_free(event);
        answer_deinit(&answer);
        /* SIGKILL: all of the leaf, also what left the group. */
        answer = peer_shell(&peer, "sbx-a", "kill", "setsid sleep 1000 & echo ready; sleep 1000");
        read_until(answer.fds[1], "ready");
        peer_signal(&peer, "sbx-a", "kill", SIGKILL);
        event = peer_await_event(&peer, EVENT(PROCESS_ENDED));
        ck_assert_str_eq(event->process_ended->process_id, "kill");
        ck_assert_uint_eq(event->process_ended->signal, SIGKILL);
        ck_assert(!event->process_ended->oom);
        event_free(event);
        answer_deinit(&answer);
        event_free(peer_run(&peer, "sbx-a", "pgrep sleep; true", output));
        ck_assert_str_eq(output, "");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(end_of_init_ends_the_sandbox_after_its_processes)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;
        char command[640];

        peer_create(&peer, "sbx-a");
        answer = peer_shell(&peer, "sbx-a", "p", "echo ready; sleep 1000");
        read_until(answer.fds[1], "ready");
        /* From the host: nothing inside can do it. */
        (void)snprintf(command, sizeof(command),
                       "kill -KILL $(cat %s/sandbox-sbx-a/init/cgroup.procs)", runtime.groups[0]);
        ck_assert_int_eq(system(command), 0);
        event = peer_await_event(&peer, EVENT(PROCESS_ENDED));
        ck_assert_uint_eq(event->process_ended->signal, SIGKILL);
        ck_assert(event->process_ended->with_sandbox);
        event_free(event);
        event = peer_await_event(&peer, EVENT(SANDBOX_ENDED));
        ck_assert_str_eq(event->sandbox_ended->sandbox_id, "sbx-a");
        ck_assert_ptr_nonnull(strstr(event->sandbox_ended->detail, "signal 9"));
        event_free(event);
        answer_deinit(&answer);
        peer_expect_failure(&peer, shell_request("sbx-a", "q", "true"), REASON(SANDBOX_ENDED));
        peer_expect_failure(&peer, create_request("sbx-a"), REASON(EXISTS));
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(unacknowledged_ends_are_repeated_to_the_next_hotcelld)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;

        peer_create(&peer, "sbx-a");
        answer = peer_shell(&peer, "sbx-a", "p", "exit 5");
        event_free(peer_await_event(&peer, EVENT(PROCESS_ENDED)));
        answer_deinit(&answer);
        answer = peer_shell(&peer, "sbx-a", "q", UNTIL_TOLD "exit 6");
        read_until(answer.fds[1], "ready");
        peer_disconnect(&peer);
        tell(answer.fds[0]);
        await_exit(answer.fds[0]);
        answer_deinit(&answer);

        peer_connect(&peer, &runtime);
        peer_hello(&peer);
        for (unsigned i = 0; i < 2; i++) {
                event = peer_await_event(&peer, EVENT(PROCESS_ENDED));
                ck_assert_uint_eq(event->process_ended->exit_code,
                                  event->process_ended->process_id[0] == 'p' ? 5 : 6);
                peer_acknowledge(&peer, "sbx-a", event->process_ended->process_id);
                event_free(event);
        }
        peer_disconnect(&peer);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
        /* Acknowledged: if one were repeated, it would come before this answer. */
        event_free(peer_run(&peer, "sbx-a", "true", output));
        ck_assert_uint_eq(peer.n_events, 0);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(sandbox_of_a_hotcelld_that_left_while_it_was_made_is_ended)
{
        struct traces before = settled_traces();
        Hotcell__Runtime__V1__ToRuntime list;
        Hotcell__Runtime__V1__ListSandboxes body;
        struct answer answer;

        hotcell__runtime__v1__to_runtime__init(&list);
        hotcell__runtime__v1__list_sandboxes__init(&body);
        for (unsigned i = 0; i < 10; i++) {
                char id[16];

                (void)snprintf(id, sizeof(id), "sbx-%u", i);
                (void)peer_send(&peer, create_request(id));
        }
        peer_disconnect(&peer);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
        await_traces(&before);
        list.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_LIST_SANDBOXES;
        list.list_sandboxes = &body;
        answer = peer_ask(&peer, &list);
        ck_assert_uint_eq(answer.message->sandbox_list->n_sandboxes, 0);
        answer_deinit(&answer);
}
END_TEST

/* Requests that cross each other: every one is answered, and nothing is left. */
START_TEST(sandboxes_destroyed_while_they_start_leave_nothing)
{
        struct traces before = settled_traces();

        for (unsigned i = 0; i < 40; i++) {
                Hotcell__Runtime__V1__DestroySandbox destroy;
                Hotcell__Runtime__V1__ToRuntime message;
                uint64_t requests[4];
                size_t n = 0;
                char id[16];

                (void)snprintf(id, sizeof(id), "sbx-%u", i);
                requests[n++] = peer_send(&peer, create_request(id));
                if (i % 2) {
                        struct answer created = peer_await(&peer, requests[--n]);

                        ck_assert_int_eq(created.message->body_case, EVENT(SANDBOX_CREATED));
                        answer_deinit(&created);
                        requests[n++] = peer_send(&peer, shell_request(id, "p", "sleep 1000"));
                        requests[n++] = peer_send(&peer, shell_request(id, "q", "true"));
                }
                hotcell__runtime__v1__destroy_sandbox__init(&destroy);
                hotcell__runtime__v1__to_runtime__init(&message);
                destroy.sandbox_id = id;
                message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_DESTROY_SANDBOX;
                message.destroy_sandbox = &destroy;
                requests[n++] = peer_send(&peer, &message);
                peer_await_all(&peer, requests, n);
        }
        await_traces(&before);
}
END_TEST

START_TEST(walls_are_probed_again_beside_a_running_sandbox)
{
        Hotcell__Runtime__V1__ProbeWalls probe;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer answer;

        hotcell__runtime__v1__probe_walls__init(&probe);
        hotcell__runtime__v1__to_runtime__init(&message);
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_PROBE_WALLS;
        message.probe_walls = &probe;
        peer_create(&peer, "sbx-a");
        answer = peer_ask(&peer, &message);
        ck_assert_int_eq(answer.message->body_case, EVENT(WALL_LIST));
        for (size_t i = 0; i < answer.message->wall_list->n_walls; i++)
                ck_assert(answer.message->wall_list->walls[i]->holds ||
                          !answer.message->wall_list->walls[i]->required);
        answer_deinit(&answer);
        event_free(peer_run(&peer, "sbx-a", "echo still", output));
        ck_assert_str_eq(output, "still\n");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(two_hundred_sandboxes_leave_nothing)
{
        struct traces before;

        /* Once, for what is made at first use and kept. */
        peer_create(&peer, "sbx-first");
        event_free(peer_run(&peer, "sbx-first", "true", output));
        peer_destroy(&peer, "sbx-first");
        before = settled_traces();
        for (unsigned i = 0; i < 200; i++) {
                char id[16];

                (void)snprintf(id, sizeof(id), "sbx-%u", i);
                peer_create(&peer, id);
                if (i % 10 == 0)
                        event_free(peer_run(&peer, id, "true", output));
                peer_destroy(&peer, id);
        }
        await_traces(&before);
}
END_TEST

START_TEST(list_is_in_order_and_in_pages)
{
        Hotcell__Runtime__V1__ToRuntime message;
        Hotcell__Runtime__V1__ListSandboxes list;
        char after[64] = "";
        size_t n_seen = 0;
        bool more = true;

        hotcell__runtime__v1__to_runtime__init(&message);
        hotcell__runtime__v1__list_sandboxes__init(&list);
        for (unsigned i = 0; i < 70; i++) {
                char id[16];

                (void)snprintf(id, sizeof(id), "sbx-%02u", (i * 37) % 70);
                peer_create(&peer, id);
        }
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_LIST_SANDBOXES;
        message.list_sandboxes = &list;
        while (more) {
                struct answer answer;

                list.after_sandbox_id = after;
                answer = peer_ask(&peer, &message);
                ck_assert_int_eq(answer.message->body_case, EVENT(SANDBOX_LIST));
                for (size_t i = 0; i < answer.message->sandbox_list->n_sandboxes; i++) {
                        const char *id = answer.message->sandbox_list->sandboxes[i]->sandbox_id;

                        ck_assert_int_lt(strcmp(after, id), 0);
                        ck_assert(answer.message->sandbox_list->sandboxes[i]->running);
                        (void)snprintf(after, sizeof(after), "%s", id);
                        n_seen++;
                }
                more = answer.message->sandbox_list->more;
                answer_deinit(&answer);
        }
        ck_assert_uint_eq(n_seen, 70);
}
END_TEST

START_TEST(packets_that_are_no_messages_are_survived)
{
        static uint8_t big[100 << 10];
        Hotcell__Runtime__V1__ToRuntime message;
        Hotcell__Runtime__V1__Hello hello;

        hotcell__runtime__v1__to_runtime__init(&message);
        hotcell__runtime__v1__hello__init(&hello);
        memset(big, 0xff, sizeof(big));
        peer_send_bytes(&peer, "\xff\xff\xff", 3);
        peer_send_bytes(&peer, big, sizeof(big));
        /* A request without a body is answered. */
        peer_expect_failure(&peer, &message, REASON(INVALID));
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_HELLO;
        message.hello = &hello;
        hello.protocol_oldest = hello.protocol_newest = 99;
        hello.version = (char *)(uintptr_t) "";
        peer_expect_failure(&peer, &message, REASON(PROTOCOL));
        peer_create(&peer, "sbx-a");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(requests_before_hello_are_refused)
{
        peer_disconnect(&peer);
        peer_connect(&peer, &runtime);
        peer_expect_failure(&peer, create_request("sbx-a"), REASON(INVALID));
}
END_TEST

START_TEST(requests_for_what_is_not_there_are_refused)
{
        Hotcell__Runtime__V1__ToRuntime *request = create_request("sbx-a");
        char unknown[] = "sha256-0000000000000000000000000000000000000000000000000000000000000000";

        request->create_sandbox->template_digest = unknown;
        peer_expect_failure(&peer, request, REASON(TEMPLATE_NOT_FOUND));
        peer_expect_failure(&peer, shell_request("sbx-a", "p", "true"), REASON(NOT_FOUND));
        request = create_request("sbx-a");
        request->create_sandbox->limits->open_files = 1 << 20;
        peer_expect_failure(&peer, request, REASON(INVALID));
        peer_create(&peer, "sbx-a");
        peer_expect_failure(&peer, create_request("sbx-a"), REASON(EXISTS));
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(second_connection_is_refused_and_the_first_goes_on)
{
        int fd = peer_try_connect(&runtime);
        char byte;

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(read(fd, &byte, 1), 0);
        (void)close(fd);
        peer_create(&peer, "sbx-a");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(another_user_may_not_connect)
{
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                char byte;
                int fd;

                if (setresgid(12345, 12345, 12345) < 0 || setresuid(12345, 12345, 12345) < 0)
                        _exit(2);
                fd = peer_try_connect(&runtime);
                _exit(fd < 0 || read(fd, &byte, 1) <= 0 ? 0 : 1);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(hotcelld_that_does_not_read_is_disconnected)
{
        Hotcell__Runtime__V1__ToRuntime message;
        Hotcell__Runtime__V1__DestroySandbox destroy;
        uint8_t bytes[64];
        size_t n_bytes;
        bool is_cut = false;

        hotcell__runtime__v1__to_runtime__init(&message);
        hotcell__runtime__v1__destroy_sandbox__init(&destroy);
        /* Cheap requests with answers; the socket and the queue fill up. */
        message.request = 1;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_DESTROY_SANDBOX;
        message.destroy_sandbox = &destroy;
        destroy.sandbox_id = (char *)(uintptr_t) "sbx-none";
        n_bytes = hotcell__runtime__v1__to_runtime__pack(&message, bytes);
        for (unsigned i = 0; i < 1000000 && !is_cut; i++)
                is_cut = send(peer.fd, bytes, n_bytes, MSG_NOSIGNAL) < 0;
        ck_assert(is_cut);
        peer_disconnect(&peer);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
        peer_create(&peer, "sbx-a");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(clean_stop_ends_running_sandboxes)
{
        struct answer answer;

        for (unsigned i = 0; i < 5; i++) {
                char id[16];

                (void)snprintf(id, sizeof(id), "sbx-%u", i);
                peer_create(&peer, id);
                answer = peer_shell(&peer, id, "p", "trap '' TERM INT; while :; do sleep 1; done");
                answer_deinit(&answer);
        }
        /* The teardown checks that nothing is left. */
}
END_TEST

START_TEST(spawner_that_died_is_replaced)
{
        struct traces before = settled_traces();
        struct answer answer;
        char command[512];

        peer_create(&peer, "sbx-a");
        answer = peer_shell(&peer, "sbx-a", "p", UNTIL_TOLD "exit 4");
        read_until(answer.fds[1], "ready");
        /* Before any sandbox it was the only child; it is the one in the daemon's own group. */
        (void)snprintf(
                command, sizeof(command),
                "for p in $(cat /proc/%d/task/%d/children); do "
                "[ \"$(cat /proc/$p/cgroup 2>&1)\" = \"$(cat /proc/%d/cgroup)\" ] && kill -KILL $p; "
                "done; true",
                runtime.pid, runtime.pid, runtime.pid);
        ck_assert_int_eq(system(command), 0);
        daemon_await_log(&runtime, "the spawner ended");
        /* What it cloned lives on, and is still ours to reap. */
        tell(answer.fds[0]);
        answer_deinit(&answer);
        event_free(peer_await_event(&peer, EVENT(PROCESS_ENDED)));
        event_free(peer_run(&peer, "sbx-a", "echo again", output));
        ck_assert_str_eq(output, "again\n");
        peer_destroy(&peer, "sbx-a");
        await_traces(&before);
}
END_TEST

START_TEST(killed_runtime_leaves_nothing_after_the_next_start)
{
        struct daemon killed;
        struct answer answer;

        peer_create(&peer, "sbx-a");
        answer = peer_shell(&peer, "sbx-a", "p", "sleep 1000");
        answer_deinit(&answer);
        ck_assert_int_eq(kill(runtime.pid, SIGKILL), 0);
        (void)daemon_wait(&runtime);
        ck_assert_uint_gt(daemon_groups_left(&runtime), 0);
        peer_disconnect(&peer);

        killed = runtime;
        daemon_launch(&runtime, NULL);
        /* The log still has the first start's line: what counts is that it answers. */
        for (unsigned i = 0; i < 400; i++) {
                peer.fd = peer_try_connect(&runtime);
                if (peer.fd >= 0)
                        break;
                pause_msec(25);
        }
        ck_assert_int_ge(peer.fd, 0);
        peer = (struct peer){ .fd = peer.fd, .next_request = 1 };
        peer_hello(&peer);
        ck_assert_uint_eq(daemon_groups_left(&killed), 0);
        daemon_await(&runtime);
}
END_TEST

START_TEST(second_instance_on_the_same_directory_is_refused)
{
        struct daemon second = runtime;
        int status;

        daemon_launch(&second, NULL);
        status = daemon_wait(&second);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 78);
        ck_assert(daemon_log_has(&second, "another hotcell-runtime uses the run directory"));
        peer_create(&peer, "sbx-a");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(groups_whose_owner_is_gone_are_removed_by_any_instance)
{
        struct daemon killed = { 0 };
        struct daemon next = { 0 };

        daemon_start(&killed, NULL);
        ck_assert_int_eq(kill(killed.pid, SIGKILL), 0);
        (void)daemon_wait(&killed);
        daemon_remove(&killed);
        ck_assert_uint_eq(daemon_groups_left(&killed), killed.n_groups);
        /* Another run directory: what was left is found by its lock and its list. */
        daemon_start(&next, NULL);
        ck_assert_uint_eq(daemon_groups_left(&killed), 0);
        ck_assert_int_eq(daemon_stop(&next), 0);
        /* The first one is alive and keeps its own. */
        ck_assert_uint_eq(daemon_groups_left(&runtime), runtime.n_groups);
        peer_create(&peer, "sbx-a");
        peer_destroy(&peer, "sbx-a");
}
END_TEST

static Suite *daemon_suite(void)
{
        Suite *suite = suite_create("runtime");
        TCase *tests = tcase_create("daemon");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, program_runs_and_its_end_is_told);
        tcase_add_test(tests, standard_streams_are_usable_by_path);
        tcase_add_test(tests, kernel_channel_is_two_pipes);
        tcase_add_test(tests, program_that_is_not_there_is_an_exec_failure);
        tcase_add_test(tests, bad_working_directory_has_a_reason_of_its_own);
        tcase_add_test(tests, what_a_process_leaves_behind_ends_with_it);
        tcase_add_test(tests, out_of_memory_is_told_and_takes_the_whole_process);
        tcase_add_test(tests, fork_bomb_is_held_and_ends_at_once);
        tcase_add_test(tests, full_disk_says_so_and_is_metered);
        tcase_add_test(tests, usage_of_a_process_is_its_own_and_its_peak_can_begin_anew);
        tcase_add_test(tests, signals_reach_whom_they_should);
        tcase_add_test(tests, end_of_init_ends_the_sandbox_after_its_processes);
        tcase_add_test(tests, unacknowledged_ends_are_repeated_to_the_next_hotcelld);
        tcase_add_test(tests, sandbox_of_a_hotcelld_that_left_while_it_was_made_is_ended);
        tcase_add_test(tests, sandboxes_destroyed_while_they_start_leave_nothing);
        tcase_add_test(tests, walls_are_probed_again_beside_a_running_sandbox);
        tcase_add_test(tests, two_hundred_sandboxes_leave_nothing);
        tcase_add_test(tests, list_is_in_order_and_in_pages);
        tcase_add_test(tests, packets_that_are_no_messages_are_survived);
        tcase_add_test(tests, requests_before_hello_are_refused);
        tcase_add_test(tests, requests_for_what_is_not_there_are_refused);
        tcase_add_test(tests, second_connection_is_refused_and_the_first_goes_on);
        tcase_add_test(tests, another_user_may_not_connect);
        tcase_add_test(tests, hotcelld_that_does_not_read_is_disconnected);
        tcase_add_test(tests, clean_stop_ends_running_sandboxes);
        tcase_add_test(tests, spawner_that_died_is_replaced);
        tcase_add_test(tests, killed_runtime_leaves_nothing_after_the_next_start);
        tcase_add_test(tests, second_instance_on_the_same_directory_is_refused);
        tcase_add_test(tests, groups_whose_owner_is_gone_are_removed_by_any_instance);
        suite_add_tcase(suite, tests);
        return suite;
}

int main(void)
{
        const char *missing = daemon_missing();

        if (missing) {
                printf("1..0 # SKIP %s\n", missing);
                return EXIT_SUCCESS;
        }
        return suite_main(daemon_suite());
}
