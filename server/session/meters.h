/* What the runtime's meters say, as amounts. */
#pragma once

#include <stdint.h>

#include <hotcell/runtime/v1/runtime.pb-c.h>

#include "server/store/records.h"

/* The runtime's counters, as the database and the API have them: beyond INT64_MAX it is that. */
int64_t meter_amount(uint64_t value);

/* All that was used since the cgroup was made. Beyond INT64_MAX it is that. */
void usage_from_meters(const Hotcell__Runtime__V1__Usage *meters, struct usage *ret_usage);

/* When a measurement (usage_watch.h) began, or read a sandbox, and which that was. */
struct usage_moment {
        uint64_t number; /* counts from 1; zero: none */
        int64_t time_usec;
        uint64_t clock_usec; /* monotonic */
};

/* What a measurement said of a sandbox or an execution. Of another number than the
 * last one that asked for the sandbox it is old. */
struct usage_now {
        uint64_t number;
        struct sandbox_usage usage;
};

/* BIT(enum usage_part) of those that this server knows. */
uint32_t usage_missing(const Hotcell__Runtime__V1__MeterPart *missing, size_t n);

/* Of a whole sandbox. */
void sandbox_usage_from_meters(const Hotcell__Runtime__V1__Usage *meters,
                               struct sandbox_usage *ret_usage);
