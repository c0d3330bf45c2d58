/*
 * Requests that fail because the connection was lost or the server cannot do them now are sent
 * again for a while, with growing pauses: a restart of the server is not seen. What changes
 * something carries a request_id then, so that it happens once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

struct client;
struct rpc_error;

struct retry {
        int64_t since_msec; /* of the first failure; 0: none since the last success */
        int64_t pause_msec;
};

/* Gives the message an id of its own. False: its type has none, it must not be sent twice. */
bool retry_identify(ProtobufCMessage *message);

/* Whether to send it again after @error; the time for that begins with the first one. */
bool retry_is_due(struct retry *retry, const struct client *client, const struct rpc_error *error);

/* Pauses before the next attempt; CLIENT_E_SIGNAL ends it early. */
int retry_pause(struct retry *retry, struct client *client);

/* It went well. */
void retry_reset(struct retry *retry);
