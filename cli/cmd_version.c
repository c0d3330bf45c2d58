/* version: of the client, and when it can be reached, of the server with what it offers. */

#include <inttypes.h>
#include <stdio.h>

#include "hotcell/v1/server_service.pb-c.h"

#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/escape.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/print_ended.h"
#include "cli/print_holds.h"
#include "cli/print_metering.h"
#include "cli/request.h"
#include "runtime/base/macros.h"

struct version_options {
        int format;
        bool client_only;
};

static void print_limits(const char *what, const Hotcell__V1__SandboxLimits *limits)
{
        if (!limits)
                return;
        (void)printf("  %s: memory %s, cpus %.3g, processes %d, disk %s, open files %d", what,
                     show_bytes(limits->memory_bytes), limits->cpu_millis / 1000.0,
                     limits->processes, show_bytes(limits->disk_bytes), limits->open_files);
        if (limits->cpu_weight > 0) /* an older server says nothing of these */
                (void)printf(", cpu weight %d, inodes %" PRId64, limits->cpu_weight,
                             limits->disk_inodes);
        if (limits->io_bytes_per_second > 0)
                (void)printf(", io %s a second", show_bytes(limits->io_bytes_per_second));
        if (limits->execution)
                (void)printf(", output %s", show_bytes(limits->execution->output_bytes));
        (void)printf("\n");
}

/* As the flags take it. */
static char *show_duration(const Google__Protobuf__Duration *duration)
{
        static const struct {
                int64_t seconds;
                char letter;
        } units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' } };

        if (!duration || (duration->seconds == 0 && duration->nanos == 0))
                return duplicate("none");
        for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
                if (duration->nanos == 0 && duration->seconds % units[i].seconds == 0)
                        return format_text("%lld%c",
                                           (long long)(duration->seconds / units[i].seconds),
                                           units[i].letter);
        }
        return format_text("%.10gs", message_seconds(duration));
}

static void print_rule(const char *flag, const Hotcell__V1__DurationRule *rule)
{
        _cleanup_(freep) char *unless_set = NULL;
        _cleanup_(freep) char *max = NULL;

        if (!rule)
                return; /* an older server */
        unless_set = show_duration(rule->unless_set);
        max = show_duration(rule->max);
        (void)printf("  %s: %s unless set, at most %s, 0 %s\n", flag, unless_set, max,
                     rule->zero_allowed ? "for none" : "is refused");
}

static void print_egress_limits(const Hotcell__V1__EgressLimits *limits)
{
        _cleanup_(freep) char *bytes = NULL;

        if (!limits)
                return; /* an older server */
        /* Not rounded: it must fit. */
        bytes = format_text("%.10g MiB", (double)limits->bytes / (1 << 20));
        (void)printf("  --allow, --deny: at most %d together, with %d ranges of ports each, %d "
                     "labels of names that are not ASCII, %s in all\n",
                     limits->rules, limits->port_ranges, limits->converted_names, bytes);
}

static void print_template(const Hotcell__V1__TemplateInfo *template)
{
        _cleanup_(freep) char *name = escape_line(template->name);
        _cleanup_(freep) char *digest = escape_line(template->digest);

        (void)printf("  template %s:", name);
        for (size_t i = 0; i < template->n_languages; i++) {
                _cleanup_(freep) char *language = escape_line(template->languages[i]->language);
                _cleanup_(freep) char *version = escape_line(template->languages[i]->version);

                (void)printf("%s %s %s", i ? "," : "", language, version);
        }
        (void)printf(" (%s)\n", digest);
}

static void print_server(const Hotcell__V1__GetServerInfoResponse *info)
{
        _cleanup_(freep) char *holds = show_own_holds(info);
        _cleanup_(freep) char *version = escape_line(info->version);
        _cleanup_(freep) char *runtime = escape_line(info->runtime_version);

        (void)printf("server %s, runtime %s, %s, %d of %d sandboxes\n", version,
                     *runtime ? runtime : "none", info->ready ? "ready" : "NOT ready",
                     info->sandboxes_active, info->sandboxes_max);
        if (*holds)
                (void)printf("  you have: %s\n", holds);
        print_limits("limits at most", info->limits_max);
        print_limits("limits unless set", info->limits_default);
        print_rule("--ttl", info->ttl);
        print_rule("--idle-timeout", info->idle_timeout);
        print_rule("--timeout", info->execution_timeout);
        print_egress_limits(info->egress_limits);
        (void)fputs(info->metering ? "  " : "", stdout);
        print_metering(info->metering);
        for (size_t i = 0; i < info->n_templates; i++)
                print_template(info->templates[i]);
}

static int show_version(const struct version_options *options)
{
        Hotcell__V1__GetServerInfoRequest ask = HOTCELL__V1__GET_SERVER_INFO_REQUEST__INIT;
        _cleanup_(message_freep) Hotcell__V1__GetServerInfoResponse *answer = NULL;
        _cleanup_(client_freep) struct client *client = NULL;
        int r;

        if (options->format == OUTPUT_TEXT)
                (void)printf("hotcell %s\n", HOTCELL_VERSION);
        (void)fflush(stdout);
        if (options->client_only)
                return 0;
        r = connect_open(&client);
        if (r == 0)
                r = request(client, &hotcell__v1__server_service__descriptor, "GetServerInfo", &ask,
                            "asking", &answer);
        if (r)
                return r;
        if (options->format == OUTPUT_TEXT)
                print_server(answer);
        else
                output_message((enum output_format)options->format, answer);
        return 0;
}

int cmd_version(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "version",
                .operands = "[OPTIONS]",
                .summary = "Shows the versions of client and server, its limits and templates, "
                           "and how long things may take.",
                .examples = "  hotcell version\n"
                            "  hotcell version -o json\n",
        };
        static const struct option_row rows[] = {
                { 0, "client", OPTION_FLAG, offsetof(struct version_options, client_only), NULL,
                  "do not ask the server", NULL, 0 },
                OUTPUT_ROW(offsetof(struct version_options, format)),
        };
        struct version_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        return show_version(&options);
}
