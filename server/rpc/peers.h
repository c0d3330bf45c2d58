/*
 * The connections: who is at the other end of each, by the descriptor number that gRPC names it
 * with, and which of them must go when there is no place.
 */
#pragma once

#include "runtime/base/cleanup.h"
#include "server/rpc/http2_guard.h"
#include "server/rpc/rpc.h"

struct account;
struct peers;
struct seat; /* a connection's; good until control returns to the loop */

enum {
        PEERS_E_FULL = 1,  /* as many connections as there may be, and none can go */
        PEERS_E_NO_NUMBER, /* no descriptor number is free or has rested; try again soon */
};

struct peers_limits {
        unsigned connections_max;       /* an eighth of them only for unix sockets */
        uint64_t identify_timeout_msec; /* zero: none */
        struct http2_limits http2;
};

int peers_new(sd_event *loop, const struct peers_limits *limits, struct peers **ret_peers);
struct peers *peers_free(struct peers *peers);
DEFINE_CLEANUP(struct peers, peers_free)

/* Moves @fd, which is consumed only on success, to the number *@ret_fd and keeps @peer for it. */
int peers_admit(struct peers *peers, int fd, const struct rpc_peer *peer, int *ret_fd);

/* NULL when there is no such connection, or when what comes from it is not guarded. */
struct seat *peers_find(const struct peers *peers, int fd);
const struct rpc_peer *seat_peer(const struct seat *seat);

/* Whose it is; NULL: a stranger's. */
struct account *seat_account(const struct seat *seat);

/* It is @account's from now on, and no stranger's; it had no account. */
void seat_set_account(struct peers *peers, struct seat *seat, struct account *account);

/* Finds those that are gone. */
void peers_check(struct peers *peers);

/* Hangs up on those that did not say whose they are in time, and finds those that are gone. To be
 * called now and then; false when there is no connection left. */
bool peers_tend(struct peers *peers);
