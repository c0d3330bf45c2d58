/* What tests of the connection to hotcell-egress share: a client, and what it told. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/session/egress_client.h"
#include "test/unit/session/fixture.h"

enum { EVENTS_MAX = 600 };

extern struct egress_client *client;
extern struct fake_egress *egress;

/* What the observer heard, and for how many events it has room. */
extern unsigned n_lost, n_told;
extern struct egress_event events[EVENTS_MAX];
extern size_t n_events, n_room;
extern uint64_t counted_cgroup;
extern struct egress_refusals counted;
extern unsigned n_counts;

/* What came of a request. */
struct heard {
        unsigned tag;
        enum egress_result result;
        char message[400];
        struct egress_enforced enforced;
};

/* Of the last ones, in the order of their answers. */
extern struct heard outcomes[EGRESS_REQUESTS_MAX + 8];
extern size_t n_outcomes;

void set_up(void);
void set_up_impatient(void);
void tear_down(void);
int ask(unsigned tag, const struct egress *policy, struct egress_request **ret_request);
int ping(unsigned tag, struct egress_request **ret_request);
void ask_surely(unsigned tag);
void wait_for_outcomes(size_t n);
void wait_for_loss(void);
