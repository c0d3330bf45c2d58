/* Verdicts as the documentation has them: bit by bit, rule by rule, and slow. */
#pragma once

#include "runtime/policy/verdict.h"

/* @always may be NULL for a flow without an address. */
enum policy_verdict reference_judge(const struct policy *policy, const struct policy_always *always,
                                    const struct policy_flow *flow);

/* Whether a rule has a say about a flow. */
bool reference_concerns(const struct policy_rule *rule, const struct policy_flow *flow);

/* What denies an address always, by the longest match; NULL: nothing. */
const struct policy_always_entry *reference_longest(const struct policy_always *always,
                                                    const struct policy_address *address);
