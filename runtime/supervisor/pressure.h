/* Looks whether something is short in a sandbox whose programs run, and tells its observer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "runtime/supervisor/pressure_rules.h"

struct sandbox;

struct pressure {
        sd_event_source *timer;
        uint64_t cpu_usec;               /* that it had used at the last look */
        unsigned n_quiet;                /* looks in a row at which nothing had waited */
        bool is_empty;                   /* no program ran then */
        struct pressure_counters before; /* then */
        struct pressure_told told[PRESSURE_KINDS_N];
};

/* Begins to look, until pressure_stop(). */
int pressure_start(struct sandbox *sandbox);
void pressure_stop(struct sandbox *sandbox);
