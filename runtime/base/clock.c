#include "runtime/base/clock.h"

#include <time.h>

int64_t time_now_usec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

uint64_t clock_monotonic_nsec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_usec(void)
{
        return clock_monotonic_nsec() / 1000;
}

uint64_t clock_monotonic_msec(void)
{
        return clock_monotonic_nsec() / 1000000;
}
