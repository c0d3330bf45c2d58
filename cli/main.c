/* hotcell: the command line client. */

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/connect.h"
#include "cli/exit_code.h"
#include "cli/options.h"

static const struct command commands[] = {
        { "run", cmd_run, "run code in a sandbox made for it" },
        { "exec", cmd_exec, "run code in a sandbox that stays" },
        { "sandbox", cmd_sandbox, "create, ls, inspect, update, rm" },
        { "context", cmd_context, "create, ls, restart, rm: interpreters in a sandbox" },
        { "ps", cmd_ps, "list executions" },
        { "logs", cmd_logs, "show or follow an execution" },
        { "egress", cmd_egress, "log: what sandboxes asked the network for" },
        { "top", cmd_top, "show what sandboxes and executions use now" },
        { "usage", cmd_usage, "what sandboxes used; export: for other programs" },
        { "watch", cmd_watch, "follow what happens to sandboxes" },
        { "doctor", cmd_doctor, "show every wall, whether it holds, and the fix" },
        { "key", cmd_key, "create, ls, update, revoke: API keys" },
        { "version", cmd_version, "versions, templates and limits" },
        { NULL, NULL, NULL },
};

static int run(int argc, char **argv)
{
        int next = 1;
        int r;

        if (argc > 1 && strcmp(argv[1], "--version") == 0)
                return cmd_version(1, argv);
        /* --help and -h are the dispatcher's. */
        if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
                return command_dispatch("", commands, argc, argv);
        r = options_parse_leading(argc, argv, &next);
        if (r == OPTIONS_E_USAGE)
                return EXIT_OURS;
        if (r == OPTIONS_E_HELP)
                return command_dispatch("", commands, argc,
                                        (char *[]){ argv[0], (char[]){ "help" }, NULL });
        return command_dispatch("", commands, argc - next + 1, argv + next - 1);
}

int main(int argc, char **argv)
{
        int exit_code;

        (void)setlocale(LC_CTYPE, "");
        /* A reader that left shows as an error of the write, so that the code can be ended first.
         */
        (void)signal(SIGPIPE, SIG_IGN);
        options_set_global(connect_options());

        exit_code = run(argc, argv);
        if ((fflush(stdout) != 0 || ferror(stdout)) && exit_code == 0)
                exit_code = EXIT_OURS;
        return exit_code;
}
