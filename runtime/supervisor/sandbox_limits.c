/*
 * An update is not to kill: whatever is used is looked at first, and a limit below it is refused
 * with the number. That holds on cgroup v1, whose kernel looks, too. On v2 the kernel takes any
 * limit and kills for it: what programs take between the look and the write has the room that is
 * left for it (MEMORY_ROOM), and who is faster is ended as out of memory. Then what can fail is put
 * in force in order, each step undone when a later one fails.
 */
#include "runtime/supervisor/sandbox_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/container/tmpfs.h"
#include "runtime/supervisor/control.h"
#include "runtime/supervisor/failure.h"
#include "runtime/supervisor/open_files.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"

#define SHM_BYTES_MAX ((uint64_t)64 << 20)
#define MEMORY_ROOM   ((uint64_t)16 << 20) /* for what is used while a limit is lowered */

struct runtime_limits limits_from_message(const Hotcell__Runtime__V1__SandboxLimits *message)
{
        return (struct runtime_limits){
                .memory_bytes = message->memory_bytes,
                .cpu_millis = message->cpu_millis,
                .cpu_weight = message->cpu_weight ? message->cpu_weight : CPU_WEIGHT_DEFAULT,
                .processes = message->processes,
                .disk_bytes = message->disk_bytes,
                .disk_inodes = message->disk_inodes ? message->disk_inodes
                                                    : tmpfs_inodes_for(message->disk_bytes),
                .open_files = message->open_files,
                .io_bytes_per_second = message->io_bytes_per_second,
        };
}

Hotcell__Runtime__V1__SandboxLimits limits_to_message(const struct runtime_limits *limits)
{
        Hotcell__Runtime__V1__SandboxLimits message;

        hotcell__runtime__v1__sandbox_limits__init(&message);
        message.memory_bytes = limits->memory_bytes;
        message.cpu_millis = limits->cpu_millis;
        message.cpu_weight = limits->cpu_weight;
        message.processes = limits->processes;
        message.disk_bytes = limits->disk_bytes;
        message.disk_inodes = limits->disk_inodes;
        message.open_files = limits->open_files;
        message.io_bytes_per_second = limits->io_bytes_per_second;
        return message;
}

struct cgroup_limits limits_of_group(const struct runtime_limits *limits, dev_t io_device)
{
        return (struct cgroup_limits){
                .memory_bytes = limits->memory_bytes,
                .cpu_millis = limits->cpu_millis,
                .cpu_weight = limits->cpu_weight,
                .processes = limits->processes + 1, /* the init's */
                .io_bytes_per_second = limits->io_bytes_per_second,
                .io_device = io_device,
        };
}

/* Half of what files leave of the memory, so that full disk and full /dev/shm are no OOM yet. */
uint64_t limits_shm_bytes(const struct runtime_limits *limits)
{
        return MIN((limits->memory_bytes - limits->disk_bytes) / 2, SHM_BYTES_MAX);
}

void limits_refuse_io(const struct sandbox *sandbox, struct failure *ret_failure)
{
        const struct cgroup_tree *tree = sandbox->host->cgroups;

        if (sandbox->io_device == 0)
                failure_set(ret_failure, FAILURE(LIMIT), 0,
                            "limits.io_bytes_per_second: the templates are on no block device "
                            "that can be limited");
        else
                failure_set(ret_failure, FAILURE(LIMIT), 0,
                            "limits.io_bytes_per_second: there is no io controller that limits "
                            "the disk of the templates (%s)",
                            tree->controllers[CGROUP_IO].dialect == CGROUP_ABSENT
                                    ? tree->controllers[CGROUP_IO].missing
                                    : "the kernel has no throttling of block devices");
}

/* --- what is used --- */

static int refuse_number(const char *field, uint64_t wanted, uint64_t least,
                         struct failure *ret_failure)
{
        failure_set(ret_failure, FAILURE(LIMIT), 0,
                    "limits.%s: %" PRIu64 " is too low for what is used now: free some of it, or "
                    "ask for at least %" PRIu64,
                    field, wanted, least);
        return 1;
}

static int refuse_error(const char *what, int r, struct failure *ret_failure)
{
        failure_set(ret_failure, failure_reason_of(r), r, "%s: %s", what, strerrordesc_np(abs(r)));
        return 1;
}

static int check_memory(const struct sandbox *sandbox, const struct runtime_limits *limits,
                        struct failure *ret_failure)
{
        uint64_t used;
        int r;

        if (limits->memory_bytes >= sandbox->limits.memory_bytes)
                return 0;
        r = cgroup_memory_in_use(&sandbox->group, &used);
        if (r)
                return refuse_error("cannot read what memory is used", r, ret_failure);
        if (limits->memory_bytes < used + MEMORY_ROOM)
                return refuse_number("memory_bytes", limits->memory_bytes, used + MEMORY_ROOM,
                                     ret_failure);
        return 0;
}

static int check_disk(const struct sandbox *sandbox, const struct runtime_limits *limits,
                      struct failure *ret_failure)
{
        struct tmpfs_amount used;
        int r = tmpfs_read_use(sandbox->scratch_fd, &used);

        if (r)
                return refuse_error("cannot read what of the disk is used", r, ret_failure);
        if (limits->disk_bytes < used.bytes)
                return refuse_number("disk_bytes", limits->disk_bytes, used.bytes, ret_failure);
        if (limits->disk_inodes < used.inodes)
                return refuse_number("disk_inodes", limits->disk_inodes, used.inodes, ret_failure);
        return 0;
}

/* A process cannot have more than the hard limit that it was started with. */
static int check_open_files(const struct sandbox *sandbox, const struct runtime_limits *limits,
                            struct failure *ret_failure)
{
        struct process *process;
        struct process *following;

        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (!process_is_alive(process) || process->open_files >= limits->open_files)
                        continue;
                failure_set(ret_failure, FAILURE(LIMIT), 0,
                            "limits.open_files: processes that live were started with %u, and "
                            "cannot have %u; delete their contexts first (`hotcell context rm`)",
                            process->open_files, limits->open_files);
                return 1;
        }
        return 0;
}

static int check(const struct sandbox *sandbox, const struct runtime_limits *limits,
                 struct failure *ret_failure)
{
        int r = check_open_files(sandbox, limits, ret_failure);

        if (!r)
                r = check_memory(sandbox, limits, ret_failure);
        return r ? r : check_disk(sandbox, limits, ret_failure);
}

/* --- what is put in force --- */

static int open_shm(const struct sandbox *sandbox)
{
        const struct open_how how = {
                .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
        };
        _cleanup_(closep) int root_fd = -1;
        _cleanup_(closep) int fd = -1;
        struct statfs file_system;
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/root", sandbox->init.pid);
        root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return error_origin(-errno);
        fd = (int)syscall(SYS_openat2, root_fd, "dev/shm", &how, sizeof(how));
        if (fd < 0 || fstatfs(fd, &file_system) < 0)
                return error_origin(-errno);
        return file_system.f_type == TMPFS_MAGIC ? take_fd(&fd) : error_origin(-EUCLEAN);
}

static int resize_shm(const struct sandbox *sandbox, const struct runtime_limits *present,
                      const struct runtime_limits *limits, struct failure *ret_failure)
{
        _cleanup_(closep) int fd = -1;
        const struct tmpfs_amount amount = {
                .bytes = limits_shm_bytes(limits),
                .inodes = tmpfs_inodes_for(limits_shm_bytes(limits)),
        };
        int r;

        if (limits_shm_bytes(limits) == limits_shm_bytes(present))
                return 0;
        fd = open_shm(sandbox);
        r = fd < 0 ? fd : tmpfs_resize(fd, &amount);
        if (r != -EINVAL)
                return r ? refuse_error("cannot change the size of /dev/shm", r, ret_failure) : 0;
        failure_set(ret_failure, FAILURE(LIMIT), 0,
                    "limits.memory_bytes: /dev/shm would have %" PRIu64 " bytes then, half of what "
                    "disk_bytes leaves of the memory, and holds more",
                    amount.bytes);
        return 1;
}

static struct tmpfs_amount disk_of(const struct runtime_limits *limits)
{
        return (struct tmpfs_amount){ .bytes = limits->disk_bytes, .inodes = limits->disk_inodes };
}

/* It may have been filled since it was looked at. */
static int resize_disk(const struct sandbox *sandbox, const struct runtime_limits *present,
                       const struct runtime_limits *limits, struct failure *ret_failure)
{
        const struct tmpfs_amount amount = disk_of(limits);
        int r;

        if (limits->disk_bytes == present->disk_bytes &&
            limits->disk_inodes == present->disk_inodes)
                return 0;
        r = tmpfs_resize(sandbox->scratch_fd, &amount);
        if (r != -EINVAL)
                return r ? refuse_error("cannot change the size of the disk", r, ret_failure) : 0;
        failure_set(ret_failure, FAILURE(LIMIT), 0,
                    "limits.disk_bytes: more is used than %" PRIu64 " bytes or %" PRIu64
                    " files now",
                    amount.bytes, amount.inodes);
        return 1;
}

static int change_group(const struct sandbox *sandbox, const struct runtime_limits *present,
                        const struct runtime_limits *limits, struct failure *ret_failure)
{
        const struct cgroup_limits before = limits_of_group(present, sandbox->io_device);
        const struct cgroup_limits wanted = limits_of_group(limits, sandbox->io_device);
        int r;

        if (limits->memory_bytes != present->memory_bytes)
                sandbox_check_processes(sandbox); /* those were killed for the present one */
        r = cgroup_change_limits(&sandbox->group, &before, &wanted);
        if (r == CGROUP_E_ABSENT)
                limits_refuse_io(sandbox, ret_failure);
        else if (r == CGROUP_E_IN_USE)
                failure_set(ret_failure, FAILURE(LIMIT), 0,
                            "limits.memory_bytes: %" PRIu64 " is too low, more is used now",
                            limits->memory_bytes);
        else if (r)
                return refuse_error("cannot change the limits of the sandbox's group", r,
                                    ret_failure);
        return r ? 1 : 0;
}

static void keep_group(struct runtime_limits *limits, const struct runtime_limits *present)
{
        limits->memory_bytes = present->memory_bytes;
        limits->cpu_millis = present->cpu_millis;
        limits->cpu_weight = present->cpu_weight;
        limits->processes = present->processes;
        limits->io_bytes_per_second = present->io_bytes_per_second;
}

static void keep_disk(struct runtime_limits *limits, const struct runtime_limits *present)
{
        limits->disk_bytes = present->disk_bytes;
        limits->disk_inodes = present->disk_inodes;
}

/* In order. What /dev/shm may hold follows from the others, and is charged with them. */
static const struct {
        int (*change)(const struct sandbox *sandbox, const struct runtime_limits *present,
                      const struct runtime_limits *limits, struct failure *ret_failure);
        void (*keep)(struct runtime_limits *limits, const struct runtime_limits *present);
} steps[] = {
        { change_group, keep_group },
        { resize_disk, keep_disk },
        { resize_shm, NULL },
};

/* All that can be, whatever else cannot: what programs filled meanwhile stays in force. */
static void put_back(struct sandbox *sandbox, const struct runtime_limits *present,
                     const struct runtime_limits *before, size_t n_steps)
{
        static struct log_quota quota;
        struct runtime_limits limits = *before;
        struct failure failure;
        uint64_t used;

        if (before->memory_bytes < present->memory_bytes &&
            (cgroup_memory_in_use(&sandbox->group, &used) || used > before->memory_bytes))
                limits.memory_bytes = present->memory_bytes;
        while (n_steps-- > 0) {
                if (!steps[n_steps].change(sandbox, present, &limits, &failure))
                        continue;
                log_warning_of(&quota, "limits of a sandbox cannot be put back: sandbox=%s %s",
                               sandbox->id, failure.message);
                if (steps[n_steps].keep)
                        steps[n_steps].keep(&limits, present);
        }
        sandbox->limits = limits;
}

static int put_in_force(struct sandbox *sandbox, const struct runtime_limits *limits,
                        struct failure *ret_failure)
{
        const struct runtime_limits before = sandbox->limits;

        for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
                if (steps[i].change(sandbox, &before, limits, ret_failure)) {
                        put_back(sandbox, limits, &before, i);
                        return 1;
                }
        sandbox->limits = *limits;
        return 0;
}

/* --- open files, beside the loop --- */

static int begin_open_files(struct sandbox *sandbox, uint32_t from, uint32_t to)
{
        struct limits_change *change = &sandbox->change;
        int r = open_files_begin(sandbox, from, to, &change->child);

        if (r)
                return r;
        change->is_running = true;
        reaper_watch(sandbox->host->reaper, &change->child);
        return 0;
}

static void fail_open_files(int r, struct failure *ret_failure)
{
        if (r == -EAGAIN)
                failure_set(ret_failure, FAILURE(LIMIT), EAGAIN,
                            "limits.open_files: programs that live set theirs again and again");
        else
                (void)refuse_error("cannot limit the open files of processes that live", r,
                                   ret_failure);
}

static void go_back(struct sandbox *sandbox)
{
        const struct runtime_limits present = sandbox->limits;

        put_back(sandbox, &present, &sandbox->change.before, ARRAY_SIZE(steps));
}

static void on_exit_of_open_files(struct child *child, int status)
{
        struct sandbox *sandbox = CONTAINER_OF(child, struct sandbox, change.child);
        struct limits_change *change = &sandbox->change;
        uint32_t wanted = sandbox->limits.open_files;
        int r = open_files_result(status);

        change->is_running = false;
        if (change->is_undoing && r)
                log_debug("sandbox %s: open files of some stay limited otherwise: %d", sandbox->id,
                          r);
        if (!change->is_undoing && !r) {
                sandbox->host->observer->on_limits_changed(sandbox, NULL);
                return;
        }
        if (!change->is_undoing && sandbox->state == SANDBOX_RUNNING) {
                fail_open_files(r, &change->failure);
                go_back(sandbox);
                change->is_undoing = true;
                if (!begin_open_files(sandbox, wanted, sandbox->limits.open_files))
                        return;
        } else if (!change->is_undoing) {
                failure_set(&change->failure, FAILURE(SANDBOX_ENDED), 0, "sandbox %s has ended",
                            sandbox->id);
        }
        sandbox->host->observer->on_limits_changed(sandbox, &change->failure);
}

void limits_cancel(struct sandbox *sandbox)
{
        struct limits_change *change = &sandbox->change;

        if (!change->is_running)
                return;
        reaper_forget(sandbox->host->reaper, &change->child);
        (void)kill(change->child.pid, SIGKILL);
        change->is_running = false;
        failure_set(&change->failure, FAILURE(SANDBOX_ENDED), 0, "sandbox %s has ended",
                    sandbox->id);
        sandbox->host->observer->on_limits_changed(sandbox, &change->failure);
}

/* Whoever is started while the child is at work has the new ones already. */
int limits_update(struct sandbox *sandbox, const struct runtime_limits *limits,
                  struct failure *ret_failure)
{
        struct limits_change *change = &sandbox->change;
        const struct runtime_limits before = sandbox->limits;
        int r;

        if (change->is_running) {
                failure_set(ret_failure, FAILURE(EXHAUSTED), EAGAIN,
                            "other limits of sandbox %s are just being put in force", sandbox->id);
                return 1;
        }
        r = check(sandbox, limits, ret_failure);
        if (!r)
                r = put_in_force(sandbox, limits, ret_failure);
        metering_expect_change(&sandbox->meter); /* the kernel may have taken memory back */
        if (r)
                return r;
        if (limits->open_files == before.open_files || sandbox->n_processes_alive == 0)
                return 0;
        *change =
                (struct limits_change){ .child.on_exit = on_exit_of_open_files, .before = before };
        r = begin_open_files(sandbox, before.open_files, limits->open_files);
        if (!r)
                return LIMITS_E_LATER;
        go_back(sandbox);
        fail_open_files(r, ret_failure);
        return 1;
}

/* --- each by itself --- */

/* Programs that hold more than @wanted keep it, and get no more than that. */
static uint64_t lowest_memory(const struct sandbox *sandbox, uint64_t wanted)
{
        uint64_t present = sandbox->limits.memory_bytes;
        uint64_t least = MAX(wanted, sandbox->limits.disk_bytes + CONTROL_DISK_ROOM);
        uint64_t used;

        if (cgroup_memory_in_use(&sandbox->group, &used))
                return present;
        /* What is used by the time that it is looked at again. */
        return MIN(MAX(least, used + 2 * MEMORY_ROOM), present);
}

static bool are_same(const struct runtime_limits *a, const struct runtime_limits *b)
{
        return a->memory_bytes == b->memory_bytes && a->cpu_millis == b->cpu_millis &&
               a->cpu_weight == b->cpu_weight && a->processes == b->processes &&
               a->disk_bytes == b->disk_bytes && a->disk_inodes == b->disk_inodes &&
               a->open_files == b->open_files && a->io_bytes_per_second == b->io_bytes_per_second;
}

static bool has_room_for_disk(const struct sandbox *sandbox, const struct runtime_limits *limits)
{
        return limits->disk_bytes + CONTROL_DISK_ROOM <= limits->memory_bytes ||
               (limits->disk_bytes <= sandbox->limits.disk_bytes &&
                limits->memory_bytes >= sandbox->limits.memory_bytes);
}

/* @limits is what is in force then. */
static int approach(struct sandbox *sandbox, struct runtime_limits *limits)
{
        struct failure failure;
        int r = 0;

        if (!are_same(limits, &sandbox->limits) && has_room_for_disk(sandbox, limits))
                r = limits_update(sandbox, limits, &failure);
        *limits = sandbox->limits;
        if (r == LIMITS_E_LATER)
                return r;
        if (r)
                log_debug("sandbox %s: %s", sandbox->id, failure.message);
        return 0;
}

/* The memory has to have room for the disk at each step. Only open files are a child's. */
int limits_approach(struct sandbox *sandbox, const struct runtime_limits *limits)
{
        struct runtime_limits next = sandbox->limits;

        next.memory_bytes = MAX(next.memory_bytes, limits->memory_bytes);
        (void)approach(sandbox, &next);
        next.cpu_millis = limits->cpu_millis;
        (void)approach(sandbox, &next);
        next.cpu_weight = limits->cpu_weight;
        (void)approach(sandbox, &next);
        next.processes = limits->processes;
        (void)approach(sandbox, &next);
        next.io_bytes_per_second = limits->io_bytes_per_second;
        (void)approach(sandbox, &next);
        next.disk_bytes = limits->disk_bytes;
        (void)approach(sandbox, &next);
        next.disk_inodes = limits->disk_inodes;
        (void)approach(sandbox, &next);
        if (limits->memory_bytes < next.memory_bytes)
                next.memory_bytes = lowest_memory(sandbox, limits->memory_bytes);
        (void)approach(sandbox, &next);
        next.open_files = limits->open_files;
        return approach(sandbox, &next);
}
