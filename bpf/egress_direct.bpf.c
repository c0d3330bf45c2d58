/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Direct mode: the programs at the host's end of each sandbox's device, which decide about every
 * packet, whatever it was sent by. A device that is not in the table carries nothing.
 *
 * An object of its own, which is loaded in direct mode only and takes its other tables from
 * egress.bpf.c: the kernel tells the way of a packet (bpf_fib_lookup) to no program whose licence
 * is not compatible with its own.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/egress_packet.bpf.h"
#include "bpf/egress_tables.bpf.h"

enum {
        PASS = 0, /* TC_ACT_OK */
        DROP = 2, /* TC_ACT_SHOT */
        AF_INET_NUMBER = 2,
        AF_INET6_NUMBER = 10,
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 1); /* set before loading */
        __type(key, __u32);     /* the device's number */
        __type(value, struct egress_device);
} devices SEC(".maps");

/* Nobody knows here which process it was. */
static __always_inline void tell_of_packet(__u64 cgroup_id, const struct egress_sandbox *sandbox,
                                           const struct egress_destination *to,
                                           enum egress_verdict verdict, __u16 rule)
{
        struct egress_counts *count = bpf_map_lookup_elem(&counts, &cgroup_id);
        struct egress_event *event;

        if (!count)
                return;
        __sync_fetch_and_add(&count->n_denied, 1);
        event = new_event(count);
        if (!event)
                return;
        fill_event(event, cgroup_id, sandbox, to, verdict, rule);
        bpf_ringbuf_submit(event, 0);
}

static __always_inline void fill_lookup(const struct __sk_buff *skb,
                                        const struct egress_packet *packet,
                                        struct bpf_fib_lookup *lookup)
{
        lookup->ifindex = skb->ifindex;
        lookup->l4_protocol = packet->to.protocol;
        lookup->sport = bpf_htons(packet->source_port);
        lookup->dport = bpf_htons(packet->to.port);
        if (packet->to.is_v6) {
                lookup->family = AF_INET6_NUMBER;
                __builtin_memcpy(lookup->ipv6_src, packet->source, sizeof(lookup->ipv6_src));
                __builtin_memcpy(lookup->ipv6_dst, packet->to.words, sizeof(lookup->ipv6_dst));
        } else {
                lookup->family = AF_INET_NUMBER;
                lookup->ipv4_src = packet->source[0];
                lookup->ipv4_dst = packet->to.words[0];
        }
}

/*
 * Whether the host would send it on, and not to another sandbox. What is not sent on is the host's
 * own, or for many, or there is no way to it. What is too large the kernel refuses, and says so.
 */
static __always_inline enum egress_verdict judge_way(struct __sk_buff *skb,
                                                     const struct egress_packet *packet)
{
        struct bpf_fib_lookup lookup = { 0 };
        __u32 device;

        fill_lookup(skb, packet, &lookup);
        switch (bpf_fib_lookup(skb, &lookup, sizeof(lookup), 0)) {
        case BPF_FIB_LKUP_RET_SUCCESS:
        case BPF_FIB_LKUP_RET_NO_NEIGH:
        case BPF_FIB_LKUP_RET_FRAG_NEEDED:
                device = lookup.ifindex;
                return bpf_map_lookup_elem(&devices, &device) ? EGRESS_DENIED_ALWAYS
                                                              : EGRESS_ALLOWED_RULE;
        case BPF_FIB_LKUP_RET_NOT_FWDED:
                return EGRESS_DENIED_ALWAYS;
        default:
                return EGRESS_DENIED_ROUTE;
        }
}

/* Of one that stands for several (GSO) as they will be on the way: each has a head. */
static __always_inline __u64 n_packets(const struct __sk_buff *skb)
{
        return skb->gso_segs > 1 ? skb->gso_segs : 1;
}

static __always_inline __u64 n_bytes(const struct __sk_buff *skb,
                                     const struct egress_packet *packet)
{
        __u64 head = (packet->to.is_v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
                     TRANSPORT_BYTES;

        return skb->len - ETH_HLEN + (n_packets(skb) - 1) * head;
}

static __always_inline void count_sent(const struct __sk_buff *skb, __u64 cgroup_id,
                                       const struct egress_packet *packet)
{
        struct egress_counts *count = bpf_map_lookup_elem(&counts, &cgroup_id);

        if (!count)
                return;
        __sync_fetch_and_add(&count->sent_packets, n_packets(skb));
        __sync_fetch_and_add(&count->sent_bytes, n_bytes(skb, packet));
}

static __always_inline void count_received(const struct __sk_buff *skb, __u64 cgroup_id,
                                           const struct egress_packet *packet)
{
        struct egress_counts *count = bpf_map_lookup_elem(&counts, &cgroup_id);

        if (!count)
                return;
        __sync_fetch_and_add(&count->received_packets, n_packets(skb));
        __sync_fetch_and_add(&count->received_bytes, n_bytes(skb, packet));
}

static __always_inline bool is_ip(const struct __sk_buff *skb)
{
        return !skb->vlan_present &&
               (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6));
}

/* From the sandbox. */
SEC("tc")
int egress_from_sandbox(struct __sk_buff *skb)
{
        __u32 number = skb->ifindex;
        struct egress_device *device = bpf_map_lookup_elem(&devices, &number);
        struct egress_packet packet = { 0 };
        enum egress_verdict verdict = EGRESS_DENIED_PACKET;
        struct egress_sandbox *sandbox;
        __u64 cgroup_id;
        __u16 rule = 0;

        /* Neighbours are known on both sides, so who asks for one asks for nothing that is there.
         */
        if (!device || skb->protocol == bpf_htons(ETH_P_ARP))
                return DROP;
        cgroup_id = device->cgroup_id;
        sandbox = bpf_map_lookup_elem(&sandboxes, &cgroup_id);
        if (is_ip(skb)) {
                read_packet(skb, ETH_HLEN, skb->protocol == bpf_htons(ETH_P_IPV6), &packet);
                if (is_noise(&packet))
                        return DROP;
                verdict = judge_outward(device, sandbox, &packet, &rule);
        }
        if (verdict == EGRESS_ALLOWED_RULE)
                verdict = judge_way(skb, &packet);
        if (verdict == EGRESS_ALLOWED_RULE) {
                count_sent(skb, cgroup_id, &packet);
                return PASS;
        }
        tell_of_packet(cgroup_id, sandbox, &packet.to, verdict, rule);
        return DROP;
}

/* To the sandbox. */
SEC("tc")
int egress_to_sandbox(struct __sk_buff *skb)
{
        __u32 number = skb->ifindex;
        struct egress_device *device = bpf_map_lookup_elem(&devices, &number);
        struct egress_packet packet = { 0 };
        struct egress_sandbox *sandbox;
        struct egress_counts *count;
        __u64 cgroup_id;

        if (!device)
                return DROP;
        cgroup_id = device->cgroup_id;
        sandbox = bpf_map_lookup_elem(&sandboxes, &cgroup_id);
        if (sandbox && is_ip(skb)) {
                read_packet(skb, ETH_HLEN, skb->protocol == bpf_htons(ETH_P_IPV6), &packet);
                if (is_inward(skb, device, sandbox, &packet)) {
                        count_received(skb, cgroup_id, &packet);
                        return PASS;
                }
        }
        count = bpf_map_lookup_elem(&counts, &cgroup_id);
        if (count)
                __sync_fetch_and_add(&count->n_unasked, 1);
        return DROP;
}

char egress_direct_license[] SEC("license") = "Dual BSD/GPL";
