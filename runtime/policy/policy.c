#include "runtime/policy/policy.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

static const char *const problem_texts[] = {
        [POLICY_OK] = "nothing is wrong",
        [POLICY_E_CIDR_FORM] = "is not an address or a prefix; write it like 93.184.216.0/24, "
                               "2606:2800:220::/48 or 93.184.216.34",
        [POLICY_E_CIDR_HOST_BITS] =
                "has bits set behind its prefix length; clear them, or make the "
                "prefix longer",
        [POLICY_E_CIDR_V4_MAPPED] = "is an IPv4 address in its IPv6 form; write it as IPv4, which "
                                    "holds for both",
        [POLICY_E_DOMAIN_FORM] = "is not a host name; write it like example.org or *.example.org, "
                                 "without scheme, port or path",
        [POLICY_E_DOMAIN_IS_ADDRESS] = "is an address; write a rule with cidr instead",
        [POLICY_E_DOMAIN_WILDCARD] = "may have a `*` only as the whole first label, like "
                                     "*.example.org; for all public names use default_action "
                                     "ALLOW_PUBLIC",
        [POLICY_E_DOMAIN_IDN] =
                "does not convert as an internationalized domain name; check it, and if it is not "
                "in its xn-- form, write that",
        [POLICY_E_DOMAIN_LENGTH] = "is too long: a label has at most 63 bytes and a name 253, also "
                                   "after it was converted",
        [POLICY_E_PORT_ZERO] = "is 0; ports are 1 to 65535, and no ports at all means every port",
        [POLICY_E_PORT_LARGE] = "is not a port; ports are 1 to 65535",
        [POLICY_E_PORT_ORDER] = "ends before it begins; swap first and last",
        [POLICY_E_PORTS_MANY] = "has more than 8 ranges of ports; join some, or split the rule by "
                                "destination",
        [POLICY_E_ACTION] = "needs an action, ALLOW or DENY",
        [POLICY_E_PROTOCOL] = "is not a protocol that is known; leave it out for TCP",
        [POLICY_E_DIRECT_MODE] =
                "needs direct mode; without it the network carries TCP and DNS, so "
                "write TCP",
        [POLICY_E_NAME_PROTOCOL] = "does not go with a domain: names are for TCP alone; write TCP, "
                                   "or a rule with cidr",
        [POLICY_E_ICMP_PORTS] = "cannot go with ICMP, which has no ports; leave them out",
        [POLICY_E_RULES_MANY] = "has more than 10000 rules; join prefixes, or use wildcards",
        [POLICY_E_TOO_COMPLEX] =
                "makes more than 8 different ranges of ports meet at one "
                "destination, with those of the rules that enclose it; join ranges",
        [POLICY_E_OPENS_NOTHING] =
                "opens nothing: it is not within one of the ranges that are always denied, such "
                "as 10.0.0.0/8 or fc00::/7; each of them is opened by itself or in parts",
};
static_assert(ARRAY_SIZE(problem_texts) == _POLICY_PROBLEM_N, "every problem has a sentence");

const char *policy_problem_text(int problem)
{
        assert(problem >= 0 && problem < _POLICY_PROBLEM_N);

        return problem_texts[problem];
}

void policy_deinit(struct policy *policy)
{
        free(policy->rules);
        *policy = (struct policy){ 0 };
}

static int make_room(struct policy *policy)
{
        size_t n_wanted = MAX(16, 2 * policy->n_allocated);
        struct policy_rule *rules;

        if (policy->n_rules < policy->n_allocated)
                return 0;
        rules = reallocarray(policy->rules, n_wanted, sizeof(*rules));
        if (!rules)
                return error_origin(-ENOMEM);
        policy->rules = rules;
        policy->n_allocated = n_wanted;
        return 0;
}

int policy_add(struct policy *policy, const struct policy_rule *rule)
{
        int r = policy_rule_check(rule);

        if (r)
                return r;
        if (policy->n_rules >= POLICY_RULES_MAX)
                return POLICY_E_RULES_MANY;
        r = make_room(policy);
        if (r)
                return error_fold(r);
        policy->rules[policy->n_rules++] = *rule;
        return 0;
}

int policy_rule_check(const struct policy_rule *rule)
{
        if (rule->action != POLICY_DENY && rule->action != POLICY_ALLOW)
                return POLICY_E_ACTION;
        if (rule->protocol < POLICY_TCP || rule->protocol > POLICY_ICMP)
                return POLICY_E_PROTOCOL;
        if (rule->is_domain && rule->protocol != POLICY_TCP)
                return POLICY_E_NAME_PROTOCOL;
        return rule->protocol == POLICY_ICMP && rule->n_ports > 0 ? POLICY_E_ICMP_PORTS : 0;
}

bool policy_rule_is_direct(const struct policy_rule *rule)
{
        return rule->protocol == POLICY_UDP || rule->protocol == POLICY_ICMP;
}

int policy_rule_add_ports(struct policy_rule *rule, int64_t low, int64_t high)
{
        if (low == 0 || high == 0)
                return POLICY_E_PORT_ZERO;
        if (low < 0 || high < 0 || low > UINT16_MAX || high > UINT16_MAX)
                return POLICY_E_PORT_LARGE;
        if (low > high)
                return POLICY_E_PORT_ORDER;
        if (rule->n_ports >= POLICY_PORTS_MAX)
                return POLICY_E_PORTS_MANY;
        rule->ports[rule->n_ports++] = (struct policy_ports){ (uint16_t)low, (uint16_t)high };
        return 0;
}
