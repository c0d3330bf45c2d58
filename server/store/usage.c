#include "runtime/base/macros.h"
#include "server/store/store.h"

void usage_add(struct usage *sum, const struct usage *amount)
{
        sum->cpu_usec += amount->cpu_usec;
        sum->cpu_user_usec += amount->cpu_user_usec;
        sum->cpu_system_usec += amount->cpu_system_usec;
        sum->wall_usec += amount->wall_usec;
        sum->memory_peak_bytes = MAX(sum->memory_peak_bytes, amount->memory_peak_bytes);
        sum->memory_byte_seconds += amount->memory_byte_seconds;
        sum->oom_kills += amount->oom_kills;
        sum->throttled_periods += amount->throttled_periods;
        sum->throttled_usec += amount->throttled_usec;
        sum->scheduled_usec += amount->scheduled_usec;
        sum->wait_usec += amount->wait_usec;
        sum->context_switches += amount->context_switches;
        sum->earlier_usec += amount->earlier_usec;
        sum->rss_peak_bytes = MAX(sum->rss_peak_bytes, amount->rss_peak_bytes);
        sum->sent_bytes += amount->sent_bytes;
        sum->received_bytes += amount->received_bytes;
        sum->stdout_bytes += amount->stdout_bytes;
        sum->stderr_bytes += amount->stderr_bytes;
        sum->rich_bytes += amount->rich_bytes;
        sum->missing |= amount->missing;
}
