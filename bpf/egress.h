/*
 * The egress wall as the runtime has it: the programs of egress.bpf.c, loaded, attached to the
 * parent group, and the table of sandboxes. The programs stay attached until that group is removed,
 * also when the runtime is killed: then all is refused. With direct mode two more stand at the
 * host's end of each sandbox's device, as long as that is there.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bpf/egress_abi.h"

enum {
        EGRESS_PROGRAMS = 7,        /* of the group */
        EGRESS_PROGRAMS_DIRECT = 9, /* with those of devices */
        EGRESS_WHY_BUFFER = 160,
};

/* What the relay works with. */
enum egress_map {
        EGRESS_MAP_SANDBOXES,
        EGRESS_MAP_COUNTS,
        EGRESS_MAP_PREFIXES4,
        EGRESS_MAP_PREFIXES6,
        EGRESS_MAP_NAMES,
        EGRESS_MAP_TOKENS,
        EGRESS_MAP_EVENTS,
        _EGRESS_MAP_N,
};

struct egress_wall;

struct egress_wall_config {
        int cgroup_fd;        /* of the parent group in cgroup2; borrowed */
        uint64_t cgroup_id;   /* the same */
        uint32_t n_sandboxes; /* that there can be at once */
        uint32_t n_devices;   /* likewise, in direct mode; zero: there is none */
};

/*
 * Loads and attaches all programs, or says in @ret_why what failed. Until a sandbox is admitted,
 * all that would leave it is refused and neither told nor counted. Negative errno.
 */
int egress_wall_new(const struct egress_wall_config *config, struct egress_wall **ret_wall,
                    char ret_why[static EGRESS_WHY_BUFFER]);

/* Lets go of the programs, which stay attached. Takes NULL; returns NULL. */
struct egress_wall *egress_wall_free(struct egress_wall *wall);

/* Kernel ids of all programs, for people and audits. Owned by the wall. */
const uint32_t *egress_wall_program_ids(const struct egress_wall *wall, size_t *ret_n);

/* Belongs to the wall. */
int egress_wall_map_fd(const struct egress_wall *wall, enum egress_map map);

/* From now on its refusals are counted and told. @slot is below n_sandboxes and its own. */
int egress_wall_admit(struct egress_wall *wall, uint64_t cgroup_id,
                      const struct egress_sandbox *sandbox);

/* A sandbox that is not there is forgotten already. */
void egress_wall_forget(struct egress_wall *wall, uint64_t cgroup_id);

/* Puts the programs of direct mode at a device that has none yet. Until it is bound to a sandbox,
 * nothing passes it. The calling thread must be in its network. */
int egress_wall_guard_device(const struct egress_wall *wall, uint32_t number);
int egress_wall_bind_device(const struct egress_wall *wall, uint32_t number,
                            const struct egress_device *device);

/* One that is not bound is forgotten already. */
void egress_wall_forget_device(const struct egress_wall *wall, uint32_t number);

/* -ENOENT: it was not admitted. */
int egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                            struct egress_counts *ret_counts);
