/*
 * The frames between hotcelld and a language kernel: 12-byte little-endian header and a payload
 * (`proto/hotcell/sandbox/v1/kernel.proto`). A pure machine: bytes in, frames out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        FRAME_HEADER_SIZE = 12,
        FRAME_PAYLOAD_MAX = (1 << 20) + (64 << 10), /* bytes: 1 MiB of code and what goes with it */
        FRAME_FLAG_SYNC = 1,                        /* the sender waits for an ACK */
};

enum {
        FRAME_E_MALFORMED = 1, /* the stream is no frames: end the kernel */
        FRAME_E_INCOMPLETE,    /* more bytes are needed */
};

struct frame {
        uint8_t type;
        uint8_t flags;
        uint16_t serial; /* of a command; zero in events */
        uint32_t execution;
        const uint8_t *payload; /* in the caller's buffer */
        size_t n_payload;
};

void frame_write_header(uint8_t ret_header[static FRAME_HEADER_SIZE], const struct frame *frame);

/*
 * Reads the frame at the start of @bytes. On success *@ret_size is the size of header and payload
 * together. A header whose payload is larger than @payload_max or whose reserved bits are set is
 * malformed.
 */
int frame_parse(const uint8_t *bytes, size_t n_bytes, size_t payload_max, struct frame *ret_frame,
                size_t *ret_size);
