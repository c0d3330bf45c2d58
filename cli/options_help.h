/* The text of --help. */
#pragma once

#include <stdio.h>

struct option_group;
struct usage;

/* @global may be NULL. */
void options_help(FILE *out, const struct usage *usage, const struct option_group *groups,
                  size_t n_groups, const struct option_group *global);
