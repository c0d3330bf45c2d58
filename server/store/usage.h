/* What is used: amounts that add up, and peaks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Parts of struct usage that may be missing. The numbers are stored: never change one. */
enum usage_part {
        USAGE_PART_MEMORY = 1,  /* all of memory and oom_kills */
        USAGE_PART_MEMORY_PEAK, /* only that */
        USAGE_PART_SCHEDULED,   /* scheduled_usec, wait_usec, context_switches, earlier_usec */
        USAGE_PART_RSS_PEAK,
        USAGE_PART_TRAFFIC,   /* sent_bytes, received_bytes */
        USAGE_PART_THROTTLED, /* throttled_periods, throttled_usec */
        USAGE_PART_WAIT,      /* wait_usec alone */
        USAGE_PART_REST,      /* of all that is metered, what came after the last reading */
        _USAGE_PART_N,
};

/* What an execution, a sandbox, or a part of its life used. Amounts add up, peaks are the highest.
 */
struct usage {
        int64_t cpu_usec; /* from the cgroup's files */
        int64_t cpu_user_usec;
        int64_t cpu_system_usec;
        int64_t wall_usec;
        int64_t memory_peak_bytes; /* that the cgroup was charged with */
        int64_t memory_byte_seconds;
        int64_t oom_kills;
        int64_t throttled_periods; /* of the whole sandbox */
        int64_t throttled_usec;
        int64_t scheduled_usec; /* by BPF, as all of these: CPU time seen at context switches */
        int64_t wait_usec;
        int64_t context_switches;
        int64_t earlier_usec; /* of threads that were there before the execution began */
        int64_t rss_peak_bytes;
        int64_t sent_bytes; /* by hotcell-egress */
        int64_t received_bytes;
        int64_t stdout_bytes; /* by hotcelld; only of executions */
        int64_t stderr_bytes;
        int64_t rich_bytes;
        uint32_t missing; /* BIT(enum usage_part) */
};

/* What there is to know of a field, besides its meaning. */
enum usage_kind {
        USAGE_AMOUNT,
        USAGE_AMOUNT_OF_SANDBOX,   /* what runs at the same time would all count it */
        USAGE_AMOUNT_OF_EXECUTION, /* a sandbox has none of its own */
        USAGE_TIME,                /* passes by itself */
        USAGE_PEAK,
};

/* The one list of all fields but missing: OF(field, rest of an enum usage_kind). Columns of the
 * database have their names, in this order. */
#define USAGE_FIELDS(OF)                                                                           \
        OF(cpu_usec, AMOUNT)                                                                       \
        OF(cpu_user_usec, AMOUNT)                                                                  \
        OF(cpu_system_usec, AMOUNT)                                                                \
        OF(wall_usec, TIME)                                                                        \
        OF(memory_peak_bytes, PEAK)                                                                \
        OF(memory_byte_seconds, AMOUNT)                                                            \
        OF(oom_kills, AMOUNT)                                                                      \
        OF(throttled_periods, AMOUNT_OF_SANDBOX)                                                   \
        OF(throttled_usec, AMOUNT_OF_SANDBOX)                                                      \
        OF(scheduled_usec, AMOUNT)                                                                 \
        OF(wait_usec, AMOUNT)                                                                      \
        OF(context_switches, AMOUNT)                                                               \
        OF(earlier_usec, AMOUNT_OF_EXECUTION)                                                      \
        OF(rss_peak_bytes, PEAK)                                                                   \
        OF(sent_bytes, AMOUNT)                                                                     \
        OF(received_bytes, AMOUNT)                                                                 \
        OF(stdout_bytes, AMOUNT_OF_EXECUTION)                                                      \
        OF(stderr_bytes, AMOUNT_OF_EXECUTION)                                                      \
        OF(rich_bytes, AMOUNT_OF_EXECUTION)

/* Of records: in how many of them something is missing. */
struct usage_gaps {
        int64_t n_without[_USAGE_PART_N]; /* by part; what is a part of another one that is missing
                                           * is not counted */
        int64_t n_incomplete;             /* their last meters could not be read */
};

void usage_gaps_count(struct usage_gaps *gaps, uint32_t missing, bool is_incomplete);
void usage_gaps_add(struct usage_gaps *sum, const struct usage_gaps *gaps);

/* Without parts of others that are missing, too. */
uint32_t usage_missing_wholes(uint32_t missing);

/* Adds to amounts, up to INT64_MAX, and raises peaks. */
void usage_add(struct usage *sum, const struct usage *amount);

/* What came after @before: amounts are differences (never below zero; user and system time are
 * parts of the CPU time), peaks are those of @now; missing is what one of them misses. */
void usage_since(const struct usage *now, const struct usage *before, struct usage *ret_usage);

/* What of @total, all that the meters of a sandbox say, is not in @billed. */
void usage_rest(const struct usage *total, const struct usage *billed, struct usage *ret_rest);

/* For a row of an execution: what is of its whole sandbox is zero. That is no gap. */
void usage_drop_of_sandbox(struct usage *usage);

/* Peaks of @usage are at least those of @other. */
void usage_raise_peaks(struct usage *usage, const struct usage *other);

/* Time alone is nothing, and peaks are no amounts: an idle sandbox holds memory. */
bool usage_is_nothing(const struct usage *usage);
