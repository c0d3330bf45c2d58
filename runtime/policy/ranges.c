/*
 * The fewest ranges that cover the same ports: from the first port that is not covered yet, always
 * the one of those that begin before it that goes on longest.
 */
#include "runtime/policy/ranges.h"

#include <stdlib.h>
#include <string.h>

/* Ranges that were picked, ascending. */
struct picks {
        struct policy_range ranges[POLICY_ENTRY_RANGES + 1];
        size_t n; /* the last of them: too many */
};

size_t policy_ranges_of(const struct policy *policy, size_t rule, struct policy_range *ranges)
{
        const struct policy_rule *from = &policy->rules[rule];

        for (size_t i = 0; i < from->n_ports; i++) {
                ranges[i] = (struct policy_range){
                        .low = from->ports[i].low,
                        .high = from->ports[i].high,
                        .action = (uint8_t)from->action,
                        .protocol = (uint8_t)from->protocol,
                        .rule = (uint32_t)rule,
                };
        }
        if (from->n_ports > 0)
                return from->n_ports;
        ranges[0] = (struct policy_range){
                .high = UINT16_MAX,
                .action = (uint8_t)from->action,
                .protocol = (uint8_t)from->protocol,
                .rule = (uint32_t)rule,
        };
        return 1;
}

/* By protocol; of one those that deny first, each kind by its low ends; of equal ones the earliest
 * rule is named. */
static int compare(const void *left, const void *right)
{
        const struct policy_range *a = left, *b = right;

        if (a->protocol != b->protocol)
                return a->protocol < b->protocol ? -1 : 1;
        if (a->action != b->action)
                return a->action == POLICY_DENY ? -1 : 1;
        if (a->low != b->low)
                return a->low < b->low ? -1 : 1;
        return (a->rule > b->rule) - (a->rule < b->rule);
}

/* The first port from @port on that none of @denied holds. */
static uint32_t skip_denied(const struct picks *denied, uint32_t port)
{
        for (size_t i = 0; i < denied->n; i++) {
                if (denied->ranges[i].low <= port && port <= denied->ranges[i].high)
                        port = denied->ranges[i].high + 1U;
        }
        return port;
}

/* Covers all ports of @ranges, sorted and of one action, that are not in @denied. */
static void pick(const struct policy_range *ranges, size_t n, const struct picks *denied,
                 struct picks *picks)
{
        const struct policy_range *longest = NULL;
        uint32_t port = 0;
        size_t next = 0;

        while (picks->n <= POLICY_ENTRY_RANGES) {
                port = skip_denied(denied, port);
                for (; next < n && ranges[next].low <= port; next++) {
                        if (!longest || ranges[next].high > longest->high)
                                longest = &ranges[next];
                }
                if (longest && longest->high >= port) {
                        picks->ranges[picks->n++] = *longest;
                        port = longest->high + 1U;
                } else if (next < n) {
                        port = ranges[next].low;
                } else {
                        return;
                }
        }
}

/* @ranges: of one protocol, sorted. Puts what it picks behind the @n_before that are there. */
static size_t reduce_protocol(const struct policy_range *ranges, size_t n, size_t n_before,
                              struct policy_range ret_ranges[static POLICY_ENTRY_RANGES])
{
        struct picks denied = { .n = 0 }, allowed = { .n = 0 };
        size_t n_deny = 0;

        while (n_deny < n && ranges[n_deny].action == POLICY_DENY)
                n_deny++;
        pick(ranges, n_deny, &(struct picks){ .n = 0 }, &denied);
        if (denied.n > POLICY_ENTRY_RANGES)
                return n_before + denied.n;
        pick(ranges + n_deny, n - n_deny, &denied, &allowed);
        if (n_before + denied.n + allowed.n > POLICY_ENTRY_RANGES)
                return n_before + denied.n + allowed.n;
        memcpy(ret_ranges + n_before, denied.ranges, denied.n * sizeof(*ret_ranges));
        memcpy(ret_ranges + n_before + denied.n, allowed.ranges, allowed.n * sizeof(*ret_ranges));
        return n_before + denied.n + allowed.n;
}

size_t policy_ranges_reduce(struct policy_range *ranges, size_t n,
                            struct policy_range ret_ranges[static POLICY_ENTRY_RANGES])
{
        size_t first = 0, n_kept = 0;

        qsort(ranges, n, sizeof(*ranges), compare);
        while (first < n && n_kept <= POLICY_ENTRY_RANGES) {
                size_t next = first + 1;

                while (next < n && ranges[next].protocol == ranges[first].protocol)
                        next++;
                n_kept = reduce_protocol(ranges + first, next - first, n_kept, ret_ranges);
                first = next;
        }
        return n_kept;
}

const struct policy_range *policy_ranges_find(const struct policy_range *ranges, size_t n,
                                              enum policy_protocol protocol, uint16_t port)
{
        for (size_t i = 0; i < n; i++) {
                if (ranges[i].protocol == protocol && ranges[i].low <= port &&
                    port <= ranges[i].high)
                        return &ranges[i];
        }
        return NULL;
}
