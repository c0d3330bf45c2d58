/*
 * Parent groups that outlive their runtime: how those of the dead are told from those of the
 * living, and removed.
 */
#pragma once

#include <stdbool.h>

struct cgroup_tree;

enum {
        CGROUP_LEFTOVER_E_NOT_OURS = 1, /* the path is not one that cgroup_tree_plan() makes */
};

/* Marks the parents as owned for as long as the tree is open. False: somebody else was faster. */
bool cgroup_take_ownership(const struct cgroup_tree *tree);

/*
 * Kills what runs below a parent group of an earlier instance and removes it with all below.
 * Absent: 0. Waits for up to @timeout_msec.
 */
int cgroup_remove_leftover(const char *path, unsigned timeout_msec);

/*
 * Removes the parent groups beside the planned ones whose owners are gone: those that are named as
 * id_generate() names them and that nobody has locked.
 */
void cgroup_remove_abandoned(const struct cgroup_tree *tree, unsigned timeout_msec);
