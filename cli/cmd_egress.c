/* egress log. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "hotcell/v1/egress_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/enum_name.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/print_egress.h"
#include "cli/print_ended.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "cli/table.h"
#include "runtime/base/macros.h"

enum { COUNT_TIMEOUT_MSEC = 10 * 1000 };

struct log_options {
        int format;
        const char *execution;
        struct option_texts types;
};

static char *decision_of(const Hotcell__V1__EgressEvent *event)
{
        const char *type = enum_name(&hotcell__v1__egress_event_type__descriptor, (int)event->type);

        return event->count > 1 ? format_text("%s x%" PRId64, type, event->count) : duplicate(type);
}

/* Why not, or how much went through and why it ended, if not by itself. */
static char *reason_of(const Hotcell__V1__EgressEvent *event)
{
        _cleanup_(freep) char *reason = egress_reason(event);

        if (event->type != HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FLOW_ENDED)
                return take(reason);
        return format_text("%s sent, %s received, %.1f s%s%s", show_bytes(event->sent_bytes),
                           show_bytes(event->received_bytes), message_seconds(event->duration),
                           *reason ? "; " : "", reason);
}

static void add_row(struct table *table, const Hotcell__V1__EgressEvent *event)
{
        _cleanup_(freep) char *decision = decision_of(event);
        _cleanup_(freep) char *destination = egress_destination(event);
        _cleanup_(freep) char *reason = reason_of(event);
        _cleanup_(freep) char *pid =
                event->pid ? format_text("%" PRId64, event->pid) : duplicate("-");
        char time[MESSAGE_TIME_SIZE];
        const char *const cells[] = {
                message_time(event->event_time, time),
                decision,
                destination,
                *event->name ? event->name : "-",
                reason,
                *event->command ? event->command : "-",
                pid,
                *event->execution_id ? event->execution_id : "-",
        };

        table_add(table, cells);
}

static int add_types(const struct log_options *options, Hotcell__V1__ListEgressEventsRequest *ask)
{
        ask->types = allocate(options->types.n + 1, sizeof(*ask->types));
        for (size_t i = 0; i < options->types.n; i++) {
                int value = enum_value(&hotcell__v1__egress_event_type__descriptor,
                                       options->types.items[i]);

                if (value < 0) {
                        say_of("egress log",
                               "--type is one of denied, failed, flow_ended, not '%s'",
                               options->types.items[i]);
                        return EXIT_OURS;
                }
                ask->types[ask->n_types++] = (Hotcell__V1__EgressEventType)value;
        }
        return 0;
}

static int list(struct client *client, enum output_format format,
                Hotcell__V1__ListEgressEventsRequest *ask)
{
        static const char *const headers[] = { "TIME", "DECISION",  "DESTINATION",
                                               "NAME", "REASON",    "COMMAND",
                                               "PID",  "EXECUTION", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);
        _cleanup_(json_putp) struct json_object *array = must(json_object_new_array());
        bool has_more = true;

        while (has_more) {
                _cleanup_(message_freep) Hotcell__V1__ListEgressEventsResponse *answer = NULL;
                int r = request(client, &hotcell__v1__egress_service__descriptor,
                                "ListEgressEvents", ask, "asking", &answer);

                if (r)
                        return r;
                if (format != OUTPUT_TEXT)
                        output_add(format, array, answer->events, answer->n_events);
                for (size_t i = 0; i < answer->n_events && format == OUTPUT_TEXT; i++)
                        add_row(table, answer->events[i]);
                has_more = *answer->next_page_token;
                message_set_text(&ask->page_token, answer->next_page_token);
        }
        if (format == OUTPUT_JSON)
                json_print(stdout, array);
        else if (format == OUTPUT_TEXT)
                table_print(table, stdout);
        return 0;
}

/* It has no place in the log, and is no reason to fail. */
static void say_dropped(struct client *client, const char *sandbox_id)
{
        _cleanup_(message_freep) Hotcell__V1__GetSandboxRequest *get =
                message_new(&hotcell__v1__get_sandbox_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__GetSandboxResponse *answer = NULL;
        _cleanup_(client_call_freep) struct client_call *call = NULL;
        const Hotcell__V1__EgressStatus *status;

        message_set_text(&get->sandbox_id, sandbox_id);
        call = client_call_new(client, &hotcell__v1__sandbox_service__descriptor, "GetSandbox",
                               &get->base, COUNT_TIMEOUT_MSEC);
        if (!call || client_call_read(call, COUNT_TIMEOUT_MSEC, &answer) || !answer->sandbox)
                return;
        status = answer->sandbox->egress_status;
        (void)fflush(stdout); /* both may go to the same file */
        if (status && status->refusals && status->refusals->dropped > 0)
                say("%" PRId64 " of %" PRId64 " refusals in the sandbox are not in the log: they "
                    "were too many at once, and only counted",
                    status->refusals->dropped, status->refusals->denied);
}

static int run_log(const struct log_options *options, const char *sandbox)
{
        _cleanup_(message_freep) Hotcell__V1__ListEgressEventsRequest *ask =
                message_new(&hotcell__v1__list_egress_events_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        int r = add_types(options, ask);

        if (r == 0)
                r = connect_open(&client);
        if (r == 0)
                r = resolve_sandbox(client, sandbox, true, &ask->sandbox_id);
        if (r == 0 && options->execution)
                r = resolve_execution(client, options->execution, &ask->execution_id);
        if (r)
                return r;
        ask->page_size = 1000;
        r = list(client, (enum output_format)options->format, ask);
        if (r == 0)
                say_dropped(client, ask->sandbox_id);
        return r;
}

static int egress_log(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "egress log",
                .operands = "[OPTIONS] SANDBOX",
                .summary = "Shows what a sandbox asked the network for and what was decided, "
                           "oldest first.",
                .text = "Also of one that has ended, as long as its record is kept. How many refusals "
                        "were too many to be\nin it is said on standard error.",
                .examples = "  hotcell egress log my-box\n"
                            "  hotcell egress log --type denied --execution exe-7d my-box\n"
                            "  hotcell egress log -o jsonl my-box\n",
                .operands_min = 1,
                .operands_max = 1,
        };
        static const struct option_row rows[] = {
                { 0, "execution", OPTION_TEXT, offsetof(struct log_options, execution), "EXECUTION",
                  "only what programs asked for while it ran", NULL, 0 },
                { 0, "type", OPTION_TEXTS, offsetof(struct log_options, types), "TYPE",
                  "only denied, failed or flow_ended; may be repeated", NULL, 0 },
                OUTPUT_ROW(offsetof(struct log_options, format)),
        };
        struct log_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = run_log(&options, operands.items[0]);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

int cmd_egress(int argc, char **argv)
{
        static const struct command commands[] = {
                { "log", egress_log, "show what was denied, failed or ended" },
                { NULL, NULL, NULL },
        };

        return command_dispatch("egress", commands, argc, argv);
}
