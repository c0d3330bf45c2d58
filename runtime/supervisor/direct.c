/*
 * The device is a pair: one end here, the other as `eth0` in the network. Neighbours and routes are
 * given on both sides, so nobody has to be asked: all of ARP and neighbour discovery is dropped.
 * Inside, everything goes to a neighbour whose addresses nobody has; here, one route leads to each
 * of the sandbox's addresses. What the host does with the packets then, and whether it sends them
 * on at all, is the operator's business; only the device itself is told to take part.
 *
 * A network that has ended is taken down by the kernel some time later. Until then its device has
 * its name, which is its address's number: so no address is given out again before.
 */
#include "runtime/supervisor/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/supervisor/links.h"
#include "runtime/supervisor/netns.h"

enum {
        ALIAS_BUFFER = 256, /* the kernel's */
        PREFIX_BUFFER = sizeof("hc123456."),
        SETTING_PATH = 128,
};

#define INSIDE_NAME "eth0"

/* The neighbour by which everything leaves: only its hardware address matters. */
static const uint8_t gateway4[4] = { 169, 254, 1, 1 };
static const uint8_t gateway6[16] = { 0xfe, 0x80, [15] = 1 };

/* Locally administered. Each pair is alone with itself, so all may have the same. */
static const uint8_t outer_hardware[LINKS_HARDWARE_BYTES] = { 0x02, 'h', 'c', 0, 0, 1 };
static const uint8_t inner_hardware[LINKS_HARDWARE_BYTES] = { 0x02, 'h', 'c', 0, 0, 2 };

struct direct {
        struct direct_config config;
        int home_fd; /* the runtime's own network */
        struct mnl_socket *home;
        char prefix[PREFIX_BUFFER]; /* of the devices' names */
        char alias[ALIAS_BUFFER];
        uint32_t n_addresses;
        uint32_t next; /* where the search begins: an address is used again as late as possible */
};

/* --- names -------------------------------------------------------------------------------------
 */

/* FNV-1a. Where two folders have the same, the alias tells them apart. */
static uint32_t hash(const char *text)
{
        uint32_t value = 2166136261U;

        for (; *text; text++)
                value = (value ^ (uint8_t)*text) * 16777619U;
        return value;
}

static void name_devices(const char *run_dir, char ret_prefix[static PREFIX_BUFFER],
                         char ret_alias[static ALIAS_BUFFER])
{
        (void)snprintf(ret_prefix, PREFIX_BUFFER, "hc%06x.", hash(run_dir) & 0xffffff);
        (void)snprintf(ret_alias, ALIAS_BUFFER, "hotcell-runtime %s", run_dir);
}

int direct_sweep(const char *run_dir, unsigned *ret_n)
{
        _cleanup_(links_closep) struct mnl_socket *home = NULL;
        char prefix[PREFIX_BUFFER];
        char alias[ALIAS_BUFFER];
        int r = links_open(&home);

        *ret_n = 0;
        name_devices(run_dir, prefix, alias);
        return r ? r : links_remove_all(home, prefix, alias, ret_n);
}

/* --- settings ----------------------------------------------------------------------------------
 */

struct setting {
        const char *family; /* `ipv4` */
        const char *name;
        const char *value;
};

/* Of @device, or of all that come to be in the calling thread's network (`default`). */
static int set(const struct setting *settings, size_t n, const char *device)
{
        for (size_t i = 0; i < n; i++) {
                char path[SETTING_PATH];
                int r;

                (void)snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s",
                               settings[i].family, device, settings[i].name);
                r = io_write_file(AT_FDCWD, path, settings[i].value);
                /* A host without IPv6 has none of its settings; then no address of it can be
                 * given, either. */
                if (r && r != -ENOENT)
                        return error_origin(r);
        }
        return 0;
}

/* No address but the given ones, and nothing sent by itself that can be helped. */
static const struct setting inside_settings[] = {
        { "ipv4", "accept_redirects", "0" },     { "ipv6", "accept_ra", "0" },
        { "ipv6", "accept_redirects", "0" },     { "ipv6", "autoconf", "0" },
        { "ipv6", "addr_gen_mode", "1" },        { "ipv6", "accept_dad", "0" },
        { "ipv6", "router_solicitations", "0" },
};

/* `forwarding`: what comes from the device may go on, as far as the host sends anything on. */
static const struct setting outside_settings[] = {
        { "ipv4", "forwarding", "1" },       { "ipv4", "send_redirects", "0" },
        { "ipv4", "accept_redirects", "0" }, { "ipv6", "addr_gen_mode", "1" },
        { "ipv6", "accept_ra", "0" },        { "ipv6", "accept_redirects", "0" },
        { "ipv6", "accept_dad", "0" },       { "ipv6", "forwarding", "1" },
};

/* --- the two ends ------------------------------------------------------------------------------
 */

struct joining {
        struct direct_address address;
        struct mnl_socket *inside;
};

static void joining_deinit(struct joining *joining)
{
        joining->inside = links_close(joining->inside);
}

/* Before the device comes to be. */
static int prepare_inside(void *userdata)
{
        struct joining *joining = userdata;
        int r = set(inside_settings, ARRAY_SIZE(inside_settings), "default");

        /* Of each sandbox's groups; the network has no others. */
        if (!r)
                r = io_write_file(AT_FDCWD, "/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        return r ? error_fold(r) : links_open(&joining->inside);
}

static int address_inside(struct mnl_socket *inside, uint32_t number,
                          const struct links_address *own, const struct links_address *gateway)
{
        int r = links_add_address(inside, number, own);

        if (!r)
                r = links_add_neighbour(inside, number, gateway, outer_hardware);
        return r ? r : links_set_default_route(inside, number, gateway);
}

static int set_up_inside(void *userdata)
{
        const struct joining *joining = userdata;
        const struct direct_address *address = &joining->address;
        uint32_t number = if_nametoindex(INSIDE_NAME);
        int r = number ? links_bring_up(joining->inside, number) : -errno;

        if (!r && address->v4)
                r = address_inside(joining->inside, number,
                                   &(struct links_address){ false, &address->v4 },
                                   &(struct links_address){ false, gateway4 });
        if (!r && address->v6[0])
                r = address_inside(joining->inside, number,
                                   &(struct links_address){ true, address->v6 },
                                   &(struct links_address){ true, gateway6 });
        return r;
}

static int address_outside(struct mnl_socket *home, uint32_t number,
                           const struct links_address *address)
{
        int r = links_add_neighbour(home, number, address, inner_hardware);

        return r ? r : links_set_route(home, number, address);
}

static int set_up_outside(const struct direct *direct, const char *name, uint32_t number,
                          const struct direct_address *address)
{
        int r = links_set_alias(direct->home, number, direct->alias);

        if (!r)
                r = set(outside_settings, ARRAY_SIZE(outside_settings), name);
        /* Nothing passes before somebody looks at it. */
        if (!r)
                r = egress_wall_guard_device(direct->config.wall, number);
        if (!r)
                r = links_bring_up(direct->home, number);
        if (!r && address->v4)
                r = address_outside(direct->home, number,
                                    &(struct links_address){ false, &address->v4 });
        if (!r && address->v6[0])
                r = address_outside(direct->home, number,
                                    &(struct links_address){ true, address->v6 });
        return r;
}

/* --- joining -----------------------------------------------------------------------------------
 */

/* The next address whose device's name is free, and the device. */
static int create(struct direct *direct, struct netns *netns, char ret_name[static IFNAMSIZ])
{
        for (uint32_t i = 0; i < direct->n_addresses; i++) {
                const struct links_pair pair = {
                        .name = ret_name,
                        .hardware = outer_hardware,
                        .peer_name = INSIDE_NAME,
                        .peer_hardware = inner_hardware,
                        .peer_netns_fd = netns->fd,
                };
                int r;

                netns->address = direct->next;
                direct->next = (direct->next + 1) % direct->n_addresses;
                (void)snprintf(ret_name, IFNAMSIZ, "%s%u", direct->prefix,
                               netns->address % DIRECT_POOL_MAX);
                r = links_create_pair(direct->home, &pair);
                if (r != -EEXIST)
                        return r;
        }
        return DIRECT_E_BUSY;
}

int direct_join(struct direct *direct, struct netns *netns)
{
        _cleanup_(joining_deinit) struct joining joining = { 0 };
        char name[IFNAMSIZ];
        int r = netns_inside(direct->home_fd, netns, prepare_inside, &joining);

        if (!r)
                r = create(direct, netns, name);
        if (r)
                return r;
        joining.address = direct_pool_address(direct->config.pool, netns->address);
        netns->device = if_nametoindex(name);
        if (!netns->device)
                return error_origin(-errno);
        netns->direct = direct;
        r = set_up_outside(direct, name, netns->device, &joining.address);
        return r ? r : netns_inside(direct->home_fd, netns, set_up_inside, &joining);
}

int direct_bind(const struct netns *netns, uint64_t cgroup_id)
{
        struct egress_device device = { .cgroup_id = cgroup_id };
        struct direct_address address;

        if (!netns->direct)
                return 0;
        address = direct_pool_address(netns->direct->config.pool, netns->address);
        device.address4 = address.v4;
        memcpy(device.address6, address.v6, sizeof(device.address6));
        return egress_wall_bind_device(netns->direct->config.wall, netns->device, &device);
}

void direct_leave(struct netns *netns)
{
        if (netns->direct)
                egress_wall_forget_device(netns->direct->config.wall, netns->device);
        netns->direct = NULL;
}

/* --- all of it ---------------------------------------------------------------------------------
 */

uint8_t direct_families(const struct direct *direct)
{
        if (!direct)
                return 0;
        return (uint8_t)((direct->config.pool->v4.is_set ? EGRESS_DIRECT4 : 0) |
                         (direct->config.pool->v6.is_set ? EGRESS_DIRECT6 : 0));
}

const struct direct_pool *direct_pool(const struct direct *direct)
{
        return direct->config.pool;
}

DEFINE_CLEANUP(struct direct, direct_free)

int direct_new(const struct direct_config *config, struct direct **ret_direct)
{
        _cleanup_(direct_freep) struct direct *direct = calloc(1, sizeof(*direct));
        int r;

        if (!direct)
                return error_origin(-ENOMEM);
        direct->home_fd = -1;
        direct->config = *config;
        direct->n_addresses = direct_pool_size(config->pool);
        name_devices(config->run_dir, direct->prefix, direct->alias);
        direct->home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (direct->home_fd < 0)
                return error_origin(-errno);
        r = links_open(&direct->home);
        if (r)
                return r;
        *ret_direct = take(direct);
        return 0;
}

struct direct *direct_free(struct direct *direct)
{
        if (direct) {
                direct->home = links_close(direct->home);
                direct->home_fd = close_fd(direct->home_fd);
                free(direct);
        }
        return NULL;
}
