/* What hotcell-runtime keeps with processes for a hotcelld that comes after one that was killed. */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/supervisor/peer.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name
#define BODY(name)   HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name
#define TO(name)     HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name

enum { N_PIPES = 5, KEPT_MAX = 8 };

static struct daemon runtime;
static struct peer peer;
static char output[OUTPUT_MAX];

static struct answer say_hello(uint32_t oldest, uint32_t newest)
{
        Hotcell__Runtime__V1__Hello hello;
        Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__hello__init(&hello);
        hotcell__runtime__v1__to_runtime__init(&message);
        hello.protocol_oldest = oldest;
        hello.protocol_newest = newest;
        hello.version = (char *)(uintptr_t) "test";
        message.body_case = TO(HELLO);
        message.hello = &hello;
        return peer_ask(&peer, &message);
}

static void greet(void)
{
        struct answer answer = say_hello(1, 2);

        ck_assert_int_eq(answer.message->body_case, BODY(WELCOME));
        answer_deinit(&answer);
}

static void setup(void)
{
        daemon_start(&runtime, NULL);
        peer_connect(&peer, &runtime);
        greet();
}

static void teardown(void)
{
        int status;

        peer_disconnect(&peer);
        status = daemon_stop(&runtime);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 0);
        ck_assert_uint_eq(daemon_groups_left(&runtime), 0);
}

/* As if hotcelld were killed, and another came. */
static void come_again(void)
{
        peer_disconnect(&peer);
        peer_connect(&peer, &runtime);
        greet();
}

/* How many descriptors of ours the daemon has: their names begin with @name. */
static size_t n_held(const char *name)
{
        char path[64], wanted[64], target[256];
        struct dirent *entry;
        size_t n = 0;
        DIR *folder;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)runtime.pid);
        (void)snprintf(wanted, sizeof(wanted), "/memfd:%s", name);
        folder = opendir(path);
        ck_assert_ptr_nonnull(folder);
        while ((entry = readdir(folder))) {
                ssize_t size = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);

                if (size < 0)
                        continue;
                target[size] = '\0';
                n += strncmp(target, wanted, strlen(wanted)) == 0;
        }
        (void)closedir(folder);
        return n;
}

/* Answers come before what they leave is cleaned up. */
static void expect_held(const char *name, size_t n)
{
        for (unsigned i = 0; i < 400 && n_held(name) != n; i++)
                (void)nanosleep(&(struct timespec){ .tv_nsec = 25000000 }, NULL);
        ck_assert_uint_eq(n_held(name), n);
}

/* A memory file that says @name. */
static int make_file(const char *name)
{
        int fd = memfd_create(name, MFD_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, name, strlen(name)), strlen(name));
        return fd;
}

static void expect_file(int fd, const char *name)
{
        char text[64] = "";

        ck_assert_int_eq(pread(fd, text, sizeof(text) - 1, 0), strlen(name));
        ck_assert_str_eq(text, name);
}

static Hotcell__Runtime__V1__ToRuntime *keep_request(const char *sandbox_id, const char *process_id)
{
        static Hotcell__Runtime__V1__KeepDescriptors keep;
        static Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__keep_descriptors__init(&keep);
        hotcell__runtime__v1__to_runtime__init(&message);
        keep.sandbox_id = (char *)(uintptr_t)sandbox_id;
        keep.process_id = (char *)(uintptr_t)process_id;
        message.body_case = TO(KEEP_DESCRIPTORS);
        message.keep_descriptors = &keep;
        return &message;
}

static Hotcell__Runtime__V1__ToRuntime *take_request(const char *sandbox_id, const char *process_id)
{
        static Hotcell__Runtime__V1__TakeProcess take_process;
        static Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__take_process__init(&take_process);
        hotcell__runtime__v1__to_runtime__init(&message);
        take_process.sandbox_id = (char *)(uintptr_t)sandbox_id;
        take_process.process_id = (char *)(uintptr_t)process_id;
        message.body_case = TO(TAKE_PROCESS);
        message.take_process = &take_process;
        return &message;
}

/* Sends and closes the descriptors; the answer's kind, and the reason of a failure. */
static int send_with(Hotcell__Runtime__V1__ToRuntime *message, int *fds, size_t n_fds)
{
        struct answer answer = peer_await(&peer, peer_send_with(&peer, message, fds, n_fds));
        int reason = 0;

        for (size_t i = 0; i < n_fds; i++)
                (void)close(fds[i]);
        if (answer.message->body_case == BODY(FAILURE))
                reason = (int)answer.message->failure->reason;
        else
                ck_assert_int_eq(answer.message->body_case, BODY(DONE));
        answer_deinit(&answer);
        return reason;
}

/* Keeps @n files named kept-0 … with a process: 0 or the reason of the refusal. */
static int keep(const char *sandbox_id, const char *process_id, size_t n)
{
        int fds[PEER_FDS_MAX];
        char name[16];

        for (size_t i = 0; i < n; i++) {
                (void)snprintf(name, sizeof(name), "kept-%zu", i);
                fds[i] = make_file(name);
        }
        return send_with(keep_request(sandbox_id, process_id), fds, n);
}

static struct answer take_over(const char *process_id)
{
        struct answer answer = peer_ask(&peer, take_request("sbx-a", process_id));

        ck_assert_int_eq(answer.message->body_case, BODY(PROCESS_TAKEN));
        return answer;
}

/* A kernel that says what it is told; the answer has its pipes. */
static struct answer start(const char *process_id)
{
        Hotcell__Runtime__V1__ToRuntime *request;
        struct answer answer;

        request = shell_request("sbx-a", process_id,
                                "while read x <&$HOTCELL_COMMANDS_FD; do echo out-$x; "
                                "echo err-$x >&2; echo event-$x >&$HOTCELL_EVENTS_FD; "
                                "[ $x = end ] && exit 7; done");
        request->start_process->kernel_channel = true;
        /* dash knows no descriptors of three digits. */
        request->start_process->argv[0] = (char *)(uintptr_t) "/bin/bash";
        answer = peer_ask(&peer, request);
        ck_assert_int_eq(answer.message->body_case, BODY(PROCESS_STARTED));
        ck_assert_uint_eq(answer.n_fds, N_PIPES);
        return answer;
}

static void tell(const struct answer *answer, const char *line)
{
        ck_assert_int_eq(write(answer->fds[3], line, strlen(line)), strlen(line));
}

static void await_end(const char *process_id)
{
        Hotcell__Runtime__V1__FromRuntime *event = peer_await_event(&peer, BODY(PROCESS_ENDED));

        ck_assert_str_eq(event->process_ended->process_id, process_id);
        ck_assert_uint_eq(event->process_ended->exit_code, 7);
        event_free(event);
}

START_TEST(what_is_kept_is_handed_over_in_order)
{
        struct answer started, taken;

        peer_create(&peer, "sbx-a");
        started = start("p");
        ck_assert_int_eq(keep("sbx-a", "p", KEPT_MAX), 0);
        expect_held("kept-", KEPT_MAX);
        for (unsigned again = 0; again < 2; again++) {
                come_again();
                taken = take_over("p");
                ck_assert_uint_eq(taken.message->process_taken->pid,
                                  started.message->process_started->pid);
                ck_assert_uint_eq(taken.message->process_taken->n_pipes, N_PIPES);
                ck_assert_uint_eq(taken.n_fds, N_PIPES + KEPT_MAX);
                for (unsigned i = 0; i < KEPT_MAX; i++) {
                        char name[16];

                        (void)snprintf(name, sizeof(name), "kept-%u", i);
                        expect_file(taken.fds[N_PIPES + i], name);
                }
                answer_deinit(&taken);
        }
        expect_held("kept-", KEPT_MAX); /* copies went */
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

/* The place in a file goes with the descriptor: it tells what was taken from a pipe. */
START_TEST(a_kept_descriptor_has_its_offset)
{
        struct answer started, taken;
        int fd = make_file("kept-0");
        int copy = dup(fd);

        peer_create(&peer, "sbx-a");
        started = start("p");
        ck_assert_int_eq(send_with(keep_request("sbx-a", "p"), &fd, 1), 0);
        ck_assert_int_eq(lseek(copy, 3, SEEK_SET), 3);
        (void)close(copy);
        come_again();
        taken = take_over("p");
        ck_assert_int_eq(lseek(taken.fds[N_PIPES], 0, SEEK_CUR), 3);
        answer_deinit(&taken);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(a_process_has_its_pipes_over_a_disconnect)
{
        struct answer started, taken;

        peer_create(&peer, "sbx-a");
        started = start("p");
        tell(&started, "one\n");
        /* Nothing is read, nobody has the pipes, and it writes. */
        tell(&started, "two\n");
        answer_deinit(&started);
        come_again();
        taken = take_over("p");
        ck_assert_uint_eq(taken.n_fds, N_PIPES);
        for (size_t i = 1; i < taken.n_fds; i++)
                ck_assert(fcntl(taken.fds[i], F_GETFL) & O_NONBLOCK);
        tell(&taken, "end\n");
        await_end("p");
        peer_acknowledge(&peer, "sbx-a", "p");
        read_all(taken.fds[1], output);
        ck_assert_str_eq(output, "out-one\nout-two\nout-end\n");
        read_all(taken.fds[2], output);
        ck_assert_str_eq(output, "err-one\nerr-two\nerr-end\n");
        read_all(taken.fds[4], output);
        ck_assert_str_eq(output, "event-one\nevent-two\nevent-end\n");
        answer_deinit(&taken);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(one_that_ended_can_be_taken_until_that_is_acknowledged)
{
        struct answer started, taken;

        peer_create(&peer, "sbx-a");
        started = start("p");
        ck_assert_int_eq(keep("sbx-a", "p", 2), 0);
        tell(&started, "end\n");
        answer_deinit(&started);
        await_end("p");
        come_again();
        await_end("p");
        taken = take_over("p");
        ck_assert_uint_eq(taken.n_fds, N_PIPES + 2);
        read_all(taken.fds[1], output);
        ck_assert_str_eq(output, "out-end\n");
        answer_deinit(&taken);
        ck_assert_int_eq(keep("sbx-a", "p", 3), 0); /* for whoever comes after that */
        expect_held("kept-", 3);
        peer_acknowledge(&peer, "sbx-a", "p");
        expect_held("kept-", 0);
        peer_expect_failure(&peer, take_request("sbx-a", "p"), REASON(NOT_FOUND));
        ck_assert_int_eq(keep("sbx-a", "p", 1), REASON(NOT_FOUND));
        expect_held("kept-", 0);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(what_is_kept_is_replaced_as_a_whole)
{
        struct answer started, taken;
        int fd = make_file("new");

        peer_create(&peer, "sbx-a");
        started = start("p");
        ck_assert_int_eq(keep("sbx-a", "p", 4), 0);
        ck_assert_int_eq(send_with(keep_request("sbx-a", "p"), &fd, 1), 0);
        expect_held("kept-", 0);
        taken = take_over("p");
        ck_assert_uint_eq(taken.n_fds, N_PIPES + 1);
        expect_file(taken.fds[N_PIPES], "new");
        answer_deinit(&taken);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
        expect_held("new", 0);
}
END_TEST

START_TEST(each_process_has_its_own)
{
        struct answer first, second, taken;

        peer_create(&peer, "sbx-a");
        first = start("p");
        second = start("q");
        ck_assert_int_eq(keep("sbx-a", "p", 1), 0);
        ck_assert_int_eq(keep("sbx-a", "q", 2), 0);
        taken = take_over("p");
        ck_assert_uint_eq(taken.n_fds, N_PIPES + 1);
        answer_deinit(&taken);
        taken = take_over("q");
        ck_assert_uint_eq(taken.n_fds, N_PIPES + 2);
        answer_deinit(&taken);
        answer_deinit(&first);
        answer_deinit(&second);
        peer_destroy(&peer, "sbx-a");
        expect_held("kept-", 0);
}
END_TEST

START_TEST(what_cannot_be_kept_is_refused_and_what_was_stays)
{
        struct answer started, taken;
        int pipes[2], fds[3];

        peer_create(&peer, "sbx-a");
        started = start("p");
        ck_assert_int_eq(keep("sbx-a", "p", 2), 0);
        ck_assert_int_eq(keep("sbx-a", "p", 0), REASON(INVALID));
        ck_assert_int_eq(keep("sbx-a", "p", KEPT_MAX + 1), REASON(INVALID));
        ck_assert_int_eq(keep("sbx-a", "p", PEER_FDS_MAX), REASON(INVALID));
        /* One among them is no memory file. */
        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
        (void)close(pipes[1]);
        fds[0] = make_file("kept-x");
        fds[1] = pipes[0];
        fds[2] = make_file("kept-y");
        ck_assert_int_eq(send_with(keep_request("sbx-a", "p"), fds, 3), REASON(INVALID));
        fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
        ck_assert_int_eq(send_with(keep_request("sbx-a", "p"), fds, 1), REASON(INVALID));
        ck_assert_int_eq(keep("sbx-a", "q", 1), REASON(NOT_FOUND));
        ck_assert_int_eq(keep("sbx-b", "p", 1), REASON(NOT_FOUND));
        ck_assert_int_eq(keep("sbx-a", "../p", 1), REASON(INVALID));
        peer_expect_failure(&peer, take_request("sbx-a", "q"), REASON(NOT_FOUND));
        peer_expect_failure(&peer, take_request("sbx-b", "p"), REASON(NOT_FOUND));
        expect_held("kept-", 2);
        taken = take_over("p");
        ck_assert_uint_eq(taken.n_fds, N_PIPES + 2);
        answer_deinit(&taken);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
        expect_held("kept-", 0);
}
END_TEST

START_TEST(descriptors_that_nobody_wants_are_closed)
{
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer answer;
        uint64_t request;
        int fds[PEER_FDS_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = make_file("kept-0");
        hotcell__runtime__v1__to_runtime__init(&message);
        for (unsigned i = 0; i < 3; i++) {
                request = peer_send_with(&peer, create_request("sbx-a"), fds, ARRAY_SIZE(fds));
                answer = peer_await(&peer, request);
                ck_assert_int_eq(answer.message->body_case, BODY(SANDBOX_CREATED));
                answer_deinit(&answer);
                peer_destroy(&peer, "sbx-a");
        }
        for (unsigned i = 0; i < 50; i++) {
                answer = peer_await(&peer, peer_send_with(&peer, &message, fds, 3));
                ck_assert_int_eq(answer.message->body_case, BODY(FAILURE));
                answer_deinit(&answer);
        }
        expect_held("kept-", 0);
        peer_disconnect(&peer);
        peer_connect(&peer, &runtime);
        answer = peer_await(&peer, peer_send_with(&peer, keep_request("sbx-a", "p"), fds, 2));
        ck_assert_int_eq(answer.message->body_case, BODY(FAILURE));
        ck_assert_int_eq(answer.message->failure->reason, REASON(INVALID));
        answer_deinit(&answer);
        peer_expect_failure(&peer, take_request("sbx-a", "p"), REASON(INVALID));
        expect_held("kept-", 0);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                (void)close(fds[i]);
}
END_TEST

/* The runtime speaks 1 to 4. */
START_TEST(the_newest_version_that_both_speak_is_spoken)
{
        static const struct {
                uint32_t oldest, newest, spoken; /* zero: refused */
        } hellos[] = { { 1, 1, 1 }, { 1, 2, 2 }, { 2, 2, 2 }, { 2, 3, 3 }, { 1, 99, 4 },
                       { 4, 5, 4 }, { 5, 6, 0 }, { 0, 0, 0 }, { 2, 1, 0 } };

        for (size_t i = 0; i < ARRAY_SIZE(hellos); i++) {
                struct answer answer;

                peer_disconnect(&peer);
                peer_connect(&peer, &runtime);
                answer = say_hello(hellos[i].oldest, hellos[i].newest);
                if (hellos[i].spoken) {
                        ck_assert_int_eq(answer.message->body_case, BODY(WELCOME));
                        ck_assert_uint_eq(answer.message->welcome->protocol, hellos[i].spoken);
                } else {
                        ck_assert_int_eq(answer.message->body_case, BODY(FAILURE));
                        ck_assert_str_ne(answer.message->failure->message, "");
                }
                answer_deinit(&answer);
        }
}
END_TEST

int main(void)
{
        const char *missing = daemon_missing();
        Suite *suite = suite_create("keep");
        TCase *tests = tcase_create("keep");

        if (missing) {
                (void)printf("1..0 # SKIP %s\n", missing);
                return EXIT_SUCCESS;
        }
        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, what_is_kept_is_handed_over_in_order);
        tcase_add_test(tests, a_kept_descriptor_has_its_offset);
        tcase_add_test(tests, a_process_has_its_pipes_over_a_disconnect);
        tcase_add_test(tests, one_that_ended_can_be_taken_until_that_is_acknowledged);
        tcase_add_test(tests, what_is_kept_is_replaced_as_a_whole);
        tcase_add_test(tests, each_process_has_its_own);
        tcase_add_test(tests, what_cannot_be_kept_is_refused_and_what_was_stays);
        tcase_add_test(tests, descriptors_that_nobody_wants_are_closed);
        tcase_add_test(tests, the_newest_version_that_both_speak_is_spoken);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
