/*
 * The parent group of all sandboxes, in each hierarchy that is used: the cgroup2 tree, which is the
 * identity of every group (CLONE_INTO_CGROUP, kill, cpu.stat, BPF), and the hierarchies of the
 * controllers. Each controller is resolved by itself: to cgroup2 where it can be enabled there,
 * else to the v1 hierarchy that carries it, else it is absent, with the reason.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "runtime/cgroup/layout.h"

enum cgroup_dialect {
        CGROUP_ABSENT,
        CGROUP_V1,
        CGROUP_V2,
};

enum {
        CGROUP_TREE_E_TAKEN = 1, /* another instance has the name, or took it for abandoned */
};

/* Every parent group's name begins so; nothing else is ever removed. */
#define CGROUP_NAME_PREFIX "hotcell-"

struct cgroup_tree {
        struct {
                char base[CGROUP_PATH_MAX]; /* the group that the parent group is made in */
                char path[CGROUP_PATH_MAX]; /* the parent group */
                int fd;                     /* of the parent group; -1 before it is made */
        } parents[CGROUP_HIERARCHIES_MAX];  /* [0]: cgroup2 */
        size_t n_parents;
        char mount[CGROUP_PATH_MAX]; /* of cgroup2 */

        struct {
                enum cgroup_dialect dialect;
                size_t parent;     /* index of its hierarchy */
                char missing[160]; /* why it is absent, for people */
        } controllers[_CGROUP_CONTROLLER_N];
};

/*
 * Says where the groups would be, and makes nothing. @base: the group that the parent is made in,
 * the same name in every hierarchy; NULL: the caller's own, so that outer limits hold, or in
 * cgroup2, where others share it, the nearest one above that may pass controllers on. @name begins
 * with CGROUP_NAME_PREFIX.
 */
int cgroup_tree_plan(struct cgroup_tree *tree, const struct cgroup_layout *layout, const char *base,
                     const char *name);

/*
 * Makes the parent groups and locks that of cgroup2, as a sign that they have an owner. Where
 * cgroup2 forbids processes beside child groups, the caller is moved to a leaf below its own group
 * first.
 */
int cgroup_tree_create(struct cgroup_tree *tree);

/* Removes the parent groups, which must be empty (-EBUSY), and closes the tree. */
int cgroup_tree_remove(struct cgroup_tree *tree);

/* Closes the tree; the groups stay. */
void cgroup_tree_deinit(struct cgroup_tree *tree);
