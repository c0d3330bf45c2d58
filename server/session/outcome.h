/*
 * What an end means: from what the host saw to outcome, cause and a sentence. All that is decided
 * about ends is in tables, of runs, of sandboxes and of interpreters that never were ready, which
 * docs/OUTCOMES.md shows.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hotcell/runtime/v1/runtime.pb-c.h>

#include "server/session/kernel_end.h"
#include "server/store/records.h"

/* How a run came to be over. */
enum run_end {
        RUN_END_NOT_RUN,      /* its code was not sent */
        RUN_END_OK,           /* by the kernel's word, whose process lives */
        RUN_END_RAISED,       /* likewise */
        RUN_END_SYS_EXIT,     /* likewise, with an exit code */
        RUN_END_EXITED,       /* its process was reaped: an exit code */
        RUN_END_SIGNALLED,    /* its process was reaped: a signal other than SIGKILL */
        RUN_END_SIGKILLED,    /* its process was reaped: SIGKILL */
        RUN_END_SANDBOX,      /* it went with its sandbox */
        RUN_END_CONTEXT,      /* its context was gone when a server came back */
        RUN_END_RUNTIME_LOST, /* the runtime went away with all that it saw */
        RUN_END_HOST_LOST,    /* no server was there to see it */
        _RUN_END_N,
};

/* All that is known about the end of a run. */
struct run_evidence {
        enum run_end end;
        int32_t exit_code; /* good with SYS_EXIT and EXITED */
        int32_t signal;    /* good with SIGNALLED and SIGKILLED */

        /* What was asked first: TIMEOUT, OUTPUT_LIMIT, INTERRUPTED, KILLED, or SANDBOX_ENDED, and
         * why; OUTCOME_NONE: nothing. Of what did not run only the cause counts. */
        enum outcome asked;
        enum cause asked_cause;
        bool is_killed; /* SIGKILL was sent for it */

        enum cause sandbox_cause;   /* good with SANDBOX */
        bool is_oom;                /* the kernel killed something in its leaf meanwhile */
        const char *protocol_error; /* it was killed for this; NULL: it was not */

        /* For the sentence only. */
        int64_t memory_limit_bytes;
        int64_t memory_peak_bytes;
        const struct victim *victim; /* may be NULL */
        const char *words;           /* NULL: the table's */
};

struct run_verdict {
        enum outcome outcome;
        enum cause cause;
        bool has_exit_code;
        int32_t exit_code;
        int32_t signal;
        bool state_lost;
        char message[MESSAGE_BUFFER];
};

/* Every evidence has one verdict. */
void outcome_judge(const struct run_evidence *evidence, struct run_verdict *ret_verdict);

/* The same into @record. */
void outcome_settle(const struct run_evidence *evidence, struct execution_record *record);

/* What a process's end is evidence of. */
void outcome_take_process(const struct process_end *end, struct run_evidence *evidence);

/* From the runtime. Its command is a word of the sandbox: what cannot be printed becomes `?`. */
void outcome_take_victim(const Hotcell__Runtime__V1__Victim *message, struct victim *ret_victim);

/* How a sandbox came to be over although no server ended it, or none that saw it through. */
enum sandbox_end {
        SANDBOX_END_REBOOT,   /* the machine was started anew */
        SANDBOX_END_ASKED,    /* its end had begun */
        SANDBOX_END_OOM,      /* the runtime told its end, for want of memory */
        SANDBOX_END_INIT,     /* the runtime told its end */
        SANDBOX_END_CREATING, /* no server was there while it was made */
        SANDBOX_END_RUNTIME,  /* the runtime does not have it any more */
        _SANDBOX_END_N,
};

struct sandbox_end_row {
        const char *when;
        enum cause cause; /* CAUSE_NONE: that of the end that had begun */
        const char *sentence;
};

const struct sandbox_end_row *outcome_of_sandbox(enum sandbox_end end);

/* Why an interpreter never was ready: then what waits for it never runs. */
enum start_failure {
        START_RUNTIME_LOST, /* there was no runtime to ask, or it failed */
        START_NO_ROOM,      /* the host has no room: memory, descriptors, numbers */
        START_REFUSED,      /* the runtime refused it for any other reason */
        START_TOO_SLOW,     /* its time was up */
        START_PROTOCOL,     /* it broke its protocol, and was killed */
        START_OOM,          /* SIGKILL ended it, and memory was short in its leaf */
        START_ENDED,        /* it came to its end by itself */
        _START_FAILURE_N,
};

struct start_failure_row {
        const char *when;
        enum cause cause;
};

const struct start_failure_row *outcome_of_start(enum start_failure failure);

/* What an end is that came before it was ready. */
enum start_failure outcome_start_failure(const struct process_end *end);

/* The table of runs: the first row that fits holds. */
enum evidence_match { MATCH_ANY, MATCH_YES, MATCH_NO };

/* Whose cause it is, when the row has none of its own. */
enum cause_from { CAUSE_OF_ROW, CAUSE_OF_ASKED, CAUSE_OF_SANDBOX };

struct outcome_row {
        unsigned ends;   /* BIT(enum run_end) */
        unsigned asked;  /* BIT(enum outcome) */
        unsigned causes; /* BIT(enum cause) that the deciding cause may be; 0: any */
        enum evidence_match is_killed, is_oom, is_protocol_broken;
        enum outcome outcome;
        enum cause cause;
        enum cause_from cause_from;
        const char *sentence; /* with words in braces that are filled in */
};

/* NULL after the last one. */
const struct outcome_row *outcome_row(size_t i);

/* The first row that fits. */
size_t outcome_find_row(const struct run_evidence *evidence);

/* Names as in the API; of ends in words. */
const char *outcome_name(enum outcome outcome);
const char *cause_name(enum cause cause);
const char *run_end_words(enum run_end end);
