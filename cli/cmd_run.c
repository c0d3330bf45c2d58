/* run, exec and logs: the commands that follow an execution. */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hotcell/v1/execution_service.pb-c.h"
#include "runtime/base/text.h"

#include "cli/client.h"
#include "cli/code_options.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/egress_options.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "cli/spec_options.h"
#include "runtime/base/macros.h"

struct show_options {
        int format;
        const char *save;
        bool usage;
};

static struct option_group show_options_group(struct show_options *options)
{
        static const struct option_row rows[] = {
                OUTPUT_ROW(offsetof(struct show_options, format)),
                { 0, "save", OPTION_TEXT, offsetof(struct show_options, save), "DIR",
                  "save pictures and other rich results as files in DIR", NULL, 0 },
                { 0, "usage", OPTION_FLAG, offsetof(struct show_options, usage), NULL,
                  "say at the end what it used from its start to its end, and what its sandbox used with "
                  "the start of the interpreter",
                  NULL, 0 },
        };

        return (struct option_group)OPTION_GROUP("Output", rows, options);
}

static int printer_new(const struct show_options *show, bool is_one_shot,
                       struct event_printer **ret_printer)
{
        const struct event_printer_config config = {
                .format = (enum output_format)show->format,
                .save_directory = show->save,
                .shows_usage = show->usage,
                .is_one_shot = is_one_shot,
                .escapes_out = isatty(STDOUT_FILENO),
                .escapes_err = isatty(STDERR_FILENO),
                .out = stdout,
                .err = stderr,
        };

        return event_printer_new(&config, ret_printer);
}

static const char common_text[] =
        "Exits with the program's code; 1 when the code raised an error, 124 when its time was up, "
        "125 when\nhotcell itself failed, 130 when interrupted, 137 when killed, out of memory or\nover its output limit, "
        "128+N after signal N.\nCtrl-C interrupts the code, the second time kills it, the third "
        "time just leaves.\nIt is said what was refused on its way out. Of more than 50 refusals a "
        "second, and 64 at once, it is only\ncounted how many they are: `hotcell egress log`, "
        "`hotcell sandbox inspect`.\nIt is said once of each kind when memory, processes or disk are "
        "nearly full, or programs have to wait.";

/* What is shown at the end, when nobody is there. */
static int check_detached(const char *command, const struct code_options *code,
                          const struct show_options *show)
{
        if (!code->is_detached || (!show->save && !show->usage))
                return 0;
        say_of(command,
               "--detach leaves before there is anything for %s; see it with: hotcell logs "
               "EXECUTION %s",
               show->save ? "--save" : "--usage", show->save ? "--save DIR" : "--usage");
        return EXIT_OURS;
}

/* What run and exec have in common once the request says where. */
static int execute(struct client *client, const struct code_options *code,
                   const struct show_options *show, Hotcell__V1__ExecuteRequest *request)
{
        _cleanup_(event_printer_freep) struct event_printer *printer = NULL;
        struct follow_config config = {
                .client = client,
                .is_one_shot = request->target_case == HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX,
                .is_detached = code->is_detached,
                .prints_id = code->is_detached && show->format == OUTPUT_TEXT,
                .shows_progress = show->format == OUTPUT_TEXT,
                .shows_sandbox_usage = show->usage,
        };
        int r = printer_new(show, config.is_one_shot, &printer);

        if (r)
                return r;
        config.printer = printer;
        return follow_execute(&config, request);
}

struct run_options {
        struct spec_options spec;
        struct egress_options egress;
        struct code_options code;
        struct show_options show;
};

static int run_one_shot(const struct run_options *run, const char *source)
{
        _cleanup_(message_freep) Hotcell__V1__ExecuteRequest *request =
                message_new(&hotcell__v1__execute_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        int r;

        r = check_detached("run", &run->code, &run->show);
        if (r == 0)
                r = code_options_apply("run", &run->code, source, request);
        if (r)
                return r;
        request->target_case = HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX;
        request->sandbox = spec_options_message(&run->spec);
        r = egress_options_message("run", &run->egress, &request->sandbox->egress);
        if (r == 0)
                r = connect_open(&client);
        if (r)
                return r;
        return execute(client, &run->code, &run->show, request);
}

int cmd_run(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "run",
                .operands = "[OPTIONS] (-c CODE | FILE | -)",
                .summary = "Runs code in a sandbox that is made for it and deleted at its end.",
                .text = common_text,
                .examples = "  hotcell run -c 'print(6 * 7)'\n"
                            "  hotcell run --memory 512M --timeout 30s analysis.py\n"
                            "  hotcell run --save plots -c 'import matplotlib.pyplot as p; "
                            "p.plot([1, 4, 9])'\n"
                            "  hotcell run --allow example.org:443 fetch.py\n"
                            "  echo 'import this' | hotcell run -\n",
                .operands_max = 1,
        };
        struct run_options run = { 0 };
        const struct option_group groups[] = { code_options_group(&run.code),
                                               show_options_group(&run.show),
                                               spec_options_group(&run.spec),
                                               limit_options_group(&run.spec.limits),
                                               egress_options_group(&run.egress) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = run_one_shot(&run, operands.n ? operands.items[0] : NULL);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

struct exec_options {
        const char *context;
};

static int run_in_sandbox(const struct exec_options *exec, const struct code_options *code,
                          const struct show_options *show, const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__ExecuteRequest *request =
                message_new(&hotcell__v1__execute_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        char *context_id = NULL;
        int r;

        r = check_detached("exec", code, show);
        if (r == 0)
                r = code_options_apply("exec", code, operands->n > 1 ? operands->items[1] : NULL,
                                       request);
        if (r)
                return r;
        r = connect_open(&client);
        if (r)
                return r;
        request->target_case = HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX_ID;
        request->sandbox_id = NULL;
        r = resolve_sandbox(client, operands->items[0], false, &request->sandbox_id);
        if (r == 0 && exec->context)
                r = resolve_context(client, request->sandbox_id, exec->context, &context_id);
        if (r)
                return r;
        if (context_id)
                request->context_id = context_id;
        return execute(client, code, show, request);
}

#define ADVICE_EGRESS                                                                              \
        "a sandbox has one policy for all that runs in it: `hotcell sandbox update` replaces it"

int cmd_exec(int argc, char **argv)
{
        static const struct option_elsewhere elsewhere[] = {
                { "allow", ADVICE_EGRESS },
                { "deny", ADVICE_EGRESS },
                { "egress-default", ADVICE_EGRESS },
                { "dns-type", ADVICE_EGRESS },
                { NULL, NULL },
        };
        static const struct usage usage = {
                .command = "exec",
                .operands = "[OPTIONS] SANDBOX (-c CODE | FILE | -)",
                .summary = "Runs code in a sandbox that stays: variables and files are still there "
                           "next time.",
                .text = common_text,
                .examples = "  hotcell exec 3k7q -c 'x = 41'\n"
                            "  hotcell exec 3k7q -c 'x + 1'\n"
                            "  hotcell exec --detach my-box long.py\n",
                .elsewhere = elsewhere,
                .operands_min = 1,
                .operands_max = 2,
        };
        static const struct option_row exec_rows[] = {
                { 0, "code-context", OPTION_TEXT, offsetof(struct exec_options, context), "CONTEXT",
                  "in this context; else in the language's default one", NULL, 0 },
        };
        struct exec_options exec = { 0 };
        struct code_options code = { 0 };
        struct show_options show = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Context", exec_rows, &exec),
                                               code_options_group(&code),
                                               show_options_group(&show) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r == 0)
                r = run_in_sandbox(&exec, &code, &show, &operands);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, ARRAY_SIZE(groups));
        return r;
}

struct logs_options {
        struct option_number after;
        bool no_follow;
        bool follow; /* the default; here for those who type it */
};

/* The sequence up to which there are events now; 0 when it has ended, as then all of them come. */
static int read_until(struct client *client, const char *execution_id, int64_t *ret_sequence)
{
        Hotcell__V1__GetExecutionRequest get;
        _cleanup_(message_freep) Hotcell__V1__GetExecutionResponse *answer = NULL;
        int r;

        hotcell__v1__get_execution_request__init(&get);
        get.execution_id = unconst(execution_id);
        r = request(client, &hotcell__v1__execution_service__descriptor, "GetExecution", &get,
                    "looking for the execution", &answer);
        if (r)
                return r;
        if (answer->execution &&
            answer->execution->state != HOTCELL__V1__EXECUTION_STATE__EXECUTION_STATE_ENDED)
                *ret_sequence = MAX(answer->execution->last_sequence, INT64_C(1));
        return 0;
}

static int show_logs(const struct logs_options *logs, const struct show_options *show,
                     const char *execution)
{
        _cleanup_(event_printer_freep) struct event_printer *printer = NULL;
        _cleanup_(client_freep) struct client *client = NULL;
        _cleanup_(freep) char *execution_id = NULL;
        struct follow_config config = { .is_only_watching = true,
                                        .shows_sandbox_usage = show->usage };
        int r = connect_open(&client);

        if (r == 0)
                r = resolve_execution(client, execution, &execution_id);
        if (r == 0 && logs->no_follow)
                r = read_until(client, execution_id, &config.until_sequence);
        if (r == 0 && config.until_sequence && config.until_sequence <= logs->after.value)
                return 0;
        if (r == 0)
                r = printer_new(show, false, &printer);
        if (r)
                return r;
        config.client = client;
        config.printer = printer;
        return follow_attach(&config, execution_id, logs->after.value);
}

int cmd_logs(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "logs",
                .operands = "[OPTIONS] EXECUTION",
                .summary = "Shows what an execution has put out so far, and follows it to its end.",
                .text = "Exits with the program's code, as if it had been attached to from the "
                        "start. Ctrl-C leaves\nand does nothing to the code.",
                .examples = "  id=$(hotcell exec --detach my-box long.py)\n"
                            "  hotcell logs $id\n"
                            "  hotcell logs --no-follow -o jsonl --after 120 $id\n",
                .operands_min = 1,
                .operands_max = 1,
        };
        static const struct option_row logs_rows[] = {
                { 'f', "follow", OPTION_FLAG, offsetof(struct logs_options, follow), NULL,
                  "go on as long as it runs (the default)", NULL, 0 },
                { 0, "no-follow", OPTION_FLAG, offsetof(struct logs_options, no_follow), NULL,
                  "only what is there now", NULL, 0 },
                { 0, "after", OPTION_COUNT, offsetof(struct logs_options, after), "SEQUENCE",
                  "only events after this one", NULL, 0 },
        };
        struct logs_options logs = { 0 };
        struct show_options show = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Events", logs_rows, &logs),
                                               show_options_group(&show) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        return show_logs(&logs, &show, operands.items[0]);
}
