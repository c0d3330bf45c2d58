/*
 * What of one kernel process outlives the server: the state of its channel and of the executions
 * that ran in it, and their output, in memfds which the runtime keeps with the process. It is held
 * by the kernel and by each of its executions that is not recorded as ended; with the last of them
 * the process's end is acknowledged, and the runtime lets go of all of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/session/channel.h"
#include "server/session/execution.h"
#include "server/session/ring.h"

struct context;
struct inlet;
struct session;

enum {
        JOURNAL_RINGS = 2, /* one for what runs, one for what ended and is not recorded yet */
        JOURNAL_FDS = 2 + JOURNAL_RINGS,
        JOURNAL_E_BAD = 1, /* the descriptors are no journal of this version */
};

/* Copied as it is into the memfd and out of it: it has no pointers. */
struct journal_state {
        char sandbox_id[ID_BUFFER];
        char process_id[ID_BUFFER];
        uint64_t cgroup_id; /* of its leaf */
        bool is_ready;      /* the kernel was, once */
        bool is_killed;
        char protocol_error[64]; /* what it was killed for; empty: not for that */
        struct channel_saved channel;
        struct execution_saved executions[JOURNAL_RINGS]; /* by ring; without an id: it is free */
};

struct journal {
        unsigned n_users;
        struct session *session;
        int fd;
        struct journal_file *file;
        struct inlet *inlet;
        struct ring *rings[JOURNAL_RINGS];        /* NULL: could not be replaced yet */
        struct execution *holders[JOURNAL_RINGS]; /* whose ring it is; NULL: free */
        struct journal_state state;               /* as it was saved last */
        struct context *context;                  /* whose kernel it is; NULL: that is over */
        unsigned n_keeping; /* how often the runtime was asked to keep it and did not answer yet */
        bool is_kept;       /* the runtime has the descriptors */
        bool is_end_seen;   /* to be acknowledged */
};

/* For @process_id; owned by the caller as its first user. */
int journal_new(struct session *session, const char *sandbox_id, const char *process_id,
                size_t ring_bytes, struct journal **ret_journal);

/*
 * A predecessor's, from what the runtime kept; takes the descriptors, also when it fails. All rings
 * are in it, those of executions too.
 */
int journal_open(struct session *session, const int fds[static JOURNAL_FDS],
                 struct journal **ret_journal);

struct journal *journal_ref(struct journal *journal);

/* Returns NULL. */
struct journal *journal_unref(struct journal *journal);

/* What the runtime is to keep, in the order in which journal_open wants it. Borrowed. False: a ring
 * is missing. */
bool journal_fds(const struct journal *journal, int ret_fds[static JOURNAL_FDS]);

/* The kernel ended. False: no execution has its journal, so it can be acknowledged at once. */
bool journal_on_process_ended(struct session *session, const char *sandbox_id,
                              const char *process_id);

/* A ring that no execution has and that is kept, or -1. */
int journal_find_ring(const struct journal *journal);

/* An execution is recorded: its ring becomes @spare (NULL: none was left). */
void journal_release_ring(struct journal *journal, int ring, struct ring *spare);

/* Saves only the execution that has @ring. */
void journal_save_execution(struct journal *journal, int ring);

/* What journal->state says is what a successor finds from now on. */
void journal_commit(struct journal *journal);
