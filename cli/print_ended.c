#include "cli/print_ended.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "hotcell/v1/execution.pb-c.h"

#include "cli/enum_name.h"
#include "cli/escape.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/say.h"
#include "runtime/base/macros.h"

static const char *sentence_of(const Hotcell__V1__Ended *ended)
{
        switch ((int)ended->outcome) {
        case HOTCELL__V1__OUTCOME__OUTCOME_SIGNALLED:
                return "a signal ended the program";
        case HOTCELL__V1__OUTCOME__OUTCOME_TIMEOUT:
                return "it ran out of time";
        case HOTCELL__V1__OUTCOME__OUTCOME_OOM:
                return "it ran out of memory";
        case HOTCELL__V1__OUTCOME__OUTCOME_OUTPUT_LIMIT:
                return "it wrote more than it may";
        case HOTCELL__V1__OUTCOME__OUTCOME_INTERRUPTED:
                return "interrupted";
        case HOTCELL__V1__OUTCOME__OUTCOME_KILLED:
                return "killed";
        case HOTCELL__V1__OUTCOME__OUTCOME_NOT_STARTED:
                return "the code never ran";
        case HOTCELL__V1__OUTCOME__OUTCOME_SANDBOX_ENDED:
                return "its sandbox ended";
        case HOTCELL__V1__OUTCOME__OUTCOME_LOST:
                return "the server lost sight of it: whether it ran to its end is unknown";
        default:
                return "it ended in a way that this client does not know";
        }
}

/* What gives it more; NULL: no limit ended it. */
static const char *hint_of(const Hotcell__V1__Ended *ended, bool is_one_shot)
{
        if (ended->cause != HOTCELL__V1__CAUSE__CAUSE_LIMIT)
                return NULL;
        switch ((int)ended->outcome) {
        case HOTCELL__V1__OUTCOME__OUTCOME_TIMEOUT:
                return "--timeout gives it longer";
        case HOTCELL__V1__OUTCOME__OUTCOME_OUTPUT_LIMIT:
                return "--output-limit lets it write more, --on-output-limit truncate goes on without";
        case HOTCELL__V1__OUTCOME__OUTCOME_OOM:
                return is_one_shot ? "--memory gives it more"
                                   : "`hotcell sandbox update --memory` gives its sandbox more";
        default:
                return NULL;
        }
}

static bool speaks_for_itself(const Hotcell__V1__Ended *ended)
{
        return ended->outcome == HOTCELL__V1__OUTCOME__OUTCOME_OK ||
               ended->outcome == HOTCELL__V1__OUTCOME__OUTCOME_RAISED ||
               ended->outcome == HOTCELL__V1__OUTCOME__OUTCOME_EXITED;
}

/* Length of @sentence up to its full stop: more follows on the line. */
static size_t without_point(const char *sentence)
{
        size_t n = strlen(sentence);

        return n && sentence[n - 1] == '.' ? n - 1 : n;
}

void print_ended(const Hotcell__V1__Ended *ended, bool is_one_shot)
{
        const char *outcome = enum_name(&hotcell__v1__outcome__descriptor, (int)ended->outcome);
        const char *cause = enum_name(&hotcell__v1__cause__descriptor, (int)ended->cause);
        const char *hint = hint_of(ended, is_one_shot);
        const char *sentence = *ended->message ? ended->message : sentence_of(ended);

        if (ended->truncated_bytes > 0)
                say("%" PRId64 " bytes of output beyond the limit were thrown away",
                    ended->truncated_bytes);
        if (speaks_for_itself(ended))
                return;
        say("%.*s (%s, cause %s)%s", (int)without_point(sentence), sentence, outcome, cause,
            ended->state_lost && !is_one_shot ? "; the variables of its context are gone" : "");
        if (hint)
                (void)fprintf(stderr, "  hint: %s\n", hint);
}

const char *show_bytes(long long n_bytes)
{
        static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
        static char texts[8][32];
        static unsigned next;
        char *text = texts[next++ % ARRAY_SIZE(texts)];
        double value = (double)n_bytes;
        size_t unit = 0;

        while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
                value /= 1024;
                unit++;
        }
        (void)snprintf(text, sizeof(texts[0]), unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
        return text;
}

bool is_measured(const Hotcell__V1__Usage *usage, const char *field)
{
        for (size_t i = 0; i < usage->n_missing; i++) {
                if (strcmp(usage->missing[i], field) == 0)
                        return false;
        }
        return true;
}

const char *show_least(const Hotcell__V1__Usage *usage, const char *field)
{
        return is_measured(usage, field) ? "" : "at least ";
}

/* Figures that are not worth a word, or were not measured, are left out. */
struct figures {
        FILE *out;
        const Hotcell__V1__Usage *usage;
};

static void add_duration(const struct figures *figures, const char *name, const char *field,
                         const Google__Protobuf__Duration *duration)
{
        double seconds = message_seconds(duration);

        if (seconds >= 0.0005)
                (void)fprintf(figures->out, ", %s %s%.3f s", name,
                              show_least(figures->usage, field), seconds);
}

static void add_bytes(const struct figures *figures, const char *name, const char *field,
                      int64_t n_bytes)
{
        if (n_bytes > 0)
                (void)fprintf(figures->out, ", %s %s%s", name, show_least(figures->usage, field),
                              show_bytes(n_bytes));
}

/* Without the CPU time nothing was read at the end. */
static void add_missing(const struct figures *figures)
{
        const Hotcell__V1__Usage *usage = figures->usage;

        if (!is_measured(usage, "cpu_time")) {
                (void)fputs("; more may have been used: its last meters were lost", figures->out);
                return;
        }
        for (size_t i = 0; i < usage->n_missing; i++) {
                _cleanup_(freep) char *field = escape_line(usage->missing[i]);

                (void)fprintf(figures->out, "%s%s",
                              i ? ", " : "; not measured, or not in full: ", field);
        }
}

void print_usage(const char *of, const Hotcell__V1__Usage *usage)
{
        _cleanup_(freep) char *text = NULL;
        size_t n_text = 0;
        FILE *out = must(open_memstream(&text, &n_text));
        const struct figures figures = { out, usage };

        (void)fprintf(out, "cpu %s%.3f s", show_least(usage, "cpu_time"),
                      message_seconds(usage->cpu_time));
        add_duration(&figures, "of it earlier work", "earlier_work_time", usage->earlier_work_time);
        add_duration(&figures, "waited for a CPU", "run_queue_wait", usage->run_queue_wait);
        add_duration(&figures, "throttled", "throttled_time", usage->throttled_time);
        (void)fprintf(out, ", wall %.3f s", message_seconds(usage->wall_time));
        add_bytes(&figures, "memory peak", "memory_peak_bytes", usage->memory_peak_bytes);
        add_bytes(&figures, "sent", "sent_bytes", usage->sent_bytes);
        add_bytes(&figures, "received", "received_bytes", usage->received_bytes);
        add_bytes(&figures, "stdout", "stdout_bytes", usage->stdout_bytes);
        add_bytes(&figures, "stderr", "stderr_bytes", usage->stderr_bytes);
        add_bytes(&figures, "results", "rich_bytes", usage->rich_bytes);
        add_missing(&figures);
        (void)fclose(out);
        must(text);
        say("usage: %s: %s", of, text);
}
