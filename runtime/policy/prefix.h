/* Prefixes among themselves. */
#pragma once

#include "runtime/policy/policy.h"

enum {
        POLICY_V4_BITS = 32,
        POLICY_V6_BITS = 128,
};

/* An address as a number: of IPv4 below 2^32. */
unsigned __int128 policy_number(const uint8_t *bytes, bool is_v6);

/* IPv4 first, then by address; one that encloses others comes before them. */
int policy_prefix_compare(const struct policy_prefix *a, const struct policy_prefix *b);

/* Also when they are the same. */
bool policy_prefix_encloses(const struct policy_prefix *outer, const struct policy_prefix *inner);

/* ::ffff:0:0/96 */
bool policy_is_v4_mapped(const uint8_t bytes[static 16]);

/*
 * The IPv4 address that a NAT64 (64:ff9b::/96), 6to4 (2002::/16) or IPv4-compatible (::/96) address
 * may lead to.
 */
bool policy_embedded_v4(const struct policy_address *address, struct policy_address *ret_v4);

/* The three forms in which an IPv4 prefix is embedded so. */
enum { POLICY_EMBEDDINGS = 3 };
struct policy_prefix policy_embed_v4(const struct policy_prefix *v4, unsigned embedding);
