/*
 * One start under way in the spawner, and the steps that make it up.
 *
 * A start is two tables of steps: what the spawner does before it clones, and what the child does
 * on its way to the program. The tables are the order of isolation, read from top to bottom; a
 * failure is told by the name of its step.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/container/seccomp_filter.h"
#include "runtime/container/spawn_packet.h"

/* What the spawner process holds for as long as it lives. */
struct spawn_workshop {
        int socket_fd;
        int init_fd;          /* hotcell-init, which may be executed but not read */
        int pid_namespace_fd; /* its own, to come back to */
        struct seccomp_filter filter;
};

/* One start. The spawner's own part is over when the child is cloned; the child works on a copy. */
struct spawn {
        const struct spawn_workshop *workshop;
        const struct spawn_header *header;
        char **strings; /* see struct spawn_packet */

        int fds[_SPAWN_SLOT_N];
        int tasks_fds[SPAWN_TASKS_MAX];
        int stream_fds[SPAWN_FDS_MAX];

        int user_namespace_fd; /* sandbox: made here */
        int root_fd;           /* sandbox: the overlay, a detached mount */
        int scratch_fd;        /* sandbox: the tmpfs below it, to be handed over */
};

/* Returns 0 or a negative errno. */
struct spawn_step {
        const char *name;
        int (*run)(struct spawn *spawn);
        enum spawn_fault fault; /* when it fails */
};

/* The steps of one kind of start. */
struct spawn_plan {
        const struct spawn_step *prepare;
        size_t n_prepare;
        void (*clean_up)(
                struct spawn *spawn);   /* after these, whether they succeeded or not; or NULL */
        const struct spawn_step *child; /* the last one does not return when it succeeds */
        size_t n_child;
        uint64_t clone_flags;
        bool joins_pid_namespace; /* of SPAWN_SLOT_PLACE */
};

extern const struct spawn_plan sandbox_plan;
extern const struct spawn_plan process_plan;

/* Carries @plan out. 0: *@ret_pid and *@ret_pidfd are set; SPAWNER_E_STEP: *@ret_failure is. */
int spawn_run(struct spawn *spawn, const struct spawn_plan *plan, int *ret_pid, int *ret_pidfd,
              struct spawn_failure *ret_failure);

/* Tells that @step failed with the errno @r (negative): SPAWNER_E_STEP. */
int spawn_step_failed(const char *step, enum spawn_fault fault, int r,
                      struct spawn_failure *ret_failure);

/* Makes the mount at @path the root, and lets go of the old one with all that is below it. */
int spawn_change_root(const char *path);

/* Steps that both kinds share. */
int spawn_join_task_groups(struct spawn *spawn);
int spawn_load_filter(struct spawn *spawn);
