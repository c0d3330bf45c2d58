/*
 * Direct mode: each network gets a device beside `lo`, over which UDP and ICMP leave that the
 * egress wall lets pass. The host's end is in the runtime's own network, routed and not bridged;
 * the wall's programs stand at it from before it is up. The device ends with its network.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/supervisor/direct_pool.h"

struct direct;
struct egress_wall;
struct netns;

enum {
        DIRECT_SPARE = 64, /* addresses of networks that end, and are not to be had yet */
        DIRECT_E_BUSY = 1, /* all addresses are in use */
};

struct direct_config {
        const struct direct_pool *pool; /* borrowed */
        struct egress_wall *wall;       /* likewise */
        const char *run_dir;            /* tells devices of one runtime from those of another */
};

/* Addresses that there must be for so many sandboxes and parked networks. */
static inline uint32_t direct_wanted(uint32_t n_sandboxes, uint32_t n_parked)
{
        return n_sandboxes + n_parked + DIRECT_SPARE;
}

/* Removes the devices that a runtime with this folder left behind. Whether there is direct mode or
 * not: there may have been. */
int direct_sweep(const char *run_dir, unsigned *ret_n);

/* The calling thread's network is the runtime's own. */
int direct_new(const struct direct_config *config, struct direct **ret_direct);

/* No network may be left. Returns NULL. */
struct direct *direct_free(struct direct *direct);

/* EGRESS_DIRECT4, EGRESS_DIRECT6; zero without direct mode, which is NULL. */
uint8_t direct_families(const struct direct *direct);

const struct direct_pool *direct_pool(const struct direct *direct);

/* Gives @netns its device, which carries nothing until it is bound. The process must have a single
 * thread. After a failure @netns is to be closed. */
int direct_join(struct direct *direct, struct netns *netns);

/* From now on it is the sandbox's. Nothing to do for a network without a device. */
int direct_bind(const struct netns *netns, uint64_t cgroup_id);

/* For netns_close(): it carries nothing any more. */
void direct_leave(struct netns *netns);
