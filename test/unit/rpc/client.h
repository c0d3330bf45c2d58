/* A small blocking gRPC client on core. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>

struct client {
        grpc_channel *channel;
        grpc_completion_queue *queue; /* to pluck from */
};

/* @target as `unix:/path` or `127.0.0.1:1`; its connection is its own. */
void client_init(struct client *client, const char *target);

/* Compresses what it sends. */
void client_init_gzip(struct client *client, const char *target);

/* Over a connected socket, which it takes. */
void client_init_fd(struct client *client, int fd);
void client_deinit(struct client *client);

struct client_result {
        grpc_status_code code;
        char message[1024];
        uint8_t details[8192];
        size_t n_details;
        uint8_t *bytes; /* of the last message read; NULL when there was none */
        size_t n_bytes;
};

void client_result_deinit(struct client_result *result);

struct client_call {
        struct client *client;
        grpc_call *call;
        grpc_metadata_array head;
        grpc_metadata_array trailer;
        grpc_slice message;
        struct client_result result;
};

/* Opens a call; @timeout_msec 0: no deadline. */
void client_open(struct client *client, struct client_call *call, const char *path,
                 unsigned timeout_msec);
void client_send(struct client_call *call, const void *bytes, size_t n_bytes);
void client_half_close(struct client_call *call);

/* False at the end of the stream; else `result.bytes` is the message. */
bool client_read(struct client_call *call);
void client_cancel(struct client_call *call);

/* Waits for the status, and ends the call. The result stays. */
void client_finish(struct client_call *call);

/* The same without waiting: for after the channel is gone, or for calls that never end. */
void client_abandon(struct client_call *call);

/* One message there, one back. */
struct client_result client_unary(struct client *client, const char *path, const void *bytes,
                                  size_t n_bytes, unsigned timeout_msec);
