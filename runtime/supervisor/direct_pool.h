/*
 * Direct mode's addresses: a prefix of IPv4 and one of IPv6, or only one of them, out of which each
 * network has an address of its own. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* What is wrong with a prefix. direct_pool_problem_text() says it for people. */
enum direct_pool_problem {
        DIRECT_POOL_OK = 0,
        DIRECT_POOL_E_FORM,      /* no prefix */
        DIRECT_POOL_E_HOST_BITS, /* bits are set behind the prefix */
        DIRECT_POOL_E_KIND,      /* addresses that no device may have */
        DIRECT_POOL_E_TWICE,     /* there is one of this family */
        _DIRECT_POOL_PROBLEM_N,
};

enum { DIRECT_POOL_MAX = 65536 }; /* addresses that are used, of a larger one */

struct direct_prefix {
        bool is_set;
        uint8_t n_bits;
        uint8_t bytes[16]; /* network order; IPv4 in the first four */
};

struct direct_pool {
        struct direct_prefix v4;
        struct direct_prefix v6;
};

/* One network's, in network order; zeros of a family that has no prefix. */
struct direct_address {
        uint32_t v4;
        uint32_t v6[4];
};

/* Adds a prefix, such as `198.51.100.0/22`. */
int direct_pool_add(struct direct_pool *pool, const char *text);

const char *direct_pool_problem_text(int problem);

static inline bool direct_pool_is_set(const struct direct_pool *pool)
{
        return pool->v4.is_set || pool->v6.is_set;
}

/* How many networks there are addresses for, at most DIRECT_POOL_MAX. Not counted: the first
 * address of each prefix and the last one of IPv4. */
uint32_t direct_pool_size(const struct direct_pool *pool);

/* @index: below that. */
struct direct_address direct_pool_address(const struct direct_pool *pool, uint32_t index);
