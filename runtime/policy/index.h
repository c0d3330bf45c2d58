/*
 * Which of many prefixes is the longest that holds an address. The prefixes cut all addresses into
 * stretches, and each stretch has one answer: so a look-up is one binary search, however deep the
 * prefixes lie in one another.
 */
#pragma once

#include "runtime/policy/policy.h"
#include "runtime/policy/prefix.h"

enum { POLICY_INDEX_NONE = UINT32_MAX };

struct policy_index {
        unsigned __int128 *starts; /* of the stretches, ascending; those of IPv4, then of IPv6 */
        uint32_t *values;          /* their prefix's, or POLICY_INDEX_NONE */
        size_t n_v4;
        size_t n_stretches;
};

/* While it is built: the prefixes that enclose the current one. */
struct policy_index_builder {
        struct policy_index *index;
        bool is_v6;
        unsigned depth;
        struct {
                struct policy_prefix prefix;
                uint32_t value;
        } stack[POLICY_V6_BITS + 1];
};

/* Room for up to @n_prefixes. 0 or -ENOMEM. */
int policy_index_begin(struct policy_index_builder *builder, struct policy_index *index,
                       size_t n_prefixes);

/*
 * Prefixes come in the order of policy_prefix_compare(), each once. The value of the one that
 * encloses @prefix, or POLICY_INDEX_NONE; it is put in by policy_index_add() then, if at all.
 */
uint32_t policy_index_enclosing(struct policy_index_builder *builder,
                                const struct policy_prefix *prefix);
void policy_index_add(struct policy_index_builder *builder, const struct policy_prefix *prefix,
                      uint32_t value);
void policy_index_end(struct policy_index_builder *builder);

uint32_t policy_index_find(const struct policy_index *index, const struct policy_address *address);

void policy_index_deinit(struct policy_index *index);
