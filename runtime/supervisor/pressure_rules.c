#include "runtime/supervisor/pressure_rules.h"

#include "runtime/base/macros.h"

enum {
        WHOLE = 1000,
        BELOW = 50,                /* what is so far below its threshold is over */
        THROTTLED_PERIODS_MIN = 5, /* half a second: a short burst is no reason to slow down */
};

/*
 * In thousandths. Of what ends a program or makes its calls fail when it is full, the last tenth;
 * of waiting a fifth of the time, which is when it is felt, and for throttling, which is how a
 * limit of CPU works at all, half of it.
 */
static const unsigned thresholds[PRESSURE_KINDS_N] = {
        [PRESSURE(MEMORY_LIMIT)] = 900,  [PRESSURE(MEMORY_STALL)] = 200,
        [PRESSURE(CPU_STALL)] = 200,     [PRESSURE(IO_STALL)] = 200,
        [PRESSURE(CPU_THROTTLED)] = 500, [PRESSURE(PROCESSES)] = 900,
        [PRESSURE(DISK)] = 900,          [PRESSURE(INODES)] = 900,
};

/* @part of @whole, which may be anything. */
static uint64_t thousandths(uint64_t part, uint64_t whole)
{
        if (part >= whole)
                return WHOLE;
        return part < UINT64_MAX / WHOLE ? part * WHOLE / whole : part / (whole / WHOLE);
}

static bool difference(uint64_t before, uint64_t now, uint64_t *ret_difference)
{
        if (before == PRESSURE_UNKNOWN || now == PRESSURE_UNKNOWN || now < before)
                return false;
        *ret_difference = now - before;
        return true;
}

size_t pressure_rates(const struct pressure_counters *before, const struct pressure_counters *now,
                      struct pressure_level ret_levels[static PRESSURE_RATES_MAX])
{
        const struct {
                Hotcell__Runtime__V1__PressureKind kind;
                uint64_t before, now;
        } stalls[] = {
                { PRESSURE(MEMORY_STALL), before->memory_stall_usec, now->memory_stall_usec },
                { PRESSURE(CPU_STALL), before->cpu_stall_usec, now->cpu_stall_usec },
                { PRESSURE(IO_STALL), before->io_stall_usec, now->io_stall_usec },
        };
        uint64_t time_usec, periods, part;
        size_t n = 0;

        static_assert(ARRAY_SIZE(stalls) + 1 == PRESSURE_RATES_MAX, "and throttling");
        if (!difference(before->time_usec, now->time_usec, &time_usec) || time_usec == 0)
                return 0;
        for (size_t i = 0; i < ARRAY_SIZE(stalls); i++)
                if (difference(stalls[i].before, stalls[i].now, &part))
                        ret_levels[n++] =
                                (struct pressure_level){ .kind = stalls[i].kind,
                                                         .used = thousandths(part, time_usec) };
        if (difference(before->n_periods, now->n_periods, &periods) &&
            difference(before->n_throttled, now->n_throttled, &part))
                ret_levels[n++] = (struct pressure_level){
                        .kind = PRESSURE(CPU_THROTTLED),
                        .used = part < THROTTLED_PERIODS_MIN ? 0 : thousandths(part, periods),
                };
        return n;
}

unsigned pressure_count_quiet(unsigned n_quiet, const struct pressure_counters *before,
                              const struct pressure_counters *now)
{
        bool has_waited = before->memory_stall_usec != now->memory_stall_usec ||
                          before->cpu_stall_usec != now->cpu_stall_usec ||
                          before->io_stall_usec != now->io_stall_usec;

        return has_waited ? 0 : n_quiet + 1;
}

bool pressure_is_to_be_told(struct pressure_told *told, const struct pressure_level *level,
                            uint64_t now_usec)
{
        unsigned threshold = thresholds[level->kind];
        uint64_t share = level->limit ? thousandths(level->used, level->limit) : level->used;

        if (share >= threshold)
                told->is_high = true;
        else if (share < threshold - BELOW)
                told->is_high = false;
        if (!told->is_high || (told->was_told && now_usec - told->told_usec < PRESSURE_PAUSE_USEC))
                return false;
        *told = (struct pressure_told){ .is_high = true, .was_told = true, .told_usec = now_usec };
        return true;
}
