/*
 * Options and operands of a command, from tables.
 *
 * glibc's getopt_long does the reading (options before and after operands, `--name=value`, joined
 * letters, `--`). argp would too, but it words and formats its own messages; ours name the nearest
 * option and the form that a value must have.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
        OPTION_FLAG,     /* bool */
        OPTION_TEXT,     /* const char * */
        OPTION_TEXTS,    /* struct option_texts: may be repeated */
        OPTION_PAIRS,    /* struct option_pairs: KEY=VALUE, may be repeated */
        OPTION_COUNT,    /* struct option_number: digits */
        OPTION_BYTES,    /* struct option_number: `512M` */
        OPTION_DURATION, /* struct option_number: `1.5s`, in nanoseconds */
        OPTION_CPUS,     /* struct option_number: `1.5`, in thousandths */
        OPTION_CHOICE,   /* int: which of @choices; 0 when absent */
};

struct option_texts {
        const char **items;
        size_t n;
};

struct option_pair {
        char *key;
        char *value;
};

struct option_pairs {
        struct option_pair *items;
        size_t n;
};

struct option_number {
        bool is_set;
        int64_t value;
};

struct option_row {
        char letter; /* or 0 */
        const char *name;
        enum option_type type;
        size_t offset; /* of the value in the group's struct */
        const char *value_name;
        const char *help;
        const char *const *choices; /* ends with NULL */
        int64_t max;                /* of a number; 0: no other than the type's */
};

/* For durations that the server bounds. */
#define DURATION_HELP "`hotcell version` shows the default and whether 0, for never, is taken"

/* Options that belong together, and the struct that takes their values. */
struct option_group {
        const char *title;
        const struct option_row *rows;
        size_t n_rows;
        void *into;
};

#define OPTION_GROUP(title_, rows_, into_)                                                         \
        {                                                                                          \
                .title = (title_), .rows = (rows_), .n_rows = ARRAY_SIZE(rows_), .into = (into_)   \
        }

/* The last one has no name. */
struct option_elsewhere {
        const char *name;
        const char *advice; /* behind `no option --name; ` */
};

/* What --help says, and how many operands there must be. */
struct usage {
        const char *command;  /* `run`, `sandbox ls` */
        const char *operands; /* `[OPTIONS] (-c CODE | FILE | -)` */
        const char *summary;  /* one sentence */
        const char *text;     /* more of them; may be NULL */
        const char *examples; /* lines */
        /* Options of other commands that are looked for here; may be NULL. */
        const struct option_elsewhere *elsewhere;
        size_t operands_min;
        size_t operands_max;
};

/* Points into argv. */
struct operands {
        char **items;
        size_t n;
};

enum {
        OPTIONS_E_HELP = 1, /* --help was printed on standard output */
        OPTIONS_E_USAGE,    /* a mistake; it was said on standard error */
};

/* Options of every command, such as --target: options_parse() adds them to each. */
void options_set_global(const struct option_group *group);

/*
 * Reads @argv from its second item on. @n_groups is at most 6. What options_parse() allocated in
 * the groups' structs is released by options_release().
 */
int options_parse(const struct usage *usage, const struct option_group *groups, size_t n_groups,
                  int argc, char **argv, struct operands *ret_operands);

/* Reads only global options, up to the first word that is none; *@ret_next is its index. */
int options_parse_leading(int argc, char **argv, int *ret_next);

void options_release(const struct option_group *groups, size_t n_groups);
