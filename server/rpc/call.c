/*
 * A call is held by what is owed to it (one hold for each batch in flight) and by its handler
 * (until that has answered or heard on_gone); the last one frees it.
 *
 *      arrival ──▶ handler ──▶ written … ──▶ answered ──▶ status sent ──▶ over
 *                     └──────── gone: the client left, or its deadline passed ──▲
 *
 * gRPC allows one batch of each kind at a time, and a status only after the last message went out:
 * call_pump() decides what comes next, and every event ends by calling it.
 */
#include "server/rpc/call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/payload.h"

/* Metadata handed out as text; lives as long as its call. */
struct call_text {
        struct call_text *next;
        char text[];
};

struct rpc_call {
        struct rpc_server *server;
        const struct rpc_binding *binding;
        struct rpc_peer peer;
        grpc_call *call;
        grpc_metadata_array metadata;
        struct call_text *texts;
        unsigned n_holds;

        const struct rpc_call_observer *observer;
        void *observer_userdata;

        struct rpc_op close;  /* the client is done or gone */
        struct rpc_op read;   /* streams_requests only */
        struct rpc_op write;  /* one message */
        struct rpc_op status; /* the end */
        struct rpc_op tell;   /* on_gone for a late observer */
        int was_cancelled;    /* written by gRPC */
        grpc_byte_buffer *incoming;
        grpc_byte_buffer *outgoing;

        grpc_status_code code;
        grpc_slice message;
        grpc_slice details;

        bool is_held;        /* by its handler */
        bool is_answered;    /* `code` and so on are set */
        bool is_head_sent;   /* initial metadata */
        bool is_closing;     /* the status is on its way */
        bool is_reading;     /* `incoming` is gRPC's */
        bool is_writing;     /* `outgoing` is gRPC's */
        bool is_half_closed; /* no more messages come from the client */
        bool is_telling;     /* `tell` is on its way */
        bool is_over;        /* nothing reaches the client any more */
};

static void call_pump(struct rpc_call *call);

/* --- life --- */

void call_arrival_deinit(struct call_arrival *arrival)
{
        if (arrival->payload)
                grpc_byte_buffer_destroy(arrival->payload);
        grpc_metadata_array_destroy(&arrival->metadata);
        if (arrival->call)
                grpc_call_unref(arrival->call);
        *arrival = (struct call_arrival){ 0 };
}

static void call_free(struct rpc_call *call)
{
        assert(!call->is_held);

        for (struct call_text *text = call->texts; text;) {
                struct call_text *next = text->next;

                free(text);
                text = next;
        }
        if (call->incoming)
                grpc_byte_buffer_destroy(call->incoming);
        if (call->outgoing)
                grpc_byte_buffer_destroy(call->outgoing);
        grpc_slice_unref(call->message);
        grpc_slice_unref(call->details);
        grpc_metadata_array_destroy(&call->metadata);
        grpc_call_unref(call->call);
        rpc_server_call_over(call->server);
        free(call);
}

static void call_hold(struct rpc_call *call)
{
        call->n_holds++;
}

static void call_release(struct rpc_call *call)
{
        assert(call->n_holds > 0);
        if (--call->n_holds == 0)
                call_free(call);
}

/* The handler has said its last word, or heard ours. */
static void call_let_go(struct rpc_call *call)
{
        assert(call->is_held);
        call->is_held = false;
        call->observer = NULL;
        call_release(call);
}

/* Every batch is started here: whatever gRPC takes, it owes a completion. */
static void call_start(struct rpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_op *op,
                       void (*on_done)(struct rpc_op *op))
{
        grpc_call_error error;

        call_hold(call);
        error = grpc_call_start_batch(call->call, ops, n_ops,
                                      rpc_server_expect(call->server, op, on_done), NULL);
        if (error != GRPC_CALL_OK) {
                log_error("a batch was refused, which is our mistake path=%s error=%d",
                          call->binding->method.path, (int)error);
                abort();
        }
}

/* --- the end --- */

static void call_tell_gone(struct rpc_call *call)
{
        const struct rpc_call_observer *observer = call->observer;

        if (!call->is_held || !observer)
                return;
        call_hold(call);
        call->observer = NULL;
        observer->on_gone(call, call->observer_userdata);
        call_let_go(call);
        call_release(call);
}

static void on_tell(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, tell);

        call->is_telling = false;
        call_tell_gone(call);
        call_release(call);
}

static void on_close(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, close);

        call->is_over = true;
        call_tell_gone(call);
        call_pump(call);
        call_release(call);
}

static void call_watch_close(struct rpc_call *call)
{
        const grpc_op op = {
                .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                .data.recv_close_on_server.cancelled = &call->was_cancelled,
        };

        call_start(call, &op, 1, &call->close, on_close);
}

static void on_status(struct rpc_op *op)
{
        call_release(CONTAINER_OF(op, struct rpc_call, status));
}

/* Head, if it has not gone out, then @outgoing, if there is a message, then the status. */
static void call_send_status(struct rpc_call *call)
{
        grpc_metadata trailer = { 0 };
        grpc_op ops[3] = { 0 };
        size_t n_ops = 0;

        trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
        trailer.value = call->details;

        if (!call->is_head_sent)
                ops[n_ops++].op = GRPC_OP_SEND_INITIAL_METADATA;
        if (call->outgoing) {
                ops[n_ops].op = GRPC_OP_SEND_MESSAGE;
                ops[n_ops++].data.send_message.send_message = call->outgoing;
        }
        ops[n_ops].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        ops[n_ops].data.send_status_from_server.status = call->code;
        ops[n_ops].data.send_status_from_server.status_details = &call->message;
        ops[n_ops].data.send_status_from_server.trailing_metadata = &trailer;
        ops[n_ops].data.send_status_from_server.trailing_metadata_count =
                GRPC_SLICE_IS_EMPTY(call->details) ? 0 : 1;
        n_ops++;

        call->is_head_sent = true;
        call->is_closing = true;
        call_start(call, ops, n_ops, &call->status, on_status);
}

/* --- reading --- */

/* Refuses what cannot be read; true when *@ret_payload is good. */
static bool call_read_payload(struct rpc_call *call, grpc_byte_buffer *buffer,
                              struct payload *ret_payload)
{
        int r = payload_read(buffer, rpc_server_receive_max(call->server), ret_payload);

        if (r == 0)
                return true;
        if (r == PAYLOAD_E_TOO_BIG)
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "The request is too large.", NULL, 0);
        else if (r == PAYLOAD_E_MALFORMED)
                rpc_call_fail(call, RPC_INVALID_ARGUMENT,
                              "The request is not compressed as it says.", NULL, 0);
        else
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "The server is out of memory.", NULL,
                              0);
        return false;
}

static void call_handle(struct rpc_call *call, grpc_byte_buffer *buffer)
{
        const struct rpc_binding *binding = call->binding;
        _cleanup_(payload_deinit) struct payload payload = { 0 };

        if (!buffer)
                binding->method.handle(call, NULL, 0, binding->userdata);
        else if (call_read_payload(call, buffer, &payload))
                binding->method.handle(call, payload.bytes, payload.n_bytes, binding->userdata);
}

static void on_read(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, read);
        grpc_byte_buffer *buffer = take(call->incoming);

        call->is_reading = false;
        call->is_half_closed = !buffer;
        if (call->is_held)
                call_handle(call, buffer);
        if (buffer)
                grpc_byte_buffer_destroy(buffer);
        call_pump(call);
        call_release(call);
}

static void call_read(struct rpc_call *call)
{
        const grpc_op op = {
                .op = GRPC_OP_RECV_MESSAGE,
                .data.recv_message.recv_message = &call->incoming,
        };

        call->is_reading = true;
        call_start(call, &op, 1, &call->read, on_read);
}

static void call_pump(struct rpc_call *call)
{
        if (call->is_writing || call->is_closing)
                return;
        if (call->is_answered && !call->is_over)
                call_send_status(call);
        else if (call->is_held && !call->is_answered && call->binding->method.streams_requests &&
                 !call->is_reading && !call->is_half_closed)
                call_read(call); /* also when over: the half-close tells the handler */
}

/* --- beginning --- */

static struct rpc_call *call_new(struct rpc_server *server, const struct rpc_binding *binding,
                                 struct call_arrival *arrival)
{
        struct rpc_call *call = calloc(1, sizeof(*call));

        if (!call)
                return NULL;
        call->server = server;
        call->binding = binding;
        call->call = take(arrival->call);
        call->metadata = arrival->metadata;
        grpc_metadata_array_init(&arrival->metadata);
        call->message = grpc_empty_slice();
        call->details = grpc_empty_slice();
        call->is_held = true;
        call->n_holds = 1;
        rpc_server_call_begun(server);
        call_watch_close(call);
        return call;
}

void call_begin(struct rpc_server *server, const struct rpc_binding *binding,
                struct call_arrival *arrival, const struct rpc_peer *peer)
{
        struct rpc_call *call = call_new(server, binding, arrival);

        if (!call) {
                (void)grpc_call_cancel_with_status(arrival->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                                   "The server is out of memory.", NULL);
                return;
        }

        call_hold(call);
        if (!peer) {
                rpc_call_fail(call, RPC_INTERNAL, "The server does not know who is calling.", NULL,
                              0);
        } else {
                call->peer = *peer;
                if (!binding->method.streams_requests && !arrival->payload)
                        rpc_call_fail(call, RPC_INVALID_ARGUMENT, "The call has no request.", NULL,
                                      0);
                else if (!binding->method.streams_requests)
                        call_handle(call, arrival->payload);
        }
        call_pump(call);
        call_release(call);
}

static const struct rpc_binding unknown_method = { .method.path = "(unknown)" };

void call_refuse_unknown(struct rpc_server *server, struct call_arrival *arrival)
{
        struct rpc_call *call = call_new(server, &unknown_method, arrival);

        if (!call)
                return; /* dropping the last reference of a call cancels it */
        rpc_call_fail(call, RPC_UNIMPLEMENTED, "This server has no such method.", NULL, 0);
}

/* --- for handlers --- */

const struct rpc_peer *rpc_call_peer(const struct rpc_call *call)
{
        return &call->peer;
}

const char *rpc_call_path(const struct rpc_call *call)
{
        return call->binding->method.path;
}

const char *rpc_call_metadata(struct rpc_call *call, const char *key)
{
        for (size_t i = 0; i < call->metadata.count; i++) {
                const grpc_metadata *metadata = &call->metadata.metadata[i];
                size_t n_bytes = GRPC_SLICE_LENGTH(metadata->value);
                struct call_text *text;

                if (grpc_slice_str_cmp(metadata->key, key) != 0)
                        continue;

                /* Values have no NUL at their end. */
                text = malloc(sizeof(*text) + n_bytes + 1);
                if (!text)
                        return NULL;
                memcpy(text->text, GRPC_SLICE_START_PTR(metadata->value), n_bytes);
                text->text[n_bytes] = '\0';
                text->next = call->texts;
                call->texts = text;
                return text->text;
        }
        return NULL;
}

static void call_answer(struct rpc_call *call, enum rpc_code code, const char *message,
                        const void *details, size_t n_details)
{
        assert(call->is_held && !call->is_answered);

        call->is_answered = true;
        call->code = (grpc_status_code)code;
        if (message)
                call->message = grpc_slice_from_copied_string(message);
        if (n_details > 0)
                call->details = grpc_slice_from_copied_buffer(details, n_details);
        call_pump(call);
        call_let_go(call);
}

void rpc_call_reply(struct rpc_call *call, const void *response, size_t n_response)
{
        assert(!call->is_head_sent);

        call->outgoing = payload_write(response, n_response);
        call_answer(call, RPC_OK, NULL, NULL, 0);
}

void rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                   const void *details, size_t n_details)
{
        assert(code != RPC_OK);

        call_answer(call, code, message, details, n_details);
}

void rpc_call_finish(struct rpc_call *call)
{
        call_answer(call, RPC_OK, NULL, NULL, 0);
}

bool rpc_call_is_writable(const struct rpc_call *call)
{
        return call->is_held && !call->is_writing && !call->is_over;
}

static void on_write(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, write);
        bool is_out = op->ok;

        call->is_writing = false;
        grpc_byte_buffer_destroy(take(call->outgoing));
        /* One that did not go out is followed by the close, which tells the observer. */
        if (is_out && call->is_held && !call->is_over && call->observer &&
            call->observer->on_writable)
                call->observer->on_writable(call, call->observer_userdata);
        call_pump(call);
        call_release(call);
}

void rpc_call_write(struct rpc_call *call, const void *message, size_t n_message)
{
        grpc_op ops[2] = { 0 };
        size_t n_ops = 0;

        assert(rpc_call_is_writable(call));

        call->outgoing = payload_write(message, n_message);
        if (!call->is_head_sent)
                ops[n_ops++].op = GRPC_OP_SEND_INITIAL_METADATA;
        ops[n_ops].op = GRPC_OP_SEND_MESSAGE;
        ops[n_ops++].data.send_message.send_message = call->outgoing;

        call->is_head_sent = true;
        call->is_writing = true;
        call_start(call, ops, n_ops, &call->write, on_write);
}

void rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                      void *userdata)
{
        assert(call->is_held);

        call->observer = observer;
        call->observer_userdata = userdata;
        if (!observer || !call->is_over || call->is_telling)
                return;

        call->is_telling = true;
        call_hold(call);
        rpc_server_defer(call->server, &call->tell, on_tell);
}
