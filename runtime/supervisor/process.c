/*
 * A process is cloned by the spawner and tells by its status pipe how far it came; the runtime
 * never waits for it, because a throttled or full group may keep it from getting there. Its end is
 * what wait(2) says of the process itself; then whatever it left behind in its leaf is killed, and
 * only an empty leaf is read, so that the meters hold everything that was used on its behalf.
 */
#include "runtime/supervisor/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/container/spawner.h"
#include "runtime/supervisor/spawn_args.h"
#include "runtime/supervisor/sweeper.h"
#include "runtime/supervisor/tables.h"

enum {
        START_TIMEOUT_USEC = 30 * 1000000,
        LOOK_MIN_USEC = 500,
        LOOK_MAX_USEC = 100000,
        LOOKS_MAX = 100,      /* some 10 s; after that the end is told with what can be read */
        PROCESSES_MAX = 1024, /* of a sandbox, ended and unacknowledged ones included */
};

static const struct {
        const char *name;
        unsigned next;
} process_states[] = {
        [PROCESS_STARTING] = { "starting", BIT(PROCESS_RUNNING) | BIT(PROCESS_DRAINING) },
        [PROCESS_RUNNING] = { "running", BIT(PROCESS_DRAINING) },
        [PROCESS_DRAINING] = { "draining", BIT(PROCESS_ENDED) },
        [PROCESS_ENDED] = { "ended", 0 },
};
static_assert(ARRAY_SIZE(process_states) == _PROCESS_STATE_N, "every state has a row");

static void process_check(const struct process *process)
{
        assert((process->state == PROCESS_STARTING) == (process->status_fd >= 0));
        assert(process->state == PROCESS_STARTING || process->state == PROCESS_RUNNING ||
               !process->status_source);
        assert(process->state != PROCESS_ENDED || !process->timer);
}

static void stop_starting(struct process *process)
{
        process->status_source = sd_event_source_disable_unref(process->status_source);
        process->timer = sd_event_source_disable_unref(process->timer);
        process->status_fd = close_fd(process->status_fd);
}

static void process_enter(struct process *process, enum process_state next)
{
        assert(process_states[process->state].next & BIT(next));

        log_debug("process %s/%s: %s -> %s", process->sandbox->id, process->id,
                  process_states[process->state].name, process_states[next].name);
        if (process->state == PROCESS_STARTING)
                stop_starting(process);
        if (next == PROCESS_ENDED)
                process->timer = sd_event_source_disable_unref(process->timer);
        process->state = next;
        process_check(process);
}

bool process_is_alive(const struct process *process)
{
        return process->state != PROCESS_ENDED;
}

static void drop_fds(int *fds, size_t *n_fds)
{
        while (*n_fds > 0)
                (void)close_fd(fds[--*n_fds]);
}

void process_keep(struct process *process, int *fds, size_t n_fds)
{
        assert(n_fds <= PROCESS_KEPT_MAX);

        drop_fds(process->kept, &process->n_kept);
        for (size_t i = 0; i < n_fds; i++)
                process->kept[process->n_kept++] = take_fd(&fds[i]);
}

struct process *process_free(struct process *process)
{
        if (!process)
                return NULL;
        assert(!process_is_alive(process));
        process->sandbox->oom_kills_of_the_gone += process->usage.files.oom_kills;
        process_table_remove(&process->sandbox->processes, process);
        drop_fds(process->fds, &process->n_fds);
        drop_fds(process->kept, &process->n_kept);
        free(process);
        return NULL;
}

/* The leaf is empty, or as empty as it gets. */
static void finish(struct process *process)
{
        struct sandbox *sandbox = process->sandbox;
        const struct sandbox_observer *observer = sandbox->host->observer;
        struct cgroup leaf;
        int r;

        r = metering_end_leaf(&process->meter, &process->usage);
        if (r)
                log_warning("cannot read the meters of an ended process: sandbox=%s process=%s "
                            "error=%s",
                            sandbox->id, process->id, strerrorname_np(-r));
        if (process->is_oom_killed && process->usage.files.oom_kills == 0)
                process->usage.files.oom_kills = 1; /* by us, not by the kernel */
        if (process->usage.files.oom_kills > 0 && process->oom_limit_bytes == 0)
                process->oom_limit_bytes = sandbox->limits.memory_bytes;
        traffic_close_process(process);
        leaf = process->leaf;
        process_enter(process, PROCESS_ENDED);
        sandbox->n_processes_alive--;
        if (process->failure.reason) {
                /* "Nothing of it remains", when that is said. */
                sweeper_add_leaf(sandbox->host->sweeper, &leaf);
                observer->on_process_started(process, &process->failure);
                (void)process_free(process);
        } else {
                /* Nobody waits for the clean-up. */
                observer->on_process_ended(process);
                sweeper_add_leaf(sandbox->host->sweeper, &leaf);
        }
        sandbox_process_over(sandbox);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct process *process = userdata;
        uint64_t pause_usec;

        (void)source;
        (void)usec;
        if (!cgroup_is_populated(&process->leaf) || ++process->n_looks >= LOOKS_MAX) {
                finish(process);
                return 0;
        }
        (void)cgroup_kill(&process->leaf); /* in case that it failed before */
        pause_usec = MIN((uint64_t)LOOK_MIN_USEC << MIN(process->n_looks, 10U), LOOK_MAX_USEC);
        if (sd_event_source_set_time_relative(process->timer, pause_usec) < 0 ||
            sd_event_source_set_enabled(process->timer, SD_EVENT_ONESHOT) < 0)
                finish(process);
        return 0;
}

/* It was reaped. What it left in its leaf (children that left its process group, too) goes now. */
static void drain(struct process *process)
{
        process_enter(process, PROCESS_DRAINING);
        (void)cgroup_kill(&process->leaf);
        if (!cgroup_is_populated(&process->leaf) ||
            sd_event_add_time_relative(process->sandbox->host->event, &process->timer,
                                       CLOCK_MONOTONIC, LOOK_MIN_USEC, 100, on_look, process) < 0)
                finish(process);
}

/* With it all that it started; what would be left is killed when it was reaped. */
static int kill_all(struct process *process)
{
        int r = cgroup_kill(&process->leaf);

        if (r == 0 || process->state == PROCESS_DRAINING || process->state == PROCESS_ENDED)
                return r;
        log_warning("cannot kill a process's group: sandbox=%s process=%s error=%s",
                    process->sandbox->id, process->id, strerrorname_np(-r));
        return kill(process->child.pid, SIGKILL) < 0 ? -errno : 0;
}

void process_kill(struct process *process)
{
        (void)kill_all(process);
}

static void started(struct process *process)
{
        process_enter(process, PROCESS_RUNNING);
        process->sandbox->host->observer->on_process_started(process, NULL);
}

static const Hotcell__Runtime__V1__FailureReason reasons_of_faults[] = {
        [SPAWN_FAULT_SYSTEM] = FAILURE(SYSTEM),
        [SPAWN_FAULT_DIRECTORY] = FAILURE(WORKING_DIRECTORY),
        [SPAWN_FAULT_PROGRAM] = FAILURE(EXEC),
        [SPAWN_FAULT_EGRESS] = FAILURE(EGRESS),
};
static_assert(ARRAY_SIZE(reasons_of_faults) == _SPAWN_FAULT_N, "every fault has a reason");

/* Reads the status pipe. 0: its program was executed; 1: it was not, see failure; -EAGAIN. */
static int read_status(struct process *process)
{
        struct spawn_failure found = { 0 };
        int r = spawn_status_read(process->status_fd, &found);

        if (r == 0 || r == -EAGAIN)
                return r;
        if (process->failure.reason)
                return 1;
        if (r == SPAWNER_E_STEP)
                failure_set(&process->failure, reasons_of_faults[found.fault], found.error_number,
                            "%s: %s", found.step, strerrordesc_np(found.error_number));
        else
                failure_set(&process->failure, FAILURE(SYSTEM), r, "cannot read the status pipe");
        return 1;
}

static int on_status(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct process *process = userdata;
        int r;

        (void)source;
        (void)fd;
        (void)events;
        if (process->failure.reason) {
                /* Its time was up; end of file now only says that it was killed. */
                (void)sd_event_source_set_enabled(process->status_source, SD_EVENT_OFF);
                return 0;
        }
        r = read_status(process);
        if (r == 0)
                started(process);
        else if (r == 1) {
                /* It exits by itself; the answer is given when nothing of it remains. */
                (void)sd_event_source_set_enabled(process->status_source, SD_EVENT_OFF);
                process_kill(process);
        }
        return 0;
}

static int on_start_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct process *process = userdata;

        (void)source;
        (void)usec;
        if (!process->failure.reason)
                failure_set(&process->failure, FAILURE(TIMEOUT), 0,
                            "the process was not executed within 30 s");
        process_kill(process);
        return 0;
}

/*
 * An end before the status was read. End of file without a word means that the program was
 * executed, or that the child was killed on its way: told as a short life in both cases, except
 * when it was we who killed it.
 */
static void settle_start(struct process *process)
{
        int r;

        if (process->failure.reason)
                return;
        r = read_status(process);
        if (r == 0 && process->sandbox->state == SANDBOX_RUNNING)
                started(process);
        else if (!process->failure.reason)
                failure_set(&process->failure, FAILURE(SANDBOX_ENDED), 0,
                            "the sandbox ended before the process was executed");
}

static void on_exit_of_process(struct child *child, int status)
{
        struct process *process = CONTAINER_OF(child, struct process, child);

        process->wait_status = status;
        process->ended_with_sandbox = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
                                      sandbox_is_going(process->sandbox);
        if (process->state == PROCESS_STARTING)
                settle_start(process);
        drain(process);
}

int process_signal(struct process *process, int signal)
{
        /* Not reaped yet, so the number is still its own. */
        assert(process->state == PROCESS_RUNNING);
        if (signal == SIGKILL)
                return kill_all(process);
        if (signal == SIGINT && kill(-process->child.pid, SIGINT) == 0)
                return 0;
        return kill(process->child.pid, signal) < 0 ? -errno : 0;
}

void process_check_oom(struct process *process)
{
        uint32_t n;

        if (process->is_oom_killed || !process_is_alive(process) ||
            cgroup_read_oom_kills(&process->leaf, &n) || n == 0)
                return;
        process_end_for_memory(process);
}

void process_end_for_memory(struct process *process)
{
        if (process->is_oom_killed)
                return;
        process->is_oom_killed = true;
        process->oom_limit_bytes = process->sandbox->limits.memory_bytes;
        log_debug("out of memory: sandbox=%s process=%s", process->sandbox->id, process->id);
        process_kill(process);
}

static struct process *process_new(struct sandbox *sandbox, const char *id)
{
        struct process *process = calloc(1, sizeof(*process));

        if (!process)
                return NULL;
        process->sandbox = sandbox;
        process->status_fd = -1;
        (void)snprintf(process->id, sizeof(process->id), "%s", id);
        process->open_files = sandbox->limits.open_files;
        return process;
}

/* From here on its end comes through the reaper. */
static int adopt(struct process *process, struct spawned *spawned, struct spawn_pipes *pipes)
{
        struct sandbox *sandbox = process->sandbox;
        sd_event *event = sandbox->host->event;
        int r;

        process->child = (struct child){ .pid = spawned->pid, .on_exit = on_exit_of_process };
        process->status_fd = spawned->status_fd;
        process->fds[process->n_fds++] = spawned->pidfd;
        for (size_t i = 0; i < pipes->n_ours; i++)
                process->fds[process->n_fds++] = take_fd(&pipes->ours[i]);
        process_table_add(&sandbox->processes, process);
        sandbox->n_processes_alive++;
        reaper_watch(sandbox->host->reaper, &process->child);

        r = sd_event_add_io(event, &process->status_source, process->status_fd, EPOLLIN, on_status,
                            process);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &process->timer, CLOCK_MONOTONIC,
                                               START_TIMEOUT_USEC, 0, on_start_timeout, process);
        return r < 0 ? error_origin(r) : 0;
}

static int refuse_spawn(int r, const struct spawn_failure *found, struct failure *ret_failure)
{
        if (r == SPAWNER_E_STEP)
                failure_set(ret_failure, failure_reason_of(found->error_number),
                            found->error_number, "%s: %s", found->step,
                            strerrordesc_np(found->error_number));
        else if (r == SPAWNER_E_DEAD)
                failure_set(ret_failure, FAILURE(SYSTEM), 0, "the spawner died; try again");
        else
                failure_set(ret_failure, failure_reason_of(r), r, "cannot ask the spawner: %s",
                            strerrordesc_np(abs(r)));
        return 1;
}

static int spawn(struct process *process, const Hotcell__Runtime__V1__StartProcess *request,
                 struct failure *ret_failure)
{
        _cleanup_(spawn_words_deinit) struct spawn_words words = { 0 };
        _cleanup_(spawn_pipes_deinit) struct spawn_pipes pipes = { 0 };
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        struct sandbox *sandbox = process->sandbox;
        struct spawn_process args;
        struct spawn_failure found = { 0 };
        struct spawned spawned;
        int r;

        r = spawn_words_init(&words, request);
        if (!r)
                r = spawn_pipes_init(&pipes, sandbox->id_base + request->uid,
                                     sandbox->id_base + request->gid, request->kernel_channel);
        if (!r)
                r = cgroup_entry_open(&process->leaf, &entry);
        if (r) {
                failure_set(ret_failure, FAILURE(EXHAUSTED), r, "cannot prepare the process: %s",
                            strerrordesc_np(-r));
                return 1;
        }
        args = (struct spawn_process){
                .sandbox_pidfd = sandbox->init_pidfd,
                .id_base = sandbox->id_base,
                .uid = request->uid,
                .gid = request->gid,
                .argv = words.argv,
                .environment = words.environment,
                .working_directory = request->working_directory,
                .open_files = process->open_files,
                .n_fds = pipes.n_theirs,
                .cgroup = spawn_cgroup_from(&entry),
        };
        memcpy(args.fds, pipes.theirs, sizeof(int) * pipes.n_theirs);
        r = sandbox->host->spawner
                    ? spawner_start_process(sandbox->host->spawner, &args, &spawned, &found)
                    : SPAWNER_E_DEAD;
        if (r)
                return refuse_spawn(r, &found, ret_failure);

        r = adopt(process, &spawned, &pipes);
        if (r) {
                failure_set(&process->failure, FAILURE(EXHAUSTED), r,
                            "cannot watch the process: %s", strerrordesc_np(-r));
                process_kill(process);
        }
        return 0;
}

static int make_leaf(struct process *process, struct failure *ret_failure)
{
        char name[CGROUP_NAME_MAX];
        int r;

        (void)snprintf(name, sizeof(name), "process-%s", process->id);
        r = cgroup_create_leaf(&process->leaf, &process->sandbox->group, name);
        if (r == 0) {
                traffic_open(process->sandbox->host, process->leaf.id, &process->traffic);
                return 0;
        }
        if (r == CGROUP_E_EXISTS)
                failure_set(ret_failure, FAILURE(EXISTS), 0, "process %s exists", process->id);
        else
                failure_set(ret_failure, failure_reason_of(r), r,
                            "cannot make the process's group: %s", strerrordesc_np(-r));
        return 1;
}

int process_start(struct sandbox *sandbox, const Hotcell__Runtime__V1__StartProcess *request,
                  struct ticket ticket, struct failure *ret_failure)
{
        struct process *process;

        if (process_table_find(sandbox->processes, request->process_id)) {
                failure_set(ret_failure, FAILURE(EXISTS), 0, "process %s exists",
                            request->process_id);
                return 1;
        }
        process = HASH_COUNT(sandbox->processes) < PROCESSES_MAX
                          ? process_new(sandbox, request->process_id)
                          : NULL;
        if (!process) {
                failure_set(ret_failure, FAILURE(EXHAUSTED), ENOMEM,
                            "no room for another process in sandbox %s", sandbox->id);
                return 1;
        }
        process->ticket = ticket;
        if (make_leaf(process, ret_failure)) {
                free(process);
                return 1;
        }
        metering_begin_leaf(&sandbox->meter, &process->meter, &process->leaf);
        if (spawn(process, request, ret_failure)) {
                struct metered nothing;

                (void)metering_end_leaf(&process->meter, &nothing);
                traffic_close_process(process);
                sweeper_add_leaf(sandbox->host->sweeper, &process->leaf);
                free(process);
                return 1;
        }
        return 0;
}
