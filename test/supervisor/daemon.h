/*
 * A hotcell-runtime for one test. Needs root and the python template; everything is taken away
 * again by daemon_stop(), and after a test that failed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "test/lib/janitor.h"

/* The daemon under test. */
struct daemon {
        pid_t pid;
        char run_dir[64];
        char log_path[96];
        char groups[4][512]; /* its parent groups */
        size_t n_groups;
        int without_capability; /* taken from its bounding set; zero (CAP_CHOWN): none */
        const char *store;      /* NULL: the usual one */
        struct janitor janitor; /* of the run directory and the groups */
};

/* Why the daemon cannot be tested here, or NULL. */
const char *daemon_missing(void);

/* The usual store: HOTCELL_STORE, or the system's. */
const char *daemon_store(void);

/* Of the python template there. */
void daemon_python_digest(char digest[static 80]);

/* @arguments: more of them, NULL-terminated, or NULL. Waits until it listens. */
void daemon_start(struct daemon *daemon, char *const arguments[]);

/* Makes the run directory only: for tests that start it themselves. */
void daemon_prepare(struct daemon *daemon);
void daemon_launch(struct daemon *daemon, char *const arguments[]);
void daemon_await(struct daemon *daemon);

/* SIGTERM; returns what waitpid() said. Removes the run directory. */
int daemon_stop(struct daemon *daemon);

/* Waits for its end. */
int daemon_wait(struct daemon *daemon);
void daemon_remove(struct daemon *daemon);

bool daemon_log_has(const struct daemon *daemon, const char *text);

/* Waits until it does; fails when the daemon ends before. */
void daemon_await_log(const struct daemon *daemon, const char *text);

/* What a leak would show in. */
struct traces {
        size_t n_fds;    /* of the daemon */
        size_t n_groups; /* directories below its parent groups */
        size_t n_children;
        size_t n_mounts; /* of the spawner */
        size_t n_netns;  /* network namespaces that it holds open */
};

struct traces daemon_traces(const struct daemon *daemon);

/* How many of its parent groups are there. */
size_t daemon_groups_left(const struct daemon *daemon);
