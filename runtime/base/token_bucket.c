/* Instead of tokens, the time that refilling would take is kept: nothing is to be done in between.
 */
#include "runtime/base/token_bucket.h"

#include "runtime/base/macros.h"

uint64_t token_bucket_take_many(struct token_bucket *bucket, const struct token_rate *rate,
                                uint64_t n, uint64_t now_usec)
{
        uint64_t empty_usec = rate->interval_usec * (rate->burst - 1);
        uint64_t busy_until_usec = MAX(bucket->busy_until_usec, now_usec);

        if (busy_until_usec - now_usec > empty_usec)
                return busy_until_usec - now_usec - empty_usec;
        bucket->busy_until_usec = busy_until_usec + rate->interval_usec * n;
        return 0;
}

uint64_t token_bucket_take(struct token_bucket *bucket, const struct token_rate *rate,
                           uint64_t now_usec)
{
        return token_bucket_take_many(bucket, rate, 1, now_usec);
}
