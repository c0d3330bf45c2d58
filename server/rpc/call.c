/*
 * A call is held by what is owed to it (one hold for each batch in flight) and by its handler
 * (until that has answered or heard on_gone); the last one frees it.
 *
 *      arrival ──▶ admitted ──▶ read ──▶ handler ──▶ written … ──▶ answered ──▶ status sent ──▶
 * over └──────── gone: the client left, or its deadline passed ──▲
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
#include "server/rpc/accounts.h"
#include "server/rpc/payload.h"
#include "server/rpc/peers.h"

/* Metadata handed out as text; lives as long as its call. */
struct call_text {
        struct call_text *next;
        char text[];
};

struct rpc_call {
        struct rpc_server *server;
        const struct rpc_binding *binding;
        struct rpc_peer peer;
        struct seat *seat; /* only during admit */
        struct account *account;
        void *context;
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
        struct rpc_op room;   /* on_writable, now that the owner has room */
        struct account_turn reading_turn;
        struct account_turn room_turn;
        struct rpc_deadline deadline; /* of the request */
        size_t n_unread;              /* bytes of `outgoing` that its account counts */
        int was_cancelled;            /* written by gRPC */
        grpc_byte_buffer *incoming;
        grpc_byte_buffer *outgoing;

        grpc_status_code code;
        grpc_slice message;
        grpc_slice details;

        bool is_held;        /* by its handler */
        bool is_answered;    /* `code` and so on are set */
        bool is_head_sent;   /* initial metadata */
        bool is_closing;     /* the status is on its way */
        bool is_counted;     /* as one of its account's calls */
        bool is_reading;     /* `incoming` is gRPC's, or it waits for its turn to read */
        bool is_heard;       /* its request, or the first of them, has come */
        bool is_waking;      /* `room` is on its way */
        bool is_writing;     /* `outgoing` is gRPC's */
        bool is_half_closed; /* no more messages come from the client */
        bool is_telling;     /* `tell` is on its way */
        bool is_over;        /* nothing reaches the client any more */
};

static void call_pump(struct rpc_call *call);

/* --- life --- */

void call_arrival_deinit(struct call_arrival *arrival)
{
        grpc_metadata_array_destroy(&arrival->metadata);
        if (arrival->call)
                grpc_call_unref(arrival->call);
        *arrival = (struct call_arrival){ 0 };
}

static void call_forget_unread(struct rpc_call *call)
{
        if (call->n_unread)
                account_remove_unread(call->account, call->n_unread);
        call->n_unread = 0;
}

static void call_leave_account(struct rpc_call *call)
{
        if (!call->account)
                return;
        account_cancel(&call->room_turn);
        call_forget_unread(call);
        if (call->is_counted)
                account_end_call(call->account);
        account_release(take(call->account));
}

static void call_free(struct rpc_call *call)
{
        assert(!call->is_held);

        rpc_server_forget_deadline(call->server, &call->deadline);
        call_leave_account(call);
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
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, status);

        call_forget_unread(call);
        call_release(call);
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

/* Whoever admitted it hears that it is gone. */
static void call_fail_itself(struct rpc_call *call, enum rpc_code code, const char *message)
{
        const struct rpc_call_observer *observer = call->observer;
        void *userdata = call->observer_userdata;

        call_hold(call);
        rpc_call_fail(call, code, message, NULL, 0);
        if (observer)
                observer->on_gone(call, userdata);
        call_release(call);
}

static void on_late(struct rpc_deadline *deadline)
{
        struct rpc_call *call = CONTAINER_OF(deadline, struct rpc_call, deadline);

        if (call->is_held && !call->is_answered)
                call_fail_itself(call, RPC_DEADLINE_EXCEEDED, "The request did not come in time.");
}

/* Refuses what cannot be read; true when *@ret_payload is good. */
static bool call_read_payload(struct rpc_call *call, grpc_byte_buffer *buffer,
                              struct payload *ret_payload)
{
        int r = payload_read(buffer, rpc_server_receive_max(call->server), ret_payload);

        if (r == 0)
                return true;
        if (r == PAYLOAD_E_TOO_BIG)
                call_fail_itself(call, RPC_RESOURCE_EXHAUSTED, "The request is too large.");
        else if (r == PAYLOAD_E_MALFORMED)
                call_fail_itself(call, RPC_INVALID_ARGUMENT,
                                 "The request is not compressed as it says.");
        else
                call_fail_itself(call, RPC_RESOURCE_EXHAUSTED, "The server is out of memory.");
        return false;
}

static void call_handle(struct rpc_call *call, grpc_byte_buffer *buffer)
{
        const struct rpc_binding *binding = call->binding;
        _cleanup_(payload_deinit) struct payload payload = { 0 };

        if (!buffer && !binding->method.streams_requests)
                call_fail_itself(call, RPC_INVALID_ARGUMENT, "The call has no request.");
        else if (!buffer)
                binding->method.handle(call, NULL, 0, binding->userdata);
        else if (call_read_payload(call, buffer, &payload))
                binding->method.handle(call, payload.bytes, payload.n_bytes, binding->userdata);
}

static void on_read(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, read);
        grpc_byte_buffer *buffer = take(call->incoming);

        call->is_reading = false;
        call->is_heard = true;
        call->is_half_closed = !buffer;
        rpc_server_forget_deadline(call->server, &call->deadline);
        account_end_reading(call->account);
        if (call->is_held)
                call_handle(call, buffer);
        if (buffer)
                grpc_byte_buffer_destroy(buffer);
        call_pump(call);
        call_release(call);
}

static void call_read_now(struct rpc_call *call)
{
        const grpc_op op = {
                .op = GRPC_OP_RECV_MESSAGE,
                .data.recv_message.recv_message = &call->incoming,
        };

        call_start(call, &op, 1, &call->read, on_read);
}

static void on_turn_to_read(struct account_turn *turn)
{
        struct rpc_call *call = CONTAINER_OF(turn, struct rpc_call, reading_turn);

        call_read_now(call);
        call_release(call);
}

/* One that was answered meanwhile reads, too, when its turn comes: that ends at once. */
static void call_read(struct rpc_call *call)
{
        call->is_reading = true;
        call->deadline.on_late = on_late;
        rpc_server_expect_soon(call->server, &call->deadline);
        call->reading_turn.on_turn = on_turn_to_read;
        if (account_begin_reading(call->account, &call->reading_turn))
                call_read_now(call);
        else
                call_hold(call);
}

static bool call_wants_to_read(const struct rpc_call *call)
{
        return call->is_held && !call->is_answered && !call->is_reading && !call->is_half_closed &&
               (call->binding->method.streams_requests || !call->is_heard);
}

static void call_pump(struct rpc_call *call)
{
        if (call->is_writing || call->is_closing)
                return;
        if (call->is_answered && !call->is_over)
                call_send_status(call);
        else if (call->account && call_wants_to_read(call))
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

/* What no owner was charged with. */
static void call_charge_default(struct rpc_call *call, const struct seat *seat)
{
        call->account = rpc_server_default_account(call->server, seat);
        call->is_counted = call->account && account_begin_call(call->account);
        if (!call->is_counted)
                call_fail_itself(call, RPC_RESOURCE_EXHAUSTED,
                                 "There are as many such calls as there may be; try again.");
}

static void call_admit(struct rpc_call *call, struct seat *seat)
{
        const struct rpc_binding *binding = call->binding;

        call->peer = *seat_peer(seat);
        call->seat = seat;
        if (binding->method.admit)
                binding->method.admit(call, binding->userdata);
        call->seat = NULL;
        if (!call->is_answered && !call->account)
                call_charge_default(call, seat);
}

void call_begin(struct rpc_server *server, const struct rpc_binding *binding,
                struct call_arrival *arrival, struct seat *seat)
{
        struct rpc_call *call = call_new(server, binding, arrival);

        if (!call) {
                (void)grpc_call_cancel_with_status(arrival->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                                   "The server is out of memory.", NULL);
                return;
        }

        call_hold(call);
        if (seat)
                call_admit(call, seat);
        else
                rpc_call_fail(call, RPC_INTERNAL, "The server does not know who is calling.", NULL,
                              0);
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

int rpc_call_charge(struct rpc_call *call, const char *owner, bool is_bounded)
{
        int r;

        assert(call->seat && !call->account);

        r = rpc_server_account(call->server, call->seat, owner, is_bounded, &call->account);
        if (r)
                return r;
        call->is_counted = account_begin_call(call->account);
        return call->is_counted ? 0 : RPC_E_CALL_LIMIT;
}

void rpc_call_set_context(struct rpc_call *call, void *context)
{
        call->context = context;
}

void *rpc_call_context(const struct rpc_call *call)
{
        return call->context;
}

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

static void call_set_outgoing(struct rpc_call *call, const void *bytes, size_t n_bytes)
{
        call->outgoing = payload_write(bytes, n_bytes);
        call->n_unread = n_bytes;
        account_add_unread(call->account, n_bytes);
}

bool rpc_call_has_room(const struct rpc_call *call, size_t n_bytes)
{
        return account_has_room_for(call->account, n_bytes);
}

void rpc_call_reply(struct rpc_call *call, const void *response, size_t n_response)
{
        assert(!call->is_head_sent);

        call_set_outgoing(call, response, n_response);
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

static bool call_may_write(const struct rpc_call *call)
{
        return call->is_held && !call->is_writing && !call->is_over;
}

static void call_tell_writable(struct rpc_call *call);

static void on_room(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, room);

        call->is_waking = false;
        call_tell_writable(call);
        call_pump(call);
        call_release(call);
}

/* Not at once: it may be in the midst of another call's event. */
static void on_turn_to_write(struct account_turn *turn)
{
        struct rpc_call *call = CONTAINER_OF(turn, struct rpc_call, room_turn);

        if (call->is_waking)
                return;
        call->is_waking = true;
        call_hold(call);
        rpc_server_defer(call->server, &call->room, on_room);
}

bool rpc_call_is_writable(struct rpc_call *call)
{
        if (!call_may_write(call))
                return false;
        if (account_has_room(call->account))
                return true;
        call->room_turn.on_turn = on_turn_to_write;
        account_wait_for_room(call->account, &call->room_turn);
        return false;
}

static void call_tell_writable(struct rpc_call *call)
{
        if (call->observer && call->observer->on_writable && rpc_call_is_writable(call))
                call->observer->on_writable(call, call->observer_userdata);
}

static void on_write(struct rpc_op *op)
{
        struct rpc_call *call = CONTAINER_OF(op, struct rpc_call, write);
        bool is_out = op->ok;

        call->is_writing = false;
        grpc_byte_buffer_destroy(take(call->outgoing));
        call_forget_unread(call);
        /* One that did not go out is followed by the close, which tells the observer. */
        if (is_out)
                call_tell_writable(call);
        call_pump(call);
        call_release(call);
}

void rpc_call_write(struct rpc_call *call, const void *message, size_t n_message)
{
        grpc_op ops[2] = { 0 };
        size_t n_ops = 0;

        assert(call_may_write(call));

        call_set_outgoing(call, message, n_message);
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
