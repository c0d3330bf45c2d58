#include <stdio.h>

#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/age.h"
#include "cli/client.h"
#include "cli/cmd_sandbox.h"
#include "cli/connect.h"
#include "cli/enum_name.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/say.h"
#include "cli/table.h"
#include "runtime/base/macros.h"

struct ls_options {
        int format;
        bool all;
        bool quiet;
        struct option_pairs labels;
        struct option_texts states;
};

static int add_states(const struct ls_options *options, Hotcell__V1__ListSandboxesRequest *list)
{
        const ProtobufCEnumDescriptor *states = &hotcell__v1__sandbox_state__descriptor;

        list->states = allocate(options->states.n + states->n_values, sizeof(*list->states));
        for (size_t i = 0; i < options->states.n; i++) {
                int value = enum_value(states, options->states.items[i]);

                if (value < 0) {
                        say_of("sandbox ls",
                               "--state is one of creating, running, ending, ended, "
                               "not '%s'",
                               options->states.items[i]);
                        return EXIT_OURS;
                }
                list->states[list->n_states++] = (Hotcell__V1__SandboxState)value;
        }
        if (!options->all || list->n_states)
                return 0;
        for (unsigned i = 0; i < states->n_values; i++) {
                if (states->values[i].value != 0)
                        list->states[list->n_states++] =
                                (Hotcell__V1__SandboxState)states->values[i].value;
        }
        return 0;
}

static const char *state_text(const Hotcell__V1__Sandbox *sandbox, char *buffer, size_t size)
{
        const char *state = enum_name(&hotcell__v1__sandbox_state__descriptor, (int)sandbox->state);

        if (sandbox->state != HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_ENDED)
                return state;
        (void)snprintf(buffer, size, "%s (%s)", state,
                       enum_name(&hotcell__v1__cause__descriptor, (int)sandbox->end_cause));
        return buffer;
}

static void add_row(struct table *table, const Hotcell__V1__Sandbox *sandbox)
{
        bool is_ended = sandbox->state == HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_ENDED;
        char state[64], created[AGE_SIZE], expires[AGE_SIZE];
        const char *const cells[] = {
                sandbox->sandbox_id,
                sandbox->name,
                state_text(sandbox, state, sizeof(state)),
                sandbox->template_,
                age_since(sandbox->create_time, created),
                is_ended ? "-" : age_until(sandbox->expire_time, expires),
        };

        table_add(table, cells);
}

static void print_page(const struct ls_options *options,
                       const Hotcell__V1__ListSandboxesResponse *answer, struct table *table)
{
        for (size_t i = 0; i < answer->n_sandboxes; i++) {
                if (options->quiet)
                        (void)printf("%s\n", answer->sandboxes[i]->sandbox_id);
                else
                        add_row(table, answer->sandboxes[i]);
        }
}

static int list(const struct ls_options *options)
{
        static const char *const headers[] = { "SANDBOX", "NAME",    "STATE", "TEMPLATE",
                                               "CREATED", "EXPIRES", NULL };
        _cleanup_(message_freep) Hotcell__V1__ListSandboxesRequest *ask =
                message_new(&hotcell__v1__list_sandboxes_request__descriptor);
        _cleanup_(table_freep) struct table *table = table_new(headers);
        _cleanup_(client_freep) struct client *client = NULL;
        _cleanup_(json_putp) struct json_object *array = must(json_object_new_array());
        bool has_more = true;
        int r = add_states(options, ask);

        if (r == 0)
                r = connect_open(&client);
        if (r)
                return r;
        message_set_map(ask, "labels", &options->labels);
        ask->page_size = 1000;
        while (has_more) {
                _cleanup_(message_freep) Hotcell__V1__ListSandboxesResponse *answer = NULL;

                r = request(client, &hotcell__v1__sandbox_service__descriptor, "ListSandboxes", ask,
                            "asking", &answer);
                if (r)
                        return r;
                if (options->format == OUTPUT_TEXT)
                        print_page(options, answer, table);
                else
                        output_add((enum output_format)options->format, array, answer->sandboxes,
                                   answer->n_sandboxes);
                has_more = *answer->next_page_token;
                message_set_text(&ask->page_token, answer->next_page_token);
        }
        if (options->format == OUTPUT_JSON)
                json_print(stdout, array);
        else if (options->format == OUTPUT_TEXT && !options->quiet)
                table_print(table, stdout);
        return 0;
}

int sandbox_ls(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "sandbox ls",
                .operands = "[OPTIONS]",
                .summary = "Lists one's living sandboxes, newest first.",
                .examples = "  hotcell sandbox ls\n"
                            "  hotcell sandbox ls -a --label job=17\n"
                            "  hotcell sandbox ls -q --state running\n",
        };
        static const struct option_row rows[] = {
                { 'a', "all", OPTION_FLAG, offsetof(struct ls_options, all), NULL, "ended ones too",
                  NULL, 0 },
                { 'q', "quiet", OPTION_FLAG, offsetof(struct ls_options, quiet), NULL, "only ids",
                  NULL, 0 },
                { 'l', "label", OPTION_PAIRS, offsetof(struct ls_options, labels), "KEY=VALUE",
                  "only with this label; may be repeated", NULL, 0 },
                { 0, "state", OPTION_TEXTS, offsetof(struct ls_options, states), "STATE",
                  "only creating, running, ending or ended; may be repeated", NULL, 0 },
                OUTPUT_ROW(offsetof(struct ls_options, format)),
        };
        struct ls_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = list(&options);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}
