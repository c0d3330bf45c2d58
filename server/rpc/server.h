/* What calls need of their server; the rest is server.c's own. */
#pragma once

#include <sys/queue.h>

#include "server/rpc/grpc_core.h"
#include "server/rpc/op.h"
#include "server/rpc/rpc.h"

struct account;
struct rpc_slot;
struct seat;

/* A method with its service's userdata. */
struct rpc_binding {
        struct rpc_method method;
        void *userdata;
};

/*
 * To be called for each op that gRPC owes a completion: the server is not over before all came.
 * @on_done runs on the loop.
 */
void *rpc_server_expect(struct rpc_server *server, struct rpc_op *op,
                        void (*on_done)(struct rpc_op *op));

/* The same for an op that is to run on the loop soon, without gRPC. */
void rpc_server_defer(struct rpc_server *server, struct rpc_op *op,
                      void (*on_done)(struct rpc_op *op));

size_t rpc_server_receive_max(const struct rpc_server *server);

/* Whose call it is that came over @seat, until its owner is known. NULL: out of memory. The hold is
 * the caller's. */
struct account *rpc_server_default_account(struct rpc_server *server, const struct seat *seat);

/* The same of @owner, whose connection @seat now is if it was nobody's. The outcomes of
 * rpc_call_charge. */
int rpc_server_account(struct rpc_server *server, struct seat *seat, const char *owner,
                       bool is_bounded, struct account **ret_account);

/* on_late is called when the request timeout is over, unless it was cancelled. */
struct rpc_deadline {
        TAILQ_ENTRY(rpc_deadline) deadlines;
        uint64_t at_msec; /* zero: not set */
        void (*on_late)(struct rpc_deadline *deadline);
};
void rpc_server_expect_soon(struct rpc_server *server, struct rpc_deadline *deadline);
void rpc_server_forget_deadline(struct rpc_server *server, struct rpc_deadline *deadline);
void rpc_server_call_begun(struct rpc_server *server);
void rpc_server_call_over(struct rpc_server *server);
