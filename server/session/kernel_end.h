/* How an interpreter ended, in one value. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "server/session/session.h"

enum process_end_kind {
        PROCESS_END_SEEN,         /* its parent reaped it: exit_code, signal and oom are good */
        PROCESS_END_SANDBOX,      /* it went with its sandbox */
        PROCESS_END_RUNTIME_LOST, /* nobody saw */
        PROCESS_END_NOT_STARTED,  /* it never ran */
};

/* The process that the kernel chose when memory was short. */
struct victim {
        uint32_t pid;                 /* on the host; zero: not known */
        char command[COMMAND_BUFFER]; /* what it called itself, made printable */
        int64_t rss_bytes;            /* zero: not known */
};

/* As the host saw it. */
struct process_end {
        enum process_end_kind kind;
        int32_t exit_code;
        int32_t signal;
        bool oom;
        int64_t oom_limit_bytes; /* the memory limit in force then; zero: not known */
        bool has_usage;
        struct usage usage; /* of its leaf, since that was made */
        bool has_victim;    /* of what was short of memory */
        struct victim victim;
};

struct kernel_end {
        struct process_end process;
        const char *protocol_error; /* we killed it for this; NULL: we did not */
        /* Why it was never ready; success when it was, and when its start was given up because that
         * was asked for. */
        struct session_result failure;
        enum cause failure_cause; /* not CAUSE_NONE when there is a failure */
};
