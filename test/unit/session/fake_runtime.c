#include "test/unit/session/fake_runtime.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "test/unit/session/fake_runtime_parts.h"

void fake_send_message(struct fake_runtime *runtime, uint64_t request,
                       Hotcell__Runtime__V1__FromRuntime *message, const int *fds, size_t n_fds)
{
        uint8_t bytes[16384];
        size_t n;

        if (runtime->fd < 0)
                return;
        message->request = request;
        n = hotcell__runtime__v1__from_runtime__get_packed_size(message);
        assert(n <= sizeof(bytes));
        hotcell__runtime__v1__from_runtime__pack(message, bytes);
        (void)io_send_packet(runtime->fd, bytes, n, fds, n_fds);
}

void fake_send_failure(struct fake_runtime *runtime, uint64_t request, int reason)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Failure failure;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__failure__init(&failure);
        failure.reason = (Hotcell__Runtime__V1__FailureReason)reason;
        failure.message =
                (char *)(uintptr_t)(runtime->script.fail_message ? runtime->script.fail_message
                                                                 : "refused");
        message.body_case = FROM(FAILURE);
        message.failure = &failure;
        fake_send_message(runtime, request, &message, NULL, 0);
}

void fake_send_done(struct fake_runtime *runtime, uint64_t request)
{
        fake_send_destroyed(runtime, request, NULL);
}

void fake_send_destroyed(struct fake_runtime *runtime, uint64_t request,
                         Hotcell__Runtime__V1__Usage *usage)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Done done;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__done__init(&done);
        done.usage = usage;
        message.body_case = FROM(DONE);
        message.done = &done;
        fake_send_message(runtime, request, &message, NULL, 0);
}

struct sandbox *fake_find_sandbox(struct fake_runtime *runtime, const char *id)
{
        struct sandbox *sandbox;

        LIST_FOREACH(sandbox, &runtime->sandboxes, link)
        if (!strcmp(sandbox->sandbox_id, id))
                return sandbox;
        return NULL;
}

struct process *fake_find_process(struct fake_runtime *runtime, const char *sandbox_id,
                                  const char *process_id)
{
        struct process *process;

        LIST_FOREACH(process, &runtime->processes, link)
        if (!strcmp(process->sandbox_id, sandbox_id) && !strcmp(process->process_id, process_id))
                return process;
        return NULL;
}

/* Whatever is read has done something since the last time, also when no code ran. */
void fake_fill_usage(struct fake_runtime *runtime, struct sandbox *sandbox, struct process *process,
                     Hotcell__Runtime__V1__Usage *usage)
{
        if (sandbox)
                sandbox->cpu_usec += 1000;
        if (process)
                process->cpu_usec += 1000;
        usage->cpu_usec = process ? process->cpu_usec : sandbox ? sandbox->cpu_usec : 0;
        /* Whoever is asked about: it is the sandbox's. */
        usage->throttled_usec = sandbox ? sandbox->cpu_usec / 2 : 0;
        usage->memory_bytes = 1 << 20;
        usage->memory_peak_bytes = 2 << 20;
        usage->processes = 2;
        usage->n_asked = runtime->script.n_asked;
        usage->wall_usec = process ? 0 : runtime->script.wall_usec;
}

void fake_send_process_ended(struct process *process)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__ProcessEnded ended;
        Hotcell__Runtime__V1__Usage usage;
        Hotcell__Runtime__V1__Victim victim;
        static uint8_t command[] = "python3";

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__process_ended__init(&ended);
        hotcell__runtime__v1__victim__init(&victim);
        victim.pid = 4711;
        victim.command = (ProtobufCBinaryData){ sizeof(command) - 1, command };
        victim.rss_bytes = 480 << 20;
        hotcell__runtime__v1__usage__init(&usage);
        fake_fill_usage(process->runtime, fake_find_sandbox(process->runtime, process->sandbox_id),
                        process, &usage);
        ended.sandbox_id = process->sandbox_id;
        ended.process_id = process->process_id;
        ended.exit_code = WIFEXITED(process->status) ? (uint32_t)WEXITSTATUS(process->status) : 0;
        ended.signal = WIFSIGNALED(process->status) ? (uint32_t)WTERMSIG(process->status) : 0;
        ended.oom = process->oom;
        ended.victim = process->oom && process->runtime->script.has_victim ? &victim : NULL;
        ended.usage = &usage;
        ended.with_sandbox = process->with_sandbox;
        message.body_case = FROM(PROCESS_ENDED);
        message.process_ended = &ended;
        fake_send_message(process->runtime, 0, &message, NULL, 0);
}

int fake_on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
        struct process *process = userdata;

        (void)source;
        process->status = info->si_code == CLD_EXITED ? info->si_status << 8 : info->si_status;
        process->pid = 0;
        process->oom = process->runtime->script.oom && info->si_status == SIGKILL;
        fake_send_process_ended(process);
        return 0;
}

void fake_drop_kept(struct process *process)
{
        while (process->n_kept > 0)
                (void)close(process->kept[--process->n_kept]);
}

void fake_remove_process(struct process *process)
{
        LIST_REMOVE(process, link);
        fake_drop_kept(process);
        for (size_t i = 0; i < ARRAY_SIZE(process->pipes); i++)
                (void)close_fd(process->pipes[i]);
        (void)sd_event_source_disable_unref(process->source);
        if (process->pid > 0) {
                (void)kill(process->pid, SIGKILL);
                (void)waitpid(process->pid, NULL, 0);
        }
        free(process);
}

void fake_remove_sandbox(struct fake_runtime *runtime, struct sandbox *sandbox)
{
        struct process *process, *next;

        for (process = LIST_FIRST(&runtime->processes); process; process = next) {
                next = LIST_NEXT(process, link);
                if (!strcmp(process->sandbox_id, sandbox->sandbox_id))
                        fake_remove_process(process);
        }
        LIST_REMOVE(sandbox, link);
        free(sandbox);
}

struct process *fake_add_process(struct fake_runtime *runtime, const char *sandbox_id,
                                 const char *process_id)
{
        struct process *process = calloc(1, sizeof(*process));

        process->runtime = runtime;
        for (size_t i = 0; i < ARRAY_SIZE(process->pipes); i++)
                process->pipes[i] = -1;
        (void)snprintf(process->sandbox_id, sizeof(process->sandbox_id), "%s", sandbox_id);
        (void)snprintf(process->process_id, sizeof(process->process_id), "%s", process_id);
        LIST_INSERT_HEAD(&runtime->processes, process, link);
        return process;
}

void fake_runtime_add_sandbox(struct fake_runtime *runtime, const char *sandbox_id,
                              const char *process_id)
{
        struct sandbox *sandbox = calloc(1, sizeof(*sandbox));

        (void)snprintf(sandbox->sandbox_id, sizeof(sandbox->sandbox_id), "%s", sandbox_id);
        LIST_INSERT_HEAD(&runtime->sandboxes, sandbox, link);
        if (process_id)
                (void)fake_add_process(runtime, sandbox_id, process_id);
}

void fake_runtime_disconnect(struct fake_runtime *runtime)
{
        runtime->socket = sd_event_source_disable_unref(runtime->socket);
        runtime->fd = close_fd(runtime->fd);
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        static uint8_t bytes[128 << 10];
        struct fake_runtime *runtime = userdata;
        Hotcell__Runtime__V1__ToRuntime *message;
        size_t n = sizeof(bytes);
        int fds[8];
        size_t n_fds = ARRAY_SIZE(fds);
        int r;

        (void)source;
        (void)events;
        r = io_receive_packet(fd, bytes, &n, fds, &n_fds);
        if (r == -EAGAIN)
                return 0;
        if (r) {
                fake_runtime_disconnect(runtime);
                return 0;
        }
        message = hotcell__runtime__v1__to_runtime__unpack(NULL, n, bytes);
        fake_runtime_answer(runtime, message, fds, n_fds);
        for (size_t i = 0; i < n_fds; i++)
                (void)close(fds[i]);
        hotcell__runtime__v1__to_runtime__free_unpacked(message, NULL);
        return 0;
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct fake_runtime *runtime = userdata;

        (void)source;
        (void)events;
        fake_runtime_disconnect(runtime);
        runtime->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        (void)sd_event_add_io(runtime->loop, &runtime->socket, runtime->fd, EPOLLIN, on_socket,
                              runtime);
        return 0;
}

static void listen_on(struct fake_runtime *runtime, sd_event *loop)
{
        runtime->loop = loop;
        (void)sd_event_source_disable_unref(runtime->accept);
        (void)sd_event_add_io(loop, &runtime->accept, runtime->listen_fd, EPOLLIN, on_accept,
                              runtime);
}

int fake_runtime_new(sd_event *loop, const char *path, struct fake_runtime **ret_runtime)
{
        struct fake_runtime *runtime = calloc(1, sizeof(*runtime));
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        sigset_t child;

        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        (void)sigprocmask(SIG_BLOCK, &child, NULL);
        runtime->path = strdup(path);
        runtime->fd = -1;
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        (void)unlink(path);
        runtime->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (bind(runtime->listen_fd, (struct sockaddr *)&address, sizeof(address)) ||
            listen(runtime->listen_fd, 4))
                return -errno;
        listen_on(runtime, loop);
        *ret_runtime = runtime;
        return 0;
}

void fake_runtime_move(struct fake_runtime *runtime, sd_event *loop)
{
        struct process *process;

        fake_runtime_disconnect(runtime);
        listen_on(runtime, loop);
        LIST_FOREACH(process, &runtime->processes, link)
        {
                process->source = sd_event_source_disable_unref(process->source);
                if (process->pid > 0)
                        (void)sd_event_add_child(loop, &process->source, process->pid, WEXITED,
                                                 fake_on_child, process);
        }
}

void fake_runtime_break(struct fake_runtime *runtime)
{
        while (!LIST_EMPTY(&runtime->sandboxes))
                fake_remove_sandbox(runtime, LIST_FIRST(&runtime->sandboxes));
        while (!LIST_EMPTY(&runtime->processes))
                fake_remove_process(LIST_FIRST(&runtime->processes));
        fake_runtime_disconnect(runtime);
}

void fake_runtime_end_sandbox(struct fake_runtime *runtime, const char *sandbox_id, bool oom)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__SandboxEnded ended;
        struct process *process;
        Hotcell__Runtime__V1__Usage usage;

        LIST_FOREACH(process, &runtime->processes, link)
        {
                if (strcmp(process->sandbox_id, sandbox_id) != 0 || process->pid == 0)
                        continue;
                process->with_sandbox = true;
                process->status = SIGKILL;
                fake_send_process_ended(process);
        }
        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__usage__init(&usage);
        hotcell__runtime__v1__sandbox_ended__init(&ended);
        ended.sandbox_id = (char *)(uintptr_t)sandbox_id;
        ended.oom = oom;
        ended.detail = (char *)"its init ended";
        if (runtime->script.tells_last) {
                fake_fill_usage(runtime, fake_find_sandbox(runtime, sandbox_id), NULL, &usage);
                ended.usage = &usage;
        }
        message.body_case = FROM(SANDBOX_ENDED);
        message.sandbox_ended = &ended;
        fake_send_message(runtime, 0, &message, NULL, 0);
}

void fake_runtime_press(struct fake_runtime *runtime, const char *sandbox_id, int kind,
                        uint64_t used, uint64_t limit)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Pressure pressure;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__pressure__init(&pressure);
        pressure.sandbox_id = (char *)(uintptr_t)sandbox_id;
        pressure.kind = (Hotcell__Runtime__V1__PressureKind)kind;
        pressure.used = used;
        pressure.limit = limit;
        message.body_case = FROM(PRESSURE);
        message.pressure = &pressure;
        fake_send_message(runtime, 0, &message, NULL, 0);
}

struct fake_runtime *fake_runtime_free(struct fake_runtime *runtime)
{
        if (!runtime)
                return NULL;
        fake_runtime_release(runtime);
        fake_runtime_break(runtime);
        (void)sd_event_source_disable_unref(runtime->accept);
        (void)close_fd(runtime->listen_fd);
        (void)unlink(runtime->path);
        free(runtime->path);
        free(runtime);
        return NULL;
}

struct fake_runtime_script *fake_runtime_script(struct fake_runtime *runtime)
{
        return &runtime->script;
}

uint64_t fake_runtime_last_cpu_usec(const struct fake_runtime *runtime)
{
        return runtime->last_cpu_usec;
}

size_t fake_runtime_n_sandboxes(const struct fake_runtime *runtime)
{
        const struct sandbox *sandbox;
        size_t n = 0;

        LIST_FOREACH(sandbox, &runtime->sandboxes, link)
        n++;
        return n;
}

size_t fake_runtime_n_processes(const struct fake_runtime *runtime)
{
        const struct process *process;
        size_t n = 0;

        LIST_FOREACH(process, &runtime->processes, link)
        n++;
        return n;
}

size_t fake_runtime_n_living(const struct fake_runtime *runtime)
{
        const struct process *process;
        size_t n = 0;

        LIST_FOREACH(process, &runtime->processes, link)
        n += process->pid > 0;
        return n;
}

void fake_runtime_signal(struct fake_runtime *runtime, int signal)
{
        const struct process *process;

        LIST_FOREACH(process, &runtime->processes, link)
        if (process->pid > 0)
                (void)kill(process->pid, signal);
}

void fake_runtime_spoil(struct fake_runtime *runtime, size_t kept)
{
        const struct process *process;

        LIST_FOREACH(process, &runtime->processes, link)
        if (kept >= process->n_kept || ftruncate(process->kept[kept], 4096))
                abort();
}

size_t fake_runtime_n_metered(const struct fake_runtime *runtime)
{
        return runtime->n_metered;
}

size_t fake_runtime_n_read_meters(const struct fake_runtime *runtime)
{
        return runtime->n_read_meters;
}

uint64_t fake_runtime_memory_bytes(const struct fake_runtime *runtime)
{
        return runtime->memory_bytes;
}

size_t fake_runtime_n_limits(const struct fake_runtime *runtime)
{
        return runtime->n_limits;
}

size_t fake_runtime_n_started(const struct fake_runtime *runtime)
{
        return runtime->n_started;
}
