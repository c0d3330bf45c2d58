/*
 * One completion queue, turned by client_turn(). A signal thread waits in sigwait and wakes the
 * queue by an empty batch on a call that is never started: the C core has no other way to post.
 */
#include "cli/client.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#if __has_include(<grpc/credentials.h>)
#include <grpc/credentials.h>
#endif

#include "cli/error.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "runtime/base/macros.h"

enum {
        RECEIVE_MAX = 8 * 1024 * 1024,
        GREETING_MSEC = 20000, /* a server that is not there is known at once */
};

static const int taken_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGIO };

/* What a batch's tag points to. */
struct operation {
        bool is_pending;
};

struct client {
        char *target;
        char *authorization; /* the header's value, or NULL */
        grpc_channel *channel;
        grpc_completion_queue *queue;
        bool has_connected;

        /* To wake the queue from the signal thread. */
        grpc_channel *lame;
        grpc_call *waker;
        struct operation wake;

        pthread_t signal_thread;
        atomic_bool is_leaving;
        atomic_bool wants_terminal;
        atomic_uint n_signals[ARRAY_SIZE(taken_signals)];
        unsigned n_taken[ARRAY_SIZE(taken_signals)];
};

struct client_call {
        struct client *client;
        const ProtobufCMessageDescriptor *output;
        grpc_call *call;

        struct operation sent, message, status;
        grpc_metadata_array initial, trailing;
        bool is_reading; /* the message operation was started and its result not yet taken */
        grpc_byte_buffer *received;
        grpc_status_code code;
        grpc_slice details;

        bool is_over;
        struct rpc_error error;
};

static void taken_set(sigset_t *ret_set)
{
        sigemptyset(ret_set);
        for (size_t i = 0; i < ARRAY_SIZE(taken_signals); i++)
                sigaddset(ret_set, taken_signals[i]);
}

void client_want_terminal(struct client *client)
{
        atomic_store(&client->wants_terminal, true);
}

static void signal_arrived(struct client *client, int signal)
{
        if ((signal == SIGWINCH || signal == SIGIO) && !atomic_load(&client->wants_terminal))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(taken_signals); i++) {
                if (taken_signals[i] != signal)
                        continue;
                if (atomic_fetch_add(&client->n_signals[i], 1) + 1 >= 3 && signal == SIGINT)
                        _exit(EXIT_INTERRUPTED);
        }
        (void)grpc_call_start_batch(client->waker, NULL, 0, &client->wake, NULL);
}

/* On its own thread: everything that it touches is atomic, or gRPC's and safe from any thread. */
static void *signal_main(void *userdata)
{
        struct client *client = userdata;
        sigset_t set;
        int signal;

        taken_set(&set);
        for (;;) {
                if (sigwait(&set, &signal) != 0)
                        continue;
                if (atomic_load(&client->is_leaving))
                        return NULL;
                signal_arrived(client, signal);
        }
}

int client_take_signal(struct client *client)
{
        for (size_t i = 0; i < ARRAY_SIZE(taken_signals); i++) {
                if (client->n_taken[i] == atomic_load(&client->n_signals[i]))
                        continue;
                client->n_taken[i]++;
                return taken_signals[i];
        }
        return 0;
}

static bool has_signal(const struct client *client)
{
        for (size_t i = 0; i < ARRAY_SIZE(taken_signals); i++) {
                if (client->n_taken[i] != atomic_load(&client->n_signals[i]))
                        return true;
        }
        return false;
}

static grpc_channel *channel_new(const char *target)
{
        grpc_arg arguments[] = {
                /* A proxy from the environment must not see code or keys. */
                { GRPC_ARG_INTEGER, (char *)GRPC_ARG_ENABLE_HTTP_PROXY, { .integer = 0 } },
                { GRPC_ARG_INTEGER,
                  (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                  { .integer = RECEIVE_MAX } },
                /* Whether and when to try again is decided in retry.c. */
                { GRPC_ARG_INTEGER, (char *)GRPC_ARG_ENABLE_RETRIES, { .integer = 0 } },
                /* A window that does not grow: what was sent and not received when the server is
                 * killed must fit in what the server keeps of it. */
                { GRPC_ARG_INTEGER, (char *)GRPC_ARG_HTTP2_BDP_PROBE, { .integer = 0 } },
                /* Despite its name: how long at least one try to connect may take. */
                { GRPC_ARG_INTEGER,
                  (char *)GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                  { .integer = GREETING_MSEC } },
                { GRPC_ARG_INTEGER,
                  (char *)GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
                  { .integer = 200 } },
                { GRPC_ARG_INTEGER,
                  (char *)GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                  { .integer = 1000 } },
        };
        grpc_channel_args set = { ARRAY_SIZE(arguments), arguments };
        grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
        grpc_channel *channel = grpc_channel_create(target, credentials, &set);

        grpc_channel_credentials_release(credentials);
        return channel;
}

static gpr_timespec deadline_in(int64_t milliseconds)
{
        if (milliseconds < 0)
                return gpr_inf_future(GPR_CLOCK_MONOTONIC);
        return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                            gpr_time_from_millis(milliseconds, GPR_TIMESPAN));
}

static void waker_init(struct client *client)
{
        client->lame = grpc_lame_client_channel_create("wake", GRPC_STATUS_CANCELLED, "wake");
        client->waker =
                grpc_channel_create_call(client->lame, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
                                         grpc_slice_from_static_string("/wake"), NULL,
                                         gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
}

int client_new(const char *target, const char *api_key, struct client **ret_client)
{
        struct client *client = allocate(1, sizeof(*client));
        sigset_t set;
        int r;

        /* gRPC's threads inherit the mask, so only sigwait sees these. */
        taken_set(&set);
        (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
        /* It would write to standard error in between; what matters arrives as a status. */
        (void)setenv("GRPC_VERBOSITY", "NONE", false);
        grpc_init();

        client->target = duplicate(target);
        client->authorization = api_key ? format_text("Bearer %s", api_key) : NULL;
        client->queue = grpc_completion_queue_create_for_next(NULL);
        client->channel = channel_new(target);
        waker_init(client);

        r = pthread_create(&client->signal_thread, NULL, signal_main, client);
        must(r ? NULL : client);
        *ret_client = client;
        return 0;
}

static void queue_drain(grpc_completion_queue *queue)
{
        grpc_completion_queue_shutdown(queue);
        while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
               GRPC_QUEUE_SHUTDOWN)
                continue;
        grpc_completion_queue_destroy(queue);
}

struct client *client_free(struct client *client)
{
        if (!client)
                return NULL;

        atomic_store(&client->is_leaving, true);
        (void)pthread_kill(client->signal_thread, SIGHUP);
        (void)pthread_join(client->signal_thread, NULL);

        grpc_call_unref(client->waker);
        grpc_channel_destroy(client->lame);
        grpc_channel_destroy(client->channel);
        queue_drain(client->queue);
        grpc_shutdown();
        free(client->authorization);
        free(client->target);
        free(client);
        return NULL;
}

bool client_has_connected(const struct client *client)
{
        return client->has_connected;
}

const char *client_target(const struct client *client)
{
        return client->target;
}

/* Waits for one completion. False: none came in time. */
static bool client_turn(struct client *client, gpr_timespec deadline)
{
        grpc_event event = grpc_completion_queue_next(client->queue, deadline, NULL);
        struct operation *operation = event.tag;

        if (event.type == GRPC_QUEUE_TIMEOUT)
                return false;
        assert(event.type == GRPC_OP_COMPLETE);
        operation->is_pending = false;
        return true;
}

int client_sleep(struct client *client, int64_t milliseconds)
{
        gpr_timespec deadline = deadline_in(milliseconds);

        while (!has_signal(client)) {
                if (!client_turn(client, deadline))
                        return 0;
        }
        return CLIENT_E_SIGNAL;
}

static void call_start(struct client_call *call, const grpc_op *operations, size_t n_operations,
                       struct operation *operation)
{
        grpc_call_error error;

        operation->is_pending = true;
        error = grpc_call_start_batch(call->call, operations, n_operations, operation, NULL);
        assert(error == GRPC_CALL_OK);
        (void)error;
}

static grpc_byte_buffer *pack(const ProtobufCMessage *message)
{
        grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
        grpc_byte_buffer *buffer;

        (void)protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
        buffer = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_slice_unref(slice);
        return buffer;
}

static void call_send(struct client_call *call, const ProtobufCMessage *request)
{
        grpc_byte_buffer *buffer = pack(request);
        grpc_metadata metadata = { 0 };
        grpc_op operations[4] = {
                { .op = GRPC_OP_SEND_INITIAL_METADATA },
                { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer },
                { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
                { .op = GRPC_OP_RECV_INITIAL_METADATA,
                  .data.recv_initial_metadata.recv_initial_metadata = &call->initial },
        };

        if (call->client->authorization) {
                metadata.key = grpc_slice_from_static_string("authorization");
                metadata.value = grpc_slice_from_copied_string(call->client->authorization);
                operations[0].data.send_initial_metadata.count = 1;
                operations[0].data.send_initial_metadata.metadata = &metadata;
        }
        call_start(call, operations, ARRAY_SIZE(operations), &call->sent);
        if (call->client->authorization)
                grpc_slice_unref(metadata.value);
        grpc_byte_buffer_destroy(buffer);
}

static void call_receive_status(struct client_call *call)
{
        grpc_op operation = {
                .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                .data.recv_status_on_client = {
                        .trailing_metadata = &call->trailing,
                        .status = &call->code,
                        .status_details = &call->details,
                },
        };

        call_start(call, &operation, 1, &call->status);
}

struct client_call *client_call_new(struct client *client,
                                    const ProtobufCServiceDescriptor *service, const char *method,
                                    const ProtobufCMessage *request, int64_t timeout_msec)
{
        const ProtobufCMethodDescriptor *found =
                protobuf_c_service_descriptor_get_method_by_name(service, method);
        _cleanup_(freep) char *path = format_text("/%s/%s", service->name, method);
        struct client_call *call = allocate(1, sizeof(*call));
        grpc_slice path_slice = grpc_slice_from_copied_string(path);

        assert(found && found->input == request->descriptor);
        call->client = client;
        call->output = found->output;
        call->details = grpc_empty_slice();
        grpc_metadata_array_init(&call->initial);
        grpc_metadata_array_init(&call->trailing);
        call->call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                              client->queue, path_slice, NULL,
                                              deadline_in(timeout_msec), NULL);
        grpc_slice_unref(path_slice);
        call_receive_status(call);
        call_send(call, request);
        return call;
}

struct client_call *client_call_free(struct client_call *call)
{
        if (!call)
                return NULL;

        if (call->status.is_pending)
                (void)grpc_call_cancel(call->call, NULL);
        while (call->sent.is_pending || call->message.is_pending || call->status.is_pending)
                (void)client_turn(call->client, deadline_in(-1));

        grpc_call_unref(call->call);
        if (call->received)
                grpc_byte_buffer_destroy(call->received);
        grpc_metadata_array_destroy(&call->initial);
        grpc_metadata_array_destroy(&call->trailing);
        grpc_slice_unref(call->details);
        rpc_error_deinit(&call->error);
        free(call);
        return NULL;
}

/* A connection that was lost leaves the channel idle, one that was not made leaves it failing. */
static void learn_connection(struct client *client)
{
        grpc_connectivity_state state = grpc_channel_check_connectivity_state(client->channel, 0);

        if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_IDLE)
                client->has_connected = true;
}

/* The call is over as the server, or gRPC in its stead, says. */
static void call_end_with_status(struct client_call *call)
{
        _cleanup_(freep) char *message = format_text("%.*s", (int)GRPC_SLICE_LENGTH(call->details),
                                                     GRPC_SLICE_START_PTR(call->details));
        const void *details = NULL;
        size_t n_details = 0;

        for (size_t i = 0; i < call->trailing.count; i++) {
                const grpc_metadata *metadata = &call->trailing.metadata[i];

                if (grpc_slice_str_cmp(metadata->key, "grpc-status-details-bin") != 0)
                        continue;
                details = GRPC_SLICE_START_PTR(metadata->value);
                n_details = GRPC_SLICE_LENGTH(metadata->value);
        }
        rpc_error_init(&call->error, (int)call->code, message, details, n_details);
        call->is_over = true;
        learn_connection(call->client);
}

static void *unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *descriptor)
{
        grpc_byte_buffer_reader reader;
        ProtobufCMessage *message;
        grpc_slice slice;

        if (!grpc_byte_buffer_reader_init(&reader, buffer))
                return NULL;
        slice = grpc_byte_buffer_reader_readall(&reader);
        message = protobuf_c_message_unpack(descriptor, NULL, GRPC_SLICE_LENGTH(slice),
                                            GRPC_SLICE_START_PTR(slice));
        grpc_slice_unref(slice);
        grpc_byte_buffer_reader_destroy(&reader);
        return message;
}

static int call_take_message(struct client_call *call, void **ret_message)
{
        void *message = unpack(call->received, call->output);

        call->client->has_connected = true;
        grpc_byte_buffer_destroy(call->received);
        call->received = NULL;
        if (message) {
                *ret_message = message;
                return 0;
        }
        (void)grpc_call_cancel(call->call, NULL);
        rpc_error_init(&call->error, RPC_INTERNAL,
                       "the server's answer could not be read; is it another version?", NULL, 0);
        call->is_over = true;
        return CLIENT_E_END;
}

/* Waits until @operation is done. */
static int call_wait(struct client_call *call, const struct operation *operation,
                     gpr_timespec deadline)
{
        while (operation->is_pending) {
                if (has_signal(call->client))
                        return CLIENT_E_SIGNAL;
                if (!client_turn(call->client, deadline))
                        return CLIENT_E_TIMEOUT;
        }
        return 0;
}

int client_call_read(struct client_call *call, int64_t timeout_msec, void *ret_message)
{
        gpr_timespec deadline = deadline_in(timeout_msec);
        grpc_op operation = { .op = GRPC_OP_RECV_MESSAGE,
                              .data.recv_message.recv_message = &call->received };
        int r;

        if (call->is_over)
                return CLIENT_E_END;
        /* Only now: what is not asked for stays with the server, which then stops reading. */
        if (!call->is_reading)
                call_start(call, &operation, 1, &call->message);
        call->is_reading = true;
        r = call_wait(call, &call->message, deadline);
        if (r)
                return r;
        call->is_reading = false;
        if (call->received)
                return call_take_message(call, ret_message);

        r = call_wait(call, &call->status, deadline);
        if (r)
                return r;
        call_end_with_status(call);
        return CLIENT_E_END;
}

const struct rpc_error *client_call_error(const struct client_call *call)
{
        assert(call->is_over);
        return &call->error;
}
