/*
 * The dialects are one table: what a value is called in v1 and in v2.
 */
#include "runtime/cgroup/group_private.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/values.h"

#define SOCKETS_FILE     "memory.kmem.tcp.limit_in_bytes"
#define SOCKETS_NOW_FILE "memory.kmem.tcp.usage_in_bytes"

enum group_file {
        FILE_PIDS_NOW,
        _FILE_N,
};

static const struct {
        enum cgroup_controller controller;
        const char *v1;
        const char *v2;
} group_files[] = {
        [FILE_PIDS_NOW] = { CGROUP_PIDS, "pids.current", "pids.current" },
};
static_assert(ARRAY_SIZE(group_files) == _FILE_N, "every file has a row");

static const struct {
        const char *v1; /* of memory's hierarchy; NULL: the file of v2 is always there */
        const char *v2;
} meters[] = {
        [CGROUP_METER_CPU] = { NULL, "cpu.stat" },
        [CGROUP_METER_MEMORY] = { "memory.usage_in_bytes", "memory.current" },
        [CGROUP_METER_PEAK] = { "memory.max_usage_in_bytes", "memory.peak" },
        [CGROUP_METER_OOM] = { "memory.oom_control", "memory.events" },
};
static_assert(ARRAY_SIZE(meters) == _CGROUP_METER_N, "every meter has a row");

#define NO_METERS                                                                                  \
        {                                                                                          \
                [0 ... _CGROUP_METER_N - 1] = -1                                                   \
        }

/* -ENOENT when this group has no such file: its controller is absent or not counted here. */
static int resolve(const struct cgroup *group, enum group_file file, size_t *ret_parent,
                   const char **ret_name)
{
        enum cgroup_controller controller = group_files[file].controller;
        enum cgroup_dialect dialect = group->tree->controllers[controller].dialect;
        size_t parent = group->tree->controllers[controller].parent;

        if (dialect == CGROUP_ABSENT || !(group->parents & BIT(parent)))
                return -ENOENT;
        *ret_parent = parent;
        *ret_name = dialect == CGROUP_V1 ? group_files[file].v1 : group_files[file].v2;
        return 0;
}

/* A file that is not there reads as zero: memory.peak is missing before Linux 5.19. */
static int read_number(const struct cgroup *group, enum group_file file, uint64_t *ret_value)
{
        char text[CGROUP_VALUE_MAX];
        const char *name;
        size_t parent;
        int r = resolve(group, file, &parent, &name);

        *ret_value = 0;
        if (r)
                return 0;
        r = read_at(group, parent, name, text, sizeof(text));
        if (r)
                return r == -ENOENT ? 0 : error_origin(r);
        return cgroup_parse_number(text, ret_value);
}

int cgroup_id_of(int fd, uint64_t *ret_id)
{
        struct stat status;

        if (fstat(fd, &status) < 0)
                return error_origin(-errno);
        *ret_id = status.st_ino;
        return 0;
}

static int make_directories(struct cgroup *group, unsigned parents)
{
        struct stat status;

        for (size_t h = 0; h < group->tree->n_parents; h++) {
                if (!(parents & BIT(h)) || group->tree->parents[h].fd < 0)
                        continue;
                if (mkdirat(group->tree->parents[h].fd, group->path, 0755) < 0)
                        return errno == EEXIST ? CGROUP_E_EXISTS : error_origin(-errno);
                group->parents |= BIT(h);
        }
        if (fstatat(parent_fd(group, 0), group->path, &status, AT_SYMLINK_NOFOLLOW) < 0)
                return error_origin(-errno);
        group->id = status.st_ino;
        return 0;
}

/* Leaves count memory for themselves; the rest is enough at the sandbox's level. */
static int pass_memory_on(const struct cgroup *group)
{
        if (group->tree->controllers[CGROUP_MEMORY].dialect != CGROUP_V2)
                return 0;
        return write_at(group, 0, "cgroup.subtree_control", "+memory");
}

int cgroup_create(struct cgroup *group, const struct cgroup_tree *tree, const char *name,
                  const struct cgroup_limits *limits)
{
        struct cgroup made = { .tree = tree, .meter_fds = NO_METERS };
        int r;

        assert(strlen(name) <= CGROUP_NAME_MAX);
        made.n_sandbox = strlen(name);
        memcpy(made.path, name, made.n_sandbox + 1);
        r = make_directories(&made, ~0U);
        if (!r)
                r = limits_begin(&made, limits);
        if (!r)
                r = pass_memory_on(&made);
        if (r) {
                (void)cgroup_remove(&made);
                return r;
        }
        *group = made;
        return 0;
}

int cgroup_create_leaf(struct cgroup *leaf, const struct cgroup *sandbox, const char *name)
{
        struct cgroup made = { .tree = sandbox->tree, .meter_fds = NO_METERS };
        bool is_v2 = sandbox->tree->controllers[CGROUP_MEMORY].dialect == CGROUP_V2;
        unsigned parents = BIT(0);
        int r;

        assert(strlen(name) <= CGROUP_NAME_MAX);
        made.n_sandbox = sandbox->n_sandbox;
        if ((size_t)snprintf(made.path, sizeof(made.path), "%s/%s", sandbox->path, name) >=
            sizeof(made.path))
                return error_origin(-ENAMETOOLONG);
        if (has(sandbox, CGROUP_MEMORY))
                parents |= BIT(sandbox->tree->controllers[CGROUP_MEMORY].parent);
        r = make_directories(&made, parents);
        /* A program that lost one of its processes is in no state worth going on in. */
        if (!r && is_v2)
                r = write_at(&made, 0, "memory.oom.group", "1");
        /* The sandbox's own limit is lower or the same; here it only starts the counter. */
        if (!r)
                r = limits_set_sockets(&made, cgroup_socket_bytes(UINT64_MAX));
        if (r) {
                (void)cgroup_remove(&made);
                return r;
        }
        *leaf = made;
        return 0;
}

int cgroup_remove(struct cgroup *group)
{
        bool is_busy = false;

        for (size_t i = 0; i < _CGROUP_METER_N; i++)
                group->meter_fds[i] = close_fd(group->meter_fds[i]);
        for (size_t h = 0; h < CGROUP_HIERARCHIES_MAX; h++) {
                if (!(group->parents & BIT(h)))
                        continue;
                if (unlinkat(parent_fd(group, h), group->path, AT_REMOVEDIR) == 0 ||
                    errno == ENOENT)
                        group->parents &= ~BIT(h);
                else if (errno == EBUSY || errno == ENOTEMPTY)
                        is_busy = true;
                else
                        return error_origin(-errno);
        }
        return is_busy ? CGROUP_E_BUSY : 0;
}

/* Of v1: the leaf's own directory where it has one, else the sandbox's. */
static int open_tasks(const struct cgroup *group, size_t parent)
{
        char path[FILE_PATH_MAX];
        size_t n = group->parents & BIT(parent) ? strlen(group->path) : group->n_sandbox;
        int fd;

        (void)snprintf(path, sizeof(path), "%.*s/tasks", (int)n, group->path);
        fd = openat(parent_fd(group, parent), path, O_WRONLY | O_CLOEXEC);
        return fd < 0 ? error_origin(-errno) : fd;
}

int cgroup_entry_open(const struct cgroup *group, struct cgroup_entry *ret_entry)
{
        struct cgroup_entry entry = { .id_fd = -1 };

        entry.id_fd = openat(parent_fd(group, 0), group->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (entry.id_fd < 0)
                return error_origin(-errno);
        for (size_t h = 1; h < group->tree->n_parents; h++) {
                int fd;

                if (parent_fd(group, h) < 0)
                        continue;
                fd = open_tasks(group, h);
                if (fd < 0) {
                        cgroup_entry_close(&entry);
                        return fd;
                }
                entry.tasks_fds[entry.n_tasks++] = fd;
        }
        *ret_entry = entry;
        return 0;
}

void cgroup_entry_close(struct cgroup_entry *entry)
{
        entry->id_fd = close_fd(entry->id_fd);
        for (size_t i = 0; i < entry->n_tasks; i++)
                entry->tasks_fds[i] = close_fd(entry->tasks_fds[i]);
        entry->n_tasks = 0;
}

static int read_key(const struct cgroup *group, size_t parent, const char *file, const char *key,
                    uint64_t *ret_value)
{
        char text[4096];
        int r = read_at(group, parent, file, text, sizeof(text));

        return r ? error_origin(r) : cgroup_parse_key(text, key, ret_value);
}

/* Whether this descriptor may be kept for as long as the group lives. */
static bool is_to_spare(int fd)
{
        struct rlimit limit;

        return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd < limit.rlim_cur / 2;
}

enum { METER_E_ABSENT = 1 }; /* the controller is absent, or not counted for this group */

static int open_meter(const struct cgroup *group, enum cgroup_meter meter, int *ret_fd)
{
        size_t parent = group->tree->controllers[CGROUP_MEMORY].parent;
        enum cgroup_dialect dialect = group->tree->controllers[CGROUP_MEMORY].dialect;
        const char *name = dialect == CGROUP_V1 ? meters[meter].v1 : meters[meter].v2;
        char path[FILE_PATH_MAX];
        int fd, r;

        if (!meters[meter].v1) {
                parent = 0;
                name = meters[meter].v2;
        } else if (dialect == CGROUP_ABSENT || !(group->parents & BIT(parent)))
                return METER_E_ABSENT;
        r = file_path(group, name, path);
        if (r)
                return r;
        /* v2 resets a peak only for reads through the same descriptor, or (before 6.12) never. */
        fd = openat(parent_fd(group, parent), path,
                    (meter == CGROUP_METER_PEAK ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (fd < 0 && errno == EACCES && meter == CGROUP_METER_PEAK)
                fd = openat(parent_fd(group, parent), path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

static int use_meter(struct cgroup *group, enum cgroup_meter meter, int *ret_fd)
{
        int r;

        *ret_fd = group->meter_fds[meter];
        if (*ret_fd >= 0)
                return 0;
        r = open_meter(group, meter, ret_fd);
        if (r == 0 && group->keeps_meters && is_to_spare(*ret_fd))
                group->meter_fds[meter] = *ret_fd;
        return r;
}

static void leave_meter(const struct cgroup *group, enum cgroup_meter meter, int fd)
{
        if (fd != group->meter_fds[meter])
                (void)close(fd);
}

static int read_meter(struct cgroup *group, enum cgroup_meter meter, char *buffer, size_t size)
{
        ssize_t n;
        int fd;
        int r = use_meter(group, meter, &fd);

        if (r)
                return r;
        n = pread(fd, buffer, size, 0); /* such files give all that they say at once */
        if (n < 0)
                r = error_origin(-errno);
        else if ((size_t)n == size)
                r = error_origin(-EFBIG);
        else
                buffer[n] = '\0';
        leave_meter(group, meter, fd);
        return r;
}

/* Zero where memory is not counted, or (before Linux 5.19) its peak is not. */
static int read_meter_number(struct cgroup *group, enum cgroup_meter meter, uint64_t *ret_value)
{
        char text[CGROUP_VALUE_MAX];
        int r = read_meter(group, meter, text, sizeof(text));

        *ret_value = 0;
        if (r)
                return r == -ENOENT || r == METER_E_ABSENT ? 0 : error_origin(r);
        return cgroup_parse_number(text, ret_value);
}

static int read_meter_key(struct cgroup *group, enum cgroup_meter meter, const char *key,
                          uint64_t *ret_value)
{
        char text[4096];
        int r = read_meter(group, meter, text, sizeof(text));

        *ret_value = 0;
        if (r)
                return r == METER_E_ABSENT ? 0 : error_origin(r);
        return cgroup_parse_key(text, key, ret_value);
}

static int read_cpu(struct cgroup *group, struct cgroup_usage *usage)
{
        char text[4096];
        int r = read_meter(group, CGROUP_METER_CPU, text, sizeof(text));

        if (!r)
                r = cgroup_parse_key(text, "usage_usec", &usage->cpu_usec);
        if (!r)
                r = cgroup_parse_key(text, "user_usec", &usage->cpu_user_usec);
        return r ? r : cgroup_parse_key(text, "system_usec", &usage->cpu_system_usec);
}

int cgroup_read_memory(struct cgroup *group, uint64_t *ret_bytes)
{
        return read_meter_number(group, CGROUP_METER_MEMORY, ret_bytes);
}

int cgroup_read_oom_kills(struct cgroup *group, uint32_t *ret_n)
{
        uint64_t n;
        int r = read_meter_key(group, CGROUP_METER_OOM, "oom_kill", &n);

        *ret_n = (uint32_t)MIN(n, UINT32_MAX);
        return r;
}

int cgroup_read_usage(struct cgroup *group, struct cgroup_usage *ret_usage)
{
        struct cgroup_usage usage = { 0 };
        uint64_t processes = 0;
        int r;

        r = read_cpu(group, &usage);
        if (!r)
                r = cgroup_read_memory(group, &usage.memory_bytes);
        if (!r)
                r = read_meter_number(group, CGROUP_METER_PEAK, &usage.memory_peak_bytes);
        if (!r)
                r = cgroup_read_oom_kills(group, &usage.oom_kills);
        if (!r)
                r = read_number(group, FILE_PIDS_NOW, &processes);
        if (r)
                return error_fold(r);
        usage.processes = (uint32_t)MIN(processes, UINT32_MAX);
        *ret_usage = usage;
        return 0;
}

int cgroup_read_throttling(const struct cgroup *sandbox, struct cgroup_throttling *ret_throttling)
{
        size_t parent = sandbox->tree->controllers[CGROUP_CPU].parent;
        enum cgroup_dialect dialect = sandbox->tree->controllers[CGROUP_CPU].dialect;
        struct cgroup_throttling throttling = { 0 };
        char text[4096];
        int r;

        if (dialect == CGROUP_ABSENT)
                return -EOPNOTSUPP;
        r = read_at(sandbox, parent, "cpu.stat", text, sizeof(text));
        if (!r)
                r = cgroup_parse_key(text, "nr_periods", &throttling.n_periods);
        if (!r)
                r = cgroup_parse_key(text, "nr_throttled", &throttling.n_throttled);
        if (!r && dialect == CGROUP_V2)
                r = cgroup_parse_key(text, "throttled_usec", &throttling.usec);
        else if (!r)
                r = cgroup_parse_key(text, "throttled_time", &throttling.usec); /* ns */
        if (r)
                return error_fold(r);
        if (dialect == CGROUP_V1)
                throttling.usec /= 1000;
        *ret_throttling = throttling;
        return 0;
}

bool cgroup_counts_peak(const struct cgroup_tree *tree)
{
        enum cgroup_dialect dialect = tree->controllers[CGROUP_MEMORY].dialect;
        size_t parent = tree->controllers[CGROUP_MEMORY].parent;

        if (dialect == CGROUP_ABSENT)
                return false;
        return dialect == CGROUP_V1 ||
               faccessat(tree->parents[parent].fd, meters[CGROUP_METER_PEAK].v2, F_OK, 0) == 0;
}

static int read_sockets_file(const struct cgroup *group, const char *file, uint64_t *ret_value)
{
        char text[CGROUP_VALUE_MAX];
        size_t parent = group->tree->controllers[CGROUP_MEMORY].parent;
        int r = read_at(group, parent, file, text, sizeof(text));

        if (r)
                return r == -ENOENT ? -EOPNOTSUPP : error_origin(r);
        return cgroup_parse_number(text, ret_value);
}

int cgroup_read_sockets(const struct cgroup *group, uint64_t *ret_bytes, uint64_t *ret_limit)
{
        int r;

        if (group->tree->controllers[CGROUP_MEMORY].dialect != CGROUP_V1)
                return -EOPNOTSUPP;
        r = read_sockets_file(group, SOCKETS_NOW_FILE, ret_bytes);
        return r ? r : read_sockets_file(group, SOCKETS_FILE, ret_limit);
}

int cgroup_reset_peak(struct cgroup *group)
{
        int fd;
        bool is_done;

        group->keeps_meters = true;
        if (use_meter(group, CGROUP_METER_PEAK, &fd))
                return -EOPNOTSUPP;
        is_done = pwrite(fd, "0", 1, 0) == 1;
        leave_meter(group, CGROUP_METER_PEAK, fd);
        return is_done ? 0 : -EOPNOTSUPP;
}

int cgroup_kill(const struct cgroup *group)
{
        int r = write_at(group, 0, "cgroup.kill", "1");

        return r == -ENOENT ? 0 : r;
}

bool cgroup_is_populated(const struct cgroup *group)
{
        uint64_t populated = 0;

        return !read_key(group, 0, "cgroup.events", "populated", &populated) && populated;
}

int cgroup_watch_oom(const struct cgroup *sandbox, int *ret_event_fd)
{
        _cleanup_(closep) int event_fd = -1;
        _cleanup_(closep) int control_fd = -1;
        char path[FILE_PATH_MAX];
        char command[CGROUP_VALUE_MAX];
        size_t parent = sandbox->tree->controllers[CGROUP_MEMORY].parent;
        int r;

        if (sandbox->tree->controllers[CGROUP_MEMORY].dialect != CGROUP_V1)
                return -EOPNOTSUPP;
        r = file_path(sandbox, "memory.oom_control", path);
        if (r)
                return r;
        control_fd = openat(parent_fd(sandbox, parent), path, O_RDONLY | O_CLOEXEC);
        event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (control_fd < 0 || event_fd < 0)
                return error_origin(-errno);
        (void)snprintf(command, sizeof(command), "%d %d", event_fd, control_fd);
        r = write_at(sandbox, parent, "cgroup.event_control", command);
        if (r)
                return error_origin(r);
        *ret_event_fd = take_fd(&event_fd);
        return 0;
}
