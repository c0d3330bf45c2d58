/* The value of one option: read, checked, stored. */
#pragma once

#include "cli/options.h"

/* Stores @text as @row wants it. Not 0: it is no such value, which was said. */
int option_value_set(const char *command, const struct option_row *row, void *into,
                     const char *text);

void option_value_release(const struct option_row *row, void *into);
