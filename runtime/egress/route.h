/*
 * What the kernel would do with a packet to an address, in the network namespace of the asker: send
 * it on, keep it for itself, or give it to many.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* Where a connection goes to. */
struct endpoint {
        bool is_v6;
        uint8_t bytes[16]; /* network order; v4 in the first 4 */
        uint16_t port;     /* host order */
};

enum {
        ROUTE_E_LOCAL = 1, /* an address of the host, loopback, anycast, or none at all */
        ROUTE_E_BROADCAST,
        ROUTE_E_MULTICAST,
};

/* A socket to ask by, which may be made before privileges end. */
struct routes {
        int fd;
        uint32_t n_asked;
};

/* In the network namespace of the thread. */
int routes_init(struct routes *routes);
void routes_deinit(struct routes *routes);

/*
 * 0 when packets to @endpoint leave the host to one receiver; an outcome above; or a negative
 * errno: -ENETUNREACH and the like when no route leads there. The kernel answers within the call;
 * nothing is waited for. v4-mapped addresses count as v4.
 */
int route_check(struct routes *routes, const struct endpoint *endpoint);

/* @endpoint with a v4-mapped address as v4, else the same. */
struct endpoint endpoint_normalise(const struct endpoint *endpoint);

/* Returns the length of the address. */
socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint,
                               struct sockaddr_storage *ret_address);
