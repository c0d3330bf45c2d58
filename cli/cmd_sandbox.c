/* sandbox create, inspect, update, rm; ls is in cmd_sandbox_ls.c. */

#include <stdio.h>
#include <string.h>

#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/client.h"
#include "cli/cmd_sandbox.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/egress_options.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "cli/spec_options.h"
#include "runtime/base/macros.h"

static const ProtobufCServiceDescriptor *const service = &hotcell__v1__sandbox_service__descriptor;

struct create_options {
        int format;
        bool get_or_create;
        bool quiet;
        struct option_pairs environment;
        struct option_number timeout;
        struct option_number output_limit;
        struct egress_options egress;
};

/* What executions get that set no limits of their own. */
static void apply_execution_limits(const struct option_number *timeout,
                                   const struct option_number *output_limit,
                                   Hotcell__V1__SandboxLimits *limits)
{
        Hotcell__V1__Limits *execution;

        if (!timeout->is_set && !output_limit->is_set)
                return;
        execution = message_new(&hotcell__v1__limits__descriptor);
        if (timeout->is_set)
                execution->timeout = message_duration(timeout->value);
        if (output_limit->is_set) {
                execution->_output_bytes_case = HOTCELL__V1__LIMITS___OUTPUT_BYTES_OUTPUT_BYTES;
                execution->output_bytes = output_limit->value;
        }
        limits->execution = execution;
}

static int create(const struct create_options *options, const struct spec_options *spec)
{
        _cleanup_(message_freep) Hotcell__V1__CreateSandboxRequest *create =
                message_new(&hotcell__v1__create_sandbox_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__CreateSandboxResponse *answer = NULL;
        _cleanup_(client_freep) struct client *client = NULL;
        int r;

        create->spec = spec_options_message(spec);
        r = egress_options_message("sandbox create", &options->egress, &create->spec->egress);
        if (r == 0)
                r = connect_open(&client);
        if (r)
                return r;
        create->get_or_create = options->get_or_create;
        apply_execution_limits(&options->timeout, &options->output_limit, create->spec->limits);
        message_set_map(create->spec, "environment", &options->environment);
        r = request(client, service, "CreateSandbox", create, "making the sandbox", &answer);
        if (r)
                return r;
        if (!answer->sandbox) {
                say("the server made a sandbox but did not say which");
                return EXIT_OURS;
        }
        if (options->format == OUTPUT_TEXT)
                (void)printf("%s\n", answer->sandbox->sandbox_id);
        else
                output_message((enum output_format)options->format, answer->sandbox);
        if (!answer->created && !options->quiet)
                say("it was there already");
        /* Also when it is to be quiet: what was asked for is not what holds. */
        if (answer->egress_differs)
                say("it has another egress policy than %s, and keeps it; `hotcell sandbox inspect` "
                    "shows it, `hotcell sandbox update` replaces it",
                    create->spec->egress ? "the one given here"
                                         : "that of no rules, under which nothing leaves");
        return 0;
}

static int sandbox_create(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "sandbox create",
                .operands = "[OPTIONS]",
                .summary = "Makes a sandbox and prints its id.",
                .examples = "  hotcell sandbox create --name my-box --memory 512M --cpus 1.5 --ttl "
                            "1h\n"
                            "  hotcell sandbox create --name my-box --get-or-create -q\n"
                            "  hotcell sandbox create --allow index.example.org:443 --allow "
                            "93.184.216.0/24:443,8000-8080\n",
        };
        static const struct option_row rows[] = {
                { 'e', "env", OPTION_PAIRS, offsetof(struct create_options, environment),
                  "KEY=VALUE", "a variable of every program in it", NULL, 0 },
                { 0, "timeout", OPTION_DURATION, offsetof(struct create_options, timeout),
                  "DURATION", "of each execution that sets none; " DURATION_HELP, NULL, 0 },
                { 0, "output-limit", OPTION_BYTES, offsetof(struct create_options, output_limit),
                  "BYTES", "of each execution that sets none", NULL, 0 },
                { 0, "get-or-create", OPTION_FLAG, offsetof(struct create_options, get_or_create),
                  NULL, "answer with the living sandbox of that --name, if there is one", NULL, 0 },
                { 'q', "quiet", OPTION_FLAG, offsetof(struct create_options, quiet), NULL,
                  "only the id", NULL, 0 },
                OUTPUT_ROW(offsetof(struct create_options, format)),
        };
        struct create_options options = { 0 };
        struct spec_options spec = { 0 };
        const struct option_group groups[] = { spec_options_group(&spec),
                                               limit_options_group(&spec.limits),
                                               egress_options_group(&options.egress),
                                               OPTION_GROUP("More", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = create(&options, &spec);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

static int inspect(struct client *client, const char *text, enum output_format format)
{
        _cleanup_(message_freep) Hotcell__V1__GetSandboxRequest *get =
                message_new(&hotcell__v1__get_sandbox_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__GetSandboxResponse *answer = NULL;
        int r;

        r = resolve_sandbox(client, text, true, &get->sandbox_id);
        if (r == 0)
                r = request(client, service, "GetSandbox", get, "asking", &answer);
        if (r == 0 && answer->sandbox)
                output_message(format, answer->sandbox);
        return r;
}

static int sandbox_inspect(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "sandbox inspect",
                .operands = "[OPTIONS] SANDBOX…",
                .summary = "Shows all about sandboxes as JSON, also about ended ones.",
                .examples = "  hotcell sandbox inspect my-box\n"
                            "  hotcell sandbox inspect -o jsonl 3k7q 4m2p\n",
                .operands_min = 1,
                .operands_max = SIZE_MAX,
        };
        struct output_options output = { 0 };
        const struct option_group groups[] = { output_options_group(&output) };
        _cleanup_(client_freep) struct client *client = NULL;
        struct operands operands;
        int exit_code = 0;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        r = connect_open(&client);
        if (r)
                return r;
        for (size_t i = 0; i < operands.n; i++) {
                r = inspect(client, operands.items[i], (enum output_format)output.format);
                exit_code = r ? r : exit_code;
        }
        return exit_code;
}

static int delete_one(struct client *client, const char *text)
{
        _cleanup_(message_freep) Hotcell__V1__DeleteSandboxRequest *delete =
                message_new(&hotcell__v1__delete_sandbox_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__DeleteSandboxResponse *answer = NULL;
        int r;

        r = resolve_sandbox(client, text, false, &delete->sandbox_id);
        if (r == 0)
                r = request(client, service, "DeleteSandbox", delete, "ending the sandbox",
                            &answer);
        if (r == 0)
                (void)printf("%s\n", delete->sandbox_id);
        return r;
}

static int sandbox_rm(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "sandbox rm",
                .operands = "SANDBOX…",
                .summary = "Ends sandboxes with all that runs in them, and prints their ids.",
                .examples = "  hotcell sandbox rm my-box\n"
                            "  hotcell sandbox rm $(hotcell sandbox ls -q --label job=17)\n",
                .operands_min = 1,
                .operands_max = SIZE_MAX,
        };
        _cleanup_(client_freep) struct client *client = NULL;
        struct operands operands;
        int exit_code = 0;
        int r = options_parse(&usage, NULL, 0, argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        r = connect_open(&client);
        if (r)
                return r;
        for (size_t i = 0; i < operands.n; i++) {
                r = delete_one(client, operands.items[i]);
                exit_code = r ? r : exit_code;
        }
        return exit_code;
}

struct update_options {
        int format;
        struct option_pairs labels;
        bool no_labels;
        struct option_number ttl;
        struct option_number idle_timeout;
        struct option_number timeout;
        struct option_number output_limit;
        struct limit_options limits;
        struct egress_options egress;
};

static void fill_update(const struct update_options *options,
                        Hotcell__V1__UpdateSandboxRequest *update)
{
        update->update_mask = message_new(&google__protobuf__field_mask__descriptor);
        if (options->labels.n || options->no_labels)
                message_add_path(update->update_mask, "labels");
        message_set_map(update, "labels", &options->labels);
        if (options->ttl.is_set) {
                message_add_path(update->update_mask, "ttl");
                update->lifetime_case = HOTCELL__V1__UPDATE_SANDBOX_REQUEST__LIFETIME_TTL;
                update->ttl = message_duration(options->ttl.value);
        }
        if (options->idle_timeout.is_set) {
                message_add_path(update->update_mask, "idle_timeout");
                update->idle_timeout = message_duration(options->idle_timeout.value);
        }
        if (update->egress)
                message_add_path(update->update_mask, "egress");
        update->limits = limit_options_message(&options->limits);
        limit_options_mask(&options->limits, update->update_mask);
        apply_execution_limits(&options->timeout, &options->output_limit, update->limits);
        if (options->timeout.is_set)
                message_add_path(update->update_mask, "limits.execution.timeout");
        if (options->output_limit.is_set)
                message_add_path(update->update_mask, "limits.execution.output_bytes");
}

static int update(const struct update_options *options, const char *text)
{
        _cleanup_(message_freep) Hotcell__V1__UpdateSandboxRequest *change =
                message_new(&hotcell__v1__update_sandbox_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__UpdateSandboxResponse *answer = NULL;
        _cleanup_(client_freep) struct client *client = NULL;
        int r;

        r = egress_options_message("sandbox update", &options->egress, &change->egress);
        if (r)
                return r;
        fill_update(options, change);
        if (change->update_mask->n_paths == 0 || (options->labels.n && options->no_labels)) {
                say_of("sandbox update",
                       "give --label or --no-labels, --ttl, --idle-timeout, a limit "
                       "such as --memory, or --allow, --deny, --dns-type or "
                       "--egress-default");
                return EXIT_OURS;
        }
        r = connect_open(&client);
        if (r == 0)
                r = resolve_sandbox(client, text, false, &change->sandbox_id);
        if (r == 0)
                r = request(client, service, "UpdateSandbox", change, "asking", &answer);
        if (r)
                return r;
        if (options->format == OUTPUT_TEXT)
                (void)printf("%s\n", change->sandbox_id);
        else if (answer->sandbox)
                output_message((enum output_format)options->format, answer->sandbox);
        return 0;
}

/* Of a sandbox that has one. */
static struct option_group new_policy_group(struct egress_options *options)
{
        struct option_group group = egress_options_group(options);

        group.title =
                "What may leave it from now on, in place of all that was let through (as before "
                "unless given)";
        return group;
}

static int sandbox_update(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "sandbox update",
                .operands = "[OPTIONS] SANDBOX",
                .summary =
                        "Changes labels, lifetime, limits or what may leave it. Labels are replaced "
                        "as a whole, and\nso is what may leave it: give all of --allow, --deny, "
                        "--dns-type and --egress-default\nthat are to hold. Of limits those "
                        "change that are given, while programs run.",
                .examples =
                        "  hotcell sandbox update --ttl 2h my-box\n"
                        "  hotcell sandbox update --memory 2G --cpus 2 my-box\n"
                        "  hotcell sandbox update --label job=18 --label owner=me my-box\n"
                        "  hotcell sandbox update --egress-default deny my-box\n"
                        "  hotcell sandbox update --allow '*.example.org' --dns-type SRV my-box\n",
                .operands_min = 1,
                .operands_max = 1,
        };
        static const struct option_row rows[] = {
                { 'l', "label", OPTION_PAIRS, offsetof(struct update_options, labels), "KEY=VALUE",
                  "the new labels; may be repeated", NULL, 0 },
                { 0, "no-labels", OPTION_FLAG, offsetof(struct update_options, no_labels), NULL,
                  "take all labels off", NULL, 0 },
                { 0, "ttl", OPTION_DURATION, offsetof(struct update_options, ttl), "DURATION",
                  "end it so long from now; " DURATION_HELP, NULL, 0 },
                { 0, "idle-timeout", OPTION_DURATION, offsetof(struct update_options, idle_timeout),
                  "DURATION", "end it when idle for so long; " DURATION_HELP, NULL, 0 },
                { 0, "timeout", OPTION_DURATION, offsetof(struct update_options, timeout),
                  "DURATION", "of each later execution that sets none; " DURATION_HELP, NULL, 0 },
                { 0, "output-limit", OPTION_BYTES, offsetof(struct update_options, output_limit),
                  "BYTES", "of each later execution that sets none", NULL, 0 },
                OUTPUT_ROW(offsetof(struct update_options, format)),
        };
        struct update_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options),
                                               limit_options_group(&options.limits),
                                               new_policy_group(&options.egress) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = update(&options, operands.items[0]);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

int cmd_sandbox(int argc, char **argv)
{
        static const struct command commands[] = {
                { "create", sandbox_create, "make a sandbox" },
                { "ls", sandbox_ls, "list one's sandboxes" },
                { "inspect", sandbox_inspect, "show all about some" },
                { "update", sandbox_update,
                  "change labels, lifetime, limits or what may leave it" },
                { "rm", sandbox_rm, "end some" },
                { NULL, NULL, NULL },
        };

        return command_dispatch("sandbox", commands, argc, argv);
}
