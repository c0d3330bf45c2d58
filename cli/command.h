/* The commands; each file cmd_*.c has a few of them. */
#pragma once

/* @argv begins with the command's own word. Returns the exit code. */
typedef int command_main(int argc, char **argv);

struct command {
        const char *name;
        command_main *main;
        const char *summary;
};

/* Runs the command that argv[1] names; @group is `sandbox` or, for hotcell itself, empty. */
int command_dispatch(const char *group, const struct command *commands, int argc, char **argv);

command_main cmd_context, cmd_doctor, cmd_egress, cmd_exec, cmd_key, cmd_logs, cmd_ps, cmd_run,
        cmd_sandbox, cmd_top, cmd_version, cmd_watch;
