/* One process that was started in a sandbox, in its own leaf group, from its clone to its end. */
#pragma once

#include "runtime/supervisor/sandbox.h"

/*
 *   starting ──▶ running ──▶ draining ──▶ ended ──▶ (freed)
 *      └────────────────────────▲
 */
enum process_state {
        PROCESS_STARTING, /* cloned; its program was not executed yet */
        PROCESS_RUNNING,
        PROCESS_DRAINING, /* it was reaped, and what it left in its leaf was killed */
        PROCESS_ENDED,    /* the leaf is empty, its meters were read */
        _PROCESS_STATE_N,
};

enum {
        PROCESS_FDS_MAX = 5,
        PROCESS_KEPT_MAX = 8,
};

struct process {
        UT_hash_handle hh; /* of its sandbox, by id */
        struct sandbox *sandbox;
        char id[ID_BUFFER];
        enum process_state state;
        struct ticket ticket;
        struct cgroup leaf;
        struct leaf_meter meter;
        struct child child;
        int wait_status;

        uint32_t open_files; /* its limit when it was started, which stays its hard one */
        int status_fd;       /* while starting */
        sd_event_source *status_source; /* likewise */
        sd_event_source *timer;         /* starting: for how long; draining: when to look again */
        unsigned n_looks;

        /* For whoever started it, and for its successors: pidfd, output, error, commands, events.
         */
        int fds[PROCESS_FDS_MAX];
        size_t n_fds;
        /* What those want to find again. */
        int kept[PROCESS_KEPT_MAX];
        size_t n_kept;

        struct failure failure;   /* why it could not be started; reason zero: nothing */
        bool ended_with_sandbox;  /* it went with the init */
        bool is_oom_killed;       /* v1: its leaf was killed for want of memory */
        uint64_t oom_limit_bytes; /* in force when something of it was killed; zero: nothing was */
        struct metered usage;     /* at its end */
        struct traffic traffic;
};

/* CONTROL-checked input, sandbox running. 0, or 1 with @ret_failure. */
int process_start(struct sandbox *sandbox, const Hotcell__Runtime__V1__StartProcess *request,
                  struct ticket ticket, struct failure *ret_failure);

/* Must have ended. Returns NULL. */
struct process *process_free(struct process *process);

/* Takes the descriptors, which replace those kept before. */
void process_keep(struct process *process, int *fds, size_t n_fds);

/* SIGINT to its process group, SIGKILL to its leaf, others to itself. Running ones only. */
int process_signal(struct process *process, int signal);

/* SIGKILL to all of it; its end is told as usual. */
void process_kill(struct process *process);

bool process_is_alive(const struct process *process);

/* Of v1: kills the leaf if the kernel has killed something in it. */
void process_check_oom(struct process *process);

/* Kills all of it, which then counts as a kill for want of memory. */
void process_end_for_memory(struct process *process);
