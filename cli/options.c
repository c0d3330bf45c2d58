#include "cli/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/memory.h"
#include "cli/option_value.h"
#include "cli/options_help.h"
#include "cli/say.h"
#include "cli/suggest.h"
#include "runtime/base/macros.h"

enum {
        ROWS_MAX = 64,
        VALUE_FIRST = 256, /* getopt values of rows: above all letters */
        VALUE_HELP = 'h',
};

/* All rows of one command, as getopt wants them and as we find them again. */
struct table {
        struct option longs[ROWS_MAX + 2]; /* and --help, and the end */
        char letters[2 * ROWS_MAX + 4];
        const struct option_row *rows[ROWS_MAX];
        void *into[ROWS_MAX];
        size_t n_rows;
        size_t n_letters;
};

static const struct option_group *global_group;

void options_set_global(const struct option_group *group)
{
        global_group = group;
}

static void table_add_group(struct table *table, const struct option_group *group)
{
        for (size_t i = 0; i < group->n_rows; i++) {
                const struct option_row *row = &group->rows[i];
                size_t n = table->n_rows++;

                assert(n < ROWS_MAX);
                table->rows[n] = row;
                table->into[n] = group->into;
                table->longs[n] = (struct option){
                        .name = row->name,
                        .has_arg = row->type == OPTION_FLAG ? no_argument : required_argument,
                        .val = VALUE_FIRST + (int)n,
                };
                if (row->letter)
                        table->letters[table->n_letters++] = row->letter;
                if (row->letter && row->type != OPTION_FLAG)
                        table->letters[table->n_letters++] = ':';
        }
}

/* @order begins getopt's letters: "+" stops at the first operand, ":" tells a missing value apart.
 */
static void table_init(struct table *table, const char *order, const struct option_group *groups,
                       size_t n_groups)
{
        memset(table, 0, sizeof(*table));
        for (; *order; order++)
                table->letters[table->n_letters++] = *order;
        for (size_t i = 0; i < n_groups; i++)
                table_add_group(table, &groups[i]);
        if (global_group)
                table_add_group(table, global_group);
        table->longs[table->n_rows] = (struct option){ .name = "help", .val = VALUE_HELP };
}

static const struct option_row *table_find(const struct table *table, int value, void **ret_into)
{
        for (size_t i = 0; i < table->n_rows; i++) {
                if (value != VALUE_FIRST + (int)i && value != table->rows[i]->letter)
                        continue;
                *ret_into = table->into[i];
                return table->rows[i];
        }
        return NULL;
}

static const char *find_elsewhere(const struct option_elsewhere *elsewhere, const char *name)
{
        for (; elsewhere && elsewhere->name; elsewhere++) {
                if (strcmp(elsewhere->name, name) == 0)
                        return elsewhere->advice;
        }
        return NULL;
}

static void say_unknown(const struct table *table, const struct usage *usage, const char *word)
{
        const char *command = usage->command;
        const char *advice = NULL;
        const char *names[ROWS_MAX + 1];
        _cleanup_(freep) char *name = NULL;
        const char *near = NULL;

        for (size_t i = 0; i < table->n_rows; i++)
                names[i] = table->rows[i]->name;
        names[table->n_rows] = "help";

        if (strncmp(word, "--", 2) == 0 && word[2]) {
                name = duplicate(word + 2);
                name[strcspn(name, "=")] = '\0';
                advice = find_elsewhere(usage->elsewhere, name);
                near = suggest(name, names, table->n_rows + 1);
        }
        if (advice)
                say_of(command, "no option --%s; %s", name, advice);
        else if (near)
                say_of(command, "no option %s; did you mean --%s?", word, near);
        else
                say_of(command, "no option %s; see `hotcell %s%s--help`", word, command,
                       *command ? " " : "");
}

/* getopt said '?': an unknown option, an ambiguous one, or a flag that was given a value. */
static void say_bad_option(const struct table *table, const struct usage *usage, char **argv)
{
        if (optopt >= VALUE_FIRST || optopt == VALUE_HELP) {
                const char *word = argv[optind - 1];

                say_of(usage->command, "--%.*s takes no value", (int)strcspn(word + 2, "="),
                       word + 2);
        } else if (optopt) {
                char letter[3] = { '-', (char)optopt, '\0' };

                say_unknown(table, usage, letter);
        } else {
                say_unknown(table, usage, argv[optind - 1]);
        }
}

static int read_options(const struct table *table, const struct usage *usage, int argc, char **argv)
{
        optind = 0; /* glibc: start anew, as the letters differ from the last time */
        opterr = 0;
        for (;;) {
                int value = getopt_long(argc, argv, table->letters, table->longs, NULL);
                const struct option_row *row;
                void *into = NULL;

                if (value < 0)
                        return 0;
                if (value == VALUE_HELP)
                        return OPTIONS_E_HELP;
                if (value == '?') {
                        say_bad_option(table, usage, argv);
                        return OPTIONS_E_USAGE;
                }
                row = table_find(table, value == ':' ? optopt : value, &into);
                assert(row);
                if (value == ':') {
                        say_of(usage->command, "--%s needs a value: %s", row->name,
                               row->value_name);
                        return OPTIONS_E_USAGE;
                }
                if (option_value_set(usage->command, row, into, optarg))
                        return OPTIONS_E_USAGE;
        }
}

/* The @n-th word of the usage that is neither in brackets nor part of a choice. */
static int operand_name(const struct usage *usage, size_t n, const char **ret_name)
{
        const char *word = usage->operands;

        for (;; word += strcspn(word, " ")) {
                word += strspn(word, " ");
                if (*word == '[' || *word == '(')
                        continue;
                if (n-- == 0 || !*word)
                        break;
        }
        *ret_name = word;
        return (int)strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

static int check_operands(const struct usage *usage, const struct operands *operands)
{
        if (operands->n >= usage->operands_min && operands->n <= usage->operands_max)
                return 0;

        if (operands->n < usage->operands_min) {
                const char *name;
                int length = operand_name(usage, operands->n, &name);

                say_of(usage->command, "%.*s is missing", length, name);
        } else {
                say_of(usage->command, "does not know what to do with '%s'",
                       operands->items[usage->operands_max]);
        }
        (void)fprintf(stderr, "Usage: hotcell %s %s\n", usage->command, usage->operands);
        return OPTIONS_E_USAGE;
}

int options_parse(const struct usage *usage, const struct option_group *groups, size_t n_groups,
                  int argc, char **argv, struct operands *ret_operands)
{
        struct table table;
        struct operands operands;
        int r;

        table_init(&table, ":h", groups, n_groups);
        r = read_options(&table, usage, argc, argv);
        if (r == OPTIONS_E_HELP)
                options_help(stdout, usage, groups, n_groups, global_group);
        if (r)
                return r;

        operands = (struct operands){ .items = argv + optind, .n = (size_t)(argc - optind) };
        r = check_operands(usage, &operands);
        if (r)
                return r;
        *ret_operands = operands;
        return 0;
}

int options_parse_leading(int argc, char **argv, int *ret_next)
{
        static const struct usage usage = { .command = "" };
        struct table table;
        int r;

        table_init(&table, "+:h", NULL, 0);
        r = read_options(&table, &usage, argc, argv);
        if (r)
                return r;
        *ret_next = optind;
        return 0;
}

void options_release(const struct option_group *groups, size_t n_groups)
{
        for (size_t i = 0; i < n_groups; i++) {
                for (size_t j = 0; j < groups[i].n_rows; j++)
                        option_value_release(&groups[i].rows[j], groups[i].into);
        }
}
