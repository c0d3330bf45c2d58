/* How often something may happen: a number at once, and then one every so often. */
#pragma once

#include <stdint.h>

/* Of zeros it is full. */
struct token_bucket {
        uint64_t busy_until_usec; /* when it would be full again */
};

struct token_rate {
        uint64_t interval_usec; /* one more every so often */
        uint64_t burst;         /* at once, when it is full; at least 1 */
};

/* Takes @n if there is one, and owes the others: 0, or how long to wait until there is one. */
uint64_t token_bucket_take_many(struct token_bucket *bucket, const struct token_rate *rate,
                                uint64_t n, uint64_t now_usec);

/* Takes one: 0, or how long to wait until there is one. @now_usec is monotonic. */
uint64_t token_bucket_take(struct token_bucket *bucket, const struct token_rate *rate,
                           uint64_t now_usec);
