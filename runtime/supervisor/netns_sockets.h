/* What hotcell-egress serves a network at, made from within it. */
#pragma once

struct netns;

/*
 * Makes the sockets of @netns in the calling process's network, and makes the relay's addresses of
 * IPv6 local there (those of IPv4 are by nature). Where the host has no IPv6, all is IPv4. The
 * caller closes @netns, also after a failure.
 */
int netns_make_sockets(struct netns *netns);
