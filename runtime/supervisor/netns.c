/*
 * The runtime steps into a new namespace, brings `lo` up and steps back: it has one thread, so
 * nobody is there to see it, and no process has to be forked. Each life of a namespace costs the
 * kernel about 1.5 ms, most of it after its end (one worker takes them all down), so the pool is
 * refilled by and by.
 */
#include "runtime/supervisor/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/netns_sockets.h"

enum {
        REFILL_PAUSE_USEC = 20000,
        REFILL_RETRY_USEC = 1000000,
        HOME_TRIES = 100,
        HOME_PAUSE_NSEC = 10 * 1000 * 1000,
};

static int bring_loopback_up(void)
{
        _cleanup_(closep) int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct ifreq request = { .ifr_name = "lo" };

        if (socket_fd < 0 || ioctl(socket_fd, SIOCGIFFLAGS, &request) < 0)
                return error_origin(-errno);
        request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
        if (ioctl(socket_fd, SIOCSIFFLAGS, &request) < 0)
                return error_origin(-errno);
        return 0;
}

/*
 * What the kernel keeps for a network without charging it to anyone, with either version of
 * cgroups: made small here. A setting that a kernel has for all networks together is not there in a
 * new one (see the wall `packet_times`); nothing else is forgiven.
 */
static const struct {
        const char *path;
        const char *value;
} settings[] = {
        /* A message could ask that a copy of each packet comes back with the time of its sending.
         */
        { NETNS_PACKET_TIMES, "0" },
        /* Of what hangs on a socket: options, groups that it is in. Not charged. */
        { "/proc/sys/net/core/optmem_max", "8192" },
        { "/proc/sys/net/ipv4/igmp_max_memberships", "4" },
        { "/proc/sys/net/ipv4/igmp_max_msf", "4" },
        /* Connections that were not accepted yet; see socket_guard.c. */
        { "/proc/sys/net/core/somaxconn", "512" },
        { "/proc/sys/net/ipv4/tcp_max_syn_backlog", "512" },
        { "/proc/sys/net/ipv4/tcp_synack_retries", "1" },
        { "/proc/sys/net/ipv4/tcp_rmem", "4096 32768 1048576" },
        /* Connections that are over. */
        { "/proc/sys/net/ipv4/tcp_max_tw_buckets", "4096" },
        /* Programs may listen at any port of their own network. The runtime has no capability for
         * low ones, either. */
        { "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0" },
        /* Fragments of packets. */
        { "/proc/sys/net/ipv4/ipfrag_low_thresh", "786432" },
        { "/proc/sys/net/ipv4/ipfrag_high_thresh", "1048576" },
        { "/proc/sys/net/ipv6/ip6frag_low_thresh", "786432" },
        { "/proc/sys/net/ipv6/ip6frag_high_thresh", "1048576" },
};

static int make_small(void)
{
        for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
                int r = io_write_file(AT_FDCWD, settings[i].path, settings[i].value);

                if (r && r != -ENOENT)
                        return error_origin(r);
        }
        return 0;
}

/* A want of memory passes. Going on in a sandbox's network would be worse than not going on. */
static void go_home(int home_fd)
{
        const struct timespec pause = { .tv_nsec = HOME_PAUSE_NSEC };

        for (unsigned i = 0; i < HOME_TRIES; i++) {
                if (setns(home_fd, CLONE_NEWNET) == 0)
                        return;
                log_error("cannot return to the own network namespace: error=%s",
                          strerrorname_np(errno));
                (void)nanosleep(&pause, NULL);
        }
        abort();
}

static int make_inside(bool has_relay, struct netns *netns)
{
        int r = bring_loopback_up();

        if (!r)
                r = make_small();
        if (!r && has_relay)
                r = netns_make_sockets(netns);
        if (r)
                return r;
        netns->fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        return netns->fd < 0 ? error_origin(-errno) : 0;
}

int netns_make(int home_fd, bool has_relay, struct netns *ret_netns)
{
        struct netns netns = NETNS_NONE;
        int r;

        if (unshare(CLONE_NEWNET) < 0)
                return error_origin(-errno);
        r = make_inside(has_relay, &netns);
        go_home(home_fd);
        if (r)
                netns_close(&netns);
        else
                *ret_netns = netns;
        return r;
}

int netns_inside(int home_fd, const struct netns *netns, int (*body)(void *userdata),
                 void *userdata)
{
        int r;

        if (setns(netns->fd, CLONE_NEWNET) < 0)
                return error_origin(-errno);
        r = body(userdata);
        go_home(home_fd);
        return r;
}

void netns_close(struct netns *netns)
{
        direct_leave(netns);
        for (size_t i = 0; i < _NETNS_SOCKET_N; i++)
                netns->sockets[i] = close_fd(netns->sockets[i]);
        netns->fd = close_fd(netns->fd);
}

static int schedule_refill(struct netns_pool *pool, uint64_t pause_usec)
{
        int r;

        if (pool->n_parked >= pool->n_wanted)
                return 0;
        r = sd_event_source_set_time_relative(pool->refill, pause_usec);
        if (r < 0)
                return error_origin(r);
        return sd_event_source_set_enabled(pool->refill, SD_EVENT_ONESHOT);
}

static int make(const struct netns_pool *pool, struct netns *ret_netns)
{
        struct netns netns = NETNS_NONE;
        int r = netns_make(pool->home_fd, pool->has_relay, &netns);

        if (!r && pool->direct)
                r = direct_join(pool->direct, &netns);
        if (r)
                netns_close(&netns);
        else
                *ret_netns = netns;
        return r == DIRECT_E_BUSY ? error_origin(-EADDRNOTAVAIL) : r;
}

static int on_refill(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct netns_pool *pool = userdata;
        int r;

        (void)source;
        (void)usec;
        r = make(pool, &pool->parked[pool->n_parked]);
        if (r) {
                log_warning("cannot park a network namespace: error=%s", strerrorname_np(-r));
                (void)schedule_refill(pool, REFILL_RETRY_USEC);
                return 0;
        }
        pool->n_parked++;
        (void)schedule_refill(pool, REFILL_PAUSE_USEC);
        return 0;
}

int netns_pool_init(struct netns_pool *pool, sd_event *event, size_t n_wanted, bool has_relay,
                    struct direct *direct)
{
        int r;

        *pool = (struct netns_pool){ .home_fd = -1,
                                     .n_wanted = MIN(n_wanted, NETNS_POOL_MAX),
                                     .has_relay = has_relay,
                                     .direct = direct };
        pool->home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (pool->home_fd < 0)
                return error_origin(-errno);
        r = sd_event_add_time_relative(event, &pool->refill, CLOCK_MONOTONIC, 0, 1000, on_refill,
                                       pool);
        if (r >= 0)
                r = sd_event_source_set_priority(pool->refill, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_source_set_enabled(pool->refill,
                                                pool->n_wanted ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        if (r < 0) {
                netns_pool_deinit(pool);
                return error_origin(r);
        }
        return 0;
}

void netns_pool_deinit(struct netns_pool *pool)
{
        pool->refill = sd_event_source_disable_unref(pool->refill);
        while (pool->n_parked > 0)
                netns_close(&pool->parked[--pool->n_parked]);
        pool->home_fd = close_fd(pool->home_fd);
}

int netns_pool_take(struct netns_pool *pool, struct netns *ret_netns)
{
        int r;

        if (pool->n_parked == 0)
                r = make(pool, ret_netns);
        else {
                *ret_netns = pool->parked[--pool->n_parked];
                r = 0;
        }
        (void)schedule_refill(pool, REFILL_PAUSE_USEC);
        return r;
}
