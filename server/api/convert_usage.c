#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/convert.h"

/* Names of fields of the public Usage. */
static const char *const missing_fields[][16] = {
        [USAGE_PART_MEMORY] = { "memory_peak_bytes", "memory_byte_seconds", "memory_mean_bytes",
                                "oom_kills" },
        [USAGE_PART_MEMORY_PEAK] = { "memory_peak_bytes" },
        [USAGE_PART_SCHEDULED] = { "scheduled_time", "run_queue_wait", "context_switches",
                                   "earlier_work_time" },
        [USAGE_PART_RSS_PEAK] = { "rss_peak_bytes" },
        [USAGE_PART_TRAFFIC] = { "sent_bytes", "received_bytes" },
        [USAGE_PART_THROTTLED] = { "throttled_periods", "throttled_time" },
        [USAGE_PART_WAIT] = { "run_queue_wait" },
        [USAGE_PART_REST] = { "cpu_time", "cpu_user_time", "cpu_system_time", "memory_peak_bytes",
                              "memory_byte_seconds", "memory_mean_bytes", "oom_kills",
                              "run_queue_wait", "context_switches", "scheduled_time",
                              "earlier_work_time", "rss_peak_bytes", "sent_bytes", "received_bytes",
                              "throttled_periods", "throttled_time" },
};
static_assert(ARRAY_SIZE(missing_fields) == _USAGE_PART_N, "every part has a row");

char **convert_missing(struct arena *arena, unsigned missing, size_t *ret_n)
{
        char **names = arena_new_array(arena, char *,
                                       ARRAY_SIZE(missing_fields) * ARRAY_SIZE(*missing_fields));

        *ret_n = 0;
        missing = usage_missing_wholes(missing);
        for (size_t part = 1; names && part < ARRAY_SIZE(missing_fields); part++) {
                if (!(missing & BIT(part)))
                        continue;
                for (size_t i = 0; i < ARRAY_SIZE(*missing_fields) && missing_fields[part][i]; i++)
                        names[(*ret_n)++] = unconst(missing_fields[part][i]);
        }
        return names;
}

static int64_t count_without(const struct usage_gaps *gaps, const char *field)
{
        int64_t n = 0;

        for (size_t part = 1; part < ARRAY_SIZE(missing_fields); part++) {
                for (size_t i = 0; i < ARRAY_SIZE(*missing_fields) && missing_fields[part][i]; i++)
                        n += strcmp(missing_fields[part][i], field) == 0 ? gaps->n_without[part]
                                                                         : 0;
        }
        return n;
}

Hotcell__V1__UsageGap **convert_gaps(struct arena *arena, const struct usage_gaps *gaps,
                                     const Hotcell__V1__Usage *sums, size_t *ret_n)
{
        Hotcell__V1__UsageGap **list =
                arena_new_array(arena, Hotcell__V1__UsageGap *, sums ? sums->n_missing : 0);

        *ret_n = 0;
        for (size_t i = 0; list && sums && i < sums->n_missing; i++) {
                Hotcell__V1__UsageGap *gap = arena_new(arena, Hotcell__V1__UsageGap);

                if (!gap)
                        break;
                hotcell__v1__usage_gap__init(gap);
                gap->field = sums->missing[i];
                gap->records = count_without(gaps, gap->field);
                list[(*ret_n)++] = gap;
        }
        return list;
}

/* Time and memory are not read at one moment, and sums may have more of one than of the other: the
 * mean is the peak at most. */
static int64_t mean_bytes(const struct usage *usage)
{
        uint32_t unknown_peak = BIT(USAGE_PART_MEMORY) | BIT(USAGE_PART_MEMORY_PEAK);
        int64_t milliseconds = usage->wall_usec / 1000;
        double mean;

        if (milliseconds <= 0)
                return 0;
        mean = (double)usage->memory_byte_seconds * 1000.0 / (double)milliseconds;
        if (!(usage->missing & unknown_peak) && mean > (double)usage->memory_peak_bytes)
                return usage->memory_peak_bytes;
        return (int64_t)mean;
}

Hotcell__V1__Usage *convert_usage(struct arena *arena, const struct usage *usage)
{
        Hotcell__V1__Usage *message = arena_new(arena, Hotcell__V1__Usage);

        if (!message)
                return NULL;
        hotcell__v1__usage__init(message);
        message->cpu_time = convert_duration(arena, usage->cpu_usec);
        message->wall_time = convert_duration(arena, usage->wall_usec);
        message->memory_peak_bytes = usage->memory_peak_bytes;
        message->stdout_bytes = usage->stdout_bytes;
        message->stderr_bytes = usage->stderr_bytes;
        message->rich_bytes = usage->rich_bytes;
        message->cpu_user_time = convert_duration(arena, usage->cpu_user_usec);
        message->cpu_system_time = convert_duration(arena, usage->cpu_system_usec);
        message->run_queue_wait = convert_duration(arena, usage->wait_usec);
        message->context_switches = usage->context_switches;
        message->scheduled_time = convert_duration(arena, usage->scheduled_usec);
        message->earlier_work_time = convert_duration(arena, usage->earlier_usec);
        message->rss_peak_bytes = usage->rss_peak_bytes;
        message->memory_byte_seconds = usage->memory_byte_seconds;
        message->memory_mean_bytes = mean_bytes(usage);
        message->sent_bytes = usage->sent_bytes;
        message->received_bytes = usage->received_bytes;
        message->oom_kills = usage->oom_kills;
        message->throttled_periods = usage->throttled_periods;
        message->throttled_time = convert_duration(arena, usage->throttled_usec);
        message->missing = convert_missing(arena, usage->missing, &message->n_missing);
        return message;
}

Hotcell__V1__SandboxUsage *convert_sandbox_usage(struct arena *arena,
                                                 const struct sandbox_usage *usage)
{
        Hotcell__V1__SandboxUsage *message;

        /* What ran took some time or memory: nothing of both means that nobody measured. */
        if (usage->total.cpu_usec == 0 && usage->total.memory_peak_bytes == 0 &&
            !(usage->total.missing & BIT(USAGE_PART_REST)))
                return NULL;
        message = arena_new(arena, Hotcell__V1__SandboxUsage);
        if (!message)
                return NULL;
        hotcell__v1__sandbox_usage__init(message);
        message->cpu_time = convert_duration(arena, usage->total.cpu_usec);
        message->memory_bytes = usage->memory_bytes;
        message->memory_peak_bytes = usage->total.memory_peak_bytes;
        message->disk_bytes = usage->disk_bytes;
        message->processes = usage->processes;
        message->total = convert_usage(arena, &usage->total);
        return message;
}
