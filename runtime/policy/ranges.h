/* Ranges of a protocol's ports with what is to be done there. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/policy/policy.h"

enum { POLICY_ENTRY_RANGES = 8 };

/* Both ports included. */
struct policy_range {
        uint16_t low;
        uint16_t high;
        uint8_t action;   /* enum policy_action */
        uint8_t protocol; /* enum policy_protocol */
        uint32_t rule;    /* index in the policy */
};

/* Appends a rule's ranges to @ranges and says how many; at most POLICY_PORTS_MAX. */
size_t policy_ranges_of(const struct policy *policy, size_t rule, struct policy_range *ranges);

/*
 * Sorts @ranges and picks the fewest that say the same of every port of each protocol: those that
 * deny, each with its rule, and behind them those that allow what is not denied. So the first of
 * the protocol that holds a port decides. The number of them, or more than POLICY_ENTRY_RANGES when
 * they do not fit.
 */
size_t policy_ranges_reduce(struct policy_range *ranges, size_t n,
                            struct policy_range ret_ranges[static POLICY_ENTRY_RANGES]);

/* The range that decides about a port; NULL: none does. */
const struct policy_range *policy_ranges_find(const struct policy_range *ranges, size_t n,
                                              enum policy_protocol protocol, uint16_t port);
