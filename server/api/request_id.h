/*
 * Retries. A request of a method that changes something may carry a request_id: it is then run
 * once, and retried requests are answered with what came of it, by the method's `retry`.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

struct api_call;
struct request_record;

/* Runs the call's method, or its retry, once it is known which. */
void request_id_run(struct api_call *call);

/* The request as the session's calls take it, to be remembered with @object_id (NULL: the session
 * knows); NULL when it has no request_id. */
const struct request_record *request_id_of(struct api_call *call, const char *object_id);

/* Replies once the request is remembered: for what was done without a change of the session's. */
void request_id_reply(struct api_call *call, const ProtobufCMessage *response,
                      const char *object_id);

/* Lets others with the same id go on: what came of this one is settled. */
void request_id_settle(struct api_call *call);
