/*
 * A policy as tables in which one look-up decides: for BPF, and for the relay. What enclosing
 * prefixes say is merged into each prefix, and what enclosing wildcards say into each name, so the
 * longest match alone is enough.
 */
#pragma once

#include "runtime/policy/index.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/ranges.h"

/* The first range of a protocol that holds a port decides: those that deny come first. */
struct policy_entry {
        struct policy_prefix prefix;
        uint8_t n_ranges;
        struct policy_range ranges[POLICY_ENTRY_RANGES];
};

/* The same for a name, or for all names below it. */
struct policy_name {
        bool is_wildcard;
        uint8_t length; /* of the domain */
        char domain[POLICY_DOMAIN_BUFFER];
        uint8_t n_ranges;
        struct policy_range ranges[POLICY_ENTRY_RANGES];
};

struct policy_table {
        enum policy_default default_action;
        uint32_t record_types;        /* a set (record_types.h) */
        struct policy_entry *entries; /* IPv4, then IPv6; each prefix before those inside it */
        size_t n_entries;
        struct policy_index index;
        struct policy_name *names; /* shorter ones first */
        size_t n_names;
};

/*
 * Takes what it needs from @policy. 0, -ENOMEM, or POLICY_E_TOO_COMPLEX with the index of a rule
 * with which more ranges meet at its destination than an entry holds. Costs O(n log n) and for each
 * entry and name about 120 and 370 bytes.
 */
int policy_compile(const struct policy *policy, struct policy_table *ret_table, size_t *ret_rule);

void policy_table_deinit(struct policy_table *table);

/* The longest prefix that holds an address; NULL: none. */
const struct policy_entry *policy_table_find(const struct policy_table *table,
                                             const struct policy_address *address);

/* The entry of a name in the form of policy_parse_name(), or else of a wildcard above it. */
const struct policy_name *policy_table_find_name(const struct policy_table *table,
                                                 const char *name);

/* The nearest wildcard above a name. */
const struct policy_name *policy_table_find_wildcard(const struct policy_table *table,
                                                     const char *name);
