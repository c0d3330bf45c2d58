/*
 * hotcell-egress as the runtime has it: started and started again, and told of every network. What
 * the networks and the wall need lives here, in the runtime and the kernel, so that a relay that
 * died is replaced without a sandbox noticing more than a cut connection.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "runtime/supervisor/service.h"

struct egress_wall;
struct relay;
struct sandbox;
struct traffic_table;

struct relay_config {
        struct service_config service;       /* the callbacks are the relay's own */
        const struct egress_wall *wall;      /* borrowed */
        const struct traffic_table *traffic; /* likewise */
        uint32_t n_slots;
        /* It was started: it is to be told of all networks (relay_add_network()), and hotcelld of
         * it (relay_open_server_socket()). */
        void (*on_started)(void *userdata);
        /* It ended after relay_stop(). */
        void (*on_stopped)(void *userdata);
        void *userdata;
};

/* Starts it. */
int relay_new(sd_event *event, struct reaper *reaper, const struct relay_config *config,
              struct relay **ret_relay);

/* A sandbox runs. It must stay until relay_remove_network(). */
void relay_add_network(struct relay *relay, const struct sandbox *sandbox);

/* Nothing of it runs any more, and the wall still has its counts. */
void relay_remove_network(struct relay *relay, const struct sandbox *sandbox);

/* A new connection for hotcelld, which replaces the one before. The descriptor is the caller's. */
int relay_open_server_socket(struct relay *relay, int *ret_fd);

/* See service_renew(). */
void relay_renew(struct relay *relay);

/* SIGTERM, and SIGKILL later. on_stopped follows, at once if it does not run. */
void relay_stop(struct relay *relay);

/* Must not run. Returns NULL. */
struct relay *relay_free(struct relay *relay);
