/* No laxer than protobuf-c anywhere: what it unpacks must have been seen here in the same way. */
#include "server/api/wire.h"

#include "runtime/base/macros.h"

enum {
        VARINT_MAX = 10, /* bytes */
        TAG_MAX = 5,
};

/* Length of the varint at the front, or 0. */
static size_t varint_size(const struct wire_bytes *bytes, size_t max)
{
        for (size_t i = 0; i < bytes->n && i < max; i++)
                if (!(bytes->start[i] & 0x80))
                        return i + 1;
        return 0;
}

static void skip(struct wire_bytes *bytes, size_t n)
{
        bytes->start += n;
        bytes->n -= n;
}

/* One that fits 32 bits, in at most five bytes. */
static int take_varint32(struct wire_bytes *bytes, uint32_t *ret_value)
{
        size_t size = varint_size(bytes, TAG_MAX);
        uint64_t value = 0;

        if (size == 0)
                return WIRE_E_MALFORMED;
        for (size_t i = 0; i < size; i++)
                value |= (uint64_t)(bytes->start[i] & 0x7f) << (7 * i);
        if (value > UINT32_MAX)
                return WIRE_E_MALFORMED;
        skip(bytes, size);
        *ret_value = (uint32_t)value;
        return 0;
}

static int value_size(struct wire_bytes *rest, unsigned type, size_t *ret_size)
{
        uint32_t length;
        int r;

        switch (type) {
        case WIRE_VARINT:
                *ret_size = varint_size(rest, VARINT_MAX);
                return *ret_size ? 0 : WIRE_E_MALFORMED;
        case WIRE_FIXED64:
                *ret_size = 8;
                return 0;
        case WIRE_FIXED32:
                *ret_size = 4;
                return 0;
        case WIRE_BYTES:
                r = take_varint32(rest, &length);
                if (r)
                        return r;
                *ret_size = length;
                return 0;
        default:
                return WIRE_E_MALFORMED;
        }
}

int wire_next(struct wire_bytes *rest, struct wire_field *ret_field)
{
        uint32_t tag;
        size_t size;
        int r;

        if (rest->n == 0)
                return WIRE_E_END;
        r = take_varint32(rest, &tag);
        if (r)
                return r;
        r = value_size(rest, tag & 7, &size);
        if (r)
                return r;
        if (size > rest->n || tag >> 3 == 0)
                return WIRE_E_MALFORMED;

        *ret_field = (struct wire_field){
                .number = tag >> 3,
                .type = (enum wire_type)(tag & 7),
                .value = { rest->start, size },
        };
        skip(rest, size);
        return 0;
}
