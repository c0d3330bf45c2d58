/*
 * Network namespaces made in advance, with nothing in them but `lo` (and, in direct mode, a device:
 * direct.h). They belong to the initial
 * user namespace, so that root in a sandbox has no power over its network.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

enum { NETNS_POOL_MAX = 256 };

/* Whether a packet may come back to its sender with its time. Of each network, or (in older
 * kernels) of the whole host. */
#define NETNS_PACKET_TIMES "/proc/sys/net/core/tstamp_allow_data"

/* Sockets in the namespace at which hotcell-egress serves it. There before any program is, so that
 * none can have their addresses. */
enum netns_socket {
        NETNS_RELAY,        /* listens at all addresses, for what the egress wall redirects */
        NETNS_DNS_DATAGRAM, /* 127.0.0.53, port 53: what /etc/resolv.conf of templates names */
        NETNS_DNS_STREAM,   /* the same address, listens */
        _NETNS_SOCKET_N,
};

struct direct;

/* A namespace and what was made in it. */
struct netns {
        int fd;
        struct direct *direct; /* NULL: it has no device but `lo` */
        uint32_t device;       /* number of the host's end of its device */
        uint32_t address;      /* which one of direct mode's */
        int sockets[_NETNS_SOCKET_N];
        uint16_t relay_port;
};

#define NETNS_NONE ((struct netns){ .fd = -1, .sockets = { -1, -1, -1 } })

/* The namespace lives on while something is in it. */
void netns_close(struct netns *netns);

struct netns_pool {
        int home_fd; /* the runtime's own namespace */
        struct netns parked[NETNS_POOL_MAX];
        size_t n_parked;
        size_t n_wanted;
        bool has_relay;          /* namespaces have sockets for it */
        struct direct *direct;   /* NULL: they have no device but `lo` */
        sd_event_source *refill; /* fires while parked namespaces are missing */
};

/* Parks up to @n_wanted namespaces, when the loop is idle and not all at once. */
int netns_pool_init(struct netns_pool *pool, sd_event *event, size_t n_wanted, bool has_relay,
                    struct direct *direct);
void netns_pool_deinit(struct netns_pool *pool);

/* A parked namespace, or one made on the spot, for the caller to close. -EADDRNOTAVAIL: all of
 * direct mode's addresses are in use. */
int netns_pool_take(struct netns_pool *pool, struct netns *ret_netns);

/* Makes one, with what it may keep uncharged made small, and with sockets if there is a relay to
 * serve them. The process must have a single thread. */
int netns_make(int home_fd, bool has_relay, struct netns *ret_netns);

/* Does something in a namespace, and comes back. The process must have a single thread. */
int netns_inside(int home_fd, const struct netns *netns, int (*body)(void *userdata),
                 void *userdata);
