/*
 * What is told of a network, whoever decided it: the wall, the relay or the resolver. The relay's
 * events, of which a program can cause as many as it likes, are 100 a second and 500 at once, and
 * of the queue a network has up to half of what the others leave.
 *
 * What is beyond is not lost: it is summed up by its kind (who decided, what, why, by which policy
 * and rule of it, with which error) and told as one event of that kind, with its count and bytes,
 * within a second; or later, once the queue has room. So the sums over a network's events are
 * exact. What those that were summed up have in common is in their event; else it is left empty, or
 * is the last one's where there is no empty: its times. The duration is the longest.
 */
#pragma once

#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "runtime/egress/events.h"

struct teller; /* hidden: outlives its network until all is told and recorded */

enum {
        TELLER_BURST = 500, /* of the relay's events */
        TELLER_INTERVAL_USEC = 10000,
        TELLER_SUM_USEC = 1000000,
        TELLER_KINDS_MAX = 32, /* beyond that rule and error make no kind of their own */
};

/* Of all networks. */
struct tellers {
        struct events *events;    /* borrowed */
        sd_event_source *sending; /* borrowed: enabled when there is something to send */
        sd_event_source *timer;   /* enabled while something is summed up */
        LIST_HEAD(, teller)
        busy; /* with sums that are to be told, or that only wait for their end */
};

int tellers_init(struct tellers *tellers, sd_event *loop, struct events *events,
                 sd_event_source *sending);

/* When no network has one any more. */
void tellers_deinit(struct tellers *tellers);

/* The queue may have room again. */
void tellers_go_on(struct tellers *tellers);

int teller_new(struct tellers *tellers, struct teller **ret_teller);

/* Its network ends: what is summed up is told now, or once there is room. Returns NULL. */
struct teller *teller_end(struct teller *teller);

void teller_push(struct teller *teller, const struct event *event);

/* Tells what is summed up. False: for some of it there is no room now. */
bool teller_flush(struct teller *teller);
