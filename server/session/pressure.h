/*
 * That something is short in a sandbox, as its runtime says: told to what runs in it, and kept for
 * a while for those who watch.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hotcell/runtime/v1/runtime.pb-c.h"
#include "server/session/session.h"

struct execution;
struct sandbox;

enum {
        PRESSURES_TOLD_MAX = 100, /* to one execution */
        /* What goes on is told again by the runtime after ten seconds, or its next look. */
        PRESSURE_KEPT_USEC = 12500 * 1000,
};

/* By kind; a time of zero: never. */
struct pressures {
        struct sandbox_pressure last[_PRESSURE_KIND_N];
};

void session_on_pressure(struct session *session, const Hotcell__Runtime__V1__Pressure *pressure);

/* Those that were told within PRESSURE_KEPT_USEC, by kind; returns how many. */
size_t sandbox_pressures(const struct sandbox *sandbox,
                         struct sandbox_pressure ret_pressures[static _PRESSURE_KIND_N]);

/* In the ring. False: it is none. */
bool pressure_payload_read(const uint8_t *payload, size_t n_payload,
                           struct sandbox_pressure *ret_pressure);

/* A predecessor's: how many were told is in its ring. */
void execution_restore_pressures(struct execution *execution);
