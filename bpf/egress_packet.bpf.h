/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets as they pass the host's end of a sandbox's device: what is in them, and what may go each
 * way. Apart from the programs: functions of a packet, the tables and the sandbox.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "bpf/egress_verdict.bpf.h"

enum {
        ICMP4_ECHO_REPLY = 0,
        ICMP4_UNREACHABLE = 3, /* and too big */
        ICMP4_ECHO = 8,
        ICMP4_TIME_EXCEEDED = 11,
        ICMP4_PARAMETER_PROBLEM = 12,
        ICMP6_UNREACHABLE = 1,
        ICMP6_TOO_BIG = 2,
        ICMP6_TIME_EXCEEDED = 3,
        ICMP6_PARAMETER_PROBLEM = 4,
        ICMP6_ECHO = 128,
        ICMP6_ECHO_REPLY = 129,
        ICMP6_MULTICAST_FIRST = 130, /* listeners, routers, neighbours, redirects */
        ICMP6_MULTICAST_LAST = 137,
        ICMP6_MULTICAST_REPORT = 143,

        FRAGMENT = 0x3fff, /* more of them, or an offset */
        IPV6_HOP_BY_HOP = 0,
        TRANSPORT_BYTES = 8, /* of UDP or ICMP */
};

/* The first eight bytes behind the head. */
union egress_transport {
        __u8 bytes[TRANSPORT_BYTES];
        __be16 ports[2];
};

struct egress_packet {
        __u32 source[4]; /* as words of struct egress_destination */
        __u16 source_port;
        __u8 type;      /* of ICMP */
        __u8 is_plain;  /* a whole packet: UDP or ICMP right behind a head without options */
        __u8 is_groups; /* the kernel's own reports of the groups that it is in */
        __u8 unused[3];
        __u32 behind; /* offset of what is behind the transport's head */
        struct egress_destination to;
};

/* The addresses that a sandbox's device has. */
static __always_inline bool is_own(const struct egress_device *device, const __u32 *words,
                                   bool is_v6)
{
        if (!is_v6)
                return device->address4 && words[0] == device->address4;
        return (device->address6[0] || device->address6[3]) && words[0] == device->address6[0] &&
               words[1] == device->address6[1] && words[2] == device->address6[2] &&
               words[3] == device->address6[3];
}

/* --- reading ---------------------------------------------------------------------------------- */

static __always_inline void read_transport(struct __sk_buff *skb, __u32 at,
                                           struct egress_packet *packet)
{
        union egress_transport head;
        __u8 icmp = packet->to.is_v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;

        if (packet->to.protocol != IPPROTO_UDP && packet->to.protocol != icmp)
                return;
        if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
                return;
        packet->behind = at + TRANSPORT_BYTES;
        packet->is_plain = 1;
        if (packet->to.protocol == icmp) {
                packet->type = head.bytes[0];
        } else {
                packet->source_port = bpf_ntohs(head.ports[0]);
                packet->to.port = bpf_ntohs(head.ports[1]);
        }
}

static __always_inline void read_packet4(struct __sk_buff *skb, __u32 at,
                                         struct egress_packet *packet)
{
        struct iphdr head;

        if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
                return;
        packet->source[0] = head.saddr;
        packet->to.words[0] = head.daddr;
        packet->to.protocol = head.protocol;
        packet->is_groups = head.protocol == IPPROTO_IGMP;
        if (head.version == 4 && head.ihl == sizeof(head) / 4 &&
            !(bpf_ntohs(head.frag_off) & FRAGMENT) &&
            bpf_ntohs(head.tot_len) >= sizeof(head) + TRANSPORT_BYTES)
                read_transport(skb, at + sizeof(head), packet);
}

static __always_inline void read_packet6(struct __sk_buff *skb, __u32 at,
                                         struct egress_packet *packet)
{
        struct ipv6hdr head;

        packet->to.is_v6 = 1;
        if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
                return;
        __builtin_memcpy(packet->source, &head.saddr, sizeof(packet->source));
        __builtin_memcpy(packet->to.words, &head.daddr, sizeof(packet->to.words));
        packet->to.protocol = head.nexthdr;
        packet->is_groups = head.nexthdr == IPV6_HOP_BY_HOP &&
                            (bpf_ntohl(packet->to.words[0]) & 0xff0f0000U) == 0xff020000U;
        if (head.version == 6 && bpf_ntohs(head.payload_len) >= TRANSPORT_BYTES)
                read_transport(skb, at + sizeof(head), packet);
}

/* Of the family that @packet has. */
static __always_inline void read_packet(struct __sk_buff *skb, __u32 at, bool is_v6,
                                        struct egress_packet *packet)
{
        if (is_v6)
                read_packet6(skb, at, packet);
        else
                read_packet4(skb, at, packet);
}

/* --- kinds ------------------------------------------------------------------------------------ */

static __always_inline bool is_icmp(const struct egress_packet *packet)
{
        return packet->is_plain && packet->to.protocol != IPPROTO_UDP;
}

static __always_inline bool is_echo(const struct egress_packet *packet)
{
        return is_icmp(packet) && packet->type == (packet->to.is_v6 ? ICMP6_ECHO : ICMP4_ECHO);
}

static __always_inline bool is_echo_reply(const struct egress_packet *packet)
{
        return is_icmp(packet) &&
               packet->type == (packet->to.is_v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY);
}

/* What says of another packet that it did not arrive. */
static __always_inline bool is_error(const struct egress_packet *packet)
{
        if (!is_icmp(packet))
                return false;
        if (packet->to.is_v6)
                return packet->type >= ICMP6_UNREACHABLE && packet->type <= ICMP6_TIME_EXCEEDED;
        return packet->type == ICMP4_UNREACHABLE || packet->type == ICMP4_TIME_EXCEEDED;
}

/* What the sandbox's kernel sends by itself, whatever its programs do: no attempt of theirs. */
static __always_inline bool is_noise(const struct egress_packet *packet)
{
        if (packet->is_groups || is_error(packet))
                return true;
        if (!is_icmp(packet))
                return false;
        if (!packet->to.is_v6)
                return packet->type == ICMP4_PARAMETER_PROBLEM;
        return packet->type == ICMP6_PARAMETER_PROBLEM || packet->type == ICMP6_MULTICAST_REPORT ||
               (packet->type >= ICMP6_MULTICAST_FIRST && packet->type <= ICMP6_MULTICAST_LAST);
}

/* --- judging ---------------------------------------------------------------------------------- */

/* Of a packet that comes from the sandbox, apart from whether there is a way. */
static __always_inline enum egress_verdict judge_outward(const struct egress_device *device,
                                                         const struct egress_sandbox *sandbox,
                                                         const struct egress_packet *packet,
                                                         __u16 *ret_rule)
{
        if (!packet->is_plain || (packet->to.protocol != IPPROTO_UDP && !is_echo(packet)))
                return EGRESS_DENIED_PACKET;
        if (!is_own(device, packet->source, packet->to.is_v6))
                return EGRESS_DENIED_SOURCE;
        return sandbox ? judge(sandbox, &packet->to, ret_rule) : EGRESS_DENIED_DEFAULT;
}

/* Whether the sandbox could have sent this. */
static __always_inline bool is_outward(const struct egress_device *device,
                                       const struct egress_sandbox *sandbox,
                                       const struct egress_packet *packet)
{
        __u16 rule;

        return judge_outward(device, sandbox, packet, &rule) == EGRESS_ALLOWED_RULE;
}

/* What a packet would have been sent to that is answered by this one. */
static __always_inline void turn_round(struct egress_packet *packet)
{
        __builtin_memcpy(packet->to.words, packet->source, sizeof(packet->to.words));
        packet->to.port = packet->source_port;
}

/* Whether a packet may go to the sandbox: an answer, or an error about what it may send. */
static __always_inline bool is_inward(struct __sk_buff *skb, const struct egress_device *device,
                                      const struct egress_sandbox *sandbox,
                                      struct egress_packet *packet)
{
        __u16 rule;

        if (!packet->is_plain || !is_own(device, packet->to.words, packet->to.is_v6))
                return false;
        if (is_error(packet)) {
                struct egress_packet about = { 0 };

                read_packet(skb, packet->behind, packet->to.is_v6, &about);
                return is_outward(device, sandbox, &about);
        }
        if (packet->to.protocol != IPPROTO_UDP && !is_echo_reply(packet))
                return false;
        turn_round(packet);
        return judge(sandbox, &packet->to, &rule) == EGRESS_ALLOWED_RULE;
}
