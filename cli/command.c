#include "cli/command.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/exit_code.h"
#include "cli/say.h"
#include "cli/suggest.h"
#include "runtime/base/macros.h"

enum { COMMANDS_MAX = 32 };

static void print_commands(FILE *out, const char *group, const struct command *commands)
{
        (void)fprintf(out, "Usage: hotcell %s%sCOMMAND [OPTIONS] …\n\n", group, *group ? " " : "");
        if (!*group)
                (void)fputs("Runs code that nobody has read yet in sandboxes.\n\n", out);
        (void)fputs("Commands:\n", out);
        for (; commands->name; commands++)
                (void)fprintf(out, "  %-10s %s\n", commands->name, commands->summary);
        (void)fprintf(out, "\n`hotcell %s%sCOMMAND --help` says more.\n", group, *group ? " " : "");
        if (!*group)
                (void)fputs("HOTCELL_TARGET names the server, HOTCELL_API_KEY the key for its TCP "
                            "address.\n",
                            out);
}

/* What other tools call it. */
static const struct {
        const char *word;
        const char *name;
} synonyms[] = {
        { "attach", "logs" }, { "delete", "rm" }, { "follow", "logs" },
        { "list", "ls" },     { "remove", "rm" }, { "show", "inspect" },
};

/* The command that was meant, or NULL. */
static const char *find_near(const char *word, const char *const *names, size_t n)
{
        for (size_t i = 0; i < ARRAY_SIZE(synonyms); i++) {
                for (size_t j = 0; j < n && strcmp(word, synonyms[i].word) == 0; j++) {
                        if (strcmp(names[j], synonyms[i].name) == 0)
                                return names[j];
                }
        }
        return suggest(word, names, n);
}

static void say_unknown(const char *group, const struct command *commands, const char *word)
{
        const char *names[COMMANDS_MAX];
        const char *near;
        size_t n = 0;

        for (; commands[n].name; n++) {
                assert(n < COMMANDS_MAX);
                names[n] = commands[n].name;
        }
        near = find_near(word, names, n);
        if (near)
                say_of(group, "no command '%s'; did you mean '%s'?", word, near);
        else
                say_of(group, "no command '%s'; see `hotcell %s%s--help`", word, group,
                       *group ? " " : "");
}

static bool is_help(const char *word)
{
        return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* `help`, or `help COMMAND [WORD]`, which is `COMMAND [WORD] --help`. */
static int print_help(const char *group, const struct command *commands, int argc, char **argv)
{
        char help[] = "--help";
        char *inner[] = { argv[0], argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : help, help,
                          NULL };

        /* Help about help is this list; handed on, it would come back here for ever. */
        if (argc > 2 && !is_help(argv[2]))
                return command_dispatch(group, commands, argc > 3 ? 4 : 3, inner);
        print_commands(stdout, group, commands);
        return 0;
}

int command_dispatch(const char *group, const struct command *commands, int argc, char **argv)
{
        const char *word = argc > 1 ? argv[1] : NULL;

        if (!word) {
                print_commands(stderr, group, commands);
                return EXIT_OURS;
        }
        if (is_help(word))
                return print_help(group, commands, argc, argv);
        for (const struct command *command = commands; command->name; command++) {
                if (strcmp(command->name, word) == 0)
                        return command->main(argc - 1, argv + 1);
        }
        if (*word == '-')
                say_of(group, "no option %s here; a command comes first, see `hotcell %s%s--help`",
                       word, group, *group ? " " : "");
        else
                say_unknown(group, commands, word);
        return EXIT_OURS;
}
