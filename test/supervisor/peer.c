#include "test/supervisor/peer.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "test/lib/patience.h"

enum {
        PACKET_MAX = 128 << 10,
};

#define WAIT_MSEC (20000U * (unsigned)test_patience())

#define must(condition) ck_assert_msg((condition), "%s: %s", #condition, strerror(errno))

int peer_try_connect(const struct daemon *daemon)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        must(fd >= 0);
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/runtime.sock",
                       daemon->run_dir);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
                (void)close(fd);
                return -1;
        }
        return fd;
}

void peer_connect(struct peer *peer, const struct daemon *daemon)
{
        *peer = (struct peer){ .next_request = 1 };
        peer->fd = peer_try_connect(daemon);
        must(peer->fd >= 0);
}

void peer_disconnect(struct peer *peer)
{
        for (size_t i = 0; i < peer->n_events; i++)
                event_free(peer->events[i]);
        peer->n_events = 0;
        (void)close(peer->fd);
        peer->fd = -1;
}

void peer_send_bytes(struct peer *peer, const void *bytes, size_t n_bytes)
{
        must(send(peer->fd, bytes, n_bytes, MSG_NOSIGNAL) == (ssize_t)n_bytes);
}

uint64_t peer_send_with(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message, const int *fds,
                        size_t n_fds)
{
        static uint8_t bytes[PACKET_MAX];
        size_t n_bytes;

        message->request = peer->next_request++;
        ck_assert_uint_le(hotcell__runtime__v1__to_runtime__get_packed_size(message), PACKET_MAX);
        n_bytes = hotcell__runtime__v1__to_runtime__pack(message, bytes);
        ck_assert_int_eq(io_send_packet(peer->fd, bytes, n_bytes, fds, n_fds), 0);
        return message->request;
}

uint64_t peer_send(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message)
{
        return peer_send_with(peer, message, NULL, 0);
}

static struct answer receive(struct peer *peer)
{
        static uint8_t bytes[PACKET_MAX];
        struct pollfd readable = { .fd = peer->fd, .events = POLLIN };
        struct answer answer = { .n_fds = PEER_FDS_MAX };
        size_t n_bytes = sizeof(bytes);
        int r;

        ck_assert_msg(poll(&readable, 1, (int)WAIT_MSEC) == 1, "nothing came");
        r = io_receive_packet(peer->fd, bytes, &n_bytes, answer.fds, &answer.n_fds);
        ck_assert_int_eq(r, 0);
        answer.message = hotcell__runtime__v1__from_runtime__unpack(NULL, n_bytes, bytes);
        ck_assert_ptr_nonnull(answer.message);
        return answer;
}

static void keep_event(struct peer *peer, Hotcell__Runtime__V1__FromRuntime *event)
{
        ck_assert_uint_lt(peer->n_events, PEER_EVENTS_MAX);
        peer->events[peer->n_events++] = event;
}

struct answer peer_await(struct peer *peer, uint64_t request)
{
        for (size_t i = 0; i < peer->n_early; i++)
                if (peer->early[i].message->request == request) {
                        struct answer answer = peer->early[i];

                        peer->early[i] = peer->early[--peer->n_early];
                        return answer;
                }
        for (;;) {
                struct answer answer = receive(peer);

                if (answer.message->request == request)
                        return answer;
                if (answer.message->request == 0) {
                        keep_event(peer, answer.message);
                        continue;
                }
                ck_assert_uint_lt(peer->n_early, PEER_EARLY_MAX);
                peer->early[peer->n_early++] = answer;
        }
}

void peer_await_all(struct peer *peer, uint64_t *requests, size_t n_requests)
{
        size_t n_missing = n_requests;

        while (n_missing > 0) {
                struct answer answer = receive(peer);

                for (size_t i = 0; i < n_requests; i++) {
                        if (requests[i] == 0 || requests[i] != answer.message->request)
                                continue;
                        requests[i] = 0;
                        n_missing--;
                        ck_assert(i + 1 < n_requests ||
                                  answer.message->body_case ==
                                          HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_DONE);
                }
                answer_deinit(&answer);
        }
}

struct answer peer_ask(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message)
{
        return peer_await(peer, peer_send(peer, message));
}

void answer_deinit(struct answer *answer)
{
        for (size_t i = 0; i < answer->n_fds; i++)
                (void)close_fd(answer->fds[i]);
        answer->n_fds = 0;
        event_free(answer->message);
        answer->message = NULL;
}

void event_free(Hotcell__Runtime__V1__FromRuntime *event)
{
        if (event)
                hotcell__runtime__v1__from_runtime__free_unpacked(event, NULL);
}

Hotcell__Runtime__V1__FromRuntime *
peer_await_event(struct peer *peer, Hotcell__Runtime__V1__FromRuntime__BodyCase body)
{
        for (size_t i = 0; i < peer->n_events; i++) {
                Hotcell__Runtime__V1__FromRuntime *event = peer->events[i];

                if (event->body_case != body)
                        continue;
                memmove(&peer->events[i], &peer->events[i + 1],
                        (peer->n_events - i - 1) * sizeof(peer->events[0]));
                peer->n_events--;
                return event;
        }
        for (;;) {
                struct answer answer = receive(peer);

                ck_assert_uint_eq(answer.message->request, 0);
                if (answer.message->body_case == body)
                        return answer.message;
                keep_event(peer, answer.message);
        }
}

void peer_expect_failure(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message,
                         Hotcell__Runtime__V1__FailureReason reason)
{
        struct answer answer = peer_ask(peer, message);

        ck_assert_int_eq(answer.message->body_case,
                         HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE);
        ck_assert_msg(answer.message->failure->reason == reason, "reason %d, expected %d: %s",
                      (int)answer.message->failure->reason, (int)reason,
                      answer.message->failure->message);
        ck_assert_str_ne(answer.message->failure->message, "");
        answer_deinit(&answer);
}

/* --- the usual requests ----------------------------------------------------------------------- */

static void expect_body(struct answer *answer, Hotcell__Runtime__V1__FromRuntime__BodyCase body)
{
        ck_assert_msg(answer->message->body_case == body, "answer %d, expected %d: %s",
                      (int)answer->message->body_case, (int)body,
                      answer->message->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE
                              ? answer->message->failure->message
                              : "");
}

static void expect_done(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message)
{
        struct answer answer = peer_ask(peer, message);

        expect_body(&answer, HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_DONE);
        answer_deinit(&answer);
}

struct answer peer_say_hello(struct peer *peer)
{
        Hotcell__Runtime__V1__Hello hello;
        Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__hello__init(&hello);
        hotcell__runtime__v1__to_runtime__init(&message);
        hello.protocol_oldest = hello.protocol_newest = 1;
        hello.version = (char *)(uintptr_t) "test";
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_HELLO;
        message.hello = &hello;
        return peer_ask(peer, &message);
}

void peer_hello(struct peer *peer)
{
        struct answer answer = peer_say_hello(peer);

        expect_body(&answer, HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_WELCOME);
        ck_assert_uint_eq(answer.message->welcome->protocol, 1);
        ck_assert_uint_ge(answer.message->welcome->n_templates, 1);
        answer_deinit(&answer);
}

Hotcell__Runtime__V1__ToRuntime *create_request(const char *id)
{
        static Hotcell__Runtime__V1__ToRuntime message;
        static Hotcell__Runtime__V1__CreateSandbox create;
        static Hotcell__Runtime__V1__SandboxLimits limits;
        static char digest[80];

        hotcell__runtime__v1__to_runtime__init(&message);
        hotcell__runtime__v1__create_sandbox__init(&create);
        hotcell__runtime__v1__sandbox_limits__init(&limits);
        daemon_python_digest(digest);
        limits.memory_bytes = 256 << 20;
        limits.cpu_millis = 1000;
        limits.processes = 32;
        limits.disk_bytes = 64 << 20;
        limits.open_files = 256;
        create.sandbox_id = (char *)(uintptr_t)id;
        create.template_digest = digest;
        create.hostname = (char *)(uintptr_t) "box";
        create.limits = &limits;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_CREATE_SANDBOX;
        message.create_sandbox = &create;
        return &message;
}

void peer_create(struct peer *peer, const char *id)
{
        struct answer answer = peer_ask(peer, create_request(id));

        expect_body(&answer, HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_SANDBOX_CREATED);
        ck_assert_uint_gt(answer.message->sandbox_created->cgroup_id, 0);
        ck_assert_uint_gt(answer.message->sandbox_created->elapsed_ns, 0);
        answer_deinit(&answer);
}

void peer_destroy(struct peer *peer, const char *id)
{
        Hotcell__Runtime__V1__DestroySandbox destroy;
        Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__destroy_sandbox__init(&destroy);
        hotcell__runtime__v1__to_runtime__init(&message);
        destroy.sandbox_id = (char *)(uintptr_t)id;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_DESTROY_SANDBOX;
        message.destroy_sandbox = &destroy;
        expect_done(peer, &message);
}

void peer_acknowledge(struct peer *peer, const char *sandbox_id, const char *process_id)
{
        Hotcell__Runtime__V1__AcknowledgeEnd end;
        Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__acknowledge_end__init(&end);
        hotcell__runtime__v1__to_runtime__init(&message);
        end.sandbox_id = (char *)(uintptr_t)sandbox_id;
        end.process_id = (char *)(uintptr_t)process_id;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_ACKNOWLEDGE_END;
        message.acknowledge_end = &end;
        expect_done(peer, &message);
}

void peer_signal(struct peer *peer, const char *sandbox_id, const char *process_id, int signal)
{
        Hotcell__Runtime__V1__SignalProcess request;
        Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__signal_process__init(&request);
        hotcell__runtime__v1__to_runtime__init(&message);
        request.sandbox_id = (char *)(uintptr_t)sandbox_id;
        request.process_id = (char *)(uintptr_t)process_id;
        request.signal = (uint32_t)signal;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_SIGNAL_PROCESS;
        message.signal_process = &request;
        expect_done(peer, &message);
}

Hotcell__Runtime__V1__ToRuntime *shell_request(const char *sandbox_id, const char *process_id,
                                               const char *code)
{
        static Hotcell__Runtime__V1__ToRuntime message;
        static Hotcell__Runtime__V1__StartProcess start;
        static Hotcell__Runtime__V1__Variable path;
        static Hotcell__Runtime__V1__Variable *environment[] = { &path };
        static char *argv[3];

        hotcell__runtime__v1__to_runtime__init(&message);
        hotcell__runtime__v1__start_process__init(&start);
        hotcell__runtime__v1__variable__init(&path);
        argv[0] = (char *)(uintptr_t) "/bin/sh";
        argv[1] = (char *)(uintptr_t) "-c";
        argv[2] = (char *)(uintptr_t)code;
        path.name = (char *)(uintptr_t) "PATH";
        path.value = (char *)(uintptr_t) "/usr/bin:/bin";
        start.sandbox_id = (char *)(uintptr_t)sandbox_id;
        start.process_id = (char *)(uintptr_t)process_id;
        start.argv = argv;
        start.n_argv = 3;
        start.environment = environment;
        start.n_environment = 1;
        start.working_directory = (char *)(uintptr_t) "/tmp";
        start.uid = start.gid = 1000;
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_START_PROCESS;
        message.start_process = &start;
        return &message;
}

struct answer peer_shell(struct peer *peer, const char *sandbox_id, const char *process_id,
                         const char *code)
{
        struct answer answer = peer_ask(peer, shell_request(sandbox_id, process_id, code));

        expect_body(&answer, HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PROCESS_STARTED);
        ck_assert_uint_eq(answer.n_fds, 3);
        return answer;
}

static bool read_some(int fd, char output[static OUTPUT_MAX], size_t *n)
{
        struct pollfd readable = { .fd = fd, .events = POLLIN };
        ssize_t got;

        ck_assert_msg(poll(&readable, 1, (int)WAIT_MSEC) == 1, "no output came");
        got = read(fd, output + *n, OUTPUT_MAX - 1 - *n);
        if (got < 0 && errno == EAGAIN)
                return true;
        must(got >= 0);
        *n += (size_t)got;
        output[*n] = '\0';
        return got > 0;
}

void read_all(int fd, char output[static OUTPUT_MAX])
{
        size_t n = 0;

        output[0] = '\0';
        while (read_some(fd, output, &n))
                ck_assert_uint_lt(n, OUTPUT_MAX - 1);
}

void read_until(int fd, const char *text)
{
        static char output[OUTPUT_MAX];
        size_t n = 0;

        output[0] = '\0';
        while (!strstr(output, text))
                ck_assert_msg(read_some(fd, output, &n), "end of file before: %s", text);
}

Hotcell__Runtime__V1__FromRuntime *peer_run(struct peer *peer, const char *sandbox_id,
                                            const char *code, char output[static OUTPUT_MAX])
{
        static unsigned counter;
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;
        char process_id[32];

        (void)snprintf(process_id, sizeof(process_id), "run-%u", counter++);
        answer = peer_shell(peer, sandbox_id, process_id, code);
        read_all(answer.fds[1], output);
        answer_deinit(&answer);
        event = peer_await_event(peer, HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PROCESS_ENDED);
        ck_assert_str_eq(event->process_ended->process_id, process_id);
        peer_acknowledge(peer, sandbox_id, process_id);
        return event;
}
