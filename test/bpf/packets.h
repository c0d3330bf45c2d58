/* Packets made by hand, with their Ethernet heads. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { PACKET_MAX = 256 };

/* What is odd about a packet. */
enum twist {
        TWIST_NONE,
        TWIST_FIRST_FRAGMENT,
        TWIST_LATER_FRAGMENT,
        TWIST_OPTIONS,   /* IPv4: more than a head; IPv6: a hop-by-hop head */
        TWIST_FRAGMENT6, /* IPv6: a fragment's head */
        TWIST_VERSION,   /* the other one's */
        TWIST_CUT,       /* ends within the transport's head */
        TWIST_LENGTH,    /* the IP head says that there is nothing behind it */
        TWIST_ARP,
        TWIST_VLAN,
};

struct flow {
        const char *source;
        const char *destination; /* with a colon: of IPv6 */
        uint8_t protocol;        /* IPPROTO_… */
        uint8_t type;            /* of ICMP */
        uint16_t source_port;
        uint16_t port;
        enum twist twist;
};

struct packet {
        uint8_t bytes[PACKET_MAX];
        size_t n;
};

struct packet packet_make(const struct flow *flow);

/* An ICMP packet that quotes another one, without that one's Ethernet head. */
struct packet packet_quote(const struct flow *flow, const struct flow *quoted);
