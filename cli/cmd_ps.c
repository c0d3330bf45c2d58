/* ps: executions. */

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

struct ps_options {
        int format;
        bool all;
        bool quiet;
};

static void add_row(struct table *table, const Hotcell__V1__Execution *execution)
{
        char created[AGE_SIZE];
        const char *const cells[] = {
                execution->execution_id,
                execution->sandbox_id,
                enum_name(&hotcell__v1__execution_state__descriptor, (int)execution->state),
                execution->ended ? enum_name(&hotcell__v1__outcome__descriptor,
                                             (int)execution->ended->outcome)
                                 : "",
                age_since(execution->create_time, created),
        };

        table_add(table, cells);
}

static void ask_for_living(Hotcell__V1__ListExecutionsRequest *ask)
{
        ask->states = allocate(2, sizeof(*ask->states));
        ask->states[ask->n_states++] = HOTCELL__V1__EXECUTION_STATE__EXECUTION_STATE_QUEUED;
        ask->states[ask->n_states++] = HOTCELL__V1__EXECUTION_STATE__EXECUTION_STATE_RUNNING;
}

static void take_page(const struct ps_options *options,
                      const Hotcell__V1__ListExecutionsResponse *answer, struct table *table,
                      struct json_object *array)
{
        if (options->format != OUTPUT_TEXT) {
                output_add((enum output_format)options->format, array, answer->executions,
                           answer->n_executions);
                return;
        }
        for (size_t i = 0; i < answer->n_executions; i++) {
                if (options->quiet)
                        (void)printf("%s\n", answer->executions[i]->execution_id);
                else
                        add_row(table, answer->executions[i]);
        }
}

static int list(struct client *client, const struct ps_options *options,
                Hotcell__V1__ListExecutionsRequest *ask)
{
        static const char *const headers[] = { "EXECUTION", "SANDBOX", "STATE",
                                               "OUTCOME",   "CREATED", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);
        _cleanup_(json_putp) struct json_object *array = must(json_object_new_array());
        bool has_more = true;

        while (has_more) {
                _cleanup_(message_freep) Hotcell__V1__ListExecutionsResponse *answer = NULL;
                int r = request(client, &hotcell__v1__execution_service__descriptor,
                                "ListExecutions", ask, "asking", &answer);

                if (r)
                        return r;
                take_page(options, answer, table, array);
                has_more = *answer->next_page_token;
                message_set_text(&ask->page_token, answer->next_page_token);
        }
        if (options->format == OUTPUT_JSON)
                json_print(stdout, array);
        else if (options->format == OUTPUT_TEXT && !options->quiet)
                table_print(table, stdout);
        return 0;
}

static int run(const struct ps_options *options, const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__ListExecutionsRequest *ask =
                message_new(&hotcell__v1__list_executions_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        int r = connect_open(&client);

        if (r == 0 && operands->n)
                r = resolve_sandbox(client, operands->items[0], true, &ask->sandbox_id);
        if (r)
                return r;
        ask->page_size = 1000;
        if (!options->all)
                ask_for_living(ask);
        return list(client, options, ask);
}

int cmd_ps(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "ps",
                .operands = "[OPTIONS] [SANDBOX]",
                .summary = "Lists executions that run or wait, newest first.",
                .examples = "  hotcell ps\n"
                            "  hotcell ps -a my-box\n",
                .operands_max = 1,
        };
        static const struct option_row rows[] = {
                { 'a', "all", OPTION_FLAG, offsetof(struct ps_options, all), NULL, "ended ones too",
                  NULL, 0 },
                { 'q', "quiet", OPTION_FLAG, offsetof(struct ps_options, quiet), NULL, "only ids",
                  NULL, 0 },
                OUTPUT_ROW(offsetof(struct ps_options, format)),
        };
        struct ps_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        return run(&options, &operands);
}
