/*
 * A sandbox's network as the relay serves it: its sockets, its policy, the names that it asked for,
 * and its connections. A network without a policy refuses all.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>
#include <uthash.h>

#include "runtime/base/dns_label.h"
#include "runtime/egress/events.h"
#include "runtime/egress/names.h"
#include "runtime/egress/server_sync.h"
#include "runtime/policy/compile.h"
#include "runtime/policy/verdict.h"

struct connection;
struct dns_stream;
struct egress;
struct resolver_client;
struct teller;

enum network_socket {
        NETWORK_RELAY,
        NETWORK_DNS_DATAGRAM,
        NETWORK_DNS_STREAM,
        _NETWORK_SOCKET_N,
};

enum {
        NETWORK_PORT_HTTP = 80,
        NETWORK_PORT_TLS = 443,
        NETWORK_CONNECTIONS_MAX = 1024,
        NETWORK_POLICY_DIGEST = 32,
};

/* A policy that is in force, or about to be. */
struct network_policy {
        struct policy_table table;
        uint32_t number; /* of the wall's tables */
        int64_t version;
        uint8_t digest[NETWORK_POLICY_DIGEST];
};

struct network {
        UT_hash_handle by_id;
        UT_hash_handle by_group;
        struct egress *egress;
        char sandbox_id[ID_BUFFER];
        uint64_t cgroup_id;
        uint64_t init_cgroup_id;
        uint32_t slot;
        uint16_t relay_port;
        uint8_t direct; /* EGRESS_DIRECT4, EGRESS_DIRECT6: what its device has an address of */

        bool is_inherited; /* see struct network_spec */
        bool has_proof4;   /* its init was refused, and the event of that came */
        bool has_proof6;

        int sockets[_NETWORK_SOCKET_N];
        sd_event_source *sources[_NETWORK_SOCKET_N];
        sd_event_source *pause;        /* enabled: the listeners rest, for a want of descriptors */
        uint64_t taken[EGRESS_TOKENS]; /* serial numbers of the tokens that came, by their place */

        struct teller *teller;
        struct told_counts told; /* of the wall's */

        bool has_policy;
        struct network_policy policy;
        struct names names;
        struct resolver_client *resolver;
        LIST_HEAD(, connection) connections;
        size_t n_connections;
        size_t n_wide_pipes; /* of its flows */
        LIST_HEAD(, dns_stream) dns_streams;
        size_t n_dns_streams;
};

struct network_spec {
        const char *sandbox_id;
        uint64_t cgroup_id;
        uint64_t init_cgroup_id;
        uint32_t slot;
        uint16_t relay_port;
        uint8_t direct;
        bool is_inherited; /* from a hotcell-egress before, which had the events of its proof */
};

/* Takes the sockets in any case. */
int network_new(struct egress *egress, const struct network_spec *spec,
                const int sockets[static _NETWORK_SOCKET_N], struct network **ret_network);

/* Ends all that goes on in it. Returns NULL. */
struct network *network_free(struct network *network);

/*
 * Puts a policy in force whose entries are in the wall's tables: first in the wall, then here; then
 * what it does not allow is cut. Takes the table when it succeeds. *@ret_n_cut: connections.
 */
int network_set_policy(struct network *network, const struct network_policy *policy,
                       size_t *ret_n_cut);

/* Where the names of an address do not allow more than themselves: by what is said there first. */
bool network_must_say_name(uint16_t port);

/* What the policy says of a connection, by its address and each name that it stands for. */
struct network_ruling {
        bool is_allowed;
        bool is_by_name; /* only because of a name: what is said in the connection must agree */
        Hotcell__Egress__V1__Reason reason; /* when it is not */
        uint32_t rule;
        char name[POLICY_DOMAIN_BUFFER]; /* the name that was asked for, if any */
};

void network_judge(struct network *network, const struct policy_address *address, uint16_t port,
                   struct network_ruling *ret_ruling);

/* The same for a name that was said in the connection. */
bool network_allows_name(const struct network *network, const struct policy_address *address,
                         uint16_t port, const char *name);

/* An event of this network, to be completed and pushed. */
struct event network_event(const struct network *network, Hotcell__Egress__V1__Source source,
                           Hotcell__Egress__V1__Decision decision);

/* No connection could be accepted for a want of descriptors or memory: listens again a little
 * later. */
void network_rest(struct network *network);

/* What came to its sockets and was not heard yet: a turn of each. */
void network_hear(struct network *network);

/* Refusals that the probe from within the sandbox is counted with. */
uint64_t network_n_probes(const struct network *network);

/*
 * Whether the probe from within the sandbox (egress_probe.h) was refused, counted and told, and its
 * own events came. Of a network that was inherited the counts alone are known.
 */
bool network_is_proven(const struct network *network);
