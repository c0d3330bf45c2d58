/*
 * Sandboxes for tests: cgroups below the caller's own, a network namespace with only lo, a spawner.
 * Needs root; everything is taken away again, also after a test that failed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/dns_label.h"
#include "runtime/container/spawner.h"
#include "test/lib/janitor.h"

enum {
        FIXTURE_ID_BASE = 0x10000000, /* far from ids that systems hand out */
        PROGRAM_UID = 1000,
        OUTPUT_MAX = 32 << 10,
        HIERARCHIES_MAX = 4,
};

struct egress_wall;

struct fixture {
        struct spawner *spawner;
        const char *template_root;
        int netns_fd;
        struct spawn_cgroup cgroup;
        char cgroup_name[ID_BUFFER];
        char cgroup_paths[HIERARCHIES_MAX][512];  /* the cgroup2 tree's comes first */
        struct janitor janitors[HIERARCHIES_MAX]; /* of each path */
        size_t n_cgroup_paths;
        uint32_t next_id_base;
        struct egress_wall *egress;
};

/* A sandbox that runs. */
struct box {
        struct spawned init;
        uint32_t id_base;
};

/* How a program in a sandbox went. */
struct outcome {
        int result; /* of the start: 0, or SPAWNER_E_STEP and @failure */
        struct spawn_failure failure;
        int exit_code;
        int signal;
        char output[OUTPUT_MAX]; /* standard output and error */
};

/* Why sandboxes cannot be made here, or NULL. */
const char *fixture_missing(void);

void fixture_init_cgroups(struct fixture *f);
void fixture_deinit_cgroups(struct fixture *f);
void fixture_init(struct fixture *f);
void fixture_deinit(struct fixture *f);

struct spawn_sandbox fixture_sandbox(struct fixture *f);
struct spawn_process fixture_process(struct fixture *f, const struct box *box);

void box_start(struct fixture *f, struct box *ret_box);
void box_start_with(struct fixture *f, const struct spawn_sandbox *sandbox, struct box *ret_box);
void box_end(struct box *box);

/* Waits for what a status pipe says. */
int status_wait(int status_fd, struct spawn_failure *ret_failure);

/* Starts @process and waits for its end; its fds are made here. */
void process_run(struct fixture *f, struct spawn_process *process, struct outcome *ret_outcome);

/* /usr/bin/python3 -c @code as the user. */
void python_run(struct fixture *f, const struct box *box, const char *code,
                struct outcome *ret_outcome);

/* /bin/sh -c @code as the user. */
void shell_run(struct fixture *f, const struct box *box, const char *code,
               struct outcome *ret_outcome);

size_t count_fds(pid_t pid);
size_t count_mounts(pid_t pid);
