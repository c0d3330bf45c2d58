/* One question to the server and its answer, for commands that can do nothing without it. */
#pragma once

#include <protobuf-c/protobuf-c.h>

struct client;
struct rpc_error;

/*
 * Asks, and asks again when the connection is lost, if that does nothing twice: @message gets a
 * request_id where it has one. When it takes long, a terminal shows @waiting_for. Returns 0 and the
 * answer, which message_free() frees, or the exit code after what went wrong was said.
 */
int request(struct client *client, const ProtobufCServiceDescriptor *service, const char *method,
            void *message, const char *waiting_for, void *ret_answer);

/* Says how a call failed, and why nobody answers when nobody does. */
void request_say_error(const struct client *client, const struct rpc_error *error);
