/* A flow between two connections, whose far ends are the test's. All of it is on one loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "runtime/egress/flow.h"

/* The sandbox's program, or the server outside: what the test says it does, when it can. */
struct far_end {
        int fd;
        sd_event_source *source;
        uint64_t n_to_send; /* bytes of its pattern, then it waits */
        bool ends_then;     /* or shuts its side down */
        bool is_reading;
        uint64_t n_sent;
        uint64_t n_received;
        bool was_shut; /* it shut its side down */
        bool has_end;  /* the other side did */
        int error;     /* what broke the connection */
        uint8_t sent_pattern;
        uint8_t received_pattern;
};

struct relay {
        sd_event *event;
        struct far_end ends[_FLOW_SIDE_N];
        struct flow *flow; /* NULL when it has ended */
        unsigned n_told;
        struct flow_end told;
        uint64_t n_moved[_FLOW_SIDE_N]; /* from each side, as told while it went on */
        uint64_t told_usec;
        size_t n_descriptors; /* before the flow */
        size_t n_wide;        /* pipes; as if others had them */
};

/* The near ends are still to be given to a flow. False: skipped. */
bool relay_init(struct relay *relay, int n_buffer, int ret_near[static _FLOW_SIDE_N]);
void relay_deinit(struct relay *relay);

/* The flow's result. */
int relay_start(struct relay *relay, const int near[static _FLOW_SIDE_N]);

/* After a change of what an end is to do. */
void far_end_update(struct far_end *end);

/* As a program that is killed. */
void far_end_reset(struct far_end *end);

/* Waits for events until one of these is so. */
void relay_run_until_told(struct relay *relay);
void relay_run_until_received(struct relay *relay, struct far_end *end, uint64_t n_bytes);
void relay_run_until_ended(struct relay *relay, struct far_end *end);
void relay_run_until_broken(struct relay *relay, struct far_end *end);

/* Until nothing happens any more; fails if that never comes. */
void relay_settle(struct relay *relay);
