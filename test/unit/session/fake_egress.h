/* Plays hotcell-egress on the test's own loop: speaks its protocol, has policies in force. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "hotcell/egress/v1/egress.pb-c.h"

struct fake_egress;

/* What the next requests meet. */
struct fake_egress_script {
        bool hold;            /* they are done, and answered by _release only */
        bool deaf;            /* nothing is read any more */
        int fail;             /* FailureReason; 0: none */
        const char *fail_for; /* only of this sandbox */
        bool fail_rules;      /* only of policies with rules, or that let out by default */
        const char *message;  /* of failures; NULL: "refused" */
        bool wrong_digest;    /* says that another one is in force */
        bool knows_no_types;  /* of records: it is an older one */
        size_t n_digest;      /* bytes of it; 0: as many as there should be */
        size_t n_program_ids; /* 0: two */
        unsigned lose_in;     /* the connection breaks at the so many-th request, before it is
                                 done; 0: at none */
        bool lose_after;      /* and after it was done, before its answer */
        bool hold_syncs;      /* they are answered by _release_syncs only */
        bool refuse_syncs;    /* they are failures */
        int descriptor;       /* goes along with what is sent; 0: none */
};

/* In force. */
struct fake_policy {
        char sandbox_id[64];
        int64_t version;
        int default_action;
        uint32_t record_types;
        size_t n_rules;
        size_t n_bytes;
        bool is_sealed;
        uint8_t sha256[32];
};

struct fake_egress *fake_egress_new(void);
struct fake_egress *fake_egress_free(struct fake_egress *egress);
struct fake_egress_script *fake_egress_script(struct fake_egress *egress);

/* A new connection on @loop, in place of the one before: its other end, which is the caller's. */
int fake_egress_connect(struct fake_egress *egress, sd_event *loop);

/* The connection breaks; what is in force stays. */
void fake_egress_disconnect(struct fake_egress *egress);

/* It was started anew: nothing is in force, and no connection is left. */
void fake_egress_restart(struct fake_egress *egress);

/* Answers the syncs that were held. */
void fake_egress_release_syncs(struct fake_egress *egress);

/* Answers what was held. */
void fake_egress_release(struct fake_egress *egress);

/* Reads again. */
void fake_egress_listen(struct fake_egress *egress);

/* What is in force for a sandbox; NULL: nothing was ever set. */
const struct fake_policy *fake_egress_policy(const struct fake_egress *egress,
                                             const char *sandbox_id);
/* Rule @i of the policy that was set last: `allow example.org 443-443,80-81`. */
const char *fake_egress_rule(const struct fake_egress *egress, size_t i);

size_t fake_egress_n_requests(const struct fake_egress *egress); /* to set a policy */
size_t fake_egress_n_syncs(const struct fake_egress *egress);
const char *fake_egress_synced(const struct fake_egress *egress); /* sandbox of the last one */
size_t fake_egress_n_held(const struct fake_egress *egress);
uint64_t fake_egress_acknowledged(const struct fake_egress *egress); /* the highest number */

/* A good one: a refused connection to 192.0.2.1:443 that the wall saw. */
Hotcell__Egress__V1__Event fake_egress_event(uint64_t number, uint64_t serial, uint64_t cgroup_id);
void fake_egress_tell(struct fake_egress *egress, const Hotcell__Egress__V1__Event *events,
                      size_t n);

void fake_egress_count(struct fake_egress *egress, uint64_t cgroup_id, uint64_t n_logged,
                       uint64_t n_dropped);

/* Any bytes, and any message. */
void fake_egress_send(struct fake_egress *egress, const void *bytes, size_t n);
void fake_egress_say(struct fake_egress *egress, const Hotcell__Egress__V1__ToServer *message);
