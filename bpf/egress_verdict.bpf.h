/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * What may leave: a function of the tables, the sandbox, an address and a port. Apart from the
 * programs, so that a test can ask it directly.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/egress_abi.h"

enum {
        ISATAP = 0x00005efe, /* before the IPv4 address */
        ISATAP_UNIVERSAL = 0x02000000,
};

struct {
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __uint(max_entries, EGRESS_PREFIXES_MAX);
        __type(key, struct egress_prefix4);
        __type(value, struct egress_ranges);
} prefixes4 SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __uint(max_entries, EGRESS_PREFIXES_MAX);
        __type(key, struct egress_prefix6);
        __type(value, struct egress_ranges);
} prefixes6 SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __uint(max_entries, EGRESS_NAMES_MAX);
        __type(key, struct egress_name_key);
        __type(value, struct egress_name);
} names SEC(".maps");

/* Where somebody wants to go. IPv4 addresses that were mapped into IPv6 are IPv4. */
struct egress_destination {
        __u32 words[4]; /* network order; IPv4 in the first */
        __u16 port;
        __u8 is_v6;
        __u8 protocol;
};

static __always_inline struct egress_ranges *find_ranges(const struct egress_destination *to,
                                                         __u32 policy)
{
        if (to->is_v6) {
                struct egress_prefix6 key = { .prefix_bits = 32 + 128, .policy = policy };

                __builtin_memcpy(key.address, to->words, 16);
                return bpf_map_lookup_elem(&prefixes6, &key);
        } else {
                struct egress_prefix4 key = { .prefix_bits = 32 + 32, .policy = policy };

                __builtin_memcpy(key.address, to->words, 4);
                return bpf_map_lookup_elem(&prefixes4, &key);
        }
}

/* As ranges have it. */
static __always_inline __u8 kind_of(const struct egress_destination *to)
{
        return to->protocol == IPPROTO_ICMPV6 ? IPPROTO_ICMP : to->protocol;
}

/* A denied range of the protocol that holds the port, else an allowed one, else zero. */
static __always_inline __u32 judge_ranges(const struct egress_ranges *found,
                                          const struct egress_destination *to, __u16 *ret_rule)
{
        __u8 kind = kind_of(to);
        __u32 action = 0;

        /* As a loop it takes the kernel four times as long to verify the programs. */
#pragma unroll
        for (__u32 i = 0; i < EGRESS_RANGES_MAX; i++) {
                const struct egress_range *range = &found->ranges[i];

                if (i >= found->n_ranges)
                        break;
                if (to->port < range->low || to->port > range->high || action == EGRESS_DENY)
                        continue;
                if (range->protocol && range->protocol != kind)
                        continue;
                if (range->action == EGRESS_DENY || !action) {
                        action = range->action;
                        *ret_rule = range->rule;
                }
        }
        return action;
}

/* What the resolver gave out for a name that is allowed, and is still good. */
static __always_inline struct egress_name *find_name(const struct egress_destination *to,
                                                     __u32 policy)
{
        struct egress_name_key key = { .policy = policy };
        struct egress_name *found;

        if (to->is_v6) {
                __builtin_memcpy(key.address, to->words, 16);
        } else {
                key.address[10] = 0xff;
                key.address[11] = 0xff;
                __builtin_memcpy(key.address + 12, to->words, 4);
        }
        found = bpf_map_lookup_elem(&names, &key);
        return found && found->expire_nsec > bpf_ktime_get_ns() ? found : NULL;
}

static __always_inline bool is_allowed_name(const struct egress_destination *to, __u32 policy,
                                            __u16 *ret_rule)
{
        const struct egress_name *found = find_name(to, policy);

        return found && judge_ranges(&found->allowed, to, ret_rule) == EGRESS_ALLOW;
}

/* TCP goes by way of the relay; UDP and echo requests by the sandbox's own device, if it has one.
 */
static __always_inline bool is_carried(const struct egress_sandbox *sandbox,
                                       const struct egress_destination *to)
{
        __u8 icmp = to->is_v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;

        if (to->protocol == IPPROTO_TCP)
                return true;
        return sandbox->direct & (to->is_v6 ? EGRESS_DIRECT6 : EGRESS_DIRECT4) &&
               (to->protocol == IPPROTO_UDP || to->protocol == icmp);
}

/*
 * The IPv4 address to which an IPv6 one may lead: of NAT64 (64:ff9b::/96), 6to4 (2002::/16), the
 * IPv4-compatible form (::/96), or ISATAP (RFC 5214 6.1; the bit says that the address is the only
 * one). Of TCP the relay looks.
 */
static __always_inline bool read_within(const struct egress_destination *to,
                                        struct egress_destination *ret_v4)
{
        __u32 head = bpf_ntohl(to->words[0]);

        if (!to->is_v6 || to->protocol == IPPROTO_TCP)
                return false;
        ret_v4->port = to->port;
        ret_v4->protocol = to->protocol;
        ret_v4->words[0] = to->words[3];
        if ((head == 0 || head == 0x64ff9bU) && to->words[1] == 0 && to->words[2] == 0)
                return true;
        if ((bpf_ntohl(to->words[2]) & ~ISATAP_UNIVERSAL) == ISATAP)
                return true;
        ret_v4->words[0] = bpf_htonl(head << 16 | bpf_ntohl(to->words[1]) >> 16);
        return head >> 16 == 0x2002;
}

/* ISATAP's are in any prefix, so what is always denied has no entries for them as for the others.
 */
static __always_inline bool is_always_denied(const struct egress_destination *to, __u16 *ret_rule)
{
        const struct egress_ranges *found = find_ranges(to, EGRESS_POLICY_ALWAYS);
        struct egress_destination v4 = { 0 };

        if (!found && read_within(to, &v4))
                found = find_ranges(&v4, EGRESS_POLICY_ALWAYS);
        return found && judge_ranges(found, to, ret_rule) == EGRESS_DENY;
}

static __always_inline bool is_denied_within(const struct egress_destination *to, __u32 policy,
                                             __u16 *ret_rule)
{
        struct egress_destination v4 = { 0 };
        const struct egress_ranges *found;

        if (!read_within(to, &v4))
                return false;
        found = find_ranges(&v4, policy);
        return found && judge_ranges(found, &v4, ret_rule) == EGRESS_DENY;
}

/* What the operator opened has an entry that denies nothing: the default does not lead there. */
static __always_inline bool is_public(const struct egress_destination *to)
{
        return !find_ranges(to, EGRESS_POLICY_ALWAYS);
}

/* What names and the default let through is TCP alone. */
static __always_inline enum egress_verdict judge_rest(const struct egress_sandbox *sandbox,
                                                      const struct egress_destination *to,
                                                      __u16 *ret_rule)
{
        if (to->protocol != IPPROTO_TCP)
                return EGRESS_DENIED_DEFAULT;
        if (is_allowed_name(to, sandbox->policy, ret_rule))
                return EGRESS_ALLOWED_NAME;
        return sandbox->default_action == EGRESS_ALLOW && is_public(to) ? EGRESS_ALLOWED_DEFAULT
                                                                        : EGRESS_DENIED_DEFAULT;
}

/* Of something that leaves the sandbox. */
static __always_inline enum egress_verdict
judge(const struct egress_sandbox *sandbox, const struct egress_destination *to, __u16 *ret_rule)
{
        struct egress_ranges *found;

        if (!is_carried(sandbox, to))
                return EGRESS_DENIED_PROTOCOL;
        if (is_always_denied(to, ret_rule))
                return EGRESS_DENIED_ALWAYS;
        if (sandbox->policy == EGRESS_POLICY_ALWAYS)
                return EGRESS_DENIED_UNREADY;
        if (is_denied_within(to, sandbox->policy, ret_rule))
                return EGRESS_DENIED_RULE;
        found = find_ranges(to, sandbox->policy);
        switch (found ? judge_ranges(found, to, ret_rule) : 0) {
        case EGRESS_DENY:
                return EGRESS_DENIED_RULE;
        case EGRESS_ALLOW:
                return EGRESS_ALLOWED_RULE;
        }
        return judge_rest(sandbox, to, ret_rule);
}

/*
 * connect() of a datagram socket sends nothing, and getaddrinfo() does it with each address that it
 * found, to learn which it could reach first: no attempt to get out by another protocol than TCP.
 */
static __always_inline bool is_lookup(const struct egress_sandbox *sandbox,
                                      const struct egress_destination *to)
{
        struct egress_destination by_tcp = *to;
        __u16 rule;

        if (to->protocol != IPPROTO_UDP)
                return false;
        if (find_name(to, sandbox->policy))
                return true;
        by_tcp.protocol = IPPROTO_TCP;
        return judge(sandbox, &by_tcp, &rule) <= EGRESS_ALLOWED_DEFAULT;
}
