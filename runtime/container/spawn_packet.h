/*
 * What the runtime and its spawner say to each other: one packet a request, one an answer, on a
 * socket pair that nobody else holds. Both ends are the same program.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/container/spawner.h"

enum spawn_kind {
        SPAWN_SANDBOX = 1,
        SPAWN_PROCESS,
};

/* Descriptors of a request, in this order; then n_tasks of v1 cgroups; then n_streams. */
enum spawn_slot {
        SPAWN_SLOT_CGROUP, /* directory in the cgroup2 tree */
        SPAWN_SLOT_STATUS, /* write end of the status pipe */
        SPAWN_SLOT_PLACE,  /* sandbox: a detached clone of the template's mount; process: the pidfd
                              of  the sandbox's init */
        SPAWN_SLOT_NETNS,  /* sandbox only */
        _SPAWN_SLOT_N,
};

enum { SPAWN_PACKET_FDS_MAX = _SPAWN_SLOT_N + SPAWN_TASKS_MAX + SPAWN_FDS_MAX };

struct spawn_header {
        uint32_t kind;
        uint32_t id_base;
        uint32_t uid;
        uint32_t gid;
        uint32_t open_files;
        uint32_t n_tasks;
        uint32_t n_streams;
        uint32_t n_arguments;
        uint32_t n_variables;
        uint32_t terminals;
        uint64_t disk_bytes;
        uint64_t disk_inodes;
        uint64_t shm_bytes;
};

/*
 * NUL-terminated strings one after the other. Sandbox: id, host name. Process: working directory,
 * arguments, variables.
 */
struct spawn_packet {
        struct spawn_header header;
        char text[SPAWN_TEXT_MAX];
};

enum { SPAWN_ANSWER_FDS_MAX = 2 };

/* Carries the pidfd when error_number is zero, and behind it a sandbox's scratch space. */
struct spawn_answer {
        int32_t pid;
        struct spawn_failure failure;
};

/* A packet under construction or under examination. */
struct spawn_text {
        struct spawn_packet *packet;
        size_t used; /* of packet->text */
        size_t size; /* of packet->text */
};

/* -E2BIG when it does not fit. */
int spawn_text_put(struct spawn_text *text, const char *string);

/* The next string, or NULL when there is none. */
char *spawn_text_get(struct spawn_text *text);

static inline size_t spawn_text_packet_size(const struct spawn_text *text)
{
        return offsetof(struct spawn_packet, text) + text->used;
}
