/* Messages between gRPC's byte buffers and plain bytes. */
#pragma once

#include <stddef.h>

#include "runtime/base/cleanup.h"
#include "server/rpc/grpc_core.h"

enum {
        PAYLOAD_E_TOO_BIG = 1, /* more than the caller takes, once decompressed */
        PAYLOAD_E_MALFORMED,   /* not what its compression says */
};

/* The bytes of a received message. */
struct payload {
        const void *bytes; /* never NULL after payload_read; in the buffer, or owned */
        size_t n_bytes;
        void *owned;
};

/* @buffer must outlive *@ret_payload. */
int payload_read(grpc_byte_buffer *buffer, size_t max, struct payload *ret_payload);
void payload_deinit(struct payload *payload);

/* A buffer with a copy of @bytes. */
grpc_byte_buffer *payload_write(const void *bytes, size_t n_bytes);
