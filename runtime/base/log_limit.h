/* How many lines a log may get: a burst, and then so many a second. Pure: no clock, no lock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
        LOG_LIMIT_BURST = 1000,
        LOG_LIMIT_PER_SECOND = 50,
};

/* All zero is a good start. */
struct log_limit {
        uint64_t used_msec; /* of the lines that were written and not yet made up for */
        uint64_t seen_msec; /* when that was so */
        uint64_t n_left_out;
};

/*
 * Whether a line may be written at @now_msec. Then *@ret_n_left_out is how many could not since the
 * last one that could.
 */
bool log_limit_take(struct log_limit *limit, uint64_t now_msec, uint64_t *ret_n_left_out);
