/*
 * The refusal that proves a sandbox's egress wall, asked for from within it. Without the wall the
 * kernel would refuse, too, for want of a route, but not with EPERM.
 */
#pragma once

/* Addresses of documentation (RFC 5737, RFC 3849) and the discard port, that nobody has. */
#define EGRESS_PROBE_V4   "192.0.2.1"
#define EGRESS_PROBE_V6   "2001:db8::1"
#define EGRESS_PROBE_PORT 9

/* 0: the calling process, in its cgroup and network, was refused with EPERM over IPv4 and IPv6 (or
 * the host has no IPv6). Else what came instead, as a negative errno; -EISCONN: nothing refused. */
int egress_probe(void);
