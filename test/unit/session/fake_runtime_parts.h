/*
 * What the parts of the fake runtime share: what it has, and how it tells of it. fake_runtime.c
 * makes and ends it, fake_runtime_requests.c does what it is asked for.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "test/unit/session/fake_runtime.h"

#define TO(name)     HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name
#define FROM(name)   HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name
#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name

struct sandbox;

struct process {
        LIST_ENTRY(process) link;
        struct fake_runtime *runtime;
        char sandbox_id[64];
        char process_id[64];
        pid_t pid; /* 0: it is over */
        sd_event_source *source;
        int status;
        bool oom;
        bool with_sandbox; /* its sandbox's init died */
        int pipes[5];      /* a stand-in for a pidfd, output, error, commands, events; -1: none */
        int kept[8];
        size_t n_kept;
        uint64_t cpu_usec; /* more with each reading */
};

struct sandbox {
        LIST_ENTRY(sandbox) link;
        char sandbox_id[64];
        uint64_t cpu_usec; /* that of its processes, and more with each reading of its own */
        Hotcell__Runtime__V1__SandboxLimits limits;
        bool has_limits; /* other ones than it was made with */
};

struct held {
        LIST_ENTRY(held) link;
        uint64_t request;
        char sandbox_id[64];
};

struct fake_runtime {
        sd_event *loop;
        char *path;
        int listen_fd;
        int fd;
        sd_event_source *accept;
        sd_event_source *socket;
        struct fake_runtime_script script;
        LIST_HEAD(, sandbox) sandboxes;
        LIST_HEAD(, process) processes;
        LIST_HEAD(, held) held;
        size_t n_started;
        size_t n_created;
        size_t n_read_meters;
        size_t n_metered;
        size_t n_limits;
        uint64_t memory_bytes;
        uint64_t last_cpu_usec; /* of the sandbox that was destroyed last */
};

void fake_send_message(struct fake_runtime *runtime, uint64_t request,
                       Hotcell__Runtime__V1__FromRuntime *message, const int *fds, size_t n_fds);
void fake_send_failure(struct fake_runtime *runtime, uint64_t request, int reason);
void fake_send_done(struct fake_runtime *runtime, uint64_t request);
void fake_send_destroyed(struct fake_runtime *runtime, uint64_t request,
                         Hotcell__Runtime__V1__Usage *usage); /* may be NULL */

void fake_send_process_ended(struct process *process);
/* A reading. Either may be NULL: then it is of the sandbox, or of a process whose sandbox is gone.
 */
void fake_fill_usage(struct fake_runtime *runtime, struct sandbox *sandbox, struct process *process,
                     Hotcell__Runtime__V1__Usage *usage);

/* NULL: there is none. */
struct sandbox *fake_find_sandbox(struct fake_runtime *runtime, const char *id);
struct process *fake_find_process(struct fake_runtime *runtime, const char *sandbox_id,
                                  const char *process_id);

struct process *fake_add_process(struct fake_runtime *runtime, const char *sandbox_id,
                                 const char *process_id);
void fake_remove_process(struct process *process);
void fake_remove_sandbox(struct fake_runtime *runtime, struct sandbox *sandbox);
void fake_drop_kept(struct process *process);

/* The end of a process, for the loop. */
int fake_on_child(sd_event_source *source, const siginfo_t *info, void *userdata);

/* Does what @message asks for, and answers it. */
void fake_runtime_answer(struct fake_runtime *runtime,
                         const Hotcell__Runtime__V1__ToRuntime *message, const int *fds,
                         size_t n_fds);
