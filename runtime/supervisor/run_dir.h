/*
 * The directory of what an instance has while it runs: its socket, and, where only root can look,
 * its lock and the list of the groups that it made, from which the next start removes what a killed
 * instance left.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct cgroup_tree;

enum {
        RUN_DIR_E_IN_USE = 1, /* another instance holds the lock */
};

struct run_dir {
        const char *path; /* borrowed */
        int fd;           /* of the private part */
        int lock_fd;
        bool is_made; /* by us, and to be removed by us */
};

/* Makes the directory if need be and takes the lock. */
int run_dir_open(struct run_dir *run_dir, const char *path);

/* Lets the group make sockets of its own in the directory, and touch nobody else's. */
int run_dir_share(const struct run_dir *run_dir, gid_t gid);

/* Kills and removes the groups that an earlier instance recorded. Call it before recording. */
void run_dir_remove_leftovers(struct run_dir *run_dir);

/* Writes down the parent groups, before they are made. */
int run_dir_record_groups(struct run_dir *run_dir, const struct cgroup_tree *tree);

/* The groups are gone: forget them. */
void run_dir_forget_groups(struct run_dir *run_dir);

/* Gives the lock back and removes what was made. */
void run_dir_close(struct run_dir *run_dir);
