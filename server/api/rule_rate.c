#include "server/api/rule_rate.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"

/* The owner's own, else that which is free first: what is not paid there yet is its now. */
static struct token_bucket *find(struct rule_rate *rate, const char *owner)
{
        size_t best = 0;

        for (size_t i = 0; i < ARRAY_SIZE(rate->owners); i++) {
                if (strcmp(rate->owners[i].owner, owner) == 0)
                        return &rate->owners[i].bucket;
                if (rate->owners[i].bucket.busy_until_usec <
                    rate->owners[best].bucket.busy_until_usec)
                        best = i;
        }
        (void)snprintf(rate->owners[best].owner, sizeof(rate->owners[best].owner), "%s", owner);
        return &rate->owners[best].bucket;
}

uint64_t rule_rate_take(struct rule_rate *rate, const char *owner, size_t n_rules,
                        uint64_t now_usec)
{
        static const struct token_rate rules = { .interval_usec = 1000000 / RULE_RATE_SECOND,
                                                 .burst = RULE_RATE_BURST };

        return token_bucket_take_many(find(rate, owner), &rules, n_rules, now_usec);
}
