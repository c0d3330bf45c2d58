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

static int64_t since(int64_t now, int64_t before)
{
        return MAX(now - before, 0);
}

void usage_since(const struct usage *now, const struct usage *before, struct usage *ret_usage)
{
        struct usage usage = *now;

        usage.cpu_usec = since(now->cpu_usec, before->cpu_usec);
        usage.cpu_user_usec = since(now->cpu_user_usec, before->cpu_user_usec);
        usage.cpu_system_usec = since(now->cpu_system_usec, before->cpu_system_usec);
        usage.wall_usec = since(now->wall_usec, before->wall_usec);
        usage.memory_byte_seconds = since(now->memory_byte_seconds, before->memory_byte_seconds);
        usage.oom_kills = since(now->oom_kills, before->oom_kills);
        usage.throttled_periods = since(now->throttled_periods, before->throttled_periods);
        usage.throttled_usec = since(now->throttled_usec, before->throttled_usec);
        usage.scheduled_usec = since(now->scheduled_usec, before->scheduled_usec);
        usage.wait_usec = since(now->wait_usec, before->wait_usec);
        usage.context_switches = since(now->context_switches, before->context_switches);
        usage.earlier_usec = since(now->earlier_usec, before->earlier_usec);
        usage.sent_bytes = since(now->sent_bytes, before->sent_bytes);
        usage.received_bytes = since(now->received_bytes, before->received_bytes);
        usage.missing = now->missing | before->missing;
        *ret_usage = usage;
}
