/* What a policy says of a flow: always denied, then denied, then allowed, then the default. */
#pragma once

#include "runtime/policy/always.h"
#include "runtime/policy/compile.h"

enum policy_verdict {
        POLICY_VERDICT_DENIED_ALWAYS,
        POLICY_VERDICT_DENIED_RULE,
        POLICY_VERDICT_DENIED_DEFAULT,
        POLICY_VERDICT_ALLOWED_RULE,
        POLICY_VERDICT_ALLOWED_DEFAULT,
};

/* What a verdict is reached by. Borrowed. */
struct policy_view {
        const struct policy_always *always;
        const struct policy_table *table;
};

/* To a port; with ICMP that is 0. The rules for what is not known, and therefore NULL, are not
 * asked. */
struct policy_flow {
        const struct policy_address *address;
        const char *name; /* as policy_parse_name() writes it */
        uint16_t port;
        enum policy_protocol protocol;
};

struct policy_ruling {
        enum policy_verdict verdict;
        uint32_t rule;                            /* with a verdict by rule: which, in the policy */
        const struct policy_always_entry *always; /* with DENIED_ALWAYS */
};

/*
 * With a name and an address both are judged: either may deny, and either may allow. A rule that
 * denies an IPv4 address also denies the NAT64, 6to4 and IPv4-compatible addresses that lead there;
 * a rule that allows it does not allow those.
 */
struct policy_ruling policy_judge(const struct policy_view *view, const struct policy_flow *flow);

/* Whether a name may be resolved: whether it may be reached on any port at all. */
struct policy_ruling policy_judge_query(const struct policy_view *view, const char *name);

bool policy_verdict_allows(enum policy_verdict verdict);
