/*
 * Events of hotcell-egress on their way into the session: whose they are, which were told before,
 * their number in the sandbox. What was stored is acknowledged.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/session/egress_check.h"

struct sandbox;
struct session;

enum { EGRESS_ENDED_MAX = 256 }; /* sandboxes that ended and may still be told of */

/* All zeros is empty. */
struct egress_intake {
        uint64_t last_taken;        /* highest number of this connection that was told */
        uint64_t acknowledged;      /* likewise */
        struct egress_ended *ended; /* room for EGRESS_ENDED_MAX; NULL: none yet */
        size_t n_ended;             /* ever */
};

/* False: there is no room for it now; egress_client_resume() will be called. */
bool egress_intake_take(struct session *session, const struct egress_event *event);

/* What the wall refused in a sandbox by now. */
void egress_intake_count(struct session *session, uint64_t cgroup_id,
                         const struct egress_refusals *refusals);

/* Something was told, or stored, or the connection is gone. */
void egress_intake_on_told(struct session *session);
void egress_intake_on_stored(struct session *session);
void egress_intake_on_lost(struct session *session);

/* It ends now; what it did last, such as to close its connections, comes after that. */
void egress_intake_remember(struct session *session, struct sandbox *sandbox);
void egress_intake_deinit(struct egress_intake *intake);
