/*
 * The tables, and how one is read: from the top, the first row that fits holds. Of reasons to end a
 * run the first one stays, because what comes after it may be its consequence; only an interrupt
 * that the run outlived, and that was not followed by SIGKILL of ours, yields to what the kernel
 * says. Want of memory is an outcome only where it took the interpreter: by SIGKILL, or when the
 * runtime is about to, after the kernel killed another process of the same leaf.
 */
#include "server/session/outcome.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"

#define END(name)   BIT(RUN_END_##name)
#define ASKED(name) BIT(OUTCOME_##name)
#define CAUSE(name) BIT(CAUSE_##name)

static const unsigned any_end = BIT(_RUN_END_N) - 1;

enum {
        ANY_ASKED = ASKED(NONE) | ASKED(TIMEOUT) | ASKED(OUTPUT_LIMIT) | ASKED(INTERRUPTED) |
                    ASKED(KILLED) | ASKED(NOT_STARTED) | ASKED(SANDBOX_ENDED),
        LIVES = END(OK) | END(RAISED) | END(SYS_EXIT), /* its process, as far as the kernel knows */
        REAPED = END(EXITED) | END(SIGNALLED) | END(SIGKILLED),
        SEEN = LIVES | REAPED,
        TAKEN = LIVES | END(SIGKILLED), /* what want of memory looks like */
        YIELDING = ASKED(NONE) | ASKED(INTERRUPTED),
};

static const struct outcome_row rows[] = {
        { .ends = END(NOT_RUN),
          .asked = ANY_ASKED,
          .outcome = OUTCOME_NOT_STARTED,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The code never ran." },
        { .ends = END(RUNTIME_LOST),
          .asked = ANY_ASKED,
          .outcome = OUTCOME_LOST,
          .cause = CAUSE_RUNTIME_LOST,
          .sentence = "The runtime went away; whether the code ran to its end is unknown." },
        { .ends = END(HOST_LOST),
          .asked = ANY_ASKED,
          .outcome = OUTCOME_LOST,
          .cause = CAUSE_HOST_LOST,
          .sentence = "The server was restarted; whether the code ran to its end is unknown." },
        { .ends = END(SANDBOX),
          .asked = ANY_ASKED,
          .causes = CAUSE(RUNTIME_LOST) | CAUSE(HOST_LOST),
          .outcome = OUTCOME_LOST,
          .cause_from = CAUSE_OF_SANDBOX,
          .sentence = "Its sandbox was lost; whether the code ran to its end is unknown." },
        { .ends = END(CONTEXT),
          .asked = ANY_ASKED,
          .outcome = OUTCOME_KILLED,
          .cause = CAUSE_CLIENT,
          .sentence = "Its context was deleted." },
        { .ends = any_end,
          .asked = ASKED(SANDBOX_ENDED),
          .outcome = OUTCOME_SANDBOX_ENDED,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The sandbox ended while the code ran." },
        { .ends = any_end,
          .asked = ASKED(KILLED),
          .outcome = OUTCOME_KILLED,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The interpreter was killed." },
        { .ends = any_end,
          .asked = ASKED(TIMEOUT),
          .causes = CAUSE(CLIENT_NOT_READING),
          .outcome = OUTCOME_TIMEOUT,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The code ran out of time while it waited for a client to read its output." },
        { .ends = any_end,
          .asked = ASKED(TIMEOUT),
          .outcome = OUTCOME_TIMEOUT,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The code ran out of time." },
        { .ends = any_end,
          .asked = ASKED(OUTPUT_LIMIT),
          .outcome = OUTCOME_OUTPUT_LIMIT,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The code wrote more than it may." },
        { .ends = any_end,
          .asked = ASKED(INTERRUPTED),
          .is_killed = MATCH_YES,
          .outcome = OUTCOME_KILLED,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The interpreter was killed after an interrupt." },
        { .ends = END(SANDBOX),
          .asked = YIELDING,
          .outcome = OUTCOME_SANDBOX_ENDED,
          .cause_from = CAUSE_OF_SANDBOX,
          .sentence = "The sandbox ended while the code ran." },
        { .ends = TAKEN,
          .asked = YIELDING,
          .is_oom = MATCH_YES,
          .outcome = OUTCOME_OOM,
          .cause = CAUSE_LIMIT,
          .sentence = "It ran out of memory{memory}." },
        { .ends = END(SIGKILLED),
          .asked = YIELDING,
          .is_oom = MATCH_NO,
          .is_protocol_broken = MATCH_YES,
          .outcome = OUTCOME_KILLED,
          .cause = CAUSE_KERNEL_PROTOCOL,
          .sentence = "The interpreter broke its protocol ({protocol}) and was killed." },
        { .ends = SEEN,
          .asked = ASKED(INTERRUPTED),
          .outcome = OUTCOME_INTERRUPTED,
          .cause_from = CAUSE_OF_ASKED,
          .sentence = "The code was interrupted." },
        { .ends = END(OK),
          .asked = ASKED(NONE),
          .outcome = OUTCOME_OK,
          .cause = CAUSE_PROGRAM,
          .sentence = "The code ran to its end." },
        { .ends = END(RAISED),
          .asked = ASKED(NONE),
          .outcome = OUTCOME_RAISED,
          .cause = CAUSE_PROGRAM,
          .sentence = "The code raised an error." },
        { .ends = END(SYS_EXIT) | END(EXITED),
          .asked = ASKED(NONE),
          .outcome = OUTCOME_EXITED,
          .cause = CAUSE_PROGRAM,
          .sentence = "The program exited with code {code}." },
        { .ends = END(SIGNALLED) | END(SIGKILLED),
          .asked = ASKED(NONE),
          .outcome = OUTCOME_SIGNALLED,
          .cause = CAUSE_PROGRAM,
          .sentence = "Signal {signal} ended the interpreter." },
};

const struct outcome_row *outcome_row(size_t i)
{
        return i < ARRAY_SIZE(rows) ? &rows[i] : NULL;
}

static bool agrees(enum evidence_match match, bool is_so)
{
        return match == MATCH_ANY || (match == MATCH_YES) == is_so;
}

/* The cause that decides: of the sandbox where that is what ended it, else of what was asked. */
static enum cause deciding_cause(const struct run_evidence *evidence)
{
        return evidence->end == RUN_END_SANDBOX ? evidence->sandbox_cause : evidence->asked_cause;
}

static bool fits(const struct outcome_row *row, const struct run_evidence *evidence)
{
        return (row->ends & BIT(evidence->end)) && (row->asked & BIT(evidence->asked)) &&
               (row->causes == 0 || (row->causes & BIT(deciding_cause(evidence)))) &&
               agrees(row->is_killed, evidence->is_killed) &&
               agrees(row->is_oom, evidence->is_oom) &&
               agrees(row->is_protocol_broken, evidence->protocol_error != NULL);
}

size_t outcome_find_row(const struct run_evidence *evidence)
{
        size_t i = 0;

        while (i < ARRAY_SIZE(rows) && !fits(&rows[i], evidence))
                i++;
        assert(i < ARRAY_SIZE(rows)); /* the test goes through all that can be */
        return i;
}

static enum cause cause_of(const struct outcome_row *row, const struct run_evidence *evidence)
{
        switch (row->cause_from) {
        case CAUSE_OF_ASKED:
                return evidence->asked_cause;
        case CAUSE_OF_SANDBOX:
                return evidence->sandbox_cause;
        case CAUSE_OF_ROW:
                break;
        }
        return row->cause;
}

/* Its variables are gone, or go with a kill that is on its way. */
static bool is_state_lost(const struct run_evidence *evidence)
{
        if (evidence->end == RUN_END_NOT_RUN)
                return false;
        return !(BIT(evidence->end) & LIVES) || evidence->is_killed || evidence->is_oom ||
               evidence->asked == OUTCOME_SANDBOX_ENDED;
}

/* A sentence as it grows; what has no room is left out. */
struct text {
        char *bytes;
        size_t n_room;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vsnprintf(text->bytes, text->n_room, format, arguments);
        va_end(arguments);
        if (n < 0)
                return;
        n = (int)MIN((size_t)n, text->n_room - 1);
        text->bytes += n;
        text->n_room -= (size_t)n;
}

static void add_mebibytes(struct text *text, const char *before, int64_t bytes, const char *after)
{
        add(text, "%s%" PRId64 " MiB%s", before, (bytes + (1 << 19)) >> 20, after);
}

static void add_victim(struct text *text, const struct victim *victim)
{
        add(text, "; the kernel killed %s", victim->command[0] ? victim->command : "a process");
        if (victim->pid)
                add(text, " (pid %" PRIu32 " on the host", victim->pid);
        if (victim->rss_bytes > 0)
                add_mebibytes(text, victim->pid ? ", " : " (", victim->rss_bytes, " resident");
        if (victim->pid || victim->rss_bytes > 0)
                add(text, ")");
}

static void add_memory(struct text *text, const struct run_evidence *evidence)
{
        const char *before = ": ";

        if (evidence->memory_limit_bytes > 0) {
                add_mebibytes(text, ": limit ", evidence->memory_limit_bytes, "");
                before = ", ";
        }
        if (evidence->memory_peak_bytes > 0) {
                add(text, "%s", before);
                add_mebibytes(text, "peak ", evidence->memory_peak_bytes, "");
        }
        if (evidence->victim)
                add_victim(text, evidence->victim);
}

static void add_code(struct text *text, const struct run_evidence *evidence)
{
        add(text, "%" PRId32, evidence->exit_code);
}

static void add_protocol(struct text *text, const struct run_evidence *evidence)
{
        add(text, "%s", evidence->protocol_error);
}

static void add_signal(struct text *text, const struct run_evidence *evidence)
{
        const char *words = sigdescr_np(evidence->signal);

        add(text, "%" PRId32 " (%s)", evidence->signal, words ? words : "of no name");
}

/* What stands in braces. */
static const struct {
        const char *name;
        void (*add)(struct text *text, const struct run_evidence *evidence);
} fields[] = {
        { "{code}", add_code },
        { "{memory}", add_memory },
        { "{protocol}", add_protocol },
        { "{signal}", add_signal },
};

static void fill_in(const char *sentence, const struct run_evidence *evidence,
                    char ret_message[static MESSAGE_BUFFER])
{
        struct text text = { ret_message, MESSAGE_BUFFER };
        const char *brace = strchr(sentence, '{');

        for (size_t i = 0; brace && i < ARRAY_SIZE(fields); i++) {
                if (strncmp(brace, fields[i].name, strlen(fields[i].name)) != 0)
                        continue;
                add(&text, "%.*s", (int)(brace - sentence), sentence);
                fields[i].add(&text, evidence);
                sentence = brace + strlen(fields[i].name);
                break;
        }
        add(&text, "%s", sentence);
}

void outcome_judge(const struct run_evidence *evidence, struct run_verdict *ret_verdict)
{
        const struct outcome_row *row = &rows[outcome_find_row(evidence)];
        unsigned end = BIT(evidence->end);
        bool has_exit_code = end & (END(SYS_EXIT) | END(EXITED));

        *ret_verdict = (struct run_verdict){
                .outcome = row->outcome,
                .cause = cause_of(row, evidence),
                .has_exit_code = has_exit_code,
                .exit_code = has_exit_code ? evidence->exit_code : 0,
                .signal = end & (END(SIGNALLED) | END(SIGKILLED)) ? evidence->signal : 0,
                .state_lost = is_state_lost(evidence),
        };
        if (evidence->words) /* as they are: braces in them are none of ours */
                (void)snprintf(ret_verdict->message, sizeof(ret_verdict->message), "%s",
                               evidence->words);
        else
                fill_in(row->sentence, evidence, ret_verdict->message);
}

void outcome_settle(const struct run_evidence *evidence, struct execution_record *record)
{
        struct run_verdict verdict;

        outcome_judge(evidence, &verdict);
        record->outcome = verdict.outcome;
        record->cause = verdict.cause;
        record->has_exit_code = verdict.has_exit_code;
        record->exit_code = verdict.exit_code;
        record->signal = verdict.signal;
        record->state_lost = verdict.state_lost;
        (void)memcpy(record->message, verdict.message, sizeof(record->message));
}

void outcome_take_process(const struct process_end *end, struct run_evidence *evidence)
{
        static const enum run_end ends[] = {
                [PROCESS_END_SEEN] = RUN_END_EXITED,
                [PROCESS_END_SANDBOX] = RUN_END_SANDBOX,
                [PROCESS_END_RUNTIME_LOST] = RUN_END_RUNTIME_LOST,
                [PROCESS_END_NOT_STARTED] = RUN_END_NOT_RUN,
        };

        evidence->end = ends[end->kind];
        if (end->kind != PROCESS_END_SEEN)
                return;
        if (end->signal)
                evidence->end = end->signal == SIGKILL ? RUN_END_SIGKILLED : RUN_END_SIGNALLED;
        evidence->signal = end->signal;
        evidence->exit_code = end->exit_code;
        evidence->is_oom = end->oom;
        if (end->oom_limit_bytes > 0)
                evidence->memory_limit_bytes = end->oom_limit_bytes;
        if (end->has_victim)
                evidence->victim = &end->victim;
}

void outcome_take_victim(const Hotcell__Runtime__V1__Victim *message, struct victim *ret_victim)
{
        size_t n = MIN(message->command.len, (size_t)COMMAND_BUFFER - 1);

        *ret_victim = (struct victim){
                .pid = message->pid,
                .rss_bytes = (int64_t)MIN(message->rss_bytes, (uint64_t)INT64_MAX),
        };
        for (size_t i = 0; i < n && message->command.data[i]; i++) {
                uint8_t c = message->command.data[i];

                ret_victim->command[i] = '?';
                if (c > ' ' && c < 0x7f)
                        ret_victim->command[i] = (char)c;
        }
}

static const struct sandbox_end_row sandbox_rows[] = {
        [SANDBOX_END_REBOOT] = { "the machine was started anew", CAUSE_HOST_LOST,
                                 "The machine was restarted." },
        [SANDBOX_END_ASKED] = { "its end had begun for a reason, before the server was gone",
                                CAUSE_NONE, "" },
        [SANDBOX_END_OOM] = { "the runtime tells its end: its init is gone, and the kernel killed "
                              "something in it for want of memory",
                              CAUSE_LIMIT, "It ran out of memory." },
        [SANDBOX_END_INIT] = { "the runtime tells its end: its init is gone", CAUSE_PROGRAM,
                               "Its first process ended." },
        [SANDBOX_END_CREATING] = { "the server was gone while it was made", CAUSE_HOST_LOST,
                                   "The server was restarted while it was made." },
        [SANDBOX_END_RUNTIME] = { "the runtime does not have it any more", CAUSE_RUNTIME_LOST,
                                  "The runtime does not have it any more." },
};
static_assert(ARRAY_SIZE(sandbox_rows) == _SANDBOX_END_N, "every end has a row");

const struct sandbox_end_row *outcome_of_sandbox(enum sandbox_end end)
{
        return &sandbox_rows[end];
}

static const struct start_failure_row start_rows[] = {
        [START_RUNTIME_LOST] = { "there was no runtime to ask, or it failed", CAUSE_RUNTIME_LOST },
        [START_NO_ROOM] = { "the host had no room for it", CAUSE_LIMIT },
        [START_REFUSED] = { "the runtime could not execute it", CAUSE_PROGRAM },
        [START_TOO_SLOW] = { "it was not ready in time", CAUSE_LIMIT },
        [START_PROTOCOL] = { "it broke its protocol, and was killed", CAUSE_KERNEL_PROTOCOL },
        [START_OOM] = { "SIGKILL ended it, and the kernel killed something in its leaf for want of "
                        "memory",
                        CAUSE_LIMIT },
        [START_ENDED] = { "it ended in any other way", CAUSE_PROGRAM },
};
static_assert(ARRAY_SIZE(start_rows) == _START_FAILURE_N, "every failure has a row");

const struct start_failure_row *outcome_of_start(enum start_failure failure)
{
        return &start_rows[failure];
}

enum start_failure outcome_start_failure(const struct process_end *end)
{
        return end->oom && end->signal == SIGKILL ? START_OOM : START_ENDED;
}

static const char *const outcome_names[] = {
        [OUTCOME_NONE] = "",
        [OUTCOME_OK] = "OK",
        [OUTCOME_RAISED] = "RAISED",
        [OUTCOME_EXITED] = "EXITED",
        [OUTCOME_SIGNALLED] = "SIGNALLED",
        [OUTCOME_TIMEOUT] = "TIMEOUT",
        [OUTCOME_OOM] = "OOM",
        [OUTCOME_OUTPUT_LIMIT] = "OUTPUT_LIMIT",
        [OUTCOME_INTERRUPTED] = "INTERRUPTED",
        [OUTCOME_KILLED] = "KILLED",
        [OUTCOME_NOT_STARTED] = "NOT_STARTED",
        [OUTCOME_SANDBOX_ENDED] = "SANDBOX_ENDED",
        [OUTCOME_LOST] = "LOST",
};
static_assert(ARRAY_SIZE(outcome_names) == _OUTCOME_N, "every outcome has a name");

const char *outcome_name(enum outcome outcome)
{
        return outcome_names[outcome];
}

static const char *const cause_names[] = {
        [CAUSE_NONE] = "",
        [CAUSE_PROGRAM] = "PROGRAM",
        [CAUSE_LIMIT] = "LIMIT",
        [CAUSE_CLIENT] = "CLIENT",
        [CAUSE_CLIENT_GONE] = "CLIENT_GONE",
        [CAUSE_CLIENT_NOT_READING] = "CLIENT_NOT_READING",
        [CAUSE_OPERATOR] = "OPERATOR",
        [CAUSE_TTL] = "TTL",
        [CAUSE_IDLE] = "IDLE",
        [CAUSE_POLICY] = "POLICY",
        [CAUSE_KERNEL_PROTOCOL] = "KERNEL_PROTOCOL",
        [CAUSE_SHUTDOWN] = "SHUTDOWN",
        [CAUSE_RUNTIME_LOST] = "RUNTIME_LOST",
        [CAUSE_HOST_LOST] = "HOST_LOST",
};
static_assert(ARRAY_SIZE(cause_names) == _CAUSE_N, "every cause has a name");

const char *cause_name(enum cause cause)
{
        return cause_names[cause];
}

static const char *const end_words[] = {
        [RUN_END_NOT_RUN] = "its code was not sent",
        [RUN_END_OK] = "the kernel says: done",
        [RUN_END_RAISED] = "the kernel says: raised",
        [RUN_END_SYS_EXIT] = "the kernel says: `sys.exit`",
        [RUN_END_EXITED] = "its process exited",
        [RUN_END_SIGNALLED] = "a signal other than SIGKILL ended its process",
        [RUN_END_SIGKILLED] = "SIGKILL ended its process",
        [RUN_END_SANDBOX] = "it went with its sandbox",
        [RUN_END_CONTEXT] = "its context was gone when the server came back",
        [RUN_END_RUNTIME_LOST] = "the runtime is gone",
        [RUN_END_HOST_LOST] = "no server was there to see its end",
};
static_assert(ARRAY_SIZE(end_words) == _RUN_END_N, "every end has words");

const char *run_end_words(enum run_end end)
{
        return end_words[end];
}
