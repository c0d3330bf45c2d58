/*
 * The init is cloned by the spawner and tells by its status pipe when it was executed. When it
 * ends, whoever asked for it, the kernel kills everything in its pid namespace; its parent (we)
 * sees its end only after all others were reaped, so a sandbox is over when init is, apart from
 * processes that were on their way in.
 *
 * Out of memory: under cgroup v2 the kernel kills a whole leaf by itself. Under v1 it kills one
 * process and wakes an eventfd, before the kill and not after it; so the counters of all leaves are
 * looked at then, and again a few times.
 */
#include "runtime/supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/container/spawner.h"
#include "runtime/container/tmpfs.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/exiting.h"
#include "runtime/supervisor/id_ranges.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/socket_guard.h"
#include "runtime/supervisor/spawn_args.h"
#include "runtime/supervisor/sweeper.h"
#include "runtime/supervisor/templates.h"

enum {
        START_TIMEOUT_USEC = 30 * 1000000,
        OOM_RECHECK_USEC = 4000, /* doubled each time: 4 ms to 512 ms */
        OOM_RECHECKS_MAX = 8,
};

static const struct {
        const char *name;
        unsigned next;
} sandbox_states[] = {
        [SANDBOX_CREATING] = { "creating", BIT(SANDBOX_RUNNING) | BIT(SANDBOX_ENDING) },
        [SANDBOX_RUNNING] = { "running", BIT(SANDBOX_ENDING) },
        [SANDBOX_ENDING] = { "ending", BIT(SANDBOX_ENDED) },
        [SANDBOX_ENDED] = { "ended", 0 },
};
static_assert(ARRAY_SIZE(sandbox_states) == _SANDBOX_STATE_N, "every state has a row");

const char *sandbox_state_name(enum sandbox_state state)
{
        return sandbox_states[state].name;
}

static void sandbox_check(const struct sandbox *sandbox)
{
        assert((sandbox->state == SANDBOX_CREATING) == (sandbox->status_fd >= 0));
        assert(sandbox->state != SANDBOX_RUNNING || !sandbox->is_init_reaped);
        assert(sandbox->state != SANDBOX_ENDED ||
               (sandbox->is_init_reaped && sandbox->n_processes_alive == 0));
}

static void stop_creating(struct sandbox *sandbox)
{
        sandbox->status_source = sd_event_source_disable_unref(sandbox->status_source);
        sandbox->timeout = sd_event_source_disable_unref(sandbox->timeout);
        sandbox->status_fd = close_fd(sandbox->status_fd);
}

static void stop_watching(struct sandbox *sandbox)
{
        sandbox->oom_source = sd_event_source_disable_unref(sandbox->oom_source);
        sandbox->oom_recheck = sd_event_source_disable_unref(sandbox->oom_recheck);
        sandbox->socket_guard = sd_event_source_disable_unref(sandbox->socket_guard);
        sandbox->oom_fd = close_fd(sandbox->oom_fd);
        pressure_stop(sandbox);
}

static void sandbox_enter(struct sandbox *sandbox, enum sandbox_state next)
{
        assert(sandbox_states[sandbox->state].next & BIT(next));

        log_debug("sandbox %s: %s -> %s", sandbox->id, sandbox_states[sandbox->state].name,
                  sandbox_states[next].name);
        if (sandbox->state == SANDBOX_CREATING)
                stop_creating(sandbox);
        sandbox->state = next;
        sandbox_check(sandbox);
}

static uint32_t count_oom_kills(struct sandbox *sandbox)
{
        uint32_t n = sandbox->oom_kills_of_the_gone;
        struct process *process;
        struct process *following;
        uint32_t n_more;

        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (!process_is_alive(process))
                        n += process->usage.files.oom_kills;
                else if (!cgroup_read_oom_kills(&process->leaf, &n_more))
                        n += n_more;
        }
        if (sandbox->has_init_leaf && !cgroup_read_oom_kills(&sandbox->init_leaf, &n_more))
                n += n_more;
        return n;
}

/* @sandbox may be a copy: its owner may have freed the original by then. */
static void remove_groups(const struct sandbox *sandbox)
{
        egress_wall_forget(sandbox->host->egress, sandbox->group.id);
        if (sandbox->has_init_leaf)
                sweeper_add_leaf(sandbox->host->sweeper, &sandbox->init_leaf);
        sweeper_add_sandbox(sandbox->host->sweeper, &sandbox->group, sandbox->id_base);
}

static void read_last_usage(struct sandbox *sandbox)
{
        struct metered of_init;
        uint32_t n_oom_kills = count_oom_kills(sandbox);

        (void)metering_end_leaf(&sandbox->init_meter, &of_init);
        sandbox->has_usage = metering_end_sandbox(&sandbox->meter, &sandbox->usage) == 0;
        sandbox->usage.files.oom_kills = n_oom_kills;
        sandbox->is_oom = n_oom_kills > 0;
}

/* Nothing of it runs. Its groups are removed while its ends wait to be acknowledged. */
static void ended(struct sandbox *sandbox)
{
        const struct sandbox_observer *observer = sandbox->host->observer;
        struct sandbox gone;

        read_last_usage(sandbox);
        traffic_close_sandbox(sandbox);
        stop_watching(sandbox);
        limits_cancel(sandbox);
        sandbox->init_pidfd = close_fd(sandbox->init_pidfd);
        sandbox->template_fd = close_fd(sandbox->template_fd);
        sandbox->scratch_fd = close_fd(sandbox->scratch_fd);
        netns_close(&sandbox->netns);
        sandbox_enter(sandbox, SANDBOX_ENDED);
        gone = *sandbox;
        if (sandbox->failure.reason)
                observer->on_created(sandbox, &sandbox->failure);
        else
                observer->on_ended(sandbox);
        /* Nobody waits for the clean-up. */
        remove_groups(&gone);
}

void sandbox_process_over(struct sandbox *sandbox)
{
        if (sandbox->state == SANDBOX_ENDING && sandbox->is_init_reaped &&
            sandbox->n_processes_alive == 0)
                ended(sandbox);
}

static void begin_ending(struct sandbox *sandbox)
{
        int r = cgroup_kill(&sandbox->group);

        if (r) {
                /* Its init takes all the others with it. */
                log_warning("cannot kill a sandbox's group: sandbox=%s error=%s", sandbox->id,
                            strerrorname_np(-r));
                if (!sandbox->is_init_reaped)
                        (void)kill(sandbox->init.pid, SIGKILL);
        }
        sandbox_enter(sandbox, SANDBOX_ENDING);
}

void sandbox_end(struct sandbox *sandbox, const char *detail)
{
        sandbox->is_unwanted = true;
        if (sandbox->state == SANDBOX_ENDING || sandbox->state == SANDBOX_ENDED)
                return;
        if (sandbox->state == SANDBOX_CREATING && !sandbox->failure.reason)
                failure_set(&sandbox->failure, FAILURE(SANDBOX_ENDED), 0, "%s", detail);
        (void)snprintf(sandbox->detail, sizeof(sandbox->detail), "%s", detail);
        begin_ending(sandbox);
}

/* A sandbox that never ran is not over for its creator: it failed. */
static void fail_creation(struct sandbox *sandbox)
{
        assert(sandbox->failure.reason);
        begin_ending(sandbox);
}

/* 0: init was executed; 1: it was not, see failure; -EAGAIN. */
static int read_status(struct sandbox *sandbox)
{
        struct spawn_failure found = { 0 };
        int r = spawn_status_read(sandbox->status_fd, &found);

        if (r == 0 || r == -EAGAIN)
                return r;
        if (r == SPAWNER_E_STEP)
                failure_set(&sandbox->failure,
                            found.fault == SPAWN_FAULT_EGRESS ? FAILURE(EGRESS) : FAILURE(SYSTEM),
                            found.error_number, "%s: %s", found.step,
                            strerrordesc_np(found.error_number));
        else
                failure_set(&sandbox->failure, FAILURE(SYSTEM), r, "cannot read the status pipe");
        return 1;
}

static int on_status(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct sandbox *sandbox = userdata;
        int r = read_status(sandbox);

        (void)source;
        (void)fd;
        (void)events;
        if (r == 0) {
                sandbox_enter(sandbox, SANDBOX_RUNNING);
                sandbox->host->observer->on_created(sandbox, NULL);
        } else if (r == 1) {
                fail_creation(sandbox);
        }
        return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;

        (void)source;
        (void)usec;
        failure_set(&sandbox->failure, FAILURE(TIMEOUT), 0,
                    "the sandbox was not set up within 30 s");
        fail_creation(sandbox);
        return 0;
}

static void describe_end_of_init(struct sandbox *sandbox, int status)
{
        if (WIFSIGNALED(status))
                (void)snprintf(sandbox->detail, sizeof(sandbox->detail),
                               "its init was ended by signal %d", WTERMSIG(status));
        else
                (void)snprintf(sandbox->detail, sizeof(sandbox->detail),
                               "its init exited with code %d", WEXITSTATUS(status));
}

static void on_exit_of_init(struct child *child, int status)
{
        static struct log_quota quota;
        struct sandbox *sandbox = CONTAINER_OF(child, struct sandbox, init);

        sandbox->is_init_reaped = true;
        if (sandbox->state == SANDBOX_CREATING) {
                describe_end_of_init(sandbox, status);
                if (read_status(sandbox) != 1)
                        failure_set(&sandbox->failure, FAILURE(SYSTEM), 0, "during the set-up %s",
                                    sandbox->detail);
                fail_creation(sandbox);
        } else if (sandbox->state == SANDBOX_RUNNING) {
                describe_end_of_init(sandbox, status);
                log_info_of(&quota, "a sandbox ended by itself: sandbox=%s detail=%s", sandbox->id,
                            sandbox->detail);
                begin_ending(sandbox);
        }
        sandbox_process_over(sandbox);
}

/*
 * The kernel kills and awaits all processes of a pid namespace while its init exits, so they are
 * reaped before it; but its flags tell already then.
 */
bool sandbox_is_going(const struct sandbox *sandbox)
{
        return !sandbox->is_unwanted &&
               (sandbox->state == SANDBOX_ENDING || sandbox->is_init_reaped ||
                pid_is_exiting(sandbox->init.pid));
}

void sandbox_check_processes(const struct sandbox *sandbox)
{
        struct process *process;
        struct process *following;

        HASH_ITER(hh, sandbox->processes, process, following)
        {
                process_check_oom(process);
        }
}

static void check_oom(struct sandbox *sandbox)
{
        uint32_t n;

        sandbox_check_processes(sandbox);
        if (!cgroup_read_oom_kills(&sandbox->init_leaf, &n) && n > 0 &&
            sandbox->state == SANDBOX_RUNNING) {
                (void)snprintf(sandbox->detail, sizeof(sandbox->detail),
                               "its init was killed for want of memory");
                begin_ending(sandbox);
        }
}

static int on_oom_recheck(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;

        (void)usec;
        check_oom(sandbox);
        if (++sandbox->n_oom_rechecks >= OOM_RECHECKS_MAX)
                return 0;
        (void)sd_event_source_set_time_relative(source, (uint64_t)OOM_RECHECK_USEC
                                                                << sandbox->n_oom_rechecks);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

static int on_oom(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct sandbox *sandbox = userdata;
        uint64_t count;

        (void)source;
        (void)events;
        (void)!read(fd, &count, sizeof(count));
        check_oom(sandbox);
        sandbox->n_oom_rechecks = 0;
        (void)sd_event_source_set_time_relative(sandbox->oom_recheck, OOM_RECHECK_USEC);
        (void)sd_event_source_set_enabled(sandbox->oom_recheck, SD_EVENT_ONESHOT);
        return 0;
}

static int watch_oom(struct sandbox *sandbox)
{
        sd_event *event = sandbox->host->event;
        int r = cgroup_watch_oom(&sandbox->group, &sandbox->oom_fd);

        if (r == -EOPNOTSUPP)
                return 0;
        if (r)
                return error_fold(r);
        r = sd_event_add_io(event, &sandbox->oom_source, sandbox->oom_fd, EPOLLIN, on_oom, sandbox);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &sandbox->oom_recheck, CLOCK_MONOTONIC, 0,
                                               100, on_oom_recheck, sandbox);
        if (r >= 0)
                r = sd_event_source_set_enabled(sandbox->oom_recheck, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

/* Until it is admitted, what it tries is refused without being counted. */
static int admit(struct sandbox *sandbox)
{
        /* Without the relay's port: hotcell-egress puts it in with the policy. */
        const struct egress_sandbox entry = {
                .slot = id_ranges_index(sandbox->host->ids, sandbox->id_base),
                .direct = direct_families(sandbox->host->netns->direct)
        };

        return egress_wall_admit(sandbox->host->egress, sandbox->group.id, &entry);
}

static int make_groups(struct sandbox *sandbox, struct failure *ret_failure)
{
        const struct cgroup_limits limits = limits_of_group(&sandbox->limits, sandbox->io_device);
        char name[CGROUP_NAME_MAX];
        int r;

        (void)snprintf(name, sizeof(name), "sandbox-%s", sandbox->id);
        r = cgroup_create(&sandbox->group, sandbox->host->cgroups, name, &limits);
        if (r == CGROUP_E_EXISTS) {
                failure_set(ret_failure, FAILURE(EXISTS), 0, "sandbox %s exists", sandbox->id);
                return 1;
        }
        if (r == CGROUP_E_ABSENT) {
                limits_refuse_io(sandbox, ret_failure);
                return 1;
        }
        if (!r) {
                r = cgroup_create_leaf(&sandbox->init_leaf, &sandbox->group, "init");
                sandbox->has_init_leaf = r == 0;
                if (!r)
                        r = watch_oom(sandbox);
                if (!r)
                        r = socket_guard_start(sandbox);
                if (!r)
                        r = pressure_start(sandbox);
                if (!r)
                        r = admit(sandbox);
                if (!r) {
                        traffic_open(sandbox->host, sandbox->group.id, &sandbox->traffic);
                        metering_begin_sandbox(sandbox->host->metering, &sandbox->meter,
                                               &sandbox->group);
                        metering_begin_leaf(&sandbox->meter, &sandbox->init_meter,
                                            &sandbox->init_leaf);
                        return 0;
                }
                stop_watching(sandbox);
                if (sandbox->has_init_leaf)
                        (void)cgroup_remove(&sandbox->init_leaf);
                (void)cgroup_remove(&sandbox->group);
        }
        failure_set(ret_failure, failure_reason_of(r), r, "cannot make the sandbox's group: %s",
                    strerrordesc_np(abs(r)));
        return 1;
}

/* 0, or a negative errno with the step in @found, or SPAWNER_E_DEAD or SPAWNER_E_STEP. */
static int spawn(struct sandbox *sandbox, const struct sandbox_spec *spec, struct spawned *spawned,
                 struct spawn_failure *found)
{
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        struct spawn_sandbox args;
        int r;

        if (!sandbox->host->spawner)
                return SPAWNER_E_DEAD;
        r = netns_pool_take(sandbox->host->netns, &sandbox->netns);
        if (!r)
                r = direct_bind(&sandbox->netns, sandbox->group.id);
        if (r) {
                (void)snprintf(found->step, sizeof(found->step), "make a network namespace");
                return r;
        }
        r = cgroup_entry_open(&sandbox->init_leaf, &entry);
        if (r) {
                (void)snprintf(found->step, sizeof(found->step), "open the group");
                return r;
        }
        args = (struct spawn_sandbox){
                .sandbox_id = sandbox->id,
                .template_root = spec->template->root,
                .hostname = spec->request->hostname,
                .id_base = sandbox->id_base,
                .disk_bytes = sandbox->limits.disk_bytes,
                .disk_inodes = sandbox->limits.disk_inodes,
                .shm_bytes = limits_shm_bytes(&sandbox->limits),
                .terminals = sandbox->host->terminals,
                .netns_fd = sandbox->netns.fd,
                .cgroup = spawn_cgroup_from(&entry),
        };
        r = spawner_start_sandbox(sandbox->host->spawner, &args, spawned, found);
        sandbox->netns.fd = close_fd(sandbox->netns.fd);
        return r;
}

static void describe_refusal(int r, const struct spawn_failure *found, struct failure *ret_failure)
{
        if (r == SPAWNER_E_DEAD)
                failure_set(ret_failure, FAILURE(SYSTEM), 0, "the spawner died; try again");
        else if (r == SPAWNER_E_STEP)
                failure_set(ret_failure, failure_reason_of(found->error_number),
                            found->error_number, "%s: %s", found->step,
                            strerrordesc_np(found->error_number));
        else
                failure_set(ret_failure, failure_reason_of(r), r, "%s: %s",
                            found->step[0] ? found->step : "ask the spawner", strerrordesc_np(-r));
}

/* From here on its end comes through the reaper. */
static void adopt(struct sandbox *sandbox, const struct spawned *spawned)
{
        sd_event *event = sandbox->host->event;
        int r;

        sandbox->init = (struct child){ .pid = spawned->pid, .on_exit = on_exit_of_init };
        sandbox->init_pidfd = spawned->pidfd;
        sandbox->status_fd = spawned->status_fd;
        sandbox->scratch_fd = spawned->scratch_fd;
        reaper_watch(sandbox->host->reaper, &sandbox->init);
        r = sd_event_add_io(event, &sandbox->status_source, sandbox->status_fd, EPOLLIN, on_status,
                            sandbox);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &sandbox->timeout, CLOCK_MONOTONIC,
                                               START_TIMEOUT_USEC, 0, on_timeout, sandbox);
        if (r < 0) {
                failure_set(&sandbox->failure, FAILURE(EXHAUSTED), r, "cannot watch the init: %s",
                            strerrordesc_np(-r));
                fail_creation(sandbox);
        }
}

static struct sandbox *sandbox_new(struct sandbox_host *host, const struct sandbox_spec *spec)
{
        struct sandbox *sandbox = calloc(1, sizeof(*sandbox));

        if (!sandbox)
                return NULL;
        sandbox->host = host;
        sandbox->created_nsec = clock_monotonic_nsec();
        sandbox->create_ticket = spec->ticket;
        sandbox->limits = limits_from_message(spec->request->limits);
        sandbox->init_pidfd = sandbox->status_fd = sandbox->oom_fd = sandbox->template_fd = -1;
        sandbox->scratch_fd = -1;
        sandbox->netns = NETNS_NONE;
        (void)snprintf(sandbox->id, sizeof(sandbox->id), "%s", spec->request->sandbox_id);
        return sandbox;
}

/* Shared by all that run on it; hotcell-template takes it alone to remove the root. */
static int lock_template(struct sandbox *sandbox, const struct template *template,
                         struct failure *ret_failure)
{
        sandbox->template_fd = open(template->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (sandbox->template_fd >= 0 && flock(sandbox->template_fd, LOCK_SH | LOCK_NB) == 0) {
                (void)cgroup_io_device_of(sandbox->template_fd, &sandbox->io_device);
                return 0;
        }
        if (failure_reason_of(errno) == FAILURE(EXHAUSTED))
                failure_set(ret_failure, FAILURE(EXHAUSTED), errno,
                            "cannot open the root of template %s: %s", template->message.digest,
                            strerrordesc_np(errno));
        else
                failure_set(ret_failure, FAILURE(TEMPLATE_NOT_FOUND), errno,
                            "template %s is being removed or cannot be read: %s",
                            template->message.digest, strerrordesc_np(errno));
        sandbox->template_fd = close_fd(sandbox->template_fd);
        return 1;
}

/* 0, or 1 with @ret_failure: then nothing of it is left but @sandbox itself. */
static int begin_creation(struct sandbox *sandbox, const struct sandbox_spec *spec,
                          struct failure *ret_failure)
{
        struct sandbox_host *host = sandbox->host;
        struct spawn_failure found = { 0 };
        struct spawned spawned;
        int r;

        if (id_ranges_take(host->ids, &sandbox->id_base)) {
                failure_set(ret_failure, FAILURE(EXHAUSTED), 0,
                            "all %u id ranges of sandboxes are in use", host->ids->n_ranges);
                return 1;
        }
        if (make_groups(sandbox, ret_failure)) {
                id_ranges_release(host->ids, sandbox->id_base);
                return 1;
        }
        r = spawn(sandbox, spec, &spawned, &found);
        if (r) {
                describe_refusal(r, &found, ret_failure);
                read_last_usage(sandbox);
                stop_watching(sandbox);
                traffic_close_sandbox(sandbox);
                netns_close(&sandbox->netns);
                remove_groups(sandbox);
                return 1;
        }
        adopt(sandbox, &spawned);
        return 0;
}

int sandbox_create(struct sandbox_host *host, const struct sandbox_spec *spec,
                   struct sandbox **ret_sandbox, struct failure *ret_failure)
{
        _cleanup_(freep) struct sandbox *sandbox = sandbox_new(host, spec);

        if (!sandbox) {
                failure_set(ret_failure, FAILURE(EXHAUSTED), ENOMEM, "out of memory");
                return 1;
        }
        if (lock_template(sandbox, spec->template, ret_failure))
                return 1;
        if (begin_creation(sandbox, spec, ret_failure)) {
                sandbox->template_fd = close_fd(sandbox->template_fd);
                return 1;
        }
        *ret_sandbox = take(sandbox);
        return 0;
}

struct sandbox *sandbox_free(struct sandbox *sandbox)
{
        struct process *process;
        struct process *following;

        if (!sandbox)
                return NULL;
        assert(sandbox->state == SANDBOX_ENDED);
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                (void)process_free(process);
        }
        free(sandbox);
        return NULL;
}

int sandbox_read_usage(struct sandbox *sandbox, struct usage_message *ret_message)
{
        struct metered metered;
        struct tmpfs_amount disk = { 0 };
        int r;

        r = metering_read_sandbox(&sandbox->meter, &metered);
        if (!r && !sandbox->is_init_reaped)
                r = tmpfs_read_use(sandbox->scratch_fd, &disk);
        if (r)
                return r;
        metered.files.oom_kills = count_oom_kills(sandbox);
        metering_fill(&metered, ret_message);
        ret_message->usage.processes = metered.files.processes;
        ret_message->usage.disk_bytes = disk.bytes;
        traffic_fill_sandbox(sandbox, ret_message);
        return 0;
}
