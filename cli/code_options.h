/* The options of `run` and `exec` that say which code runs and how. */
#pragma once

#include <stdbool.h>

#include "cli/options.h"

struct Hotcell__V1__ExecuteRequest;

struct code_options {
        const char *code;
        struct option_pairs environment;
        const char *language;
        struct option_number timeout;
        struct option_number output_limit;
        int on_output_limit; /* 0: as the server has it; else Hotcell__V1__OnOutputLimit */
        bool combine_output;
        bool is_detached;
};

struct option_group code_options_group(struct code_options *options);

/*
 * Sets code, environment, limits and the rest of @request. @source is a file's path, `-`, or NULL
 * for --code. Returns the exit code after saying what is wrong.
 */
int code_options_apply(const char *command, const struct code_options *options, const char *source,
                       struct Hotcell__V1__ExecuteRequest *request);
