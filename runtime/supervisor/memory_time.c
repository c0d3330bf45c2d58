#include "runtime/supervisor/memory_time.h"

enum { USEC_PER_SECOND = 1000000 };

void memory_time_begin(struct memory_time *time, uint64_t now_usec)
{
        *time = (struct memory_time){ .last_usec = now_usec };
}

void memory_time_add(struct memory_time *time, uint64_t now_usec, uint64_t bytes)
{
        __extension__ unsigned __int128 both = time->last_bytes;

        if (now_usec > time->last_usec) {
                both += bytes;
                time->byte_usec += both * (now_usec - time->last_usec);
                time->last_usec = now_usec;
        }
        time->last_bytes = bytes;
}

uint64_t memory_time_byte_seconds(const struct memory_time *time)
{
        __extension__ unsigned __int128 seconds = time->byte_usec / 2 / USEC_PER_SECOND;

        return seconds > UINT64_MAX ? UINT64_MAX : (uint64_t)seconds;
}
