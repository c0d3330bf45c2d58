/*
 * Where the cgroup hierarchies of this host are mounted, and where the caller is in each: parsed
 * from /proc/self/mountinfo and /proc/self/cgroup.
 *
 * The cgroup2 hierarchy always comes first: it is the identity of every group. Of cgroup v1 only
 * the hierarchies that carry a controller that we use are kept; co-mounted controllers share one.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

enum cgroup_controller {
        CGROUP_MEMORY,
        CGROUP_CPU,
        CGROUP_PIDS,
        CGROUP_IO, /* of v1: blkio */
        _CGROUP_CONTROLLER_N,
};

enum {
        CGROUP_LAYOUT_E_NO_CGROUP2 = 1, /* no cgroup2 file system is mounted */
};

enum {
        CGROUP_PATH_MAX = 512,
        CGROUP_HIERARCHIES_MAX = 1 + _CGROUP_CONTROLLER_N,
};

struct cgroup_hierarchy {
        char mount[CGROUP_PATH_MAX]; /* mount point */
        char root[CGROUP_PATH_MAX];  /* which of its groups is visible at the mount point */
        char own[CGROUP_PATH_MAX];   /* the caller's group, as /proc/self/cgroup names it */
        unsigned controllers;        /* of v1: BIT()s of those that it carries */
};

struct cgroup_layout {
        struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX]; /* [0] is cgroup2 */
        size_t n_hierarchies;
};

/* Such as `memory`, as cgroup2 calls it. */
const char *cgroup_controller_name(enum cgroup_controller controller);

int cgroup_layout_parse(FILE *mountinfo, FILE *self_cgroup, struct cgroup_layout *ret_layout);

/* As cgroup_layout_parse(), of the calling process. */
int cgroup_layout_read(struct cgroup_layout *ret_layout);

/*
 * The path of @group below the mount point, @group named as in /proc/self/cgroup. A group outside
 * of what is mounted becomes the mounted root. -ENAMETOOLONG when it does not fit, -EXDEV when the
 * mount belongs to another cgroup namespace.
 */
int cgroup_hierarchy_path(const struct cgroup_hierarchy *hierarchy, const char *group,
                          char ret_path[static CGROUP_PATH_MAX]);
