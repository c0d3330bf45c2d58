#include "runtime/meters/memory_time.h"

#include <math.h>

#include "runtime/base/macros.h"

enum { USEC_PER_SECOND = 1000000, GAPS_MAX = 4 };

void memory_time_begin(struct memory_time *time, uint64_t now_usec)
{
        *time = (struct memory_time){ .last_usec = now_usec };
}

__extension__ static unsigned __int128 byte_usec(const struct memory_time *time, uint64_t now_usec)
{
        __extension__ unsigned __int128 held = time->last_bytes;

        return now_usec > time->last_usec ? time->byte_usec + held * (now_usec - time->last_usec)
                                          : time->byte_usec;
}

void memory_time_add(struct memory_time *time, uint64_t now_usec, uint64_t bytes)
{
        time->byte_usec = byte_usec(time, now_usec);
        time->last_usec = MAX(time->last_usec, now_usec);
        time->last_bytes = bytes;
}

uint64_t memory_time_byte_seconds(const struct memory_time *time, uint64_t now_usec)
{
        __extension__ unsigned __int128 seconds = byte_usec(time, now_usec) / USEC_PER_SECOND;

        return seconds > UINT64_MAX ? UINT64_MAX : (uint64_t)seconds;
}

uint64_t memory_time_gap_usec(uint64_t mean_usec, uint64_t random)
{
        double share = (double)((random >> 11) + 1) / (double)(1ULL << 53); /* never zero */
        double usec = -log(share) * (double)mean_usec;

        return (uint64_t)MIN(usec, (double)(GAPS_MAX * mean_usec));
}
