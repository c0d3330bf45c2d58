/* What a sandbox may use, and how that is changed while it runs. */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/cgroup/group.h"
#include "runtime/supervisor/failure.h"
#include "runtime/supervisor/reaper.h"

struct sandbox;

enum {
        LIMITS_E_LATER = 2, /* a child is at work: the observer is told */
};

/* All set: nothing is left to a default. */
struct runtime_limits {
        uint64_t memory_bytes;
        uint32_t cpu_millis;
        uint32_t cpu_weight;
        uint32_t processes;
        uint64_t disk_bytes;
        uint64_t disk_inodes;
        uint32_t open_files;
        uint64_t io_bytes_per_second; /* zero: no bound */
};

/* One that waits for a child. */
struct limits_change {
        struct child child;
        bool is_running;
        bool is_undoing; /* what a child did that failed */
        struct runtime_limits before;
        struct failure failure;
};

struct runtime_limits limits_from_message(const Hotcell__Runtime__V1__SandboxLimits *message);
Hotcell__Runtime__V1__SandboxLimits limits_to_message(const struct runtime_limits *limits);

/* @io_device: zero when there is none that could be limited. */
struct cgroup_limits limits_of_group(const struct runtime_limits *limits, dev_t io_device);

/* Size of /dev/shm. */
uint64_t limits_shm_bytes(const struct runtime_limits *limits);

/* The host has nothing that would hold io_bytes_per_second. */
void limits_refuse_io(const struct sandbox *sandbox, struct failure *ret_failure);

/* Of a sandbox that runs: all of them are in force, or (1, with @ret_failure) what was is again; or
 * LIMITS_E_LATER. */
int limits_update(struct sandbox *sandbox, const struct runtime_limits *limits,
                  struct failure *ret_failure);

/* Each by itself: what cannot be in force stays what it was, or comes as near as it can. 0, or
 * LIMITS_E_LATER. */
int limits_approach(struct sandbox *sandbox, const struct runtime_limits *limits);

/* The sandbox has ended. */
void limits_cancel(struct sandbox *sandbox);
