/*
 * What tests of policies in force share: policies, sandboxes that have them, and a store that waits
 * or fails. The store's changes of sandboxes are wrapped by the linker (meson.build).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "test/unit/session/fixture.h"

enum { REFUSALS = 5 };

/* How hotcell-egress refuses, and what comes of it. */
struct refusal {
        int reason, outcome;
};

#define REASON(name) HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

/* What the next changes of sandboxes in the store meet. */
extern bool is_store_held;  /* it waits until store_go_on() */
extern unsigned n_failures; /* so many fail */

struct held_answer {
        bool is_held;
        store_on_done on_done;
        void *userdata;
        int result;
};

extern struct held_answer held_answer;

void store_go_on(void);

enum { PAUSES_MAX = 16 };

/* Before the policy of the sandbox is asked for once more. */
struct pauses {
        bool are_short; /* a millisecond, whatever they are */
        size_t n;
        uint64_t sec[PAUSES_MAX];
};

extern struct pauses pauses;

/* Allows; denies. */
extern struct egress *loose, *tight;

void set_up(void);
void tear_down(void);
struct fake_egress_script *script(void);
void begin_creation(struct egress *egress, struct answer *answer);
struct answer create_with(struct egress *egress);

extern char sandbox_id[ID_BUFFER];

/* Runs, with @egress in force. */
void make_sandbox(struct egress *egress);

void begin_update(struct egress *egress, struct answer *answer);
struct answer change_policy(struct egress *egress);
bool is_held(void *userdata);
void wait_for_held(size_t n);
bool is_in_force(void *userdata);
void wait_for_force(void);

/* Waits for hotcell-egress, which does not answer until it is released. */
void begin_held_update(struct egress *egress, struct answer *answer);

/* What hotcell-egress, the session and, after a restart, the database have. */
void expect_policy(const struct egress *egress, int64_t version);

/* Once its end is recorded. */
void expect_nothing_left(void);

void restart_with_patience(int64_t usec);

extern const struct refusal refusals[REFUSALS];
