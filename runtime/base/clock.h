/* What time it is. */
#pragma once

#include <stdint.h>

/* Since the epoch: for records and people. It may jump. */
int64_t time_now_usec(void);

/* Since the machine's start: for durations. */
uint64_t clock_monotonic_nsec(void);
uint64_t clock_monotonic_usec(void);
uint64_t clock_monotonic_msec(void);
