#include "server/session/meters.h"

#include "runtime/base/macros.h"

static const enum usage_part parts[] = {
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_MEMORY] = USAGE_PART_MEMORY,
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_MEMORY_PEAK] = USAGE_PART_MEMORY_PEAK,
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_SCHEDULED] = USAGE_PART_SCHEDULED,
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_RSS_PEAK] = USAGE_PART_RSS_PEAK,
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_TRAFFIC] = USAGE_PART_TRAFFIC,
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_THROTTLED] = USAGE_PART_THROTTLED,
        [HOTCELL__RUNTIME__V1__METER_PART__METER_PART_WAIT] = USAGE_PART_WAIT,
};
static_assert(ARRAY_SIZE(parts) == USAGE_PART_REST, "every part that a meter may lack has a row");

int64_t meter_amount(uint64_t value)
{
        return (int64_t)MIN(value, (uint64_t)INT64_MAX);
}

uint32_t usage_missing(const Hotcell__Runtime__V1__MeterPart *missing, size_t n)
{
        uint32_t bits = 0;

        for (size_t i = 0; i < n; i++) {
                unsigned part = (unsigned)missing[i];

                if (part > 0 && part < ARRAY_SIZE(parts)) /* a newer runtime may know more */
                        bits |= BIT(parts[part]);
        }
        return bits;
}

void usage_from_meters(const Hotcell__Runtime__V1__Usage *meters, struct usage *ret_usage)
{
        struct usage usage = {
                .cpu_usec = meter_amount(meters->cpu_usec),
                .cpu_user_usec = meter_amount(meters->cpu_user_usec),
                .cpu_system_usec = meter_amount(meters->cpu_system_usec),
                .wall_usec = meter_amount(meters->wall_usec),
                .memory_peak_bytes = meter_amount(meters->memory_peak_bytes),
                .memory_byte_seconds = meter_amount(meters->memory_byte_seconds),
                .oom_kills = meters->oom_kills,
                .throttled_periods = meter_amount(meters->n_throttled),
                .throttled_usec = meter_amount(meters->throttled_usec),
                .scheduled_usec = meter_amount(meters->scheduled_usec),
                .wait_usec = meter_amount(meters->wait_usec),
                .context_switches = meter_amount(meters->n_switches),
                .earlier_usec = meter_amount(meters->earlier_usec),
                .rss_peak_bytes = meter_amount(meters->rss_peak_bytes),
                .sent_bytes = meter_amount(meters->sent_bytes),
                .received_bytes = meter_amount(meters->received_bytes),
        };

        usage.missing = usage_missing(meters->missing, meters->n_missing);
        *ret_usage = usage;
}

void sandbox_usage_from_meters(const Hotcell__Runtime__V1__Usage *meters,
                               struct sandbox_usage *ret_usage)
{
        *ret_usage = (struct sandbox_usage){
                .memory_bytes = meter_amount(meters->memory_bytes),
                .disk_bytes = meter_amount(meters->disk_bytes),
                .processes = (int32_t)MIN(meters->processes, (uint32_t)INT32_MAX),
        };
        usage_from_meters(meters, &ret_usage->total);
}
