/*
 * When it is told that something is short in a sandbox. No clock and no files: numbers in, a
 * decision out.
 */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRESSURE(name)   HOTCELL__RUNTIME__V1__PRESSURE_KIND__PRESSURE_KIND_##name
#define PRESSURE_UNKNOWN UINT64_MAX

enum {
        PRESSURE_WINDOW_USEC = 2 * 1000000, /* between two looks */
        PRESSURE_PAUSE_USEC = 10 * 1000000, /* between two of a kind */
        PRESSURE_KINDS_N = PRESSURE(INODES) + 1,
};

/* What rises as long as the sandbox lives. PRESSURE_UNKNOWN: not counted here. */
struct pressure_counters {
        uint64_t time_usec;
        uint64_t memory_stall_usec;
        uint64_t cpu_stall_usec;
        uint64_t io_stall_usec;
        uint64_t n_periods;
        uint64_t n_throttled;
};

struct pressure_level {
        Hotcell__Runtime__V1__PressureKind kind;
        uint64_t used;
        uint64_t limit; /* zero: `used` is thousandths of the time */
};

/* Of one kind. */
struct pressure_told {
        bool is_high;
        bool was_told;
        uint64_t told_usec; /* when it was told last */
};

enum { PRESSURE_RATES_MAX = 4 };

/* How much of the time between two looks was spent waiting, as far as it is known; returns of how
 * many kinds. */
size_t pressure_rates(const struct pressure_counters *before, const struct pressure_counters *now,
                      struct pressure_level ret_levels[static PRESSURE_RATES_MAX]);

/*
 * The kernel adds up what is waited for every two seconds and a bit: who looks as often may see
 * nothing of a wait at one look, but not at two. The first of these looks is the one at which the
 * sandbox had used CPU.
 */
enum { PRESSURE_QUIET_LOOKS = 3 };

/* @n_quiet, the looks in a row before @now at which nothing had waited, with this one. */
unsigned pressure_count_quiet(unsigned n_quiet, const struct pressure_counters *before,
                              const struct pressure_counters *now);

/* Whether it is to be told now, which is noted: from its threshold on, at most once a pause, and
 * again after each until it is well below the threshold. */
bool pressure_is_to_be_told(struct pressure_told *told, const struct pressure_level *level,
                            uint64_t now_usec);
