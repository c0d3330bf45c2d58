/* Who is at the other end of each connection, by the descriptor number that gRPC names it with. */
#pragma once

#include "runtime/base/cleanup.h"
#include "server/rpc/rpc.h"

struct peers;

enum {
        PEERS_E_FULL = 1,  /* as many connections as there may be */
        PEERS_E_NO_NUMBER, /* no descriptor number is free or has rested; try again soon */
};

int peers_new(sd_event *loop, unsigned connections_max, struct peers **ret_peers);
struct peers *peers_free(struct peers *peers);
DEFINE_CLEANUP(struct peers, peers_free)

/* Moves @fd, which is consumed only on success, to the number *@ret_fd and keeps @peer for it. */
int peers_admit(struct peers *peers, int fd, const struct rpc_peer *peer, int *ret_fd);

/* NULL when there is no such connection. */
const struct rpc_peer *peers_find(const struct peers *peers, int fd);
