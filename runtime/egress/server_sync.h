/*
 * What hotcelld has to have been told before an execution is said to have ended, and what the wall
 * counted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct egress;
struct network;

enum { SYNCS_MAX = 1024 };

/* Its answers to come. All zeros is none. */
struct server_sync {
        struct {
                uint64_t request;
                uint64_t cgroup_id; /* zero: there is no such network */
                uint64_t event;     /* that has to be sent first; zero: it is not known yet */
        } waiting[SYNCS_MAX];
        size_t n_waiting;
        sd_event_source *again;    /* enabled: the ring is to be looked at once more */
        sd_event_source *counting; /* enabled: counts may have changed */
};

/* What was told of a network. */
struct told_counts {
        uint64_t n_logged;
        uint64_t n_dropped;
        bool is_told; /* to this hotcelld */
};

int server_sync_init(struct egress *egress);
void server_sync_deinit(struct egress *egress);

/* Asked for. Answered by server_sync_go_on(), sooner or later. */
void server_sync_begin(struct egress *egress, uint64_t request, const char *sandbox_id);

/* Sends events that may be sent, and the answers for which that was all. */
void server_sync_go_on(struct egress *egress);

/* Another hotcelld, which knows nothing yet. */
void server_sync_restart(struct egress *egress);

/* The wall told something: what it counted is told within a second. */
void server_sync_count_soon(struct egress *egress);

/* Tells what the wall counted in a network, if it is more than was told. */
void server_sync_tell_count(struct network *network);

/* It goes; its last counts, with the proof. */
void server_sync_tell_last(struct network *network, uint64_t n_logged, uint64_t n_dropped);
