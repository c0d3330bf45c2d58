/* One call, from the slot that caught it to its last completion. */
#pragma once

#include "server/rpc/server.h"

/* What gRPC hands over with a new call; call_begin empties it. */
struct call_arrival {
        grpc_call *call;
        grpc_metadata_array metadata;
};

void call_arrival_deinit(struct call_arrival *arrival);

/* Lets the method admit it and reads its request, or refuses it. @seat NULL: unknown, refused. */
void call_begin(struct rpc_server *server, const struct rpc_binding *binding,
                struct call_arrival *arrival, struct seat *seat);

/* A call of a method that does not exist: UNIMPLEMENTED. */
void call_refuse_unknown(struct rpc_server *server, struct call_arrival *arrival);
