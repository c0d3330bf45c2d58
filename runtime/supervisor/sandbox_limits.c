/*
 * An update never kills: whatever is used is looked at first, and a limit below it is refused with
 * the number. Then what can fail is put in force in order, each step undone when a later one fails.
 */
#include "runtime/supervisor/sandbox_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/container/tmpfs.h"
#include "runtime/supervisor/control.h"
#include "runtime/supervisor/failure.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"

#define SHM_BYTES_MAX ((uint64_t)64 << 20)
#define MEMORY_ROOM   ((uint64_t)16 << 20) /* for what is used while a limit is lowered */

enum { CPU_WEIGHT_DEFAULT = 100 };

struct sandbox_limits limits_from_message(const Hotcell__Runtime__V1__SandboxLimits *message)
{
        return (struct sandbox_limits){
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

Hotcell__Runtime__V1__SandboxLimits limits_to_message(const struct sandbox_limits *limits)
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

struct cgroup_limits limits_of_group(const struct sandbox_limits *limits, dev_t io_device)
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
uint64_t limits_shm_bytes(const struct sandbox_limits *limits)
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
                    "limits.%s: %" PRIu64 " is too low, as much is used that it may be no lower "
                    "than %" PRIu64 " now",
                    field, wanted, least);
        return 1;
}

static int refuse_error(const char *what, int r, struct failure *ret_failure)
{
        failure_set(ret_failure, failure_reason_of(r), r, "%s: %s", what, strerrordesc_np(abs(r)));
        return 1;
}

static int check_memory(const struct sandbox *sandbox, const struct sandbox_limits *limits,
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

static int check_disk(const struct sandbox *sandbox, const struct sandbox_limits *limits,
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
static int check_open_files(const struct sandbox *sandbox, const struct sandbox_limits *limits,
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
                            "cannot have %u",
                            process->open_files, limits->open_files);
                return 1;
        }
        return 0;
}

static int check(const struct sandbox *sandbox, const struct sandbox_limits *limits,
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

static int resize_shm(const struct sandbox *sandbox, const struct sandbox_limits *limits,
                      struct failure *ret_failure)
{
        _cleanup_(closep) int fd = -1;
        const struct tmpfs_amount amount = {
                .bytes = limits_shm_bytes(limits),
                .inodes = tmpfs_inodes_for(limits_shm_bytes(limits)),
        };
        int r;

        if (limits_shm_bytes(limits) == limits_shm_bytes(&sandbox->limits))
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

static struct tmpfs_amount disk_of(const struct sandbox_limits *limits)
{
        return (struct tmpfs_amount){ .bytes = limits->disk_bytes, .inodes = limits->disk_inodes };
}

/* It may have been filled since it was looked at. */
static int resize_disk(const struct sandbox *sandbox, const struct sandbox_limits *limits,
                       struct failure *ret_failure)
{
        const struct tmpfs_amount amount = disk_of(limits);
        int r;

        if (limits->disk_bytes == sandbox->limits.disk_bytes &&
            limits->disk_inodes == sandbox->limits.disk_inodes)
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

static int change_group(const struct sandbox *sandbox, const struct sandbox_limits *limits,
                        struct failure *ret_failure)
{
        const struct cgroup_limits present = limits_of_group(&sandbox->limits, sandbox->io_device);
        const struct cgroup_limits wanted = limits_of_group(limits, sandbox->io_device);
        int r = cgroup_change_limits(&sandbox->group, &present, &wanted);

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

/* In a child: with all power over the sandbox's user namespace, and none over any other. */
_Noreturn static void limit_open_files_inside(const struct sandbox *sandbox,
                                              const struct sandbox_limits *limits)
{
        struct process *process;
        struct process *following;

        if (prctl(PR_SET_DUMPABLE, 0) < 0 || setns(sandbox->init_pidfd, CLONE_NEWUSER) < 0)
                _exit(errno);
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                int r = process_is_alive(process)
                                ? cgroup_limit_open_files(&process->leaf,
                                                          sandbox->limits.open_files,
                                                          limits->open_files)
                                : 0;

                if (r)
                        _exit(-r);
        }
        _exit(0);
}

/*
 * Of those that live; whoever is started from now on begins with it. Other users' limits need
 * CAP_SYS_RESOURCE over their user namespace. Whoever enters that has it, also on hosts on which
 * the runtime itself has not.
 */
static int limit_open_files(const struct sandbox *sandbox, const struct sandbox_limits *limits,
                            struct failure *ret_failure)
{
        int status = 0, r = 0;
        pid_t pid;

        if (limits->open_files == sandbox->limits.open_files || sandbox->n_processes_alive == 0)
                return 0;
        pid = fork();
        if (pid == 0)
                limit_open_files_inside(sandbox, limits);
        if (pid < 0)
                r = -errno;
        else if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) < 0 || !WIFEXITED(status))
                r = -ECHILD;
        else
                r = -WEXITSTATUS(status);
        return r ? refuse_error("cannot limit the open files of processes that live", r,
                                ret_failure)
                 : 0;
}

/* What was in force a moment ago can be again, unless the sandbox filled it meanwhile. */
static void put_back(const struct sandbox *sandbox, const struct sandbox_limits *limits)
{
        const struct cgroup_limits present = limits_of_group(limits, sandbox->io_device);
        const struct cgroup_limits before = limits_of_group(&sandbox->limits, sandbox->io_device);
        const struct tmpfs_amount disk = disk_of(&sandbox->limits);
        int r = cgroup_change_limits(&sandbox->group, &present, &before);

        if (!r)
                r = tmpfs_resize(sandbox->scratch_fd, &disk);
        if (r)
                log_error("limits of a sandbox could not be put back: sandbox=%s error=%d",
                          sandbox->id, r);
}

int limits_update(struct sandbox *sandbox, const struct sandbox_limits *limits,
                  struct failure *ret_failure)
{
        int r = check(sandbox, limits, ret_failure);

        if (r)
                return r;
        r = change_group(sandbox, limits, ret_failure);
        if (r)
                return r;
        r = resize_disk(sandbox, limits, ret_failure);
        if (!r)
                r = resize_shm(sandbox, limits, ret_failure);
        if (!r)
                r = limit_open_files(sandbox, limits, ret_failure);
        if (r) {
                put_back(sandbox, limits);
                return r;
        }
        sandbox->limits = *limits;
        return 0;
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

static void approach(struct sandbox *sandbox, const struct sandbox_limits *limits)
{
        struct failure failure;

        if (limits->disk_bytes + CONTROL_DISK_ROOM <= limits->memory_bytes &&
            limits_update(sandbox, limits, &failure))
                log_debug("sandbox %s: %s", sandbox->id, failure.message);
}

#define APPROACH(sandbox, field, value)                                                            \
        do {                                                                                       \
                struct sandbox_limits limits_ = (sandbox)->limits;                                 \
                limits_.field = (value);                                                           \
                if (limits_.field != (sandbox)->limits.field)                                      \
                        approach(sandbox, &limits_);                                               \
        } while (0)

/* The memory has to have room for the disk at each step. */
void limits_approach(struct sandbox *sandbox, const struct sandbox_limits *limits)
{
        if (limits->memory_bytes > sandbox->limits.memory_bytes)
                APPROACH(sandbox, memory_bytes, limits->memory_bytes);
        APPROACH(sandbox, cpu_millis, limits->cpu_millis);
        APPROACH(sandbox, cpu_weight, limits->cpu_weight);
        APPROACH(sandbox, processes, limits->processes);
        APPROACH(sandbox, io_bytes_per_second, limits->io_bytes_per_second);
        APPROACH(sandbox, open_files, limits->open_files);
        APPROACH(sandbox, disk_bytes, limits->disk_bytes);
        APPROACH(sandbox, disk_inodes, limits->disk_inodes);
        if (limits->memory_bytes < sandbox->limits.memory_bytes)
                APPROACH(sandbox, memory_bytes, lowest_memory(sandbox, limits->memory_bytes));
}
