#include "test/bpf/packets.h"

#include <arpa/inet.h>
#include <check.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

enum {
        TRANSPORT_BYTES = 8,
        QUOTE_BYTES = 64, /* enough for any head with its transport's */
};

static void put(struct packet *packet, const void *bytes, size_t n)
{
        ck_assert_uint_le(packet->n + n, sizeof(packet->bytes));
        memcpy(packet->bytes + packet->n, bytes, n);
        packet->n += n;
}

static void put_ethernet(struct packet *packet, uint16_t type)
{
        const struct ethhdr head = { .h_proto = htons(type) };

        put(packet, &head, sizeof(head));
}

static void put_head4(struct packet *packet, const struct flow *flow, size_t n_behind)
{
        static const uint8_t record_route[4] = { 7, 4, 4, 0 };
        bool has_options = flow->twist == TWIST_OPTIONS;
        struct iphdr head = { .version = flow->twist == TWIST_VERSION ? 6 : 4,
                              .ihl = has_options ? 6 : 5,
                              .ttl = 64,
                              .protocol = flow->protocol };

        head.tot_len =
                htons((uint16_t)(head.ihl * 4U + (flow->twist == TWIST_LENGTH ? 0 : n_behind)));
        if (flow->twist == TWIST_FIRST_FRAGMENT)
                head.frag_off = htons(0x2000);
        if (flow->twist == TWIST_LATER_FRAGMENT)
                head.frag_off = htons(185);
        ck_assert_int_eq(inet_pton(AF_INET, flow->source, &head.saddr), 1);
        ck_assert_int_eq(inet_pton(AF_INET, flow->destination, &head.daddr), 1);
        put(packet, &head, sizeof(head));
        if (has_options)
                put(packet, record_route, sizeof(record_route));
}

static void put_head6(struct packet *packet, const struct flow *flow, size_t n_behind)
{
        const uint8_t extension[8] = { flow->protocol, 0, 1, 4 };
        bool is_extended = flow->twist == TWIST_OPTIONS || flow->twist == TWIST_FRAGMENT6;
        struct ipv6hdr head = { .version = flow->twist == TWIST_VERSION ? 4 : 6,
                                .nexthdr = flow->protocol,
                                .hop_limit = 64 };

        if (is_extended)
                head.nexthdr = flow->twist == TWIST_OPTIONS ? IPPROTO_HOPOPTS : IPPROTO_FRAGMENT;
        head.payload_len = htons(
                (uint16_t)(flow->twist == TWIST_LENGTH ? 0 : n_behind + (is_extended ? 8 : 0)));
        ck_assert_int_eq(inet_pton(AF_INET6, flow->source, &head.saddr), 1);
        ck_assert_int_eq(inet_pton(AF_INET6, flow->destination, &head.daddr), 1);
        put(packet, &head, sizeof(head));
        if (is_extended)
                put(packet, extension, sizeof(extension));
}

static void put_transport(struct packet *packet, const struct flow *flow)
{
        uint16_t words[4] = { htons(flow->source_port), htons(flow->port), htons(8) };

        if (flow->protocol == IPPROTO_ICMP || flow->protocol == IPPROTO_ICMPV6)
                words[0] = htons((uint16_t)(flow->type << 8));
        put(packet, words, sizeof(words));
}

static bool is_v6(const struct flow *flow)
{
        return strchr(flow->destination, ':') != NULL;
}

static void put_ip(struct packet *packet, const struct flow *flow, const struct packet *quoted)
{
        size_t n_behind = TRANSPORT_BYTES + (quoted ? quoted->n : 0);

        if (is_v6(flow))
                put_head6(packet, flow, n_behind);
        else
                put_head4(packet, flow, n_behind);
        put_transport(packet, flow);
        if (quoted)
                put(packet, quoted->bytes, quoted->n);
        if (flow->twist == TWIST_CUT)
                packet->n -= 1 + (quoted ? quoted->n : 0);
}

static struct packet make(const struct flow *flow, const struct packet *quoted)
{
        static const uint8_t tag[4] = { 0, 7, 8, 0 };
        struct packet packet = { .n = 0 };

        put_ethernet(&packet, flow->twist == TWIST_ARP    ? ETH_P_ARP
                              : flow->twist == TWIST_VLAN ? ETH_P_8021Q
                              : is_v6(flow)               ? ETH_P_IPV6
                                                          : ETH_P_IP);
        if (flow->twist == TWIST_VLAN)
                put(&packet, tag, sizeof(tag));
        put_ip(&packet, flow, quoted);
        return packet;
}

struct packet packet_make(const struct flow *flow)
{
        return make(flow, NULL);
}

struct packet packet_quote(const struct flow *flow, const struct flow *quoted)
{
        struct packet inner = { .n = 0 };

        put_ip(&inner, quoted, NULL);
        ck_assert_uint_le(inner.n, QUOTE_BYTES);
        return make(flow, &inner);
}
