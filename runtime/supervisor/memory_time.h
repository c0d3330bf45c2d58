/* Memory over time: what was held, and for how long. Pure. */
#pragma once

#include <stdint.h>

struct memory_time {
        uint64_t last_usec; /* when it was looked at last */
        uint64_t last_bytes;
        __extension__ unsigned __int128 byte_usec; /* twice that, until then */
};

/* Nothing is held before. */
void memory_time_begin(struct memory_time *time, uint64_t now_usec);

/* Between two looks it was what it was on average. */
void memory_time_add(struct memory_time *time, uint64_t now_usec, uint64_t bytes);

/* Whole byte-seconds; UINT64_MAX when it is more. */
uint64_t memory_time_byte_seconds(const struct memory_time *time);
