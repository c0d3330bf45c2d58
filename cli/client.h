/*
 * The gRPC client: calls that send one message and receive one or many. Nothing else in cli/ knows
 * gRPC. One thread; while it waits here, signals reach it too.
 *
 * Make at most one client, and before other threads: it takes SIGINT, SIGTERM and SIGHUP over. The
 * third SIGINT ends the process at once, even where a write to a stuck reader blocks it. SIGWINCH
 * and SIGIO are left out unless they are asked for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "runtime/base/cleanup.h"

struct client;
struct client_call;
struct rpc_error;

enum {
        CLIENT_E_END = 1, /* the call is over; client_call_error() says how */
        CLIENT_E_SIGNAL,  /* client_take_signal() says which */
        CLIENT_E_TIMEOUT, /* nothing came in time */
};

/* @target is from target_parse(); @api_key may be NULL. */
int client_new(const char *target, const char *api_key, struct client **ret_client);

/* All calls must have been freed. */
struct client *client_free(struct client *client);

const char *client_target(const struct client *client);

/* Some call has reached a server. */
bool client_has_connected(const struct client *client);

/* The next signal that came, oldest kinds first, or 0. */
int client_take_signal(struct client *client);

/* From now on SIGWINCH and SIGIO come, too. */
void client_want_terminal(struct client *client);

/* Waits; ends early with CLIENT_E_SIGNAL. */
int client_sleep(struct client *client, int64_t milliseconds);

/* Starts a call. @timeout_msec limits all of it; negative: no limit. */
struct client_call *client_call_new(struct client *client,
                                    const ProtobufCServiceDescriptor *service, const char *method,
                                    const ProtobufCMessage *request, int64_t timeout_msec);

/* Cancels a call that is not over. */
struct client_call *client_call_free(struct client_call *call);

DEFINE_CLEANUP(struct client, client_free)
DEFINE_CLEANUP(struct client_call, client_call_free)

/*
 * Reads the next message, waiting for @timeout_msec (negative: as long as it takes). 0: it is in
 * *@ret_message, and freed with protobuf_c_message_free_unpacked(). Else one of CLIENT_E_…
 */
int client_call_read(struct client_call *call, int64_t timeout_msec, void *ret_message);

/* After CLIENT_E_END; its code is RPC_OK when all went well. Belongs to the call. */
const struct rpc_error *client_call_error(const struct client_call *call);
