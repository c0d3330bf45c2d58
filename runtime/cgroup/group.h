/*
 * A sandbox's group, and one leaf below it for its init and for each process, so that each is
 * metered, killed and blamed for itself.
 *
 * A group is a path below the parents of the tree; nothing of it is held open but the meters of one
 * whose peaks are measured, which is asked often (see cgroup_reset_peak()). In cgroup2 both are
 * directories; of v1, a sandbox has a directory in each hierarchy and a leaf only in memory's, and
 * its processes join the sandbox's in the others.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/cgroup/tree.h"

enum {
        CGROUP_E_EXISTS = 1, /* the name is in use */
        CGROUP_E_BUSY,       /* something is still in it: try again later */
        CGROUP_E_IN_USE,     /* more memory than that is used now */
        CGROUP_E_ABSENT,     /* the controller, or the device, that could limit it is not there */
        CGROUP_E_RESTLESS,   /* its processes change what is set, as often as it is */
};

enum {
        CGROUP_NAME_MAX = 80,                            /* bytes of one name */
        CGROUP_GROUP_PATH_MAX = 2 * CGROUP_NAME_MAX + 2, /* sandbox, `/`, leaf, NUL */
};

enum { CPU_WEIGHT_DEFAULT = 100 }; /* of cgroup2's cpu.weight */

struct cgroup_limits {
        uint64_t memory_bytes; /* v2 counts sockets in it; v1 by themselves, an eighth of this */
        uint32_t cpu_millis;   /* CPU time a second, in thousandths of a CPU */
        uint32_t cpu_weight;   /* as cgroup2's cpu.weight */
        uint32_t processes;
        uint64_t io_bytes_per_second; /* of reads, and of writes; zero: no bound */
        dev_t io_device;              /* a whole disk; zero: there is none to limit */
};

struct cgroup_usage {
        uint64_t cpu_usec;
        uint64_t cpu_user_usec; /* these two are scaled to the first by the kernel */
        uint64_t cpu_system_usec;
        uint64_t memory_bytes;
        uint64_t memory_peak_bytes;
        uint32_t oom_kills; /* of v1 only those in the group itself, not those below */
        uint32_t processes; /* of a leaf of v1: zero */
};

struct cgroup_throttling {
        uint64_t n_periods;   /* in which it wanted to run */
        uint64_t n_throttled; /* those in which its limit of CPU time was used up */
        uint64_t usec;        /* that it had to wait for that */
};

/* Files that say what a group uses. */
enum cgroup_meter {
        CGROUP_METER_CPU,
        CGROUP_METER_MEMORY,
        CGROUP_METER_PEAK,
        CGROUP_METER_OOM,
        _CGROUP_METER_N,
};

struct cgroup {
        const struct cgroup_tree *tree;
        char path[CGROUP_GROUP_PATH_MAX]; /* below each parent */
        size_t n_sandbox;                 /* bytes of the path that name the sandbox */
        uint64_t id;                      /* of the cgroup2 directory, as BPF knows it */
        unsigned parents; /* BIT()s of the hierarchies in which it has a directory */
        bool keeps_meters;
        int meter_fds[_CGROUP_METER_N]; /* those that are kept open, else -1 */
};

/* What a new process needs to be born in a group; see struct spawn_cgroup. */
struct cgroup_entry {
        int id_fd;
        int tasks_fds[_CGROUP_CONTROLLER_N];
        size_t n_tasks;
};

/* The id of the group of cgroup2 that @fd is open on, as BPF knows it. */
int cgroup_id_of(int fd, uint64_t *ret_id);

/* Makes a sandbox's group with its limits in force, or nothing. CGROUP_E_EXISTS, CGROUP_E_ABSENT.
 */
int cgroup_create(struct cgroup *group, const struct cgroup_tree *tree, const char *name,
                  const struct cgroup_limits *limits);

/*
 * Puts @limits in force instead of @present, or changes nothing. CGROUP_E_IN_USE: by v1, which
 * finds out only then; under v2, which would kill, cgroup_memory_in_use() is to be asked before.
 * CGROUP_E_ABSENT.
 */
int cgroup_change_limits(const struct cgroup *group, const struct cgroup_limits *present,
                         const struct cgroup_limits *limits);

/* What the kernel could not take back by itself: all that is charged but pages of files on disks.
 */
int cgroup_memory_in_use(const struct cgroup *group, uint64_t *ret_bytes);

/* Sets the soft limit of all processes in a leaf that have @present as theirs, or more than
 * @wanted; up to their hard limit, which stays. Waits in between, a second at most: not for the
 * loop. CGROUP_E_RESTLESS: some have it still. */
int cgroup_limit_open_files(const struct cgroup *group, uint32_t present, uint32_t wanted);

/* The disk that @fd's file system is on, as io limits name it; CGROUP_E_ABSENT: it is on none. */
int cgroup_io_device_of(int fd, dev_t *ret_device);

/* Whether reads and writes of disks are limited here. */
bool cgroup_limits_io(const struct cgroup_tree *tree);

/* What cgroup v1's cpu.shares is called as a weight of cgroup2. */
uint64_t cgroup_shares_of_weight(uint32_t weight);

/* What sockets may hold where they are not charged as memory: a small part that comes on top. */
uint64_t cgroup_socket_bytes(uint64_t memory_bytes);

/* Whether what sockets hold is limited here: v1 of some kernels cannot. */
bool cgroup_limits_sockets(const struct cgroup_tree *tree);

/*
 * What the sockets of the group hold, and its limit. The kernel goes above that, by a packet or so
 * a connection, rather than stop one for good. -EOPNOTSUPP where it counts as memory, or not at
 * all.
 */
int cgroup_read_sockets(const struct cgroup *group, uint64_t *ret_bytes, uint64_t *ret_limit);

/* Makes a leaf of @sandbox, or nothing. */
int cgroup_create_leaf(struct cgroup *leaf, const struct cgroup *sandbox, const char *name);

/* Removes the directories. CGROUP_E_BUSY as long as processes or leaves are there. */
int cgroup_remove(struct cgroup *group);

int cgroup_entry_open(const struct cgroup *group, struct cgroup_entry *ret_entry);
void cgroup_entry_close(struct cgroup_entry *entry);

int cgroup_read_usage(struct cgroup *group, struct cgroup_usage *ret_usage);

/* Only one of the above; zero where it is not counted. */
int cgroup_read_memory(struct cgroup *group, uint64_t *ret_bytes);
int cgroup_read_oom_kills(struct cgroup *group, uint32_t *ret_n);

/* Of a sandbox, leaves have no limit. -EOPNOTSUPP where there is none either. */
int cgroup_read_throttling(const struct cgroup *sandbox, struct cgroup_throttling *ret_throttling);

/* Whether memory_peak_bytes is known here: v2 before Linux 5.19 does not count it. */
bool cgroup_counts_peak(const struct cgroup_tree *tree);

/*
 * Begins a new peak. -EOPNOTSUPP when this kernel cannot (v2 before 6.12). From then on the group
 * keeps its meters open until it is removed, but never with a descriptor from the upper half of
 * what the process may have: that is for others.
 */
int cgroup_reset_peak(struct cgroup *group);

/* SIGKILL to everything in the group and below, at once. */
int cgroup_kill(const struct cgroup *group);

/* False as well when the group is gone. */
bool cgroup_is_populated(const struct cgroup *group);

/*
 * An eventfd that becomes readable when the group of v1 runs out of memory (and when it is
 * removed): a hint to look at oom_kills, which is the evidence. -EOPNOTSUPP under v2, where the
 * kernel kills the whole leaf by itself.
 */
int cgroup_watch_oom(const struct cgroup *sandbox, int *ret_event_fd);
