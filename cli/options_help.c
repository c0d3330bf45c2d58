#include "cli/options_help.h"

#include "cli/options.h"

enum { HELP_COLUMN = 32 };

static void print_row(FILE *out, const struct option_row *row)
{
        int n;

        if (row->letter)
                n = fprintf(out, "  -%c, --%s", row->letter, row->name);
        else
                n = fprintf(out, "      --%s", row->name);
        if (row->type != OPTION_FLAG)
                n += fprintf(out, " %s", row->value_name);
        if (n >= HELP_COLUMN)
                (void)fprintf(out, "\n%*s%s\n", HELP_COLUMN, "", row->help);
        else
                (void)fprintf(out, "%*s%s\n", HELP_COLUMN - n, "", row->help);
}

static void print_group(FILE *out, const struct option_group *group)
{
        (void)fprintf(out, "\n%s:\n", group->title);
        for (size_t i = 0; i < group->n_rows; i++)
                print_row(out, &group->rows[i]);
}

void options_help(FILE *out, const struct usage *usage, const struct option_group *groups,
                  size_t n_groups, const struct option_group *global)
{
        (void)fprintf(out, "Usage: hotcell %s %s\n\n%s\n", usage->command, usage->operands,
                      usage->summary);
        if (usage->text)
                (void)fprintf(out, "\n%s\n", usage->text);
        for (size_t i = 0; i < n_groups; i++)
                print_group(out, &groups[i]);
        if (global)
                print_group(out, global);
        if (usage->examples)
                (void)fprintf(out, "\nExamples:\n%s", usage->examples);
}
