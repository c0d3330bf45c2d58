/*
 * The spawner: a small single-threaded process in a private mount namespace that builds root
 * filesystems and clones.
 *
 * What it clones are children of the caller (CLONE_PARENT), who reaps them; so its own death loses
 * no process. It never waits for a sandbox: the child reports through a pipe that the caller polls,
 * because a child of a throttled or full cgroup may take arbitrarily long.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/cleanup.h"

struct spawner;

enum {
        SPAWNER_E_DEAD = 1, /* the spawner process is gone: make a new one */
        SPAWNER_E_STEP,     /* a step of the set-up failed: see struct spawn_failure */
};

enum {
        SPAWN_TASKS_MAX = 4,    /* cgroup v1 hierarchies that a child joins */
        SPAWN_FDS_MAX = 5,      /* descriptors a program may be given */
        SPAWN_IDS = 65536,      /* ids of each sandbox */
        SPAWN_INIT_UID = 65533, /* hotcell-init's user and group inside; programs have lower ones */
        SPAWN_TEXT_MAX = 128 << 10, /* bytes of a process's arguments, environment and directory */
};

/* Where a child is born. Borrowed. */
struct spawn_cgroup {
        int id_fd;                      /* directory in the cgroup2 tree, for CLONE_INTO_CGROUP */
        int tasks_fds[SPAWN_TASKS_MAX]; /* v1 `tasks` files opened for writing; the child writes `0`
                                         */
        size_t n_tasks;
};

/* A sandbox's first process: namespaces, root filesystem, then hotcell-init. Borrowed. */
struct spawn_sandbox {
        const char *sandbox_id;
        const char *template_root; /* absolute path on the host of the immutable root */
        const char *hostname;
        uint32_t id_base;     /* first of its SPAWN_IDS ids on the host */
        uint64_t disk_bytes;  /* size of the tmpfs that takes what it writes */
        uint64_t disk_inodes; /* zero: as fit the size */
        uint64_t shm_bytes;   /* size of /dev/shm */
        uint32_t terminals;   /* that it may have open; the kernel has a number of them for all */
        int netns_fd; /* a parked network namespace, `lo` up, owned by the initial user namespace */
        struct spawn_cgroup cgroup;
};

/* A process that joins a sandbox. Borrowed. */
struct spawn_process {
        int sandbox_pidfd; /* of the sandbox's init */
        uint32_t id_base;
        uint32_t uid;                   /* inside; below SPAWN_INIT_UID */
        uint32_t gid;                   /* likewise */
        const char *const *argv;        /* NULL-terminated; argv[0] is an absolute path inside */
        const char *const *environment; /* NULL-terminated `NAME=value` */
        const char *working_directory;
        uint32_t open_files; /* RLIMIT_NOFILE */
        /* The child's descriptors: fds[0..2] become 0, 1, 2; fds[3] and fds[4], if any, become
         * SPAWN_CHANNEL_FD and the one after it. Their owner must be the program's user
         * (fchown to id_base + uid), or it cannot open /dev/stdout. */
        int fds[SPAWN_FDS_MAX];
        size_t n_fds;
        struct spawn_cgroup cgroup;
};

enum { SPAWN_CHANNEL_FD = 200 };

/* What of a start was wrong. */
enum spawn_fault {
        SPAWN_FAULT_SYSTEM,    /* the set-up itself */
        SPAWN_FAULT_DIRECTORY, /* the caller's: its working directory cannot be entered */
        SPAWN_FAULT_PROGRAM,   /* the caller's: its program cannot be executed */
        SPAWN_FAULT_EGRESS,    /* the egress wall does not hold for it */
        _SPAWN_FAULT_N,
};

/* Why a child did not reach its program. */
struct spawn_failure {
        int error_number; /* positive errno */
        enum spawn_fault fault;
        char step[64]; /* such as `mount overlay` */
};

/*
 * What was cloned. The descriptors belong to the receiver. @status_fd (non-blocking): end of file
 * means that the program was executed, or that the child was killed before; otherwise it holds one
 * struct spawn_failure (spawn_status_read).
 */
struct spawned {
        pid_t pid; /* in the caller's pid namespace; a child of the caller */
        int pidfd;
        int status_fd;
        int scratch_fd; /* of a sandbox: the mount that its disk limits are of; else -1 */
};

/*
 * Forks the spawner; returns when it is ready. @init_path: hotcell-init. The caller must be root
 * with the capabilities of runtime, and have no other thread.
 */
int spawner_new(const char *init_path, struct spawner **ret_spawner);

/* Ends the spawner process and reaps it. What it cloned lives on. */
struct spawner *spawner_free(struct spawner *spawner);

/* For the caller's reaping: the spawner is the caller's child, too. */
pid_t spawner_pid(const struct spawner *spawner);

/*
 * These wait for the spawner's answer, which never depends on a sandbox (some hundred
 * microseconds). On SPAWNER_E_STEP nothing was cloned.
 */
int spawner_start_sandbox(struct spawner *spawner, const struct spawn_sandbox *sandbox,
                          struct spawned *ret_spawned, struct spawn_failure *ret_failure);
int spawner_start_process(struct spawner *spawner, const struct spawn_process *process,
                          struct spawned *ret_spawned, struct spawn_failure *ret_failure);

/* Reads what a status pipe says. -EAGAIN: not yet known; 0: the program runs; SPAWNER_E_STEP: it
 * does not. */
int spawn_status_read(int status_fd, struct spawn_failure *ret_failure);

DEFINE_CLEANUP(struct spawner, spawner_free)
