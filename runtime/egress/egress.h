/*
 * hotcell-egress: what all networks share, and who tells it what to do. All of it belongs to the
 * loop thread; only what a large policy compiles to is made by another one (policy_making.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "runtime/base/wire.h"
#include "runtime/egress/dial.h"
#include "runtime/egress/events.h"
#include "runtime/egress/network_tables.h"
#include "runtime/egress/route.h"
#include "runtime/egress/server_sync.h"
#include "runtime/egress/tables.h"
#include "runtime/egress/teller.h"
#include "runtime/egress/wall_events.h"
#include "runtime/policy/always.h"

struct channel;
struct policy_turns;
struct resolver;
struct ring_buffer;
struct traffic_table;

enum {
        EGRESS_RUNTIME_FD = 3,
        EGRESS_OPENED_MAX = 64,
};

struct egress_options {
        const char *nameservers; /* with commas; NULL: the host's */
        struct policy_prefix opened[EGRESS_OPENED_MAX];
        size_t n_opened;
};

struct egress {
        sd_event *event;
        struct policy_always always;
        struct policy_prefix opened[EGRESS_OPENED_MAX];
        size_t n_opened;
        struct routes routes;
        struct resolver *resolver;
        bool has_v6;

        bool is_started; /* the runtime said what the wall is */
        struct tables tables;
        struct traffic_table *traffic; /* NULL: the runtime is older and has none */
        uint32_t program_ids[EGRESS_PROGRAMS_DIRECT];
        size_t n_programs;
        struct ring_buffer *ring; /* NULL: not all networks are known yet */
        sd_event_source *ring_source;
        struct wall_unclaimed unclaimed;
        struct events events;
        struct tellers tellers;
        sd_event_source *sending; /* enabled: there may be events to send */

        struct server_sync sync;
        struct policy_turns *turns; /* policies on their way into the tables and out of them */

        struct channel *runtime;
        struct channel *server;
        struct wire_arena arena; /* for the message at hand */

        size_t n_connections;     /* of all networks */
        size_t n_connections_max; /* for which there are descriptors */

        size_t n_named;            /* addresses that stand for names, of all networks */
        uint64_t next_expiry_usec; /* when expired ones of all networks are dropped again */

        struct network_tables networks;
};

int egress_init(struct egress *egress, const struct egress_options *options);
void egress_deinit(struct egress *egress);

/* Serves until it is told to stop or the runtime is gone. Returns the exit code. */
int egress_run(struct egress *egress);

/* How many connections there may be: what the sockets of so many networks leave of the descriptors,
 * with all their streams to the resolver, and some for the rest; at least half of them. */
void egress_count_places(struct egress *egress, uint32_t n_networks);

/* Takes what the BPF programs told so far. */
void egress_consume(struct egress *egress);
