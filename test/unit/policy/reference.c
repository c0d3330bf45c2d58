#include "test/unit/policy/reference.h"

#include <string.h>

static bool holds(const struct policy_prefix *prefix, const struct policy_address *address)
{
        if (prefix->is_v6 != address->is_v6)
                return false;
        for (unsigned i = 0; i < prefix->n_bits; i++) {
                if ((prefix->bytes[i / 8] ^ address->bytes[i / 8]) & 0x80 >> i % 8)
                        return false;
        }
        return true;
}

static bool has_port(const struct policy_rule *rule, unsigned port)
{
        bool found = rule->n_ports == 0;

        for (size_t i = 0; i < rule->n_ports; i++)
                found = found || (rule->ports[i].low <= port && port <= rule->ports[i].high);
        return found;
}

static bool has_name(const struct policy_rule *rule, const char *name)
{
        size_t n_name = strlen(name), n_domain = strlen(rule->domain);

        if (!rule->is_wildcard)
                return strcmp(name, rule->domain) == 0;
        return n_name > n_domain + 1 && name[n_name - n_domain - 1] == '.' &&
               strcmp(name + n_name - n_domain, rule->domain) == 0;
}

static bool embedded(const struct policy_address *address, struct policy_address *ret_v4)
{
        static const uint8_t zeros[12], nat64[12] = { 0, 0x64, 0xff, 0x9b };

        if (!address->is_v6)
                return false;
        if (memcmp(address->bytes, zeros, 12) == 0 || memcmp(address->bytes, nat64, 12) == 0)
                *ret_v4 = policy_address_v4(address->bytes + 12);
        else if (address->bytes[0] == 0x20 && address->bytes[1] == 0x02)
                *ret_v4 = policy_address_v4(address->bytes + 2);
        else
                return false;
        return true;
}

bool reference_concerns(const struct policy_rule *rule, const struct policy_flow *flow)
{
        struct policy_address v4;

        if (rule->protocol != flow->protocol || !has_port(rule, flow->port))
                return false;
        if (rule->is_domain)
                return flow->name && has_name(rule, flow->name);
        if (!flow->address)
                return false;
        return holds(&rule->prefix, flow->address) ||
               (rule->action == POLICY_DENY && embedded(flow->address, &v4) &&
                holds(&rule->prefix, &v4));
}

static const struct policy_always_entry *longest(const struct policy_always *always,
                                                 const struct policy_address *address)
{
        const struct policy_always_entry *found = NULL;

        for (size_t i = 0; i < always->n_entries; i++) {
                const struct policy_always_entry *entry = &always->entries[i];

                if (holds(&entry->prefix, address) &&
                    (!found || entry->prefix.n_bits >= found->prefix.n_bits))
                        found = entry;
        }
        return found;
}

const struct policy_always_entry *reference_longest(const struct policy_always *always,
                                                    const struct policy_address *address)
{
        const struct policy_always_entry *found = longest(always, address);

        return found && found->kind != POLICY_ALWAYS_OPENED ? found : NULL;
}

static bool is_opened(const struct policy_always *always, const struct policy_address *address)
{
        const struct policy_always_entry *found = longest(always, address);

        return found && found->kind == POLICY_ALWAYS_OPENED;
}

enum policy_verdict reference_judge(const struct policy *policy, const struct policy_always *always,
                                    const struct policy_flow *flow)
{
        bool is_denied = false, is_allowed = false;

        if (flow->address && reference_longest(always, flow->address))
                return POLICY_VERDICT_DENIED_ALWAYS;
        for (size_t i = 0; i < policy->n_rules; i++) {
                const struct policy_rule *rule = &policy->rules[i];

                if (reference_concerns(rule, flow)) {
                        is_denied = is_denied || rule->action == POLICY_DENY;
                        is_allowed = is_allowed || rule->action == POLICY_ALLOW;
                }
        }
        if (is_denied)
                return POLICY_VERDICT_DENIED_RULE;
        if (is_allowed)
                return POLICY_VERDICT_ALLOWED_RULE;
        if (flow->address && is_opened(always, flow->address))
                return POLICY_VERDICT_DENIED_DEFAULT;
        return policy->default_action == POLICY_DEFAULT_ALLOW_PUBLIC && flow->protocol == POLICY_TCP
                       ? POLICY_VERDICT_ALLOWED_DEFAULT
                       : POLICY_VERDICT_DENIED_DEFAULT;
}
