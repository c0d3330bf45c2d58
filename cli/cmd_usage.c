/* usage: what sandboxes and executions used, from the ledger; usage export: all of its records. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hotcell/v1/usage_service.pb-c.h"

#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/enum_name.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/print_ended.h"
#include "cli/request.h"
#include "cli/say.h"
#include "cli/suggest.h"
#include "cli/table.h"
#include "cli/usage_export.h"
#include "cli/usage_filter.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum { ROWS_DEFAULT = 20 };

struct usage_options {
        int format;
        bool destinations;
        struct option_number rows;
};

/* The first answer, whose records are in the end the last ones of all. */
struct usage_sum {
        Hotcell__V1__GetUsageResponse *first;
        Hotcell__V1__UsageRecord **last;
        size_t n_last;
        size_t n_max;
};

static int ask_page(struct client *client, Hotcell__V1__GetUsageRequest *ask,
                    Hotcell__V1__GetUsageResponse **ret_answer)
{
        int r = request(client, &hotcell__v1__usage_service__descriptor, "GetUsage", ask, "asking",
                        ret_answer);

        if (r == 0)
                message_set_text(&ask->page_token, (*ret_answer)->next_page_token);
        return r;
}

/* Takes the records over; of all only the last are kept. */
static void keep_last(struct usage_sum *sum, Hotcell__V1__GetUsageResponse *answer)
{
        for (size_t i = 0; i < answer->n_records; i++) {
                if (sum->n_last == sum->n_max && sum->n_max > 0) {
                        message_free(sum->last[0]);
                        memmove(sum->last, sum->last + 1, (sum->n_max - 1) * sizeof(void *));
                        sum->n_last--;
                }
                if (sum->n_last < sum->n_max)
                        sum->last[sum->n_last++] = answer->records[i];
                else
                        message_free(answer->records[i]);
        }
        answer->n_records = 0;
}

static int read_all(struct client *client, Hotcell__V1__GetUsageRequest *ask, struct usage_sum *sum)
{
        int r;

        do {
                Hotcell__V1__GetUsageResponse *answer = NULL;

                r = ask_page(client, ask, &answer);
                if (r)
                        return r;
                keep_last(sum, answer);
                if (sum->first)
                        message_free(answer);
                else
                        sum->first = answer;
        } while (*ask->page_token && sum->n_max > 0);
        return 0;
}

static void print_pair(const char *name, char *value)
{
        (void)printf("%-16s %s\n", name, value);
        free(value);
}

static void print_cpu(const Hotcell__V1__Usage *sums)
{
        print_pair("CPU", format_text("%.3f s (user %.3f s, system %.3f s)",
                                      message_seconds(sums->cpu_time),
                                      message_seconds(sums->cpu_user_time),
                                      message_seconds(sums->cpu_system_time)));
        if (sums->run_queue_wait && message_seconds(sums->run_queue_wait) > 0)
                print_pair("Waited for CPUs",
                           format_text("%s%.3f s", show_least(sums, "run_queue_wait"),
                                       message_seconds(sums->run_queue_wait)));
        if (sums->throttled_periods > 0)
                print_pair("Throttled", format_text("%s%.3f s in %" PRId64 " periods",
                                                    show_least(sums, "throttled_time"),
                                                    message_seconds(sums->throttled_time),
                                                    sums->throttled_periods));
}

static void print_memory(const Hotcell__V1__Usage *sums)
{
        print_pair("Memory",
                   format_text("peak %s%s, %s%.1f MiB x s", show_least(sums, "memory_peak_bytes"),
                               show_bytes(sums->memory_peak_bytes),
                               show_least(sums, "memory_byte_seconds"),
                               (double)sums->memory_byte_seconds / (1 << 20)));
        if (sums->oom_kills > 0)
                print_pair("Out of memory", format_text("%" PRId64 " killed", sums->oom_kills));
}

/* What the sums are less than what was used by. */
static void print_gaps(const Hotcell__V1__GetUsageResponse *answer)
{
        const char *title = "Not measured";

        for (size_t i = 0; i < answer->n_gaps; i++) {
                const Hotcell__V1__UsageGap *gap = answer->gaps[i];

                print_pair(title, format_text("%s in %" PRId64 " of %" PRId64 " records",
                                              gap->field, gap->records, answer->records_total));
                title = "";
        }
        if (answer->records_incomplete > 0)
                print_pair("Incomplete", format_text("%" PRId64 " records: more may have been used",
                                                     answer->records_incomplete));
}

static void print_sums(const Hotcell__V1__GetUsageResponse *answer)
{
        const Hotcell__V1__Usage *sums = answer->sums;
        char time[MESSAGE_TIME_SIZE];

        print_pair("Records", format_text("%" PRId64, answer->records_total));
        if (!sums)
                return;
        if (sums->wall_time &&
            message_seconds(sums->wall_time) > 0) /* else no sandbox has one yet */
                print_pair("Time", format_text("%.1f s", message_seconds(sums->wall_time)));
        print_cpu(sums);
        print_memory(sums);
        if (is_measured(sums, "sent_bytes") || sums->sent_bytes + sums->received_bytes > 0)
                print_pair("Network",
                           format_text("%s%s sent, %s%s received", show_least(sums, "sent_bytes"),
                                       show_bytes(sums->sent_bytes),
                                       show_least(sums, "received_bytes"),
                                       show_bytes(sums->received_bytes)));
        print_pair("Output", format_text("%s", show_bytes(sums->stdout_bytes + sums->stderr_bytes +
                                                          sums->rich_bytes)));
        print_gaps(answer);
        if (answer->complete_until)
                print_pair("Complete until", duplicate(message_time(answer->complete_until, time)));
}

static void show_amount(const Hotcell__V1__Usage *usage, const char *field, int64_t n_bytes,
                        char ret_text[static 48])
{
        bool is_known = n_bytes > 0 || is_measured(usage, field);

        (void)snprintf(ret_text, 48, "%s%s", is_known ? show_least(usage, field) : "",
                       is_known ? show_bytes(n_bytes) : "-");
}

static void print_records(const struct usage_sum *sum)
{
        static const char *const headers[] = { "UNTIL", "SANDBOX", "WHAT",     "CPU", "TIME",
                                               "PEAK",  "SENT",    "RECEIVED", "END", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);

        for (size_t i = 0; i < sum->n_last; i++) {
                const Hotcell__V1__UsageRecord *record = sum->last[i];
                static const Hotcell__V1__Usage none = HOTCELL__V1__USAGE__INIT;
                const Hotcell__V1__Usage *usage = record->usage ? record->usage : &none;
                char cpu[32], wall[32], peak[48], sent[48], received[48];
                char time[MESSAGE_TIME_SIZE];
                const char *cells[] = {
                        message_time(record->end_time, time),
                        record->sandbox_id,
                        *record->execution_id
                                ? record->execution_id
                                : enum_name(&hotcell__v1__usage_record_type__descriptor,
                                            (int)record->type),
                        cpu,
                        wall,
                        peak,
                        sent,
                        received,
                        record->outcome
                                ? enum_name(&hotcell__v1__outcome__descriptor, (int)record->outcome)
                        : record->cause
                                ? enum_name(&hotcell__v1__cause__descriptor, (int)record->cause)
                                : "-",
                };

                (void)snprintf(cpu, sizeof(cpu), "%s%.3f s", show_least(usage, "cpu_time"),
                               message_seconds(usage->cpu_time));
                show_amount(usage, "memory_peak_bytes", usage->memory_peak_bytes, peak);
                show_amount(usage, "sent_bytes", usage->sent_bytes, sent);
                show_amount(usage, "received_bytes", usage->received_bytes, received);
                (void)snprintf(wall, sizeof(wall), "%.1f s", message_seconds(usage->wall_time));
                table_add(table, cells);
        }
        if (sum->n_last > 0) {
                (void)putchar('\n');
                table_print(table, stdout);
        }
}

static void print_destinations(const Hotcell__V1__GetUsageResponse *answer)
{
        static const char *const headers[] = { "NAME", "ADDRESS",  "PORT", "CONNECTIONS",
                                               "SENT", "RECEIVED", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);

        for (size_t i = 0; i < answer->n_destinations; i++) {
                const Hotcell__V1__UsageDestination *to = answer->destinations[i];
                char port[16], connections[32];
                const char *const cells[] = {
                        *to->name ? to->name : "-",
                        *to->address ? to->address : "several",
                        port,
                        connections,
                        show_bytes(to->sent_bytes),
                        show_bytes(to->received_bytes),
                };

                (void)snprintf(port, sizeof(port), "%d", to->port);
                (void)snprintf(connections, sizeof(connections), "%" PRId64, to->connections);
                table_add(table, cells);
        }
        if (answer->n_destinations > 0) {
                (void)putchar('\n');
                table_print(table, stdout);
        }
}

/* The answer as it would be if all were one page, with the last records. */
static void print_json(enum output_format format, const struct usage_sum *sum)
{
        Hotcell__V1__GetUsageResponse all = *sum->first;

        all.records = sum->last;
        all.n_records = sum->n_last;
        all.next_page_token = unconst(protobuf_c_empty_string);
        output_message(format, &all);
}

/* What is no sandbox may be the command that was meant. */
static void suggest_export(const char *word)
{
        static const char *const names[] = { "export" };

        if (word && suggest(word, names, ARRAY_SIZE(names)))
                say_of("usage", "did you mean `hotcell usage export`?");
}

static int show(const struct usage_options *options, const struct usage_filter *filter,
                const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__GetUsageRequest *ask =
                message_new(&hotcell__v1__get_usage_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        struct usage_sum sum = { .n_max = options->rows.is_set ? (size_t)options->rows.value
                                                               : ROWS_DEFAULT };
        int r = connect_open(&client);

        if (r == 0)
                r = usage_filter_set("usage", filter, operands->n ? operands->items[0] : NULL,
                                     client, ask);
        if (r && client && !*ask->sandbox_id)
                suggest_export(operands->n ? operands->items[0] : NULL);
        if (r)
                return r;
        ask->destinations = options->destinations;
        sum.last = allocate(sum.n_max, sizeof(void *));
        r = read_all(client, ask, &sum);
        if (r == 0 && options->format != OUTPUT_TEXT) {
                print_json((enum output_format)options->format, &sum);
        } else if (r == 0) {
                print_sums(sum.first);
                print_destinations(sum.first);
                print_records(&sum);
        }
        if (r == 0)
                usage_filter_say_none("usage", ask, sum.first);
        for (size_t i = 0; i < sum.n_last; i++)
                message_free(sum.last[i]);
        free(sum.last);
        message_free(sum.first);
        return r;
}

static int export_all(enum usage_format format, const struct usage_filter *filter,
                      const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__GetUsageRequest *ask =
                message_new(&hotcell__v1__get_usage_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        int r = connect_open(&client);

        if (r == 0)
                r = usage_filter_set("usage export", filter,
                                     operands->n ? operands->items[0] : NULL, client, ask);
        if (r)
                return r;
        usage_export_head(stdout, format);
        for (bool is_first = true; r == 0 && (is_first || *ask->page_token) && !ferror(stdout);
             is_first = false) {
                _cleanup_(message_freep) Hotcell__V1__GetUsageResponse *answer = NULL;

                r = ask_page(client, ask, &answer);
                for (size_t i = 0; r == 0 && i < answer->n_records; i++)
                        usage_export_record(stdout, format, answer->records[i]);
                (void)fflush(stdout);
                if (r == 0 && is_first)
                        usage_filter_say_none("usage export", ask, answer);
        }
        return r == 0 && ferror(stdout) ? EXIT_OURS : r;
}

static int usage_export(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "usage export",
                .operands = "[OPTIONS] [SANDBOX]",
                .summary = "Writes records of the ledger, oldest first, for other programs.",
                .text = "Both formats have the same fields. Those that end with _usec are "
                        "microseconds.\n"
                        "`missing` names fields that were not measured, or not in full; of records "
                        "that are\nincomplete, all that is metered.",
                .examples = "  hotcell usage export --since 2026-01-01 --until 2026-02-01 "
                            ">january.csv\n"
                            "  hotcell usage export --format jsonl --label team=blue\n",
                .operands_max = 1,
        };
        static const char *const formats[] = { "csv", "jsonl", NULL };
        struct export_options {
                int format;
        } options = { 0 };
        static const struct option_row rows[] = {
                { 0, "format", OPTION_CHOICE, offsetof(struct export_options, format), "csv|jsonl",
                  "CSV with a header (csv), or a JSON object a line", formats, 0 },
        };
        struct usage_filter filter = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options),
                                               usage_filter_group(&filter) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = export_all((enum usage_format)options.format, &filter, &operands);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

static int usage_show(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "usage",
                .operands = "[OPTIONS] [SANDBOX]",
                .summary = "Shows what sandboxes and executions used, living and ended.",
                .text = "A record is about an execution, or about what a sandbox used besides. What "
                        "lives may have\nused more than is told: since the time until which records "
                        "are complete.\n"
                        "`hotcell usage export` writes all of them for other programs.",
                .examples = "  hotcell usage\n"
                            "  hotcell usage --destinations my-box\n"
                            "  hotcell usage --since 24h --label team=blue\n",
                .operands_max = 1,
        };
        static const struct option_row rows[] = {
                { 0, "destinations", OPTION_FLAG, offsetof(struct usage_options, destinations),
                  NULL, "also what was sent where; with a sandbox or an execution", NULL, 0 },
                { 'n', "rows", OPTION_COUNT, offsetof(struct usage_options, rows), "COUNT",
                  "show the last so many records (20)", NULL, 1000 },
                OUTPUT_ROW(offsetof(struct usage_options, format)),
        };
        struct usage_options options = { 0 };
        struct usage_filter filter = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options),
                                               usage_filter_group(&filter) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = show(&options, &filter, &operands);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

int cmd_usage(int argc, char **argv)
{
        if (argc > 1 && strcmp(argv[1], "export") == 0)
                return usage_export(argc - 1, argv + 1);
        return usage_show(argc, argv);
}
