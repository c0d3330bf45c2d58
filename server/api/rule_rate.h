/*
 * How many egress rules an owner may ask to be checked: checking takes the loop's time, also of
 * policies that are refused then. Operators have no bound.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/token_bucket.h"
#include "server/session/session.h"

enum {
        RULE_RATE_SECOND = 5000, /* a tenth of the loop's time, at some 20 us each */
        RULE_RATE_BURST = 20000,
        RULE_RATE_OWNERS =
                64, /* that are told apart; more share places with those that ask least */
};

/* Of zeros nobody has asked for any. */
struct rule_rate {
        struct {
                char owner[OWNER_BUFFER];
                struct token_bucket bucket;
        } owners[RULE_RATE_OWNERS];
};

/* 0: they are taken, though they may be more than there are. Else how long to wait, in us. */
uint64_t rule_rate_take(struct rule_rate *rate, const char *owner, size_t n_rules,
                        uint64_t now_usec);
