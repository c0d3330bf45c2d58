#include "test/unit/rpc/client.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/support/time.h>

#include "runtime/base/macros.h"
#include "server/rpc/grpc_core.h"

/* Calls share a queue, so a tag is of one call: its address, and the one after it. */
static void *tag_status(struct client_call *call)
{
        return call;
}

static void *tag_other(struct client_call *call)
{
        return (char *)call + 1;
}

static gpr_timespec after_msec(unsigned msec)
{
        if (msec == 0)
                return gpr_inf_future(GPR_CLOCK_MONOTONIC);
        return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(msec, GPR_TIMESPAN));
}

static void wait_for(struct client_call *call, void *tag)
{
        grpc_event event =
                grpc_completion_queue_pluck(call->client->queue, tag, after_msec(20000), NULL);

        assert(event.type == GRPC_OP_COMPLETE);
}

static void init(struct client *client, const char *target, int compression)
{
        grpc_arg args[] = {
                { .type = GRPC_ARG_INTEGER,
                  .key = (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                  .value.integer = 1 },
                { .type = GRPC_ARG_INTEGER,
                  .key = (char *)(uintptr_t)GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM,
                  .value.integer = compression },
                { .type = GRPC_ARG_INTEGER,
                  .key = (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                  .value.integer = -1 },
                { .type = GRPC_ARG_INTEGER,
                  .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_HTTP_PROXY,
                  .value.integer = 0 },
        };
        grpc_channel_args all = { .num_args = ARRAY_SIZE(args), .args = args };
        grpc_channel_credentials *credentials = grpc_insecure_credentials_create();

        client->channel = grpc_channel_create(target, credentials, &all);
        client->queue = grpc_completion_queue_create_for_pluck(NULL);
        grpc_channel_credentials_release(credentials);
}

void client_init(struct client *client, const char *target)
{
        init(client, target, GRPC_COMPRESS_NONE);
}

void client_init_gzip(struct client *client, const char *target)
{
        init(client, target, GRPC_COMPRESS_GZIP);
}

void client_init_fd(struct client *client, int fd)
{
        grpc_channel_credentials *credentials = grpc_insecure_credentials_create();

        client->channel = grpc_channel_create_from_fd("fd", fd, credentials, NULL);
        client->queue = grpc_completion_queue_create_for_pluck(NULL);
        grpc_channel_credentials_release(credentials);
}

void client_deinit(struct client *client)
{
        grpc_channel_destroy(client->channel);
        grpc_completion_queue_shutdown(client->queue);
        grpc_completion_queue_destroy(client->queue);
}

void client_result_deinit(struct client_result *result)
{
        free(result->bytes);
        result->bytes = NULL;
}

static void start(struct client_call *call, const grpc_op *ops, size_t n_ops, void *tag)
{
        grpc_call_error error = grpc_call_start_batch(call->call, ops, n_ops, tag, NULL);

        assert(error == GRPC_CALL_OK);
}

static void call_init(struct client *client, struct client_call *call, const char *path,
                      unsigned timeout_msec)
{
        grpc_slice method = grpc_slice_from_copied_string(path);

        *call = (struct client_call){ .client = client };
        call->message = grpc_empty_slice();
        call->call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                              client->queue, method, NULL, after_msec(timeout_msec),
                                              NULL);
        grpc_slice_unref(method);
}

static grpc_op op_send_head(grpc_metadata *metadata)
{
        grpc_op op = { .op = GRPC_OP_SEND_INITIAL_METADATA };

        *metadata = (grpc_metadata){
                .key = grpc_slice_from_static_string("x-test"),
                .value = grpc_slice_from_static_string("value"),
        };
        op.data.send_initial_metadata.metadata = metadata;
        op.data.send_initial_metadata.count = 1;
        return op;
}

static grpc_op op_receive_status(struct client_call *call)
{
        grpc_op op = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT };

        op.data.recv_status_on_client.trailing_metadata = &call->trailer;
        op.data.recv_status_on_client.status = &call->result.code;
        op.data.recv_status_on_client.status_details = &call->message;
        return op;
}

void client_open(struct client *client, struct client_call *call, const char *path,
                 unsigned timeout_msec)
{
        grpc_metadata metadata;
        grpc_op status;
        grpc_op head;

        call_init(client, call, path, timeout_msec);
        status = op_receive_status(call);
        start(call, &status, 1, tag_status(call));
        head = op_send_head(&metadata);
        start(call, &head, 1, tag_other(call));
        wait_for(call, tag_other(call));
}

void client_send(struct client_call *call, const void *bytes, size_t n_bytes)
{
        grpc_slice slice = grpc_slice_from_copied_buffer(bytes, n_bytes);
        grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_op op = { .op = GRPC_OP_SEND_MESSAGE };

        op.data.send_message.send_message = buffer;
        start(call, &op, 1, tag_other(call));
        wait_for(call, tag_other(call));
        grpc_byte_buffer_destroy(buffer);
        grpc_slice_unref(slice);
}

void client_half_close(struct client_call *call)
{
        const grpc_op op = { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };

        start(call, &op, 1, tag_other(call));
        wait_for(call, tag_other(call));
}

static void keep_message(struct client_result *result, grpc_byte_buffer *buffer)
{
        grpc_byte_buffer_reader reader;
        grpc_slice all;
        int is_good = grpc_byte_buffer_reader_init(&reader, buffer);

        assert(is_good);
        all = grpc_byte_buffer_reader_readall(&reader);
        free(result->bytes);
        result->n_bytes = GRPC_SLICE_LENGTH(all);
        result->bytes = malloc(result->n_bytes + 1);
        assert(result->bytes);
        memcpy(result->bytes, GRPC_SLICE_START_PTR(all), result->n_bytes);
        result->bytes[result->n_bytes] = '\0';
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
}

bool client_read(struct client_call *call)
{
        grpc_byte_buffer *buffer = NULL;
        grpc_op ops[2] = { { .op = GRPC_OP_RECV_MESSAGE },
                           { .op = GRPC_OP_RECV_INITIAL_METADATA } };
        bool is_first = !call->head.metadata && call->head.capacity == 0;

        ops[0].data.recv_message.recv_message = &buffer;
        ops[1].data.recv_initial_metadata.recv_initial_metadata = &call->head;
        start(call, ops, is_first ? 2 : 1, tag_other(call));
        wait_for(call, tag_other(call));
        if (call->head.capacity == 0)
                call->head.capacity = SIZE_MAX; /* read, and empty */
        if (!buffer)
                return false;
        keep_message(&call->result, buffer);
        grpc_byte_buffer_destroy(buffer);
        return true;
}

void client_cancel(struct client_call *call)
{
        (void)grpc_call_cancel(call->call, NULL);
}

static void keep_status(struct client_call *call)
{
        struct client_result *result = &call->result;
        size_t n = MIN(GRPC_SLICE_LENGTH(call->message), sizeof(result->message) - 1);

        memcpy(result->message, GRPC_SLICE_START_PTR(call->message), n);
        result->message[n] = '\0';
        for (size_t i = 0; i < call->trailer.count; i++) {
                const grpc_metadata *metadata = &call->trailer.metadata[i];

                if (grpc_slice_str_cmp(metadata->key, "grpc-status-details-bin") != 0)
                        continue;
                result->n_details = GRPC_SLICE_LENGTH(metadata->value);
                assert(result->n_details <= sizeof(result->details));
                memcpy(result->details, GRPC_SLICE_START_PTR(metadata->value), result->n_details);
        }
}

void client_finish(struct client_call *call)
{
        wait_for(call, tag_status(call));
        keep_status(call);
        grpc_slice_unref(call->message);
        if (call->head.capacity != SIZE_MAX)
                grpc_metadata_array_destroy(&call->head);
        grpc_metadata_array_destroy(&call->trailer);
        grpc_call_unref(call->call);
}

void client_abandon(struct client_call *call)
{
        client_cancel(call);
        client_finish(call);
        client_result_deinit(&call->result);
}

/* All in one batch, as generated clients do it. */
struct client_result client_unary(struct client *client, const char *path, const void *bytes,
                                  size_t n_bytes, unsigned timeout_msec)
{
        struct client_call call;
        grpc_slice slice = grpc_slice_from_copied_buffer(bytes, n_bytes);
        grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_byte_buffer *response = NULL;
        grpc_metadata metadata;
        grpc_op ops[6];

        call_init(client, &call, path, timeout_msec);
        ops[0] = op_send_head(&metadata);
        ops[1] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE };
        ops[1].data.send_message.send_message = request;
        ops[2] = (grpc_op){ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
        ops[3] = (grpc_op){ .op = GRPC_OP_RECV_INITIAL_METADATA };
        ops[3].data.recv_initial_metadata.recv_initial_metadata = &call.head;
        ops[4] = (grpc_op){ .op = GRPC_OP_RECV_MESSAGE };
        ops[4].data.recv_message.recv_message = &response;
        ops[5] = op_receive_status(&call);
        start(&call, ops, ARRAY_SIZE(ops), tag_status(&call));
        client_finish(&call);

        if (response)
                keep_message(&call.result, response);
        grpc_byte_buffer_destroy(response);
        grpc_byte_buffer_destroy(request);
        grpc_slice_unref(slice);
        return call.result;
}
