/*
 * Meters of sandboxes and of the leaves in them: what the files of their groups say, and what BPF
 * adds to it where its programs could be loaded and there is a slot for the leaf. All amounts are
 * those since the group was made.
 *
 * Memory over time is what was found when it was looked at: a sandbox and all of its leaves at the
 * same instants, so that the sandbox never held less than its leaves together. Of less than a tenth
 * of a second it says little; of many, all together.
 */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "bpf/meter.h"
#include "runtime/cgroup/group.h"
#include "runtime/meters/memory_time.h"

struct metering;

struct metering_config {
        const struct cgroup_tree *cgroups;
        uint32_t n_slots;
        bool has_programs; /* they are to be tried */
};

enum {
        METERING_PARTS_MAX = HOTCELL__RUNTIME__V1__METER_PART__METER_PART_WAIT + 1, /* the last */
        METERING_DETAIL_BUFFER = 160,
};

/* What was read at one time. */
struct metered {
        struct cgroup_usage files;
        struct cgroup_throttling throttling; /* of the whole sandbox */
        struct meter_reading programs;
        uint64_t memory_byte_seconds;
        uint64_t wall_usec; /* only of a whole sandbox */
        unsigned missing;   /* BIT()s of METER_PART_… */
};

struct sandbox_meter;

/* A leaf's part in it. To be embedded by who has the leaf, whose group it borrows. */
struct leaf_meter {
        LIST_ENTRY(leaf_meter) link;
        struct sandbox_meter *sandbox; /* NULL: it is not measured (any more) */
        struct cgroup *leaf;
        uint32_t slot;
        struct memory_time memory;
};

/* Likewise of a sandbox. */
struct sandbox_meter {
        TAILQ_ENTRY(sandbox_meter) link;
        struct metering *metering; /* NULL: it is not measured (any more) */
        struct cgroup *group;
        uint64_t begin_usec; /* monotonic */
        LIST_HEAD(, leaf_meter) leaves;
        struct meter_reading ended; /* what leaves had that are over */
        unsigned missing;           /* what some leaf lacked */
        size_t n_blind;             /* leaves without a slot */
        size_t n_ran;               /* leaves that ran since the last look at them */
        bool has_changed;           /* it is to be read at the next look, whatever ran */
        struct memory_time memory;
};

/* Without programs, and without memory groups, it measures what there is. */
int metering_new(sd_event *event, const struct metering_config *config,
                 struct metering **ret_metering);
struct metering *metering_free(struct metering *metering);

void metering_begin_sandbox(struct metering *metering, struct sandbox_meter *meter,
                            struct cgroup *group);
/* Before anything is in it. */
void metering_begin_leaf(struct sandbox_meter *sandbox, struct leaf_meter *meter,
                         struct cgroup *leaf);

/* Each reads a last time, and lets go of the group; a sandbox after all of its leaves. @ret_metered
 * has what could be read. Nothing happens to one that is not measured. */
int metering_end_leaf(struct leaf_meter *meter, struct metered *ret_metered);
int metering_end_sandbox(struct sandbox_meter *meter, struct metered *ret_metered);

int metering_read_leaf(struct leaf_meter *meter, struct metered *ret_metered);
int metering_read_sandbox(struct sandbox_meter *meter, struct metered *ret_metered);

/* What the sandbox holds may change although nothing runs in it: the next look reads it. A look
 * now would be one at a time that somebody chose. */
void metering_expect_change(struct sandbox_meter *meter);

/* Peaks begin anew, and whatever was born until now counts as earlier from now on. @pid: the
 * leaf's main process; zero: it is over. */
void metering_begin_peak(struct leaf_meter *meter, pid_t pid);

/* What @pid holds is part of the peak of resident memory; zero: it is over. */
void metering_add_resident(pid_t pid, struct metered *metered);

/* A message with room for what is missing: not to be moved. */
struct usage_message {
        Hotcell__Runtime__V1__Usage usage;
        Hotcell__Runtime__V1__MeterPart missing[METERING_PARTS_MAX];
};

void metering_fill(const struct metered *metered, struct usage_message *ret_message);

struct meter_state_message {
        Hotcell__Runtime__V1__MeterState state;
        Hotcell__Runtime__V1__MeterPart missing[METERING_PARTS_MAX];
};

void metering_fill_state(const struct metering *metering, struct meter_state_message *ret_message);
