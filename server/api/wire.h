/* The protobuf wire format, field by field. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
        WIRE_E_END = 1,   /* no more fields */
        WIRE_E_MALFORMED, /* no protobuf, or one with groups */
};

enum wire_type {
        WIRE_VARINT = 0,
        WIRE_FIXED64 = 1,
        WIRE_BYTES = 2,
        WIRE_FIXED32 = 5,
};

struct wire_bytes {
        const uint8_t *start;
        size_t n;
};

struct wire_field {
        uint32_t number;
        enum wire_type type;
        struct wire_bytes value; /* of WIRE_BYTES without its length */
};

/* Takes one field off the front of @rest. */
int wire_next(struct wire_bytes *rest, struct wire_field *ret_field);
