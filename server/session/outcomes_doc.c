/* Writes docs/OUTCOMES.md. */
#include <stdio.h>

#include "runtime/base/macros.h"
#include "server/session/outcome.h"

static void print_ends(unsigned ends)
{
        const char *before = "";

        if (ends == BIT(_RUN_END_N) - 1) {
                (void)printf("any");
                return;
        }
        for (unsigned i = 0; i < _RUN_END_N; i++) {
                if (!(ends & BIT(i)))
                        continue;
                (void)printf("%s%s", before, run_end_words((enum run_end)i));
                before = "; or ";
        }
}

static void print_asked(unsigned asked)
{
        const char *before = "";

        if (asked & BIT(OUTCOME_NOT_STARTED)) { /* only asked of what did not run */
                (void)printf("anything");
                return;
        }
        for (unsigned i = 0; i < _OUTCOME_N; i++) {
                if (!(asked & BIT(i)))
                        continue;
                (void)printf("%s%s", before, i ? outcome_name((enum outcome)i) : "nothing");
                before = " or ";
        }
}

static void print_causes(unsigned causes, const char **before)
{
        if (!causes)
                return;
        (void)printf("%sfor ", *before);
        *before = "";
        for (unsigned i = 0; i < _CAUSE_N; i++) {
                if (!(causes & BIT(i)))
                        continue;
                (void)printf("%s%s", *before, cause_name((enum cause)i));
                *before = " or ";
        }
        *before = "; ";
}

static void print_match(enum evidence_match match, const char *yes, const char *no,
                        const char **before)
{
        if (match == MATCH_ANY)
                return;
        (void)printf("%s%s", *before, match == MATCH_YES ? yes : no);
        *before = "; ";
}

static void print_row(const struct outcome_row *row)
{
        static const char *const from[] = {
                [CAUSE_OF_ASKED] = "who asked",
                [CAUSE_OF_SANDBOX] = "its sandbox's",
        };
        const char *before = "";

        (void)printf("| ");
        print_ends(row->ends);
        (void)printf(" | ");
        print_asked(row->asked);
        (void)printf(" | ");
        print_causes(row->causes, &before);
        print_match(row->is_killed, "SIGKILL was sent for that", "no SIGKILL was sent", &before);
        print_match(row->is_oom, "the kernel killed something in its leaf for want of memory",
                    "no want of memory", &before);
        print_match(row->is_protocol_broken, "the kernel broke its protocol",
                    "the kernel kept its protocol", &before);
        (void)printf(" | %s | %s | %s |\n", outcome_name(row->outcome),
                     row->cause_from == CAUSE_OF_ROW ? cause_name(row->cause)
                                                     : from[row->cause_from],
                     row->sentence);
}

static void print_sandbox_row(const struct sandbox_end_row *row)
{
        (void)printf("| %s | %s | %s |\n", row->when,
                     row->cause ? cause_name(row->cause) : "its own",
                     row->sentence[0] ? row->sentence : "its own");
}

int main(void)
{
        const struct outcome_row *row;

        (void)puts(
                "# How runs and sandboxes end\n\n"
                "What the host saw is the evidence, and each evidence has one outcome and one cause: of the rows\n"
                "below the first that fits holds. The word of a kernel decides only between OK, RAISED and the\n"
                "code of `sys.exit`. Of reasons to end a run the first one stays. The exit code and the signal are\n"
                "what the parent of the interpreter reaped. The state is lost whenever the interpreter is gone, or\n"
                "goes with a kill that is on its way.\n\n"
                "An OOM is that of the run in whose leaf the kernel killed a process between the first and the last\n"
                "reading of its meter, be it the interpreter or a child: all of the leaf goes with it. One in another\n"
                "context's leaf is not, and an interpreter that an earlier run has doomed is given no other.\n\n"
                "This page is written by `outcomes-doc` from `server/session/outcome.c`.\n\n"
                "## Runs\n\n"
                "| how it ended | asked for before | and | outcome | cause | message |\n"
                "| --- | --- | --- | --- | --- | --- |");
        for (size_t i = 0; (row = outcome_row(i)); i++)
                print_row(row);
        (void)puts(
                "\n## Sandboxes\n\n"
                "Who ends a sandbox gives the cause: CLIENT, OPERATOR, TTL, IDLE, POLICY (what it may reach cannot\n"
                "be put in force any more), SHUTDOWN, PROGRAM (a one-shot sandbox whose run is over), LIMIT. Where\n"
                "nobody did, or no server saw it through:\n\n"
                "| what the host saw | cause | message |\n| --- | --- | --- |");
        for (unsigned i = 0; i < _SANDBOX_END_N; i++)
                print_sandbox_row(outcome_of_sandbox((enum sandbox_end)i));
        (void)puts(
                "\n## Interpreters\n\n"
                "When one never was ready, what waits for it is NOT_STARTED, and its message says why:\n\n"
                "| why | cause |\n| --- | --- |");
        for (unsigned i = 0; i < _START_FAILURE_N; i++) {
                const struct start_failure_row *start = outcome_of_start((enum start_failure)i);

                (void)printf("| %s | %s |\n", start->when, cause_name(start->cause));
        }
        return 0;
}
