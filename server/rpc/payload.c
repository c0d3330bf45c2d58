/*
 * Decompression is turned off in the library and done here, because its own has no limit: 4 MiB of
 * gzip can be 4 GiB of zeroes.
 */
#include "server/rpc/payload.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        WINDOW_ZLIB = 15, /* what gRPC calls deflate */
        WINDOW_GZIP = 15 + 16,
};

static void inflate_done(z_stream *stream)
{
        (void)inflateEnd(stream);
}

/* Makes room for more, one byte above @max at most: that byte tells that it is too big. */
static int grow(uint8_t **bytes, size_t *capacity, size_t max)
{
        size_t larger = MIN(MAX(*capacity * 2, KIB(4)), max + 1);
        uint8_t *moved;

        if (larger == *capacity)
                return PAYLOAD_E_TOO_BIG;
        moved = realloc(*bytes, larger);
        if (!moved)
                return error_origin(-ENOMEM);
        *bytes = moved;
        *capacity = larger;
        return 0;
}

/* Feeds one slice. *@ret_ended says that the compressed stream is complete. */
static int inflate_slice(z_stream *stream, grpc_slice *slice, uint8_t **bytes, size_t *capacity,
                         size_t max, bool *ret_ended)
{
        int z = Z_OK;
        int r;

        stream->next_in = GRPC_SLICE_START_PTR(*slice);
        stream->avail_in = (uInt)GRPC_SLICE_LENGTH(*slice);
        while (z != Z_STREAM_END) {
                if (stream->total_out == *capacity) {
                        r = grow(bytes, capacity, max);
                        if (r)
                                return r;
                }
                stream->next_out = *bytes + stream->total_out;
                stream->avail_out = (uInt)(*capacity - stream->total_out);
                z = inflate(stream, Z_NO_FLUSH);
                if (z == Z_BUF_ERROR && stream->avail_in == 0)
                        break; /* wants the next slice */
                if (z != Z_OK && z != Z_STREAM_END)
                        return PAYLOAD_E_MALFORMED;
                if (z == Z_OK && stream->avail_in == 0 && stream->avail_out > 0)
                        break;
        }
        *ret_ended = z == Z_STREAM_END;
        return z == Z_STREAM_END && stream->avail_in > 0 ? PAYLOAD_E_MALFORMED : 0;
}

static int inflate_all(const grpc_slice_buffer *slices, int window, size_t max,
                       struct payload *ret_payload)
{
        _cleanup_(inflate_done) z_stream stream = { 0 };
        _cleanup_(freep) uint8_t *bytes = NULL;
        size_t capacity = 0;
        bool has_ended = false;
        int r;

        if (inflateInit2(&stream, window) != Z_OK)
                return error_origin(-ENOMEM);

        for (size_t i = 0; i < slices->count; i++) {
                if (has_ended && GRPC_SLICE_LENGTH(slices->slices[i]) > 0)
                        return PAYLOAD_E_MALFORMED;
                if (has_ended)
                        continue;
                r = inflate_slice(&stream, &slices->slices[i], &bytes, &capacity, max, &has_ended);
                if (r)
                        return r;
        }
        if (!has_ended)
                return PAYLOAD_E_MALFORMED;
        if (stream.total_out > max)
                return PAYLOAD_E_TOO_BIG;

        ret_payload->n_bytes = stream.total_out;
        ret_payload->bytes = bytes;
        ret_payload->owned = take(bytes);
        return 0;
}

static int join(const grpc_slice_buffer *slices, struct payload *ret_payload)
{
        uint8_t *joined = malloc(MAX(slices->length, 1U));
        size_t used = 0;

        if (!joined)
                return error_origin(-ENOMEM);

        for (size_t i = 0; i < slices->count; i++) {
                const grpc_slice *slice = &slices->slices[i];

                memcpy(joined + used, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
                used += GRPC_SLICE_LENGTH(*slice);
        }
        *ret_payload = (struct payload){ .bytes = joined, .n_bytes = used, .owned = joined };
        return 0;
}

int payload_read(grpc_byte_buffer *buffer, size_t max, struct payload *ret_payload)
{
        const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;

        switch (buffer->data.raw.compression) {
        case GRPC_COMPRESS_GZIP:
                return inflate_all(slices, WINDOW_GZIP, max, ret_payload);
        case GRPC_COMPRESS_DEFLATE:
                return inflate_all(slices, WINDOW_ZLIB, max, ret_payload);
        case GRPC_COMPRESS_NONE:
                break;
        case GRPC_COMPRESS_ALGORITHMS_COUNT:
        default:
                return PAYLOAD_E_MALFORMED;
        }

        if (slices->length > max)
                return PAYLOAD_E_TOO_BIG;
        if (slices->count != 1)
                return join(slices, ret_payload);
        *ret_payload = (struct payload){
                .bytes = GRPC_SLICE_START_PTR(slices->slices[0]),
                .n_bytes = GRPC_SLICE_LENGTH(slices->slices[0]),
        };
        return 0;
}

void payload_deinit(struct payload *payload)
{
        free(payload->owned);
        *payload = (struct payload){ 0 };
}

grpc_byte_buffer *payload_write(const void *bytes, size_t n_bytes)
{
        grpc_slice slice = grpc_slice_from_copied_buffer(bytes, n_bytes);
        grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

        grpc_slice_unref(slice);
        return buffer;
}
