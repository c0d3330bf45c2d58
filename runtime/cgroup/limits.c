/*
 * The two dialects differ in names, in units and in what they do about a limit below what is used:
 * v1 refuses it, v2 takes it and kills. Each function says how what it writes differs.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/cgroup/group_private.h"
#include "runtime/cgroup/pressure.h"
#include "runtime/cgroup/values.h"

enum {
        CPU_PERIOD_USEC = 100000,
        CPU_SHARES_DEFAULT = 1024,
        SOCKET_MEMORY_MIN = 4 << 20,
        SOCKET_MEMORY_MAX = 32 << 20,
        DEVICE_PATH_MAX = 64,
        OPEN_FILES_LOOKS = 8,
        OPEN_FILES_PAUSE_NSEC = 4000000, /* doubled each time */
};

#define SOCKETS_FILE  "memory.kmem.tcp.limit_in_bytes"
#define IO_READ_FILE  "blkio.throttle.read_bps_device"
#define IO_WRITE_FILE "blkio.throttle.write_bps_device"

static enum cgroup_dialect dialect_of(const struct cgroup *group, enum cgroup_controller controller)
{
        return group->tree->controllers[controller].dialect;
}

static int write_value(const struct cgroup *group, enum cgroup_controller controller,
                       const char *file, uint64_t value)
{
        char text[CGROUP_VALUE_MAX];

        (void)snprintf(text, sizeof(text), "%" PRIu64, value);
        return write_at(group, group->tree->controllers[controller].parent, file, text);
}

/* --- memory --- */

/* Without swap accounting there is no such file, and then memory.swappiness keeps v1 from it. */
static int forbid_swap_v1(const struct cgroup *group, uint64_t memory_bytes)
{
        int r = write_value(group, CGROUP_MEMORY, "memory.memsw.limit_in_bytes", memory_bytes);

        return r == -ENOENT ? write_value(group, CGROUP_MEMORY, "memory.swappiness", 0) : r;
}

/* What memory and swap have together may never be less than what memory has. */
static int limit_memory_v1(const struct cgroup *group, uint64_t present, uint64_t memory_bytes)
{
        bool is_more = present > 0 && memory_bytes > present;
        int r = is_more ? forbid_swap_v1(group, memory_bytes) : 0;

        if (!r)
                r = write_value(group, CGROUP_MEMORY, "memory.limit_in_bytes", memory_bytes);
        if (!r && !is_more)
                r = forbid_swap_v1(group, memory_bytes);
        return r == -EBUSY ? CGROUP_E_IN_USE : r;
}

static int limit_memory_v2(const struct cgroup *group, uint64_t memory_bytes)
{
        int r = write_value(group, CGROUP_MEMORY, "memory.max", memory_bytes);

        if (!r)
                r = write_value(group, CGROUP_MEMORY, "memory.swap.max", 0);
        return r == -ENOENT ? 0 : r;
}

/*
 * v1 does not count what sockets hold as memory. It has a counter of its own for them, which counts
 * only in groups in which it was ever written: hence also in leaves. Kernels without it are told
 * of with the walls (cgroup_limits_sockets()).
 */
int limits_set_sockets(const struct cgroup *group, uint64_t bytes)
{
        int r;

        if (dialect_of(group, CGROUP_MEMORY) != CGROUP_V1)
                return 0;
        r = write_value(group, CGROUP_MEMORY, SOCKETS_FILE, bytes);
        if (r == -EBUSY)
                return CGROUP_E_IN_USE;
        return r == -ENOENT ? 0 : r;
}

uint64_t cgroup_socket_bytes(uint64_t memory_bytes)
{
        return MIN(MAX(memory_bytes / 8, SOCKET_MEMORY_MIN), SOCKET_MEMORY_MAX);
}

static int limit_memory(const struct cgroup *group, uint64_t present, uint64_t memory_bytes)
{
        int r = dialect_of(group, CGROUP_MEMORY) == CGROUP_V2
                        ? limit_memory_v2(group, memory_bytes)
                        : limit_memory_v1(group, present, memory_bytes);

        return r ? r : limits_set_sockets(group, cgroup_socket_bytes(memory_bytes));
}

bool cgroup_limits_sockets(const struct cgroup_tree *tree)
{
        size_t parent = tree->controllers[CGROUP_MEMORY].parent;

        switch (tree->controllers[CGROUP_MEMORY].dialect) {
        case CGROUP_V1:
                return faccessat(tree->parents[parent].fd, SOCKETS_FILE, F_OK, 0) == 0;
        case CGROUP_V2:
                return true;
        case CGROUP_ABSENT:
        default:
                return false;
        }
}

int cgroup_memory_in_use(const struct cgroup *group, uint64_t *ret_bytes)
{
        bool is_v1 = dialect_of(group, CGROUP_MEMORY) == CGROUP_V1;
        size_t parent = group->tree->controllers[CGROUP_MEMORY].parent;
        uint64_t used = 0, reclaimable = 0;
        char text[CGROUP_VALUE_MAX];
        int r;

        *ret_bytes = 0;
        if (!has(group, CGROUP_MEMORY))
                return 0;
        r = read_at(group, parent, is_v1 ? "memory.usage_in_bytes" : "memory.current", text,
                    sizeof(text));
        if (!r)
                r = cgroup_parse_number(text, &used);
        if (!r)
                r = cgroup_read_reclaimable(group, &reclaimable);
        if (r)
                return error_fold(r);
        *ret_bytes = used - MIN(used, reclaimable);
        return 0;
}

/* --- CPUs --- */

static int limit_cpu(const struct cgroup *group, uint32_t cpu_millis)
{
        size_t parent = group->tree->controllers[CGROUP_CPU].parent;
        uint64_t quota_usec = (uint64_t)cpu_millis * CPU_PERIOD_USEC / 1000;
        char text[CGROUP_VALUE_MAX];
        int r;

        if (dialect_of(group, CGROUP_CPU) == CGROUP_V2) {
                (void)snprintf(text, sizeof(text), "%" PRIu64 " %d", quota_usec, CPU_PERIOD_USEC);
                return write_at(group, parent, "cpu.max", text);
        }
        r = write_value(group, CGROUP_CPU, "cpu.cfs_period_us", CPU_PERIOD_USEC);
        return r ? r : write_value(group, CGROUP_CPU, "cpu.cfs_quota_us", quota_usec);
}

/* As the kernel itself: sched_weight_from_cgroup() in kernel/sched/sched.h. */
uint64_t cgroup_shares_of_weight(uint32_t weight)
{
        return ((uint64_t)weight * CPU_SHARES_DEFAULT + CPU_WEIGHT_DEFAULT / 2) /
               CPU_WEIGHT_DEFAULT;
}

static int weigh_cpu(const struct cgroup *group, uint32_t weight)
{
        if (dialect_of(group, CGROUP_CPU) == CGROUP_V2)
                return write_value(group, CGROUP_CPU, "cpu.weight", weight);
        return write_value(group, CGROUP_CPU, "cpu.shares", cgroup_shares_of_weight(weight));
}

/* --- disks --- */

bool cgroup_limits_io(const struct cgroup_tree *tree)
{
        size_t parent = tree->controllers[CGROUP_IO].parent;

        switch (tree->controllers[CGROUP_IO].dialect) {
        case CGROUP_V1:
                return faccessat(tree->parents[parent].fd, IO_READ_FILE, F_OK, 0) == 0;
        case CGROUP_V2:
                return faccessat(tree->parents[parent].fd, "io.max", F_OK, 0) == 0;
        case CGROUP_ABSENT:
        default:
                return false;
        }
}

/* Limits are of whole disks: a partition lies in the folder of its own. */
int cgroup_io_device_of(int fd, dev_t *ret_device)
{
        unsigned major_number, minor_number;
        char path[DEVICE_PATH_MAX], text[CGROUP_VALUE_MAX];
        struct stat status;

        if (fstat(fd, &status) < 0)
                return error_origin(-errno);
        major_number = major(status.st_dev);
        minor_number = minor(status.st_dev);
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major_number, minor_number);
        if (major_number == 0 || access(path, F_OK) < 0)
                return CGROUP_E_ABSENT;
        *ret_device = status.st_dev;
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major_number,
                       minor_number);
        if (access(path, F_OK) < 0)
                return 0;
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major_number,
                       minor_number);
        if (io_read_file(AT_FDCWD, path, text, sizeof(text), NULL) ||
            sscanf(text, "%u:%u", &major_number, &minor_number) != 2) /* NOLINT(cert-err34-c) */
                return CGROUP_E_ABSENT;
        *ret_device = makedev(major_number, minor_number);
        return 0;
}

/* v1 takes zero for no bound, v2 `max`. */
static int write_io_v1(const struct cgroup *group, const char *file,
                       const struct cgroup_limits *limits)
{
        char text[CGROUP_VALUE_MAX];

        (void)snprintf(text, sizeof(text), "%u:%u %" PRIu64, major(limits->io_device),
                       minor(limits->io_device), limits->io_bytes_per_second);
        return write_at(group, group->tree->controllers[CGROUP_IO].parent, file, text);
}

static int write_io_v2(const struct cgroup *group, const struct cgroup_limits *limits)
{
        uint64_t rate = limits->io_bytes_per_second;
        char text[2 * CGROUP_VALUE_MAX];

        if (rate)
                (void)snprintf(text, sizeof(text), "%u:%u rbps=%" PRIu64 " wbps=%" PRIu64,
                               major(limits->io_device), minor(limits->io_device), rate, rate);
        else
                (void)snprintf(text, sizeof(text), "%u:%u rbps=max wbps=max",
                               major(limits->io_device), minor(limits->io_device));
        return write_at(group, group->tree->controllers[CGROUP_IO].parent, "io.max", text);
}

static int limit_io(const struct cgroup *group, uint64_t present,
                    const struct cgroup_limits *limits)
{
        int r;

        if (limits->io_bytes_per_second == present)
                return 0;
        if (!has(group, CGROUP_IO) || limits->io_device == 0)
                return limits->io_bytes_per_second > 0 ? CGROUP_E_ABSENT : 0;
        if (dialect_of(group, CGROUP_IO) == CGROUP_V2) {
                r = write_io_v2(group, limits);
        } else {
                r = write_io_v1(group, IO_READ_FILE, limits);
                if (!r)
                        r = write_io_v1(group, IO_WRITE_FILE, limits);
        }
        return r == -ENOENT || r == -ENODEV ? CGROUP_E_ABSENT : r;
}

/* --- all of them --- */

/*
 * An absent controller is not this function's to refuse, but for that of disks: the walls are,
 * before it comes to this. @present: zeros for a group that has none yet.
 */
static int apply(const struct cgroup *group, const struct cgroup_limits *present,
                 const struct cgroup_limits *limits)
{
        uint32_t weight = limits->cpu_weight ? limits->cpu_weight : CPU_WEIGHT_DEFAULT;
        uint32_t present_weight = present->cpu_weight ? present->cpu_weight : CPU_WEIGHT_DEFAULT;
        int r = 0;

        if (has(group, CGROUP_MEMORY) && limits->memory_bytes != present->memory_bytes)
                r = limit_memory(group, present->memory_bytes, limits->memory_bytes);
        if (!r && has(group, CGROUP_CPU) && limits->cpu_millis != present->cpu_millis)
                r = limit_cpu(group, limits->cpu_millis);
        if (!r && has(group, CGROUP_CPU) && weight != present_weight)
                r = weigh_cpu(group, weight);
        if (!r && has(group, CGROUP_PIDS) && limits->processes != present->processes)
                r = write_value(group, CGROUP_PIDS, "pids.max", limits->processes);
        if (!r)
                r = limit_io(group, present->io_bytes_per_second, limits);
        return r < 0 ? error_fold(r) : r;
}

int limits_begin(const struct cgroup *group, const struct cgroup_limits *limits)
{
        const struct cgroup_limits none = { 0 };

        return apply(group, &none, limits);
}

int cgroup_change_limits(const struct cgroup *group, const struct cgroup_limits *present,
                         const struct cgroup_limits *limits)
{
        /* Nothing that can be equal: so all is written back, whatever was reached. */
        const struct cgroup_limits unknown = { .memory_bytes = limits->memory_bytes,
                                               .cpu_weight = UINT32_MAX,
                                               .io_bytes_per_second = limits->io_bytes_per_second };
        int undo, r;

        if (limits->io_bytes_per_second > 0 && (!has(group, CGROUP_IO) || limits->io_device == 0))
                return CGROUP_E_ABSENT;
        r = apply(group, present, limits);
        if (!r)
                return 0;
        undo = apply(group, &unknown, present);
        if (undo)
                log_error("limits that were in force cannot be put back: group=%s error=%d",
                          group->path, undo);
        return r;
}

/* --- open files: no cgroup's business, but it is cgroups that know who is there --- */

/* The pid was read a moment ago: it may be another's by now. */
static bool is_member(const struct cgroup *group, pid_t pid)
{
        char path[64], text[4096], wanted[CGROUP_GROUP_PATH_MAX + 2];

        (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
        (void)snprintf(wanted, sizeof(wanted), "/%s\n", group->path);
        return io_read_file(AT_FDCWD, path, text, sizeof(text), NULL) == 0 && strstr(text, wanted);
}

/* Who set a lower one for itself keeps that. 1: it was changed. */
static int limit_one(const struct cgroup *group, pid_t pid, rlim_t present, rlim_t wanted)
{
        struct rlimit limit;
        rlim_t target;

        if (prlimit(pid, RLIMIT_NOFILE, NULL, &limit) < 0)
                return errno == ESRCH ? 0 : error_origin(-errno);
        target = MIN(wanted, limit.rlim_max);
        if ((limit.rlim_cur <= wanted && limit.rlim_cur != present) || limit.rlim_cur == target ||
            !is_member(group, pid))
                return 0;
        limit.rlim_cur = target;
        if (prlimit(pid, RLIMIT_NOFILE, &limit, NULL) < 0)
                return errno == ESRCH ? 0 : error_origin(-errno);
        return 1;
}

/* 1: some were changed. */
static int limit_all(const struct cgroup *group, rlim_t present, rlim_t wanted)
{
        _cleanup_(fclosep) FILE *file = NULL;
        char path[FILE_PATH_MAX], line[32];
        bool has_changed = false;
        int fd, r;

        r = file_path(group, "cgroup.procs", path);
        if (r)
                return r;
        fd = openat(parent_fd(group, 0), path, O_RDONLY | O_CLOEXEC);
        file = fd >= 0 ? fdopen(fd, "r") : NULL;
        if (!file) {
                (void)close_fd(fd);
                return error_origin(-errno);
        }
        while (fgets(line, sizeof(line), file)) {
                pid_t pid = (pid_t)strtol(line, NULL, 10);

                r = pid > 0 ? limit_one(group, pid, present, wanted) : 0;
                if (r < 0)
                        return r;
                has_changed |= r > 0;
        }
        return has_changed;
}

/* Who is forked while they are looked at has its parent's: so once more, until nobody had. */
int cgroup_limit_open_files(const struct cgroup *group, uint32_t present, uint32_t wanted)
{
        for (unsigned i = 0; i < OPEN_FILES_LOOKS; i++) {
                const struct timespec pause = { .tv_nsec = (long)OPEN_FILES_PAUSE_NSEC << i };
                int r = limit_all(group, present, wanted);

                if (r <= 0)
                        return r;
                (void)nanosleep(&pause, NULL);
        }
        return CGROUP_E_RESTLESS;
}
