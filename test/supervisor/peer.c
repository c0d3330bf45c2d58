#include "test/supervisor/peer.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/supervisor/run_dir.h"
#include "test/lib/patience.h"
#include "test/lib/scratch.h"

enum {
        PACKET_MAX = 128 << 10,
        ENDING_SECONDS = 60,
};

#define WAIT_MSEC (20000U * (unsigned)test_patience())

#define STORE_DEFAULT "/var/lib/hotcell/templates"

#define must(condition) ck_assert_msg((condition), "%s: %s", #condition, strerror(errno))

const char *daemon_store(void)
{
        const char *path = getenv("HOTCELL_STORE");

        return path ? path : STORE_DEFAULT;
}

static void python_digest(char digest[static 80])
{
        char link[128];
        char path[160];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "%s/by-name/python", daemon_store());
        n = readlink(path, link, sizeof(link) - 1);
        must(n > 0);
        link[n] = '\0';
        (void)snprintf(digest, 80, "%s", strrchr(link, '/') + 1);
}

const char *daemon_missing(void)
{
        char path[160];

        if (geteuid() != 0)
                return "needs root";
        (void)snprintf(path, sizeof(path), "%s/by-name/python", daemon_store());
        return access(path, F_OK) == 0 ? NULL : "needs the python template";
}

/* --- the daemon ------------------------------------------------------------------------------- */

/* Nothing is taken from a daemon that does not end: the alarm ends this process. */
static void await_unlocked(const char *run_dir)
{
        char path[160];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/private/lock", run_dir);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return;
        (void)alarm(ENDING_SECONDS * (unsigned)test_patience());
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
                ;
        (void)alarm(0);
        (void)close(fd);
}

/* After a test that failed; the daemon got SIGTERM with its end. One that was killed left groups.
 */
static void clean_after(const void *data)
{
        const char *path = data;
        struct run_dir run_dir;

        await_unlocked(path);
        if (run_dir_open(&run_dir, path) == 0) {
                run_dir_remove_leftovers(&run_dir);
                run_dir_close(&run_dir);
        }
        (void)scratch_remove_tree(path);
}

void daemon_prepare(struct daemon *daemon)
{
        (void)snprintf(daemon->run_dir, sizeof(daemon->run_dir), "/run/hotcell-test.XXXXXX");
        must(mkdtemp(daemon->run_dir));
        janitor_hire(&daemon->janitor, clean_after, daemon->run_dir);
        must(chmod(daemon->run_dir, 0755) == 0);
        (void)snprintf(daemon->log_path, sizeof(daemon->log_path), "%s/log", daemon->run_dir);
}

void daemon_launch(struct daemon *daemon, char *const arguments[])
{
        char *argv[48] = { (char *)(uintptr_t)HOTCELL_RUNTIME_PATH,
                           (char *)(uintptr_t) "--run-dir",
                           daemon->run_dir,
                           (char *)(uintptr_t) "--store",
                           (char *)(uintptr_t)(daemon->store ? daemon->store : daemon_store()),
                           (char *)(uintptr_t) "--init",
                           (char *)(uintptr_t)HOTCELL_INIT_PATH,
                           (char *)(uintptr_t) "--server-user",
                           (char *)(uintptr_t) "nobody",
                           (char *)(uintptr_t) "--log-level",
                           (char *)(uintptr_t) "debug" };
        size_t n = 11;
        pid_t test = getpid();
        int log;

        for (size_t i = 0; arguments && arguments[i]; i++)
                argv[n++] = arguments[i];
        daemon->pid = fork();
        must(daemon->pid >= 0);
        if (daemon->pid > 0)
                return;
        /* A test that fails ends without ending it. */
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != test)
                _exit(EXIT_FAILURE);
        if (daemon->without_capability)
                (void)prctl(PR_CAPBSET_DROP, daemon->without_capability);
        log = open(daemon->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        (void)dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
        (void)dup2(log, STDOUT_FILENO);
        (void)dup2(log, STDERR_FILENO);
        (void)execv(argv[0], argv);
        _exit(127);
}

static void pause_msec(long msec)
{
        (void)nanosleep(&(struct timespec){ .tv_nsec = msec * 1000000 }, NULL);
}

static void read_groups(struct daemon *daemon)
{
        char path[160];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/private/groups", daemon->run_dir);
        file = fopen(path, "re");
        must(file);
        daemon->n_groups = 0;
        while (daemon->n_groups < ARRAY_SIZE(daemon->groups) &&
               fgets(daemon->groups[daemon->n_groups], sizeof(daemon->groups[0]), file)) {
                char *line = daemon->groups[daemon->n_groups++];

                line[strcspn(line, "\n")] = '\0';
        }
        (void)fclose(file);
        ck_assert_uint_gt(daemon->n_groups, 0);
}

void daemon_await_log(const struct daemon *daemon, const char *text)
{
        for (unsigned waited = 0; !daemon_log_has(daemon, text); waited += 5) {
                ck_assert_msg(waitpid(daemon->pid, NULL, WNOHANG) == 0, "the daemon ended: %s",
                              daemon->log_path);
                ck_assert_uint_lt(waited, WAIT_MSEC);
                pause_msec(5);
        }
}

void daemon_await(struct daemon *daemon)
{
        daemon_await_log(daemon, "ready: socket=");
        read_groups(daemon);
}

void daemon_start(struct daemon *daemon, char *const arguments[])
{
        daemon_prepare(daemon);
        daemon_launch(daemon, arguments);
        daemon_await(daemon);
}

int daemon_wait(struct daemon *daemon)
{
        int status = 0;

        for (unsigned waited = 0; waited < WAIT_MSEC; waited += 5) {
                if (waitpid(daemon->pid, &status, WNOHANG) == daemon->pid) {
                        daemon->pid = 0;
                        return status;
                }
                pause_msec(5);
        }
        (void)kill(daemon->pid, SIGKILL);
        ck_abort_msg("the daemon did not end");
}

void daemon_remove(struct daemon *daemon)
{
        static const char *const names[] = { "log", "runtime.sock", "private/groups",
                                             "private/lock" };
        char path[160];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", daemon->run_dir, names[i]);
                (void)unlink(path);
        }
        (void)snprintf(path, sizeof(path), "%s/private", daemon->run_dir);
        (void)rmdir(path);
        (void)rmdir(daemon->run_dir);
        janitor_dismiss(&daemon->janitor);
}

int daemon_stop(struct daemon *daemon)
{
        int status;

        must(kill(daemon->pid, SIGTERM) == 0);
        status = daemon_wait(daemon);
        daemon_remove(daemon);
        return status;
}

bool daemon_log_has(const struct daemon *daemon, const char *text)
{
        static char log[4 << 20];

        if (io_read_file(AT_FDCWD, daemon->log_path, log, sizeof(log), NULL))
                return false;
        return strstr(log, text);
}

/* --- the connection --------------------------------------------------------------------------- */

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
        for (;;) {
                struct answer answer = receive(peer);

                if (answer.message->request == request)
                        return answer;
                ck_assert_uint_eq(answer.message->request, 0);
                keep_event(peer, answer.message);
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
        python_digest(digest);
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

/* --- traces ----------------------------------------------------------------------------------- */

static size_t count_entries(const char *path)
{
        DIR *dir = opendir(path);
        size_t n = 0;

        if (!dir)
                return 0;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
                n += entry->d_name[0] != '.';
        (void)closedir(dir);
        return n;
}

static size_t count_directories(const char *path)
{
        DIR *dir = opendir(path);
        size_t n = 0;

        if (!dir)
                return 0;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
                char below[1024];

                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                (void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
                n += 1 + count_directories(below);
        }
        (void)closedir(dir);
        return n;
}

static size_t count_groups(const struct daemon *daemon)
{
        size_t n = 0;

        for (size_t i = 0; i < daemon->n_groups; i++)
                n += count_directories(daemon->groups[i]);
        return n;
}

static size_t count_lines(const char *path)
{
        FILE *file = fopen(path, "re");
        size_t n = 0;
        int c;

        if (!file)
                return 0;
        while ((c = fgetc(file)) != EOF)
                n += c == '\n';
        (void)fclose(file);
        return n;
}

static size_t count_netns_fds(pid_t pid)
{
        char path[64];
        size_t n = 0;
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        dir = opendir(path);
        must(dir);
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
                char target[64];
                ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

                n += length > 4 && strncmp(target, "net:", 4) == 0;
        }
        (void)closedir(dir);
        return n;
}

struct traces daemon_traces(const struct daemon *daemon)
{
        struct traces traces = { 0 };
        char path[96];
        FILE *file;
        int child;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", daemon->pid);
        traces.n_fds = count_entries(path);
        traces.n_groups = count_groups(daemon);
        traces.n_netns = count_netns_fds(daemon->pid);
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", daemon->pid, daemon->pid);
        file = fopen(path, "re");
        must(file);
        while (fscanf(file, "%d", &child) == 1) {
                traces.n_children++;
                (void)snprintf(path, sizeof(path), "/proc/%d/mounts", child);
                traces.n_mounts += count_lines(path);
        }
        (void)fclose(file);
        return traces;
}

size_t daemon_groups_left(const struct daemon *daemon)
{
        size_t n = 0;

        for (size_t i = 0; i < daemon->n_groups; i++)
                n += access(daemon->groups[i], F_OK) == 0;
        return n;
}
