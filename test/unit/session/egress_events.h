/*
 * What tests of egress events share: events, code that runs meanwhile, and what is stored. The
 * store's insert and the reading of the meters are wrapped by the linker (meson.build), and so are
 * the steps that a successor sees: at each of them the server may be killed.
 */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "test/unit/session/fixture.h"

enum { PATIENCE_SEC = 40 };

extern char sandbox_id[ID_BUFFER];
extern int64_t sequence; /* of the next event */

/* What the store's insert meets. */
extern bool is_store_stuck; /* it does not answer */
extern int store_result;    /* it fails with that */
extern unsigned n_inserts;
extern bool is_meter_read; /* for the last time: the execution closes */

/* The point at which the server is killed, counted from the first one; zero: at none. */
extern unsigned crash_point, n_points;
extern jmp_buf at_point;

/* Whom the store has not answered. */
extern store_on_done stuck_on_done;
extern void *stuck_userdata;

void set_up(void);
struct egress_record denial(int port);
int tell(const struct egress_record *record);
void tell_denial(int port);

/* Code that runs until go(). */
struct answer begin(struct seen *seen);

void go(void);
void come_back(void);

/* What the store has of the sandbox; see n_stored(). */
struct stored {
        bool is_done;
        int result;
        size_t n;
        struct egress_record records[1000];
};

extern struct stored stored;

size_t n_stored(void);
void wait_for_stored(size_t n);
