/*
 * Network namespaces made in advance, with nothing in them but `lo`. They belong to the initial
 * user namespace, so that root in a sandbox has no power over its network.
 */
#pragma once

#include <stddef.h>
#include <systemd/sd-event.h>

enum { NETNS_POOL_MAX = 256 };

/* Whether a packet may come back to its sender with its time. Of each network, or (in older
 * kernels) of the whole host. */
#define NETNS_PACKET_TIMES "/proc/sys/net/core/tstamp_allow_data"

struct netns_pool {
        int home_fd; /* the runtime's own namespace */
        int parked[NETNS_POOL_MAX];
        size_t n_parked;
        size_t n_wanted;
        sd_event_source *refill; /* fires while parked namespaces are missing */
};

/* Parks up to @n_wanted namespaces, when the loop is idle and not all at once. */
int netns_pool_init(struct netns_pool *pool, sd_event *event, size_t n_wanted);
void netns_pool_deinit(struct netns_pool *pool);

/* A parked namespace, or one made on the spot. The descriptor belongs to the caller. */
int netns_pool_take(struct netns_pool *pool, int *ret_fd);

/* Makes one, with what it may keep uncharged made small. The process must have a single thread. */
int netns_make(int home_fd, int *ret_fd);
