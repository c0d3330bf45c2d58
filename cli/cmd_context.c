/* context create, ls, restart, rm: the interpreters of a sandbox. */

#include <stdio.h>

#include "hotcell/v1/execution_service.pb-c.h"

#include "cli/age.h"
#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/enum_name.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/table.h"
#include "runtime/base/macros.h"

static const ProtobufCServiceDescriptor *const service =
        &hotcell__v1__execution_service__descriptor;

struct context_options {
        int format;
        const char *language;
        const char *directory;
};

/* One context that was made or changed: its id for people, else all of it. */
static void show(const struct context_options *options, const Hotcell__V1__Context *context)
{
        if (!context)
                return;
        if (options->format == OUTPUT_TEXT)
                (void)printf("%s\n", context->context_id);
        else
                output_message((enum output_format)options->format, context);
}

static int create(struct client *client, const struct context_options *options,
                  const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__CreateContextRequest *ask =
                message_new(&hotcell__v1__create_context_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__CreateContextResponse *answer = NULL;
        int r = resolve_sandbox(client, operands->items[0], false, &ask->sandbox_id);

        if (r)
                return r;
        if (options->language)
                message_set_text(&ask->language, options->language);
        if (options->directory)
                message_set_text(&ask->working_directory, options->directory);
        r = request(client, service, "CreateContext", ask, "starting the interpreter", &answer);
        if (r == 0)
                show(options, answer->context);
        return r;
}

static void print_table(const Hotcell__V1__ListContextsResponse *answer)
{
        static const char *const headers[] = { "CONTEXT", "LANGUAGE",   "STATE", "DEFAULT",
                                               "CREATED", "GENERATION", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);

        for (size_t i = 0; i < answer->n_contexts; i++) {
                const Hotcell__V1__Context *context = answer->contexts[i];
                _cleanup_(freep) char *generation =
                        format_text("%lld", (long long)context->generation);
                char created[AGE_SIZE];
                const char *const cells[] = {
                        context->context_id,
                        context->language,
                        enum_name(&hotcell__v1__context_state__descriptor, (int)context->state),
                        context->is_default ? "yes" : "",
                        age_since(context->create_time, created),
                        generation,
                };

                table_add(table, cells);
        }
        table_print(table, stdout);
}

static int list(struct client *client, const struct context_options *options,
                const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__ListContextsRequest *ask =
                message_new(&hotcell__v1__list_contexts_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__ListContextsResponse *answer = NULL;
        int r = resolve_sandbox(client, operands->items[0], false, &ask->sandbox_id);

        if (r == 0)
                r = request(client, service, "ListContexts", ask, "asking", &answer);
        if (r)
                return r;
        if (options->format == OUTPUT_TEXT)
                print_table(answer);
        else
                output_list((enum output_format)options->format, answer->contexts,
                            answer->n_contexts);
        return 0;
}

static int restart(struct client *client, const struct context_options *options,
                   const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__RestartContextRequest *ask =
                message_new(&hotcell__v1__restart_context_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__RestartContextResponse *answer = NULL;
        int r = resolve_sandbox(client, operands->items[0], false, &ask->sandbox_id);

        if (r == 0)
                r = resolve_context(client, ask->sandbox_id, operands->items[1], &ask->context_id);
        if (r == 0)
                r = request(client, service, "RestartContext", ask, "starting the interpreter",
                            &answer);
        if (r == 0)
                show(options, answer->context);
        return r;
}

static int delete (struct client *client, const struct context_options *options,
                   const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__DeleteContextRequest *ask =
                message_new(&hotcell__v1__delete_context_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__DeleteContextResponse *answer = NULL;
        int r = resolve_sandbox(client, operands->items[0], false, &ask->sandbox_id);

        (void)options;
        if (r == 0)
                r = resolve_context(client, ask->sandbox_id, operands->items[1], &ask->context_id);
        if (r == 0)
                r = request(client, service, "DeleteContext", ask, "ending the interpreter",
                            &answer);
        if (r == 0)
                (void)printf("%s\n", ask->context_id);
        return r;
}

typedef int context_verb(struct client *client, const struct context_options *options,
                         const struct operands *operands);

/* The verbs differ in what they ask; connection and options are the same. */
static int run(const struct usage *usage, context_verb *verb, int argc, char **argv)
{
        static const struct option_row rows[] = {
                OUTPUT_ROW(offsetof(struct context_options, format)),
                { 0, "language", OPTION_TEXT, offsetof(struct context_options, language), "NAME",
                  "of a new context; else the template's first", NULL, 0 },
                { 0, "directory", OPTION_TEXT, offsetof(struct context_options, directory), "PATH",
                  "where the code of a new context starts; else the user's home", NULL, 0 },
        };
        struct context_options options = { 0 };
        struct option_group group = OPTION_GROUP("Options", rows, &options);
        /* What is deleted has nothing to show but its id. */
        size_t n_groups = verb != delete;
        _cleanup_(client_freep) struct client *client = NULL;
        struct operands operands;
        int r;

        group.n_rows = verb == create ? ARRAY_SIZE(rows) : 1;
        r = options_parse(usage, &group, n_groups, argc, argv, &operands);
        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        r = connect_open(&client);
        return r ? r : verb(client, &options, &operands);
}

static int context_create(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "context create",
                .operands = "[OPTIONS] SANDBOX",
                .summary = "Starts another interpreter in a sandbox and prints its id.",
                .examples = "  hotcell context create --directory /tmp my-box\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, create, argc, argv);
}

static int context_ls(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "context ls",
                .operands = "[OPTIONS] SANDBOX",
                .summary = "Lists the interpreters of a sandbox.",
                .examples = "  hotcell context ls my-box\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, list, argc, argv);
}

static int context_restart(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "context restart",
                .operands = "[OPTIONS] SANDBOX CONTEXT",
                .summary = "Throws a context's variables away; what runs in it is killed.",
                .examples = "  hotcell context restart my-box ctx-7d\n",
                .operands_min = 2,
                .operands_max = 2,
        };

        return run(&usage, restart, argc, argv);
}

static int context_rm(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "context rm",
                .operands = "SANDBOX CONTEXT",
                .summary = "Deletes a context; what runs in it is killed.",
                .examples = "  hotcell context rm my-box ctx-7d\n",
                .operands_min = 2,
                .operands_max = 2,
        };

        return run(&usage, delete, argc, argv);
}

int cmd_context(int argc, char **argv)
{
        static const struct command commands[] = {
                { "create", context_create, "start another interpreter" },
                { "ls", context_ls, "list them" },
                { "restart", context_restart, "throw one's variables away" },
                { "rm", context_rm, "delete one" },
                { NULL, NULL, NULL },
        };

        return command_dispatch("context", commands, argc, argv);
}
