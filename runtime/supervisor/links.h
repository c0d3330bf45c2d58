/*
 * Devices, addresses, routes and neighbours, by rtnetlink(7): what direct mode needs of it. Each
 * call waits for the kernel, which answers at once. All return 0 or a negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct mnl_socket;

enum { LINKS_HARDWARE_BYTES = 6 };

/* An address of either family, in network order. */
struct links_address {
        bool is_v6;
        const void *bytes;
};

/* A pair of devices, one here and one in another network. */
struct links_pair {
        const char *name;
        const uint8_t *hardware;
        const char *peer_name;
        const uint8_t *peer_hardware;
        int peer_netns_fd;
};

/* Speaks of the network in which the calling thread is now, wherever that is later. */
int links_open(struct mnl_socket **ret_socket);
struct mnl_socket *links_close(struct mnl_socket *socket);

/* -EEXIST: there is a device with that name. */
int links_create_pair(struct mnl_socket *socket, const struct links_pair *pair);

/* A note at a device, of up to 255 bytes, for people and links_remove_all(). */
int links_set_alias(struct mnl_socket *socket, uint32_t number, const char *alias);

int links_bring_up(struct mnl_socket *socket, uint32_t number);

/* The device's own address, with nobody beside it. */
int links_add_address(struct mnl_socket *socket, uint32_t number,
                      const struct links_address *address);

/* Where that address is, for good: nobody is asked for it. */
int links_add_neighbour(struct mnl_socket *socket, uint32_t number,
                        const struct links_address *address, const uint8_t *hardware);

/* To that one address by the device, instead of where it went before. */
int links_set_route(struct mnl_socket *socket, uint32_t number,
                    const struct links_address *address);

/* To all others, by a neighbour. */
int links_set_default_route(struct mnl_socket *socket, uint32_t number,
                            const struct links_address *neighbour);

/* Removes all devices whose name begins with @prefix and whose alias is @alias. */
int links_remove_all(struct mnl_socket *socket, const char *prefix, const char *alias,
                     unsigned *ret_n);

DEFINE_CLEANUP(struct mnl_socket, links_close)
