/*
 * One call of the public API, from its request to its answer.
 *
 * A call is freed when it was answered (or the client is gone) and nobody owes it a callback any
 * more: whoever hands it to an asynchronous function calls api_call_hold before and
 * api_call_release in the callback.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include <protobuf-c/protobuf-c.h>

#include "server/api/api.h"
#include "server/api/arena.h"
#include "server/api/reasons.h"
#include "server/api/status.h"
#include "server/auth/auth.h"

struct api_call;
struct egress;
struct rpc_call;
struct session_result;

/* One row of the API. The handler gets the checked message, which lives as long as the call. */
struct api_method {
        const char *path;
        const ProtobufCMessageDescriptor *request;
        void (*handle)(struct api_call *call, const void *request);
        enum scope scope; /* what the caller must have */
        /* Of methods with a request_id: answers a request that was run before, of which call->asked
         * tells what came. */
        void (*retry)(struct api_call *call, const void *request);
        bool is_about_living; /* asks for what a predecessor may have left: not before that has its
                                 place */
};

struct api_call {
        struct api *api;
        struct rpc_call *rpc; /* NULL once answered or gone */
        const struct api_method *method;
        struct identity identity;
        LIST_ENTRY(api_call) key_calls; /* in the api's, while it is open and is_of_key */
        bool is_of_key;
        ProtobufCMessage *request;
        struct egress *egress; /* the policy that it asks for, checked; NULL: the default one */
        struct arena arena;    /* of the answer */
        struct status status;  /* what checks found so far */
        unsigned n_holders;
        /* A packed answer that is not sent yet. */
        uint8_t *answer;
        size_t n_answer;
        /* Of a request with a request_id (request_id.h): */
        struct session_claim *claim;
        struct request_record asked;
        bool is_retry;
        bool is_waiting;              /* its handler will run again */
        uint64_t patience_until_usec; /* and not after that; zero: it has not waited */
        struct session_stream *share; /* of the streams, while it is open */
        /* Streams: told when the client may be written to, and once when it is gone or answered. */
        void (*on_writable)(struct api_call *call);
        void (*on_over)(struct api_call *call);
        void *stream;
};

/* Makes the call of what has only its head: who is it, may they, have they too much already. */
void api_call_admit(struct api *api, struct rpc_call *rpc, const struct api_method *method);

/* The request of a call that was admitted: is it a message; then the method's handler. */
void api_call_run(struct rpc_call *rpc, const void *bytes, size_t n_bytes);

void api_call_hold(struct api_call *call);
void api_call_release(struct api_call *call);

/* False when nobody waits for the answer. */
bool api_call_is_open(const struct api_call *call);

/* Notes that a field is wrong. The first reason becomes that of the answer. */
__attribute__((format(printf, 4, 5))) void api_call_blame(struct api_call *call, enum reason reason,
                                                          const char *field, const char *format,
                                                          ...);
bool api_call_has_blame(const struct api_call *call);

/* Answers. Each may come when the call is already closed, and does nothing then. */
void api_call_reply(struct api_call *call, const ProtobufCMessage *response);

/* The same in two steps. False: it could not be packed, and the call was answered so. */
bool api_call_pack(struct api_call *call, const ProtobufCMessage *response);
void api_call_send(struct api_call *call);

/* Whether that answer would be sent, or is too much for what its reader has not read yet. */
bool api_call_has_room(const struct api_call *call, const ProtobufCMessage *response);
void api_call_fail_blamed(struct api_call *call);
__attribute__((format(printf, 3, 4))) void api_call_fail(struct api_call *call, enum reason reason,
                                                         const char *format, ...);

/* Answers with what a session's function said, unless it succeeded; false then. @resource: the id
 * the call was about. */
bool api_call_fail_result(struct api_call *call, const struct session_result *result,
                          const char *resource);

/* Refused only because of what ends already: true, and the handler runs again when that is gone.
 * The request stays as it is. */
bool api_call_awaits_room(struct api_call *call, const struct session_result *result);

/* Of a streaming call, before anything is done for it: there may be one more stream. False: the
 * call was answered. */
bool api_call_take_stream(struct api_call *call);

/* Answers that @whose quota, an owner's or `server`, has no more of it; it may be tried again. */
void api_call_fail_exhausted(struct api_call *call, enum reason reason, const char *whose);

/* Answers a failed store job. */
void api_call_fail_store(struct api_call *call, int result);

/* Streams. */
void api_call_finish(struct api_call *call);
