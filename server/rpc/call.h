/* One call, from the slot that caught it to its last completion. */
#pragma once

#include "server/rpc/server.h"

/* What gRPC hands over with a new call; call_begin empties it. */
struct call_arrival {
        grpc_call *call;
        grpc_metadata_array metadata;
        grpc_byte_buffer *payload; /* of methods that take one message; NULL: it never came */
};

void call_arrival_deinit(struct call_arrival *arrival);

/* Hands the request to the method's handler, or refuses it. @peer NULL: unknown, refused. */
void call_begin(struct rpc_server *server, const struct rpc_binding *binding,
                struct call_arrival *arrival, const struct rpc_peer *peer);

/* A call of a method that does not exist: UNIMPLEMENTED. */
void call_refuse_unknown(struct rpc_server *server, struct call_arrival *arrival);
