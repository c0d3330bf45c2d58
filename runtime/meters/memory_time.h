/* Memory over time: what was held at looks, and for how long. Pure. */
#pragma once

#include <stdint.h>

struct memory_time {
        uint64_t last_usec; /* when it was looked at last */
        uint64_t last_bytes;
        __extension__ unsigned __int128 byte_usec; /* until then */
};

/* Nothing is held before the first look. */
void memory_time_begin(struct memory_time *time, uint64_t now_usec);

/* What was found at a look is held until the next one. */
void memory_time_add(struct memory_time *time, uint64_t now_usec, uint64_t bytes);

/* Until now, in whole byte-seconds; UINT64_MAX when it is more. */
uint64_t memory_time_byte_seconds(const struct memory_time *time, uint64_t now_usec);

/*
 * How long until the next look, of @random bits: @mean_usec on average and four times that at most.
 * Until that is near, how long ago the last one was tells nothing of it. So whoever knows all looks
 * until now, and holds memory as it likes, is billed what it holds, on average.
 */
uint64_t memory_time_gap_usec(uint64_t mean_usec, uint64_t random);
