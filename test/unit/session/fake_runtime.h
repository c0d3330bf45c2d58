/* Plays hotcell-runtime on the test's own loop: speaks its protocol, forks fake kernels. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <systemd/sd-event.h>

#include "hotcell/runtime/v1/runtime.pb-c.h"
#include "test/unit/session/fake_egress.h"

struct fake_runtime;

/* Of the first sandbox and of the first process; those after it count up. */
enum { FAKE_CGROUP_FIRST = 77, FAKE_LEAF_FIRST = 1000 };

/* What the next requests meet. */
struct fake_runtime_script {
        int fail_create;        /* FailureReason; 0: none */
        int fail_start;         /* likewise */
        int fail_limits;        /* likewise */
        uint64_t memory_in_use; /* limits that are put in force each by itself stay above it, and
                                   those that fail tell of it */
        const char *fail_message;
        const char *kernel_mode; /* of fake_kernel_run */
        bool wall_missing;
        bool oom;        /* the next process that SIGKILL ends was short of memory */
        bool has_victim; /* and the kernel's choice is known: python3 */
        const char
                *oom_leaf; /* readings of processes whose ids end so tell of an OOM; NULL: none */
        bool hold_create;  /* creations are not answered until _release */
        const char *boot_id;
        uint64_t n_asked;           /* as a reading says */
        uint64_t wall_usec;         /* as one of a sandbox says; 0: it does not */
        unsigned protocol;          /* 0: the newest */
        bool fail_keep;             /* descriptors are not kept */
        unsigned n_fail_list;       /* so many lists are refused first */
        const char *end_on_list;    /* this sandbox ends right after it was listed; NULL: none */
        size_t meters_page;         /* sandboxes in an answer to ReadMeters; 0: 64 */
        bool hold_meters;           /* ReadMeters is heard and not answered */
        bool tells_last;            /* the last meters of a sandbox, with its end */
        unsigned n_fail_leaves;     /* so many readings of processes are refused first */
        unsigned n_readings;        /* counts those of sandboxes */
        int64_t readings_usec[64];  /* when these were, as many as there is room for */
        bool deaf_destroy;          /* requests to destroy are neither heard nor answered */
        struct fake_egress *egress; /* told of after Hello, with version 3; NULL: there is none */
};

int fake_runtime_new(sd_event *loop, const char *path, struct fake_runtime **ret_runtime);
struct fake_runtime *fake_runtime_free(struct fake_runtime *runtime);

struct fake_runtime_script *fake_runtime_script(struct fake_runtime *runtime);

/* hotcell-egress was started, or started anew. */
void fake_runtime_egress_ready(struct fake_runtime *runtime);

/* The same event with any descriptors. */
void fake_runtime_send_egress_ready(struct fake_runtime *runtime, const int *fds, size_t n_fds);

/* Answers the creations that were held. */
void fake_runtime_release(struct fake_runtime *runtime);

/* As if it died: the connection breaks and all processes end. It accepts again. */
void fake_runtime_break(struct fake_runtime *runtime);

/* Only the client's connection breaks: its sandboxes stay. */
void fake_runtime_disconnect(struct fake_runtime *runtime);

/* Its client was killed; its sandboxes and what it keeps stay, and from now on it is on @loop. */
void fake_runtime_move(struct fake_runtime *runtime, sd_event *loop);

/* Ends a sandbox as if its init had died. */
void fake_runtime_end_sandbox(struct fake_runtime *runtime, const char *sandbox_id, bool oom);

/* A sandbox that nobody asked for. */
void fake_runtime_add_sandbox(struct fake_runtime *runtime, const char *sandbox_id,
                              const char *process_id);

/* Something is short in it. */
void fake_runtime_press(struct fake_runtime *runtime, const char *sandbox_id, int kind,
                        uint64_t used, uint64_t limit);

/* Of the limits that it was asked to put in force last, and did; and how often it was asked. */
uint64_t fake_runtime_memory_bytes(const struct fake_runtime *runtime);
size_t fake_runtime_n_limits(const struct fake_runtime *runtime);

/* What the sandbox that was destroyed last had used. */
uint64_t fake_runtime_last_cpu_usec(const struct fake_runtime *runtime);

size_t fake_runtime_n_sandboxes(const struct fake_runtime *runtime);
size_t fake_runtime_n_processes(const struct fake_runtime *runtime); /* unacknowledged too */
size_t fake_runtime_n_living(const struct fake_runtime *runtime);    /* processes */

/* To all its processes, as nobody but it could. */
void fake_runtime_signal(struct fake_runtime *runtime, int signal);

/* One of the descriptors that it keeps with each process is no more what it was. */
void fake_runtime_spoil(struct fake_runtime *runtime, size_t kept);
size_t fake_runtime_n_read_meters(const struct fake_runtime *runtime); /* requests */
size_t fake_runtime_n_metered(const struct fake_runtime *runtime); /* sandboxes in the answers */
size_t fake_runtime_n_started(const struct fake_runtime *runtime);
