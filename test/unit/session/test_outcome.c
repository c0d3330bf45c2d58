/* The table of outcomes, over all evidence that there can be. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "server/session/outcome.h"
#include "test/unit/session/fixture.h"

#define END(name) BIT(RUN_END_##name)

enum {
        ROWS_MAX = 64,
        LIVES = END(OK) | END(RAISED) | END(SYS_EXIT),
        REAPED = END(EXITED) | END(SIGNALLED) | END(SIGKILLED),
        WITH_CODE = END(SYS_EXIT) | END(EXITED),
        WITH_SIGNAL = END(SIGNALLED) | END(SIGKILLED),
};

static const enum outcome asked_for[] = {
        OUTCOME_NONE,   OUTCOME_TIMEOUT,     OUTCOME_OUTPUT_LIMIT,  OUTCOME_INTERRUPTED,
        OUTCOME_KILLED, OUTCOME_NOT_STARTED, OUTCOME_SANDBOX_ENDED,
};

static bool is_end(const struct run_evidence *evidence, unsigned ends)
{
        return BIT(evidence->end) & ends;
}

static bool may_be_killed(const struct run_evidence *evidence)
{
        if (evidence->asked == OUTCOME_KILLED)
                return evidence->is_killed;
        return !evidence->is_killed || evidence->asked == OUTCOME_TIMEOUT ||
               evidence->asked == OUTCOME_OUTPUT_LIMIT || evidence->asked == OUTCOME_INTERRUPTED;
}

/* What the callers never say is no evidence. */
static bool can_be(const struct run_evidence *evidence)
{
        bool is_asked = evidence->asked != OUTCOME_NONE || is_end(evidence, END(NOT_RUN));

        return (evidence->asked != OUTCOME_NOT_STARTED || is_end(evidence, END(NOT_RUN))) &&
               is_asked == (evidence->asked_cause != CAUSE_NONE) && may_be_killed(evidence) &&
               is_end(evidence, END(SANDBOX)) == (evidence->sandbox_cause != CAUSE_NONE) &&
               (!evidence->is_oom || is_end(evidence, LIVES | REAPED)) &&
               (!evidence->protocol_error || is_end(evidence, REAPED));
}

/* Odometer over all fields; false after the last one. */
static bool next_evidence(unsigned *turn, struct run_evidence *ret_evidence)
{
        unsigned n = (*turn)++;

        *ret_evidence = (struct run_evidence){ .exit_code = 3 };
        ret_evidence->end = (enum run_end)(n % _RUN_END_N);
        n /= _RUN_END_N;
        ret_evidence->asked = asked_for[n % ARRAY_SIZE(asked_for)];
        n /= ARRAY_SIZE(asked_for);
        ret_evidence->asked_cause = (enum cause)(n % _CAUSE_N);
        n /= _CAUSE_N;
        ret_evidence->sandbox_cause = (enum cause)(n % _CAUSE_N);
        n /= _CAUSE_N;
        ret_evidence->is_killed = n & 1;
        ret_evidence->is_oom = n & 2;
        ret_evidence->protocol_error = n & 4 ? "a frame" : NULL;
        ret_evidence->signal = ret_evidence->end == RUN_END_SIGKILLED ? SIGKILL : SIGSEGV;
        return n < 8;
}

static void check_facts(const struct run_evidence *evidence, const struct run_verdict *verdict)
{
        bool lives_on = is_end(evidence, LIVES) && !evidence->is_killed && !evidence->is_oom &&
                        evidence->asked != OUTCOME_SANDBOX_ENDED;

        ck_assert_int_eq(verdict->has_exit_code, is_end(evidence, WITH_CODE));
        ck_assert_int_eq(verdict->exit_code, is_end(evidence, WITH_CODE) ? 3 : 0);
        ck_assert_int_eq(verdict->signal, is_end(evidence, WITH_SIGNAL) ? evidence->signal : 0);
        ck_assert_int_eq(verdict->state_lost, !lives_on && !is_end(evidence, END(NOT_RUN)));
}

static bool is_own_doing(enum outcome outcome)
{
        return BIT(outcome) & (BIT(OUTCOME_OK) | BIT(OUTCOME_RAISED) | BIT(OUTCOME_EXITED) |
                               BIT(OUTCOME_SIGNALLED));
}

static void check_cause(const struct run_evidence *evidence, const struct run_verdict *verdict)
{
        bool is_protocol = verdict->cause == CAUSE_KERNEL_PROTOCOL && evidence->protocol_error;

        ck_assert_int_ne(verdict->cause, CAUSE_NONE);
        if (is_own_doing(verdict->outcome)) {
                ck_assert_int_eq(evidence->asked, OUTCOME_NONE);
                ck_assert_int_eq(verdict->cause, CAUSE_PROGRAM);
        } else if (verdict->outcome == OUTCOME_OOM)
                ck_assert_int_eq(verdict->cause, CAUSE_LIMIT);
        else if (!is_end(evidence, END(CONTEXT) | END(RUNTIME_LOST) | END(HOST_LOST)))
                ck_assert_msg(verdict->cause == evidence->asked_cause ||
                                      verdict->cause == evidence->sandbox_cause || is_protocol,
                              "cause %s of nobody", cause_name(verdict->cause));
}

/* Want of memory is told where it took the interpreter, and nowhere else. */
static void check_oom(const struct run_evidence *evidence, const struct run_verdict *verdict)
{
        bool is_taken = evidence->is_oom && is_end(evidence, LIVES | END(SIGKILLED));
        bool yields = evidence->asked == OUTCOME_NONE ||
                      (evidence->asked == OUTCOME_INTERRUPTED && !evidence->is_killed);

        ck_assert_int_eq(verdict->outcome == OUTCOME_OOM, is_taken && yields);
}

static void check_lost(const struct run_evidence *evidence, const struct run_verdict *verdict)
{
        bool is_sandbox_lost =
                is_end(evidence, END(SANDBOX)) && (evidence->sandbox_cause == CAUSE_RUNTIME_LOST ||
                                                   evidence->sandbox_cause == CAUSE_HOST_LOST);

        ck_assert_int_eq(verdict->outcome == OUTCOME_LOST,
                         is_sandbox_lost || is_end(evidence, END(RUNTIME_LOST) | END(HOST_LOST)));
        ck_assert_int_eq(verdict->outcome == OUTCOME_NOT_STARTED, is_end(evidence, END(NOT_RUN)));
}

/* The first reason stays, as long as somebody saw the end. */
static void check_asked(const struct run_evidence *evidence, const struct run_verdict *verdict)
{
        if (!is_end(evidence, LIVES | REAPED))
                return;
        if (evidence->asked == OUTCOME_TIMEOUT || evidence->asked == OUTCOME_OUTPUT_LIMIT ||
            evidence->asked == OUTCOME_KILLED || evidence->asked == OUTCOME_SANDBOX_ENDED) {
                ck_assert_int_eq(verdict->outcome, evidence->asked);
                ck_assert_int_eq(verdict->cause, evidence->asked_cause);
        }
        if (evidence->asked == OUTCOME_INTERRUPTED && evidence->is_killed)
                ck_assert_int_eq(verdict->outcome, OUTCOME_KILLED);
        if (verdict->outcome == OUTCOME_INTERRUPTED)
                ck_assert(!evidence->is_killed && evidence->asked == OUTCOME_INTERRUPTED);
}

/* A kernel's word decides only about its own result. */
static void check_word(const struct run_evidence *evidence, const struct run_verdict *verdict)
{
        struct run_evidence other = *evidence;
        struct run_verdict of_other;

        if (verdict->outcome == OUTCOME_OK)
                ck_assert_int_eq(evidence->end, RUN_END_OK);
        if (verdict->outcome == OUTCOME_RAISED)
                ck_assert_int_eq(evidence->end, RUN_END_RAISED);
        if (!is_end(evidence, LIVES))
                return;
        other.end = RUN_END_OK;
        outcome_judge(&other, &of_other);
        ck_assert_int_eq(of_other.state_lost, verdict->state_lost);
        if (of_other.outcome != OUTCOME_OK)
                ck_assert_int_eq(of_other.outcome, verdict->outcome);
        ck_assert_int_eq(of_other.cause, verdict->cause);
}

static void check_message(const struct run_verdict *verdict)
{
        size_t n = strlen(verdict->message);

        ck_assert_uint_gt(n, 10);
        ck_assert_int_eq(verdict->message[n - 1], '.');
        ck_assert_ptr_null(strchr(verdict->message, '{'));
}

START_TEST(every_evidence_has_one_true_verdict)
{
        bool is_used[ROWS_MAX] = { false };
        struct run_evidence evidence;
        struct run_verdict verdict;
        unsigned n = 0;

        for (unsigned turn = 0; next_evidence(&turn, &evidence);) {
                if (!can_be(&evidence))
                        continue;
                n++;
                is_used[outcome_find_row(&evidence)] = true;
                outcome_judge(&evidence, &verdict);
                check_facts(&evidence, &verdict);
                check_cause(&evidence, &verdict);
                check_oom(&evidence, &verdict);
                check_lost(&evidence, &verdict);
                check_asked(&evidence, &verdict);
                check_word(&evidence, &verdict);
                check_message(&verdict);
        }
        ck_assert_uint_gt(n, 2000);
        for (size_t i = 0; outcome_row(i); i++)
                ck_assert_msg(is_used[i], "row %zu (%s) fits nothing", i, outcome_row(i)->sentence);
}
END_TEST

START_TEST(every_outcome_is_reached)
{
        struct run_evidence evidence;
        unsigned outcomes = 0;

        for (unsigned turn = 0; next_evidence(&turn, &evidence);)
                if (can_be(&evidence))
                        outcomes |= BIT(outcome_row(outcome_find_row(&evidence))->outcome);
        ck_assert_uint_eq(outcomes, BIT(_OUTCOME_N) - 1 - BIT(OUTCOME_NONE));
}
END_TEST

static const char *sentence_of(const struct run_evidence *evidence)
{
        static struct run_verdict verdict;

        outcome_judge(evidence, &verdict);
        return verdict.message;
}

START_TEST(want_of_memory_is_told_with_limit_peak_and_victim)
{
        struct victim victim = { .pid = 4711, .command = "python3", .rss_bytes = 480 << 20 };
        struct run_evidence evidence = {
                .end = RUN_END_SIGKILLED,
                .signal = SIGKILL,
                .is_oom = true,
                .memory_limit_bytes = 512 << 20,
                .memory_peak_bytes = 511 << 20,
                .victim = &victim,
        };

        ck_assert_str_eq(sentence_of(&evidence),
                         "It ran out of memory: limit 512 MiB, peak 511 MiB; the kernel killed "
                         "python3 (pid 4711 on the host, 480 MiB resident).");
        victim.rss_bytes = 0;
        ck_assert_str_eq(sentence_of(&evidence),
                         "It ran out of memory: limit 512 MiB, peak 511 MiB; the kernel killed "
                         "python3 (pid 4711 on the host).");
        victim = (struct victim){ .rss_bytes = 1 << 20 };
        ck_assert_str_eq(sentence_of(&evidence),
                         "It ran out of memory: limit 512 MiB, peak 511 MiB; the kernel killed "
                         "a process (1 MiB resident).");
        evidence.victim = NULL;
        ck_assert_str_eq(sentence_of(&evidence),
                         "It ran out of memory: limit 512 MiB, peak 511 MiB.");
        evidence.memory_limit_bytes = 0;
        ck_assert_str_eq(sentence_of(&evidence), "It ran out of memory: peak 511 MiB.");
        evidence.memory_peak_bytes = 0;
        ck_assert_str_eq(sentence_of(&evidence), "It ran out of memory.");
}
END_TEST

START_TEST(what_a_victim_called_itself_is_not_believed)
{
        static uint8_t hostile[] = "a\n\x1b[2J{code}\xff{\0tail of it all";
        Hotcell__Runtime__V1__Victim message;
        struct victim victim;

        hotcell__runtime__v1__victim__init(&message);
        message.pid = 7;
        message.rss_bytes = UINT64_MAX;
        message.command = (ProtobufCBinaryData){ sizeof(hostile), hostile };
        outcome_take_victim(&message, &victim);
        ck_assert_str_eq(victim.command, "a??[2J{code}?{");
        ck_assert_int_eq(victim.rss_bytes, INT64_MAX);
        message.command.len = 3;
        outcome_take_victim(&message, &victim);
        ck_assert_str_eq(victim.command, "a??");
        message.command = (ProtobufCBinaryData){ 0 };
        outcome_take_victim(&message, &victim);
        ck_assert_str_eq(victim.command, "");
}
END_TEST

START_TEST(the_longest_sentence_has_room)
{
        struct victim victim = { .pid = UINT32_MAX,
                                 .command = "123456789012345",
                                 .rss_bytes = INT64_MAX >> 1 };
        struct run_evidence evidence = {
                .end = RUN_END_SIGKILLED,
                .signal = SIGKILL,
                .is_oom = true,
                .memory_limit_bytes = INT64_MAX >> 1,
                .memory_peak_bytes = INT64_MAX >> 1,
                .victim = &victim,
        };
        char words[2 * MESSAGE_BUFFER];

        ck_assert_ptr_nonnull(strstr(sentence_of(&evidence), "resident)."));
        memset(words, 'w', sizeof(words) - 1);
        words[sizeof(words) - 1] = '\0';
        evidence = (struct run_evidence){ .end = RUN_END_SIGKILLED, .protocol_error = words };
        ck_assert_uint_eq(strlen(sentence_of(&evidence)), MESSAGE_BUFFER - 1);
}
END_TEST

START_TEST(words_of_others_are_told_as_they_are)
{
        struct run_evidence evidence = {
                .end = RUN_END_NOT_RUN,
                .asked_cause = CAUSE_PROGRAM,
                .words = "The interpreter said {signal}.",
        };

        ck_assert_str_eq(sentence_of(&evidence), "The interpreter said {signal}.");
}
END_TEST

START_TEST(codes_and_signals_are_told)
{
        struct run_evidence evidence = { .end = RUN_END_EXITED, .exit_code = 255 };

        ck_assert_str_eq(sentence_of(&evidence), "The program exited with code 255.");
        evidence = (struct run_evidence){ .end = RUN_END_SIGNALLED, .signal = SIGSEGV };
        ck_assert_str_eq(sentence_of(&evidence),
                         "Signal 11 (Segmentation fault) ended the interpreter.");
        evidence.signal = 33; /* glibc keeps it to itself */
        ck_assert_str_eq(sentence_of(&evidence), "Signal 33 (of no name) ended the interpreter.");
}
END_TEST

START_TEST(the_limit_that_it_was_killed_for_is_told)
{
        struct process_end end = { .kind = PROCESS_END_SEEN, .signal = SIGKILL, .oom = true };
        struct run_evidence evidence = { .memory_limit_bytes = MIB(512) }; /* by now */

        outcome_take_process(&end, &evidence);
        ck_assert_str_eq(sentence_of(&evidence), "It ran out of memory: limit 512 MiB.");
        end.oom_limit_bytes = MIB(256);
        outcome_take_process(&end, &evidence);
        ck_assert_str_eq(sentence_of(&evidence), "It ran out of memory: limit 256 MiB.");
}
END_TEST

START_TEST(a_process_is_evidence_as_it_was_seen)
{
        static const struct {
                struct process_end end;
                enum run_end is;
        } all[] = {
                { { .kind = PROCESS_END_SEEN, .exit_code = 3 }, RUN_END_EXITED },
                { { .kind = PROCESS_END_SEEN, .signal = SIGTERM }, RUN_END_SIGNALLED },
                { { .kind = PROCESS_END_SEEN, .signal = SIGKILL }, RUN_END_SIGKILLED },
                { { .kind = PROCESS_END_SANDBOX, .signal = SIGKILL }, RUN_END_SANDBOX },
                { { .kind = PROCESS_END_RUNTIME_LOST, .signal = SIGKILL }, RUN_END_RUNTIME_LOST },
                { { .kind = PROCESS_END_NOT_STARTED }, RUN_END_NOT_RUN },
        };

        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                struct run_evidence evidence = { 0 };

                outcome_take_process(&all[i].end, &evidence);
                ck_assert_int_eq(evidence.end, all[i].is);
        }
}
END_TEST

START_TEST(the_ends_of_sandboxes_have_causes)
{
        for (unsigned i = 0; i < _SANDBOX_END_N; i++) {
                const struct sandbox_end_row *row = outcome_of_sandbox((enum sandbox_end)i);

                ck_assert_int_eq(row->cause == CAUSE_NONE, i == SANDBOX_END_ASKED);
                ck_assert_int_eq(row->sentence[0] == '\0', i == SANDBOX_END_ASKED);
        }
        ck_assert_int_eq(outcome_of_sandbox(SANDBOX_END_OOM)->cause, CAUSE_LIMIT);
        ck_assert_int_eq(outcome_of_sandbox(SANDBOX_END_RUNTIME)->cause, CAUSE_RUNTIME_LOST);
}
END_TEST

START_TEST(an_interpreter_that_never_was_ready_has_a_cause)
{
        static const enum cause causes[] = {
                [START_RUNTIME_LOST] = CAUSE_RUNTIME_LOST,
                [START_NO_ROOM] = CAUSE_LIMIT,
                [START_REFUSED] = CAUSE_PROGRAM,
                [START_TOO_SLOW] = CAUSE_LIMIT,
                [START_PROTOCOL] = CAUSE_KERNEL_PROTOCOL,
                [START_OOM] = CAUSE_LIMIT,
                [START_ENDED] = CAUSE_PROGRAM,
        };
        const struct process_end killed = { .oom = true, .signal = SIGKILL };
        const struct process_end exited = { .oom = true, .exit_code = 1 };

        static_assert(ARRAY_SIZE(causes) == _START_FAILURE_N, "all of them");
        for (unsigned i = 0; i < _START_FAILURE_N; i++)
                ck_assert_int_eq(outcome_of_start((enum start_failure)i)->cause, causes[i]);
        ck_assert_int_eq(outcome_start_failure(&killed), START_OOM);
        ck_assert_int_eq(outcome_start_failure(&exited), START_ENDED);
}
END_TEST

START_TEST(the_page_is_written_from_the_table)
{
        _cleanup_(fclosep) FILE *document = fopen(getenv("HOTCELL_OUTCOMES_MD"), "re");
        FILE *table = popen(getenv("HOTCELL_OUTCOMES_DOC"), "re");
        int expected;

        ck_assert_ptr_nonnull(document);
        ck_assert_ptr_nonnull(table);
        do {
                expected = fgetc(table);
                ck_assert_int_eq(fgetc(document), expected);
        } while (expected != EOF);
        ck_assert_int_eq(pclose(table), 0);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &every_evidence_has_one_true_verdict,
                &every_outcome_is_reached,
                &want_of_memory_is_told_with_limit_peak_and_victim,
                &what_a_victim_called_itself_is_not_believed,
                &the_longest_sentence_has_room,
                &words_of_others_are_told_as_they_are,
                &codes_and_signals_are_told,
                &a_process_is_evidence_as_it_was_seen,
                &the_limit_that_it_was_killed_for_is_told,
                &the_ends_of_sandboxes_have_causes,
                &an_interpreter_that_never_was_ready_has_a_cause,
                &the_page_is_written_from_the_table,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("outcome", all, ARRAY_SIZE(all));
}
