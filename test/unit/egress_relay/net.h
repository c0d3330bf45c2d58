/* A network of the test's own, with nothing but `lo`, and connections in it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/egress/route.h"

/* False where this user may not make one; says so. */
bool net_enter(void);

/* Packets to the v4 network leave by `lo` and are lost. */
void net_add_route(const char *network, const char *mask);

/* A refusal instead of a way out. */
void net_add_unreachable(const char *network, const char *mask);

/* Gives `lo` one more v4 address. */
void net_add_address(const char *address);

/* An interface behind which nobody is, with a v6 network. Returns its descriptor, or -1. */
int net_add_v6_exit(const char *network, unsigned n_bits);

struct endpoint net_endpoint(const char *address, uint16_t port);

/* A socket that listens on the address and does not block; sets the port of *@endpoint. */
int net_listen(struct endpoint *endpoint);

enum { NET_BUFFER_MAX = 128 * 1024 }; /* that everybody may have; more is for root */

/* Two ends of a connection, which do not block. @n_buffer: bytes of each buffer, which the kernel
 * doubles; 0: as it likes. */
void net_connect(int n_buffer, int ret_fds[static 2]);

/* Descriptors that are open. */
size_t net_n_descriptors(void);

/* At most @n_more descriptors beyond the open ones, up to 128. */
void net_limit_descriptors(size_t n_more);
