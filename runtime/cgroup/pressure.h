/*
 * What is short in a sandbox's group: how full it is, and how long its tasks had to wait. All of
 * these read files of the sandbox's level. -EOPNOTSUPP where this host does not count that.
 */
#pragma once

#include <stdint.h>

struct cgroup;

enum cgroup_stall {
        CGROUP_STALL_MEMORY,
        CGROUP_STALL_CPU,
        CGROUP_STALL_IO,
        _CGROUP_STALL_N,
};

struct cgroup_level {
        uint64_t used;
        uint64_t limit; /* UINT64_MAX: none */
};

int cgroup_read_cpu_usec(const struct cgroup *group, uint64_t *ret_usec);

int cgroup_read_memory_level(const struct cgroup *group, struct cgroup_level *ret_level);

/* Copies of what is in files on disks: memory that the kernel takes back when it is short. It is
 * read from a long file. */
int cgroup_read_reclaimable(const struct cgroup *group, uint64_t *ret_bytes);

int cgroup_read_process_level(const struct cgroup *group, struct cgroup_level *ret_level);

/* For how long at least one of its tasks had to wait, since it was made (PSI). */
int cgroup_read_stall(const struct cgroup *group, enum cgroup_stall stall, uint64_t *ret_usec);

/* The text of a pressure file. -EBADMSG when it is something else. */
int cgroup_parse_stall(const char *text, uint64_t *ret_usec);
