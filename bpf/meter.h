/*
 * The meters of leaves as the runtime has them: the programs of meter.bpf.c, loaded and attached
 * once for the whole host, and a slot for each leaf that is to be measured. They end with the
 * process: nothing fails open without them, and what they count is counted by cgroup files, too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/meter_abi.h"

enum {
        METER_WHY_BUFFER = 160,
        METER_SLOTS_MAX = 1 << 20,
};

enum {
        METER_E_FULL = 1, /* all slots are taken: it was counted */
};

enum meter_program {
        METER_SWITCH, /* CPU time, waits, switches; the others need it */
        METER_RSS,    /* peaks of resident memory */
        METER_EXIT,   /* victims */
        _METER_PROGRAM_N,
};

struct meter;

struct meter_config {
        uint32_t n_slots;   /* leaves at once; 1 to METER_SLOTS_MAX */
        uint32_t n_threads; /* in all leaves, of which it is kept how much of each was counted */
        unsigned without; /* BIT()s of programs that are not even tried, as if they were refused */
};

struct meter_victim {
        uint32_t pid; /* zero: there was none */
        uint64_t rss_bytes;
        char command[METER_COMMAND_BYTES];
};

/* Never less than in an earlier reading of the same leaf, peaks apart. */
struct meter_reading {
        uint64_t cpu_nsec; /* with what the current stints have by now */
        uint64_t wait_nsec;
        uint64_t n_switches;
        uint64_t earlier_nsec;
        uint64_t rss_peak_bytes;
        bool is_running; /* one of its threads is on a CPU */
        struct meter_victim victim;
};

struct meter_slots {
        uint64_t n;
        uint64_t n_used;
        uint64_t n_refused;
};

/*
 * Loads and attaches what the kernel takes. @ret_why says what it refused, or is empty. A negative
 * errno, and no meter, without METER_SWITCH.
 */
int meter_new(const struct meter_config *config, struct meter **ret_meter,
              char ret_why[static METER_WHY_BUFFER]);

/* Takes NULL; returns NULL. */
struct meter *meter_free(struct meter *meter);

bool meter_has(const struct meter *meter, enum meter_program program);

/* Whether the kernel counts how long threads wait. */
bool meter_knows_wait(void);

/* From now on what comes into the group of cgroup2 is counted. All leaves have the same depth, and
 * nothing is in this one yet. */
int meter_take_slot(struct meter *meter, uint64_t leaf_id, uint32_t *ret_slot);

/* METER_NO_SLOT is released already. */
void meter_release_slot(struct meter *meter, uint32_t slot);

void meter_read(struct meter *meter, uint32_t slot, struct meter_reading *ret_reading);

/*
 * Cheap, of many slots: a look goes over all of them in the order of memory. Then it is known of
 * each whether a thread of the leaf was on a CPU since it was asked last; and one was added to
 * @n_runs of each that was, unless that was known already. It is borrowed until the slot is
 * released.
 */
void meter_look(struct meter *meter);
bool meter_has_run(struct meter *meter, uint32_t slot);
void meter_count_runs(struct meter *meter, uint32_t slot, size_t *n_runs);

/* Threads that were born before now count as earlier, but for the main one; and the peak of
 * resident memory begins anew from @rss_bytes. */
void meter_begin_epoch(struct meter *meter, uint32_t slot, uint64_t rss_bytes);

struct meter_slots meter_count_slots(const struct meter *meter);

/* How often a thread had been forgotten when it went on: there are more of them than n_threads.
 * Where the kernel did not tell that it left its CPU the time before, what it used then is lost. */
uint64_t meter_count_forgotten(const struct meter *meter);
