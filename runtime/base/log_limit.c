#include "runtime/base/log_limit.h"

enum {
        LINE_MSEC = 1000 / LOG_LIMIT_PER_SECOND, /* in which a line is made up for */
        BURST_MSEC = LOG_LIMIT_BURST * LINE_MSEC,
};

bool log_limit_take(struct log_limit *limit, uint64_t now_msec, uint64_t *ret_n_left_out)
{
        uint64_t passed_msec = now_msec > limit->seen_msec ? now_msec - limit->seen_msec : 0;

        limit->used_msec -= passed_msec < limit->used_msec ? passed_msec : limit->used_msec;
        limit->seen_msec = now_msec;
        if (limit->used_msec + LINE_MSEC > BURST_MSEC) {
                limit->n_left_out++;
                return false;
        }
        limit->used_msec += LINE_MSEC;
        *ret_n_left_out = limit->n_left_out;
        limit->n_left_out = 0;
        return true;
}
