/* What the fake runtime does when it is asked. */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/unit/session/fake_kernel.h"
#include "test/unit/session/fake_runtime_parts.h"

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
        fake_send_message(runtime, request, &message, NULL, 0);
}

static void on_create(struct fake_runtime *runtime, uint64_t request, const char *sandbox_id)
{
        if (runtime->script.hold_create) {
                struct held *held = calloc(1, sizeof(*held));

                held->request = request;
                (void)snprintf(held->sandbox_id, sizeof(held->sandbox_id), "%s", sandbox_id);
                LIST_INSERT_HEAD(&runtime->held, held, link);
        } else if (runtime->script.fail_create)
                fake_send_failure(runtime, request, runtime->script.fail_create);
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
        if (runtime->script.fail_start || !fake_find_sandbox(runtime, start->sandbox_id) ||
            fake_find_process(runtime, start->sandbox_id, start->process_id)) {
                fake_send_failure(runtime, request,
                                  runtime->script.fail_start ? runtime->script.fail_start
                                                             : (int)REASON(EXISTS));
                return;
        }
        for (size_t i = 0; i < 4; i++)
                if (pipe2(pipes[i], O_CLOEXEC))
                        abort();
        process = fake_add_process(runtime, start->sandbox_id, start->process_id);
        process->pid = fork();
        if (process->pid == 0)
                run_child(runtime, pipes);
        (void)sd_event_add_child(runtime->loop, &process->source, process->pid, WEXITED,
                                 fake_on_child, process);
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
        fake_send_message(runtime, request, &message, fds, 5);
}

static void on_keep(struct fake_runtime *runtime, uint64_t request,
                    const Hotcell__Runtime__V1__KeepDescriptors *keep, const int *fds, size_t n_fds)
{
        struct process *process = fake_find_process(runtime, keep->sandbox_id, keep->process_id);

        if (!process || n_fds > ARRAY_SIZE(process->kept) || runtime->script.fail_keep) {
                fake_send_failure(runtime, request,
                                  process ? (int)REASON(EXHAUSTED) : (int)REASON(NOT_FOUND));
                return;
        }
        fake_drop_kept(process);
        for (size_t i = 0; i < n_fds; i++)
                process->kept[process->n_kept++] = dup(fds[i]);
        fake_send_done(runtime, request);
}

static void on_take(struct fake_runtime *runtime, uint64_t request,
                    const Hotcell__Runtime__V1__TakeProcess *take_process)
{
        struct process *process =
                fake_find_process(runtime, take_process->sandbox_id, take_process->process_id);
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__ProcessTaken taken;
        int fds[16];
        size_t n = 0;

        if (!process || process->pipes[0] < 0) {
                fake_send_failure(runtime, request, REASON(NOT_FOUND));
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
        fake_send_message(runtime, request, &message, fds, n);
}

static void on_signal(struct fake_runtime *runtime, uint64_t request,
                      const Hotcell__Runtime__V1__SignalProcess *signal_process)
{
        struct process *process =
                fake_find_process(runtime, signal_process->sandbox_id, signal_process->process_id);

        if (!process) {
                fake_send_failure(runtime, request, REASON(NOT_FOUND));
                return;
        }
        if (process->pid > 0)
                (void)kill(process->pid, (int)signal_process->signal);
        fake_send_done(runtime, request);
        if (process->pid == 0 && signal_process->signal == SIGKILL)
                fake_send_process_ended(process);
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
                states[n].limits = sandbox->has_limits ? &sandbox->limits : NULL;
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
                fake_send_failure(runtime, request, REASON(EXHAUSTED));
                return;
        }
        fake_send_message(runtime, request, &message, NULL, 0);
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
        fake_send_message(runtime, request, &message, NULL, 0);
}

void fake_runtime_send_egress_ready(struct fake_runtime *runtime, const int *fds, size_t n_fds)
{
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__EgressReady ready;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__egress_ready__init(&ready);
        message.body_case = FROM(EGRESS_READY);
        message.egress_ready = &ready;
        fake_send_message(runtime, 0, &message, fds, n_fds);
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
        Hotcell__Runtime__V1__MeterState meters;
        Hotcell__Runtime__V1__MeterPart missing[] = {
                /* the second is a newer runtime's */
                HOTCELL__RUNTIME__V1__METER_PART__METER_PART_WAIT,
                (Hotcell__Runtime__V1__MeterPart)31
        };
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
        hotcell__runtime__v1__meter_state__init(&meters);
        meters.programs = true;
        meters.slots = 7;
        meters.missing = missing;
        meters.n_missing = ARRAY_SIZE(missing);
        welcome.meters = &meters;
        message.body_case = FROM(WELCOME);
        message.welcome = &welcome;
        fake_send_message(runtime, request, &message, NULL, 0);
        if (runtime->script.egress)
                fake_runtime_egress_ready(runtime);
        LIST_FOREACH(process, &runtime->processes, link)
        if (process->pid == 0 && process->status)
                fake_send_process_ended(process);
}

static bool ends_with(const char *text, const char *end)
{
        size_t n = strlen(text);

        return end && n >= strlen(end) && strcmp(text + n - strlen(end), end) == 0;
}

static void note_reading(struct fake_runtime_script *script)
{
        if (script->n_readings < ARRAY_SIZE(script->readings_usec))
                script->readings_usec[script->n_readings] = time_now_usec();
        script->n_readings++;
}

static void on_usage(struct fake_runtime *runtime, uint64_t request,
                     const Hotcell__Runtime__V1__ReadUsage *read)
{
        struct process *process = fake_find_process(runtime, read->sandbox_id, read->process_id);
        bool is_of_sandbox = read->process_id[0] == '\0';
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Usage usage;

        if (is_of_sandbox)
                note_reading(&runtime->script);
        else if (runtime->script.n_fail_leaves > 0) {
                runtime->script.n_fail_leaves--;
                fake_send_failure(runtime, request, REASON(NOT_FOUND));
                return;
        }
        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__usage__init(&usage);
        fake_fill_usage(runtime, fake_find_sandbox(runtime, read->sandbox_id),
                        is_of_sandbox ? NULL : process, &usage);
        usage.oom_kills = ends_with(read->process_id, runtime->script.oom_leaf) ? 1 : 0;
        message.body_case = FROM(USAGE);
        message.usage = &usage;
        fake_send_message(runtime, request, &message, NULL, 0);
}

static bool is_asked_for(const Hotcell__Runtime__V1__ReadMeters *read, const char *sandbox_id)
{
        for (size_t i = 0; i < read->n_sandbox_ids; i++) {
                if (strcmp(read->sandbox_ids[i], sandbox_id) == 0)
                        return true;
        }
        return read->n_sandbox_ids == 0;
}

/* The sandbox with the lowest id above @after that is asked for; NULL: there is none. */
static struct sandbox *next_sandbox(struct fake_runtime *runtime, const char *after,
                                    const Hotcell__Runtime__V1__ReadMeters *read)
{
        struct sandbox *sandbox, *found = NULL;

        LIST_FOREACH(sandbox, &runtime->sandboxes, link)
        {
                if (strcmp(sandbox->sandbox_id, after) > 0 &&
                    is_asked_for(read, sandbox->sandbox_id) &&
                    (!found || strcmp(sandbox->sandbox_id, found->sandbox_id) < 0))
                        found = sandbox;
        }
        return found;
}

/* Room for an answer to ReadMeters. */
enum { METERS_MAX = 64, METERS_PROCESSES_MAX = 16 };
struct meters {
        Hotcell__Runtime__V1__SandboxMeters sandbox;
        Hotcell__Runtime__V1__Usage usage;
        Hotcell__Runtime__V1__ProcessMeters processes[METERS_PROCESSES_MAX];
        Hotcell__Runtime__V1__ProcessMeters *pointers[METERS_PROCESSES_MAX];
        Hotcell__Runtime__V1__Usage usages[METERS_PROCESSES_MAX];
};

static void fill_meters(struct fake_runtime *runtime, struct sandbox *sandbox,
                        struct meters *ret_meters)
{
        struct process *process;
        size_t n = 0;

        hotcell__runtime__v1__sandbox_meters__init(&ret_meters->sandbox);
        hotcell__runtime__v1__usage__init(&ret_meters->usage);
        fake_fill_usage(runtime, sandbox, NULL, &ret_meters->usage);
        LIST_FOREACH(process, &runtime->processes, link)
        {
                if (process->pid == 0 || n == METERS_PROCESSES_MAX ||
                    strcmp(process->sandbox_id, sandbox->sandbox_id) != 0)
                        continue;
                hotcell__runtime__v1__process_meters__init(&ret_meters->processes[n]);
                hotcell__runtime__v1__usage__init(&ret_meters->usages[n]);
                fake_fill_usage(runtime, sandbox, process, &ret_meters->usages[n]);
                ret_meters->processes[n].process_id = process->process_id;
                ret_meters->processes[n].usage = &ret_meters->usages[n];
                ret_meters->pointers[n] = &ret_meters->processes[n];
                n++;
        }
        ret_meters->sandbox.sandbox_id = sandbox->sandbox_id;
        ret_meters->sandbox.usage = &ret_meters->usage;
        ret_meters->sandbox.processes = ret_meters->pointers;
        ret_meters->sandbox.n_processes = n;
}

static void on_read_meters(struct fake_runtime *runtime, uint64_t request,
                           const Hotcell__Runtime__V1__ReadMeters *read_meters)
{
        static struct meters meters[METERS_MAX];
        Hotcell__Runtime__V1__SandboxMeters *pointers[METERS_MAX];
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__MeterList list;
        Hotcell__Runtime__V1__MeterState state;
        struct sandbox *sandbox = next_sandbox(runtime, read_meters->after_sandbox_id, read_meters);
        size_t page = runtime->script.meters_page ? runtime->script.meters_page : METERS_MAX;

        runtime->n_read_meters++;
        if (runtime->script.hold_meters)
                return;
        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__meter_list__init(&list);
        list.sandboxes = pointers;
        for (; sandbox && list.n_sandboxes < page;
             sandbox = next_sandbox(runtime, sandbox->sandbox_id, read_meters)) {
                fill_meters(runtime, sandbox, &meters[list.n_sandboxes]);
                pointers[list.n_sandboxes] = &meters[list.n_sandboxes].sandbox;
                list.n_sandboxes++;
                runtime->n_metered++;
        }
        list.more = sandbox != NULL;
        hotcell__runtime__v1__meter_state__init(&state);
        state.slots = 7;
        state.slots_used = runtime->n_read_meters;
        list.state = &state;
        message.body_case = FROM(METER_LIST);
        message.meter_list = &list;
        fake_send_message(runtime, request, &message, NULL, 0);
}

static void on_destroy(struct fake_runtime *runtime, uint64_t request, const char *sandbox_id)
{
        struct sandbox *sandbox = fake_find_sandbox(runtime, sandbox_id);
        Hotcell__Runtime__V1__Usage usage;

        if (runtime->script.deaf_destroy)
                return;
        if (!sandbox) {
                fake_send_failure(runtime, request, REASON(NOT_FOUND));
                return;
        }
        hotcell__runtime__v1__usage__init(&usage);
        if (runtime->script.tells_last)
                fake_fill_usage(runtime, sandbox, NULL, &usage);
        runtime->last_cpu_usec = sandbox->cpu_usec;
        fake_remove_sandbox(runtime, sandbox);
        fake_send_destroyed(runtime, request, runtime->script.tells_last ? &usage : NULL);
}

static void on_acknowledge(struct fake_runtime *runtime, uint64_t request,
                           const Hotcell__Runtime__V1__AcknowledgeEnd *acknowledge)
{
        struct process *process =
                fake_find_process(runtime, acknowledge->sandbox_id, acknowledge->process_id);

        if (process)
                fake_remove_process(process);
        fake_send_done(runtime, request);
}

/* Programs hold what they were given for a moment. */
static void fail_half_way(struct fake_runtime *runtime, uint64_t request,
                          const Hotcell__Runtime__V1__UpdateLimits *update)
{
        Hotcell__Runtime__V1__SandboxLimits limits = *update->limits;
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Failure failure;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__failure__init(&failure);
        limits.memory_bytes = runtime->script.memory_in_use;
        failure.reason = (Hotcell__Runtime__V1__FailureReason)runtime->script.fail_limits;
        failure.message = (char *)"as scripted";
        failure.limits = &limits;
        message.body_case = FROM(FAILURE);
        message.failure = &failure;
        fake_send_message(runtime, request, &message, NULL, 0);
}

static void on_update_limits(struct fake_runtime *runtime, uint64_t request,
                             const Hotcell__Runtime__V1__UpdateLimits *update)
{
        struct sandbox *sandbox = fake_find_sandbox(runtime, update->sandbox_id);
        Hotcell__Runtime__V1__FromRuntime message;
        Hotcell__Runtime__V1__Done done;

        runtime->n_limits++;
        if (sandbox && runtime->script.fail_limits && runtime->script.memory_in_use) {
                fail_half_way(runtime, request, update);
                return;
        }
        if (!sandbox || runtime->script.fail_limits) {
                fake_send_failure(runtime, request,
                                  sandbox ? runtime->script.fail_limits : REASON(NOT_FOUND));
                return;
        }
        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__done__init(&done);
        sandbox->limits = *update->limits;
        sandbox->has_limits = true;
        if (update->each)
                sandbox->limits.memory_bytes =
                        MAX(update->limits->memory_bytes, runtime->script.memory_in_use);
        runtime->memory_bytes = sandbox->limits.memory_bytes;
        done.limits = &sandbox->limits;
        message.body_case = FROM(DONE);
        message.done = &done;
        fake_send_message(runtime, request, &message, NULL, 0);
}

void fake_runtime_answer(struct fake_runtime *runtime,
                         const Hotcell__Runtime__V1__ToRuntime *message, const int *fds,
                         size_t n_fds)
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
                on_usage(runtime, message->request, message->read_usage);
        else if (message->body_case == TO(READ_METERS))
                on_read_meters(runtime, message->request, message->read_meters);
        else if (message->body_case == TO(LIST_SANDBOXES))
                on_list(runtime, message->request);
        else if (message->body_case == TO(PROBE_WALLS))
                on_probe(runtime, message->request);
        else if (message->body_case == TO(KEEP_DESCRIPTORS))
                on_keep(runtime, message->request, message->keep_descriptors, fds, n_fds);
        else if (message->body_case == TO(UPDATE_LIMITS))
                on_update_limits(runtime, message->request, message->update_limits);
        else if (message->body_case == TO(TAKE_PROCESS))
                on_take(runtime, message->request, message->take_process);
}
