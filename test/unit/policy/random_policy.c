#include "test/unit/policy/random_policy.h"

#include <check.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/unit/policy/written.h"

enum { RULES_MAX = 40 };

/* xorshift64*, so that runs are the same everywhere. */
unsigned below(struct random *random, unsigned n)
{
        random->state ^= random->state >> 12;
        random->state ^= random->state << 25;
        random->state ^= random->state >> 27;
        return (unsigned)((random->state * UINT64_C(2685821657736338717)) >> 33) % n;
}

/* A few places, so that prefixes lie inside and beside one another. */
static const char *const places[] = {
        "8.8.8.8",
        "8.8.9.255",
        "8.0.0.0",
        "10.1.2.3",
        "10.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "172.31.255.255",
        "255.255.255.255",
        "192.0.2.0",
        "2600::",
        "2600:0:0:1::",
        "2600::ffff",
        "::",
        "::1",
        "::8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b::10.1.2.3",
        "2002:808:808::1",
        "2002:a01:203::",
        "fe80::1",
        "2001:db8::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

static void clear_host_bits(struct policy_prefix *prefix)
{
        for (unsigned i = prefix->n_bits; i < 128; i++)
                prefix->bytes[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
}

struct policy_prefix random_prefix(struct random *random)
{
        struct policy_address place = address_of(places[below(random, ARRAY_SIZE(places))]);
        unsigned width = place.is_v6 ? 128 : 32;
        struct policy_prefix prefix = { .is_v6 = place.is_v6 };

        prefix.n_bits = (uint8_t)(below(random, 4) ? width - below(random, width / 2 + 1)
                                                   : below(random, width + 1));
        memcpy(prefix.bytes, place.bytes, 16);
        clear_host_bits(&prefix);
        return prefix;
}

static void random_ports(struct random *random, struct policy_rule *rule)
{
        unsigned n = below(random, 12) ? below(random, 4) + 1 : 0;

        for (; n > 0; n--) {
                unsigned low = below(random, 8) ? below(random, 20) + 1 : 65535 - below(random, 5);
                unsigned width = below(random, 4) ? 1 : 12;
                unsigned high = below(random, 20) ? low + below(random, width) : 65535;

                high = MIN(high, 65535);
                ck_assert_int_eq(policy_rule_add_ports(rule, low, high), 0);
        }
}

static const char *const labels[] = { "a", "b", "ab" };

void random_name(struct random *random, char name[POLICY_DOMAIN_BUFFER])
{
        name[0] = '\0';
        for (unsigned n = below(random, 4); n > 0; n--) {
                (void)strcat(name, labels[below(random, ARRAY_SIZE(labels))]);
                (void)strcat(name, ".");
        }
        (void)strcat(name, labels[below(random, ARRAY_SIZE(labels))]);
}

void random_policy(struct random *random, struct policy *policy)
{
        unsigned n_rules = below(random, RULES_MAX) + 1;

        policy->default_action =
                below(random, 2) ? POLICY_DEFAULT_DENY : POLICY_DEFAULT_ALLOW_PUBLIC;
        while (n_rules-- > 0) {
                struct policy_rule rule = { .protocol = POLICY_TCP };

                rule.action = below(random, 3) ? POLICY_ALLOW : POLICY_DENY;
                rule.is_domain = below(random, 3) == 0;
                if (rule.is_domain) {
                        rule.is_wildcard = below(random, 2);
                        random_name(random, rule.domain);
                } else {
                        rule.prefix = random_prefix(random);
                        if (below(random, 4) == 0)
                                rule.protocol = below(random, 3) ? POLICY_UDP : POLICY_ICMP;
                }
                if (rule.protocol != POLICY_ICMP)
                        random_ports(random, &rule);
                ck_assert_int_eq(policy_add(policy, &rule), 0);
        }
}
