/* What the spawner wants to know of a process, made from a request. */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "runtime/cgroup/group.h"
#include "runtime/container/spawner.h"

/* Arguments and environment, NULL-terminated. The words point into the request. */
struct spawn_words {
        const char **argv;
        const char **environment;
        char *text; /* of the variables */
};

int spawn_words_init(struct spawn_words *words, const Hotcell__Runtime__V1__StartProcess *request);
void spawn_words_deinit(struct spawn_words *words);

/*
 * Pipes of a process. Ours: output, error and, with a kernel channel, commands and events, all
 * non-blocking. Theirs, which block: input (empty), output, error, commands, events.
 */
struct spawn_pipes {
        int ours[SPAWN_FDS_MAX];
        size_t n_ours;
        int theirs[SPAWN_FDS_MAX];
        size_t n_theirs;
};

/* @uid and @gid, on the host: whose the pipes are, so that /dev/stdout can be opened. */
int spawn_pipes_init(struct spawn_pipes *pipes, uid_t uid, gid_t gid, bool with_channel);
void spawn_pipes_deinit(struct spawn_pipes *pipes);

struct spawn_cgroup spawn_cgroup_from(const struct cgroup_entry *entry);
