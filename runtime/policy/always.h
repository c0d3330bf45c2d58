/*
 * Addresses that no policy lets through: of this host and its links, private ones, cloud metadata
 * services, and what is not an address of a host at all. The operator may open parts of the shipped
 * list, and add prefixes of the host's own that nothing opens.
 */
#pragma once

#include "runtime/policy/index.h"
#include "runtime/policy/policy.h"

enum policy_always_kind {
        POLICY_ALWAYS_SHIPPED = 1,
        POLICY_ALWAYS_OPENED, /* rules may allow it, unless a longer prefix inside it is denied */
        POLICY_ALWAYS_EXTRA,  /* denied, and all inside it */
};

struct policy_always_entry {
        struct policy_prefix prefix;
        enum policy_always_kind kind;
        const char *what; /* for people: what these addresses are, and who says so */
};

/* The longest prefix that holds an address decides: also for BPF, which gets the entries. */
struct policy_always {
        struct policy_always_entry *entries; /* sorted as policy_prefix_compare() does */
        size_t n_entries;
        struct policy_index index;
};

struct policy_prefixes {
        const struct policy_prefix *prefixes;
        size_t n;
};

/*
 * IPv4 prefixes that are denied are denied in their NAT64, 6to4 and IPv4-compatible forms, too;
 * what the operator opens is open only as it was written. A shipped prefix is opened by itself or
 * in parts: to open 10.0.0.0/7 opens nothing of 10.0.0.0/8. 0 or -ENOMEM.
 */
int policy_always_init(struct policy_always *always, const struct policy_prefixes *opened,
                       const struct policy_prefixes *extra);

void policy_always_deinit(struct policy_always *always);

/*
 * What denies an address; NULL: it is not always denied. An address of ISATAP that no entry holds
 * is what it leads to: that BPF does not know.
 */
const struct policy_always_entry *policy_always_find(const struct policy_always *always,
                                                     const struct policy_address *address);

/* Neither denied nor opened: what POLICY_DEFAULT_ALLOW_PUBLIC is about. */
bool policy_always_is_public(const struct policy_always *always,
                             const struct policy_address *address);

/*
 * A prefix that the operator wants opened: 0, what policy_parse_cidr() says, or
 * POLICY_E_OPENS_NOTHING when it is no part of what is shipped.
 */
int policy_always_parse_opened(const char *text, struct policy_prefix *ret_prefix);
