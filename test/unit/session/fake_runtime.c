#include "test/unit/session/fake_runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "test/unit/session/fake_kernel.h"

#define TO(name)     HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name
#define FROM(name)   HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name
#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name

struct sandbox;

struct process {
        LIST_ENTRY(process) link;
        struct fake_runtime *runtime;
        char sandbox_id[64];
        char process_id[64];
        pid_t pid; /* 0: it is over */
        sd_event_source *source;
        int status;
        bool oom;
        int pipes[5]; /* a stand-in for a pidfd, output, error, commands, events; -1: none */
        int kept[8];
        size_t n_kept;
};

struct sandbox {
        LIST_ENTRY(sandbox) link;
        char sandbox_id[64];
};

struct held {
        LIST_ENTRY(held) link;
        uint64_t request;
        char sandbox_id[64];
};

struct fake_runtime {
        sd_event *loop;
        char *path;
        int listen_fd;
        int fd;
        sd_event_source *accept;
        sd_event_source *socket;
        struct fake_runtime_script script;
        LIST_HEAD(, sandbox) sandboxes;
        LIST_HEAD(, process) processes;
        LIST_HEAD(, held) held;
        size_t n_started;
        size_t n_created;
        uint64_t cpu_usec;
};

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata);

static void send_message(struct fake_runtime *runtime, uint64_t request,
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

static void send_failure(struct fake_runtime *runtime, uint64_t request, int reason)
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
        send_message(runtime, request, &message, NULL, 0);
}

static void send_done(struct fake_runtime *runtime, uint64_t request)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Done done;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__done__init(&done);
        message.body_case = FROM(DONE);
        message.done = &done;
        send_message(runtime, request, &message, NULL, 0);
}

static struct sandbox *find_sandbox(struct fake_runtime *runtime, const char *id)
{
        struct sandbox *sandbox;

        LIST_FOREACH(sandbox, &runtime->sandboxes, link)
        if (!strcmp(sandbox->sandbox_id, id))
                return sandbox;
        return NULL;
}

static struct process *find_process(struct fake_runtime *runtime, const char *sandbox_id,
                                    const char *process_id)
{
        struct process *process;

        LIST_FOREACH(process, &runtime->processes, link)
        if (!strcmp(process->sandbox_id, sandbox_id) && !strcmp(process->process_id, process_id))
                return process;
        return NULL;
}

static void fill_usage(struct fake_runtime *runtime, Hotcell__Runtime__V1__Usage *usage)
{
        runtime->cpu_usec += 1000;
        usage->cpu_usec = runtime->cpu_usec;
        usage->memory_bytes = 1 << 20;
        usage->memory_peak_bytes = 2 << 20;
        usage->processes = 2;
        usage->n_asked = runtime->script.n_asked;
}

static void send_process_ended(struct process *process)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__ProcessEnded ended;
        Hotcell__Runtime__V1__Usage usage;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__process_ended__init(&ended);
        hotcell__runtime__v1__usage__init(&usage);
        fill_usage(process->runtime, &usage);
        ended.sandbox_id = process->sandbox_id;
        ended.process_id = process->process_id;
        ended.exit_code = WIFEXITED(process->status) ? (uint32_t)WEXITSTATUS(process->status) : 0;
        ended.signal = WIFSIGNALED(process->status) ? (uint32_t)WTERMSIG(process->status) : 0;
        ended.oom = process->oom;
        ended.usage = &usage;
        message.body_case = FROM(PROCESS_ENDED);
        message.process_ended = &ended;
        send_message(process->runtime, 0, &message, NULL, 0);
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
        struct process *process = userdata;

        (void)source;
        process->status = info->si_code == CLD_EXITED ? info->si_status << 8 : info->si_status;
        process->pid = 0;
        process->oom = process->runtime->script.oom && info->si_status == SIGKILL;
        send_process_ended(process);
        return 0;
}

static void drop_kept(struct process *process)
{
        while (process->n_kept > 0)
                (void)close(process->kept[--process->n_kept]);
}

static void remove_process(struct process *process)
{
        LIST_REMOVE(process, link);
        drop_kept(process);
        for (size_t i = 0; i < ARRAY_SIZE(process->pipes); i++)
                (void)close_fd(process->pipes[i]);
        (void)sd_event_source_disable_unref(process->source);
        if (process->pid > 0) {
                (void)kill(process->pid, SIGKILL);
                (void)waitpid(process->pid, NULL, 0);
        }
        free(process);
}

static void remove_sandbox(struct fake_runtime *runtime, struct sandbox *sandbox)
{
        struct process *process, *next;

        for (process = LIST_FIRST(&runtime->processes); process; process = next) {
                next = LIST_NEXT(process, link);
                if (!strcmp(process->sandbox_id, sandbox->sandbox_id))
                        remove_process(process);
        }
        LIST_REMOVE(sandbox, link);
        free(sandbox);
}

static struct process *add_process(struct fake_runtime *runtime, const char *sandbox_id,
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
                (void)add_process(runtime, sandbox_id, process_id);
}

static void send_created(struct fake_runtime *runtime, uint64_t request, const char *sandbox_id)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__SandboxCreated created;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__sandbox_created__init(&created);
        fake_runtime_add_sandbox(runtime, sandbox_id, NULL);
        created.cgroup_id = FAKE_CGROUP_FIRST + runtime->n_created++;
        message.body_case = FROM(SANDBOX_CREATED);
        message.sandbox_created = &created;
        send_message(runtime, request, &message, NULL, 0);
}

static void on_create(struct fake_runtime *runtime, uint64_t request, const char *sandbox_id)
{
        if (runtime->script.hold_create) {
                struct held *held = calloc(1, sizeof(*held));

                held->request = request;
                (void)snprintf(held->sandbox_id, sizeof(held->sandbox_id), "%s", sandbox_id);
                LIST_INSERT_HEAD(&runtime->held, held, link);
        } else if (runtime->script.fail_create)
                send_failure(runtime, request, runtime->script.fail_create);
        else
                send_created(runtime, request, sandbox_id);
}

void fake_runtime_release(struct fake_runtime *runtime)
{
        struct held *held;

        runtime->script.hold_create = false;
        while ((held = LIST_FIRST(&runtime->held))) {
                LIST_REMOVE(held, link);
                send_created(runtime, held->request, held->sandbox_id);
                free(held);
        }
}

/* Standard ones, and those of the kernel as 3 to 6. */
static void keep_only(struct fake_kernel_fds *fds)
{
        enum { FIRST = 3, N = 4 };
        int *all[N] = { &fds->commands, &fds->events, &fds->out, &fds->err };

        for (int i = 0; i < N; i++)
                *all[i] = fcntl(*all[i], F_DUPFD, FIRST + N);
        for (int i = 0; i < N; i++)
                *all[i] = dup2(*all[i], FIRST + i);
        (void)close_range(FIRST + N, ~0U, 0);
}

static _Noreturn void run_child(struct fake_runtime *runtime, int pipes[4][2])
{
        struct fake_kernel_fds fds = {
                .commands = pipes[2][0],
                .events = pipes[3][1],
                .out = pipes[0][1],
                .err = pipes[1][1],
        };
        sigset_t none;

        sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        keep_only(&fds);
        fake_kernel_run(&fds, runtime->script.kernel_mode ? runtime->script.kernel_mode : "");
}

/* Pipes: standard output, standard error, commands, events. */
static void on_start(struct fake_runtime *runtime, uint64_t request,
                     const Hotcell__Runtime__V1__StartProcess *start)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__ProcessStarted started;
        struct process *process;
        int pipes[4][2];
        int *fds;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__process_started__init(&started);
        if (runtime->script.fail_start || !find_sandbox(runtime, start->sandbox_id) ||
            find_process(runtime, start->sandbox_id, start->process_id)) {
                send_failure(runtime, request,
                             runtime->script.fail_start ? runtime->script.fail_start
                                                        : (int)REASON(EXISTS));
                return;
        }
        for (size_t i = 0; i < 4; i++)
                if (pipe2(pipes[i], O_CLOEXEC))
                        abort();
        process = add_process(runtime, start->sandbox_id, start->process_id);
        process->pid = fork();
        if (process->pid == 0)
                run_child(runtime, pipes);
        (void)sd_event_add_child(runtime->loop, &process->source, process->pid, WEXITED, on_child,
                                 process);
        runtime->n_started++;

        fds = process->pipes;
        fds[0] = dup(pipes[0][0]); /* stands for a pidfd: nobody looks at it */
        fds[1] = pipes[0][0];
        fds[2] = pipes[1][0];
        fds[3] = pipes[2][1];
        fds[4] = pipes[3][0];
        for (size_t i = 1; i < 5; i++)
                (void)fcntl(fds[i], F_SETFL, O_NONBLOCK);
        (void)close(pipes[0][1]);
        (void)close(pipes[1][1]);
        (void)close(pipes[2][0]);
        (void)close(pipes[3][1]);
        started.pid = (uint32_t)process->pid;
        started.cgroup_id = FAKE_LEAF_FIRST + runtime->n_started - 1;
        message.body_case = FROM(PROCESS_STARTED);
        message.process_started = &started;
        send_message(runtime, request, &message, fds, 5);
}

static void on_keep(struct fake_runtime *runtime, uint64_t request,
                    const Hotcell__Runtime__V1__KeepDescriptors *keep, const int *fds, size_t n_fds)
{
        struct process *process = find_process(runtime, keep->sandbox_id, keep->process_id);

        if (!process || n_fds > ARRAY_SIZE(process->kept) || runtime->script.fail_keep) {
                send_failure(runtime, request,
                             process ? (int)REASON(EXHAUSTED) : (int)REASON(NOT_FOUND));
                return;
        }
        drop_kept(process);
        for (size_t i = 0; i < n_fds; i++)
                process->kept[process->n_kept++] = dup(fds[i]);
        send_done(runtime, request);
}

static void on_take(struct fake_runtime *runtime, uint64_t request,
                    const Hotcell__Runtime__V1__TakeProcess *take_process)
{
        struct process *process =
                find_process(runtime, take_process->sandbox_id, take_process->process_id);
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__ProcessTaken taken;
        int fds[16];
        size_t n = 0;

        if (!process || process->pipes[0] < 0) {
                send_failure(runtime, request, REASON(NOT_FOUND));
                return;
        }
        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__process_taken__init(&taken);
        for (size_t i = 0; i < ARRAY_SIZE(process->pipes); i++)
                fds[n++] = process->pipes[i];
        for (size_t i = 0; i < process->n_kept; i++)
                fds[n++] = process->kept[i];
        taken.pid = (uint32_t)process->pid;
        taken.n_pipes = ARRAY_SIZE(process->pipes);
        message.body_case = FROM(PROCESS_TAKEN);
        message.process_taken = &taken;
        send_message(runtime, request, &message, fds, n);
}

static void on_signal(struct fake_runtime *runtime, uint64_t request,
                      const Hotcell__Runtime__V1__SignalProcess *signal_process)
{
        struct process *process =
                find_process(runtime, signal_process->sandbox_id, signal_process->process_id);

        if (!process) {
                send_failure(runtime, request, REASON(NOT_FOUND));
                return;
        }
        if (process->pid > 0)
                (void)kill(process->pid, (int)signal_process->signal);
        send_done(runtime, request);
        if (process->pid == 0 && signal_process->signal == SIGKILL)
                send_process_ended(process);
}

static void on_list(struct fake_runtime *runtime, uint64_t request)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__SandboxList list;
        Hotcell__Runtime__V1__SandboxState states[64];
        Hotcell__Runtime__V1__SandboxState *pointers[64];
        char *process_ids[64];
        struct sandbox *sandbox;
        struct process *process;
        size_t n = 0;
        size_t n_ids = 0;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__sandbox_list__init(&list);
        LIST_FOREACH(sandbox, &runtime->sandboxes, link)
        {
                hotcell__runtime__v1__sandbox_state__init(&states[n]);
                states[n].sandbox_id = sandbox->sandbox_id;
                states[n].running = true;
                states[n].process_ids = &process_ids[n_ids];
                LIST_FOREACH(process, &runtime->processes, link)
                {
                        if (strcmp(process->sandbox_id, sandbox->sandbox_id) != 0)
                                continue;
                        process_ids[n_ids++] = process->process_id;
                        states[n].n_process_ids++;
                }
                pointers[n] = &states[n];
                n++;
        }
        list.sandboxes = pointers;
        list.n_sandboxes = n;
        message.body_case = FROM(SANDBOX_LIST);
        message.sandbox_list = &list;
        if (runtime->script.n_fail_list > 0) {
                runtime->script.n_fail_list--;
                send_failure(runtime, request, REASON(EXHAUSTED));
                return;
        }
        send_message(runtime, request, &message, NULL, 0);
        if (runtime->script.end_on_list)
                fake_runtime_end_sandbox(runtime, runtime->script.end_on_list, true);
}

static void fill_wall(struct fake_runtime *runtime, Hotcell__Runtime__V1__Wall *wall)
{
        hotcell__runtime__v1__wall__init(wall);
        wall->name = (char *)"seccomp";
        wall->required = true;
        wall->holds = !runtime->script.wall_missing;
        wall->detail = (char *)"as scripted";
}

static void on_probe(struct fake_runtime *runtime, uint64_t request)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__WallList list;
        Hotcell__Runtime__V1__Wall wall;
        Hotcell__Runtime__V1__Wall *walls[] = { &wall };

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__wall_list__init(&list);
        fill_wall(runtime, &wall);
        list.walls = walls;
        list.n_walls = 1;
        message.body_case = FROM(WALL_LIST);
        message.wall_list = &list;
        send_message(runtime, request, &message, NULL, 0);
}

void fake_runtime_send_egress_ready(struct fake_runtime *runtime, const int *fds, size_t n_fds)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__EgressReady ready;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__egress_ready__init(&ready);
        message.body_case = FROM(EGRESS_READY);
        message.egress_ready = &ready;
        send_message(runtime, 0, &message, fds, n_fds);
}

void fake_runtime_egress_ready(struct fake_runtime *runtime)
{
        int fd = fake_egress_connect(runtime->script.egress, runtime->loop);

        fake_runtime_send_egress_ready(runtime, &fd, 1);
        (void)close(fd);
}

static void on_hello(struct fake_runtime *runtime, uint64_t request)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Welcome welcome;
        Hotcell__Runtime__V1__Template template;
        Hotcell__Runtime__V1__Kernel kernel;
        Hotcell__Runtime__V1__Wall wall;
        Hotcell__Runtime__V1__Template *templates[] = { &template };
        Hotcell__Runtime__V1__Kernel *kernels[] = { &kernel };
        Hotcell__Runtime__V1__Wall *walls[] = { &wall };
        char *argv[] = { (char *)"/bin/fake" };
        struct process *process;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__welcome__init(&welcome);
        hotcell__runtime__v1__template__init(&template);
        hotcell__runtime__v1__kernel__init(&kernel);
        kernel.language = (char *)"fake";
        kernel.language_version = (char *)"1.0";
        kernel.argv = argv;
        kernel.n_argv = 1;
        template.name = (char *)"python";
        template.digest = (char *)"sha256-0";
        template.home = (char *)"/home/user";
        template.kernels = kernels;
        template.n_kernels = 1;
        fill_wall(runtime, &wall);
        welcome.protocol = runtime->script.protocol ? runtime->script.protocol
                           : runtime->script.egress ? 3
                                                    : 2;
        welcome.version = (char *)"fake";
        welcome.boot_id =
                (char *)(uintptr_t)(runtime->script.boot_id ? runtime->script.boot_id : "boot-1");
        welcome.instance_id = (char *)"instance-1";
        welcome.templates = templates;
        welcome.n_templates = 1;
        welcome.walls = walls;
        welcome.n_walls = 1;
        welcome.sandboxes_max = 1000;
        message.body_case = FROM(WELCOME);
        message.welcome = &welcome;
        send_message(runtime, request, &message, NULL, 0);
        if (runtime->script.egress)
                fake_runtime_egress_ready(runtime);
        LIST_FOREACH(process, &runtime->processes, link)
        if (process->pid == 0 && process->status)
                send_process_ended(process);
}

static void on_usage(struct fake_runtime *runtime, uint64_t request)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Usage usage;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__usage__init(&usage);
        fill_usage(runtime, &usage);
        message.body_case = FROM(USAGE);
        message.usage = &usage;
        send_message(runtime, request, &message, NULL, 0);
}

static void on_destroy(struct fake_runtime *runtime, uint64_t request, const char *sandbox_id)
{
        struct sandbox *sandbox = find_sandbox(runtime, sandbox_id);

        if (runtime->script.deaf_destroy)
                return;
        if (!sandbox) {
                send_failure(runtime, request, REASON(NOT_FOUND));
                return;
        }
        remove_sandbox(runtime, sandbox);
        send_done(runtime, request);
}

static void on_acknowledge(struct fake_runtime *runtime, uint64_t request,
                           const Hotcell__Runtime__V1__AcknowledgeEnd *acknowledge)
{
        struct process *process =
                find_process(runtime, acknowledge->sandbox_id, acknowledge->process_id);

        if (process)
                remove_process(process);
        send_done(runtime, request);
}

static void on_message(struct fake_runtime *runtime, const Hotcell__Runtime__V1__ToRuntime *message,
                       const int *fds, size_t n_fds)
{
        if (message->body_case == TO(HELLO))
                on_hello(runtime, message->request);
        else if (message->body_case == TO(CREATE_SANDBOX))
                on_create(runtime, message->request, message->create_sandbox->sandbox_id);
        else if (message->body_case == TO(DESTROY_SANDBOX))
                on_destroy(runtime, message->request, message->destroy_sandbox->sandbox_id);
        else if (message->body_case == TO(START_PROCESS))
                on_start(runtime, message->request, message->start_process);
        else if (message->body_case == TO(SIGNAL_PROCESS))
                on_signal(runtime, message->request, message->signal_process);
        else if (message->body_case == TO(ACKNOWLEDGE_END))
                on_acknowledge(runtime, message->request, message->acknowledge_end);
        else if (message->body_case == TO(READ_USAGE))
                on_usage(runtime, message->request);
        else if (message->body_case == TO(LIST_SANDBOXES))
                on_list(runtime, message->request);
        else if (message->body_case == TO(PROBE_WALLS))
                on_probe(runtime, message->request);
        else if (message->body_case == TO(KEEP_DESCRIPTORS))
                on_keep(runtime, message->request, message->keep_descriptors, fds, n_fds);
        else if (message->body_case == TO(TAKE_PROCESS))
                on_take(runtime, message->request, message->take_process);
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
        on_message(runtime, message, fds, n_fds);
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
                                                 on_child, process);
        }
}

void fake_runtime_break(struct fake_runtime *runtime)
{
        while (!LIST_EMPTY(&runtime->sandboxes))
                remove_sandbox(runtime, LIST_FIRST(&runtime->sandboxes));
        while (!LIST_EMPTY(&runtime->processes))
                remove_process(LIST_FIRST(&runtime->processes));
        fake_runtime_disconnect(runtime);
}

void fake_runtime_end_sandbox(struct fake_runtime *runtime, const char *sandbox_id, bool oom)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__SandboxEnded ended;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__sandbox_ended__init(&ended);
        ended.sandbox_id = (char *)(uintptr_t)sandbox_id;
        ended.oom = oom;
        ended.detail = (char *)"its init ended";
        message.body_case = FROM(SANDBOX_ENDED);
        message.sandbox_ended = &ended;
        send_message(runtime, 0, &message, NULL, 0);
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

size_t fake_runtime_n_started(const struct fake_runtime *runtime)
{
        return runtime->n_started;
}
