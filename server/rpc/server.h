/* What calls need of their server; the rest is server.c's own. */
#pragma once

#include "server/rpc/grpc_core.h"
#include "server/rpc/op.h"
#include "server/rpc/rpc.h"

struct rpc_slot;

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
void rpc_server_call_begun(struct rpc_server *server);
void rpc_server_call_over(struct rpc_server *server);
