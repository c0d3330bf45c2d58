/*
 * A world for direct mode: two sandboxes with devices, a policy, and a host in a network of its own
 * from which a device leads on to nobody.
 */
#pragma once

#include <stdbool.h>

#include "runtime/egress/tables.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/links.h"
#include "test/bpf/fixture.h"
#include "test/bpf/packets.h"

enum {
        POLICY_VERSION = 7,
        DENIED_RULE = 3,         /* of DENIED4 */
        DENIED_WITHIN_RULE = 13, /* of what is denied within other addresses, too */
};

#define OWN4     "198.51.100.1"
#define OWN6     "2001:db8:7::1"
#define OTHER4   "198.51.100.2" /* the other sandbox's */
#define OTHER6   "2001:db8:7::2"
#define HOST4    "93.184.215.14" /* of the host itself */
#define HOST6    "2606:2800:21f::14"
#define NEAR4    "93.184.215.1" /* a neighbour of the host */
#define ALLOWED4 "93.184.216.34"
#define ALLOWED6 "2606:2800:220:1::34"
#define DENIED4  "93.184.216.66" /* by a rule */
#define BESIDE4  "93.184.217.1"  /* no rule is about it */
#define BESIDE6  "2606:2801::1"

struct direct_world {
        struct fixture f;
        struct tables tables;
        struct policy_always always;
        struct policy_table table;
        struct direct_pool pool;
        struct direct *direct;
        struct mnl_socket *home; /* speaks of the host's network */
        char run_dir[64];
};

/* One, of the test at hand. */
extern struct direct_world world;

/* Leaves the network of the test for the host's. */
void direct_world_setup(void);
void direct_world_teardown(void);

/* Both sandboxes' policy, by its number in the tables. */
void direct_world_point_at(uint32_t number);

void direct_world_set(const char *path, const char *value);

/* Rows of struct flow. */
#define UDP4(from, to, port, twist)                                                                \
        {                                                                                          \
                from, to, IPPROTO_UDP, 0, 4444, port, twist                                        \
        }
#define ICMP4(from, to, type, twist)                                                               \
        {                                                                                          \
                from, to, IPPROTO_ICMP, type, 0, 0, twist                                          \
        }
#define ICMP6(from, to, type, twist)                                                               \
        {                                                                                          \
                from, to, IPPROTO_ICMPV6, type, 0, 0, twist                                        \
        }
#define UDP6 UDP4
