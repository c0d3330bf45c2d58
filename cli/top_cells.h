/* Columns of `hotcell top`: what they say of a sandbox or an execution. */
#pragma once

#include <stddef.h>

#include "cli/top_view.h"

enum top_column {
        TOP_ID,
        TOP_NAME,
        TOP_AGE,
        TOP_CPU,
        TOP_MEMORY,
        TOP_PROCESSES,
        TOP_DISK,
        TOP_SENT,
        TOP_RECEIVED,
        TOP_WAIT,
        TOP_PRESSURE,
        _TOP_COLUMN_N,
};

enum { TOP_CELL_SIZE = 128 };

/* @execution NULL: of the sandbox itself. */
void top_cell(enum top_column column, const struct top_sandbox *sandbox,
              const struct top_execution *execution, char ret_text[static TOP_CELL_SIZE]);

/* How much is used of what may be, from 0 to 1; negative: there is no limit, or nothing is known.
 */
double top_part(enum top_column column, const struct top_sandbox *sandbox);
