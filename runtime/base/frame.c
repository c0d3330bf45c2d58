#include "runtime/base/frame.h"

#include <endian.h>
#include <string.h>

#include "runtime/base/macros.h"

struct frame_header {
        uint32_t n_payload;
        uint8_t type;
        uint8_t flags;
        uint16_t serial;
        uint32_t execution;
};
static_assert(sizeof(struct frame_header) == FRAME_HEADER_SIZE, "as on the wire");

void frame_write_header(uint8_t ret_header[static FRAME_HEADER_SIZE], const struct frame *frame)
{
        struct frame_header header = {
                .n_payload = htole32((uint32_t)frame->n_payload),
                .type = frame->type,
                .flags = frame->flags,
                .serial = htole16(frame->serial),
                .execution = htole32(frame->execution),
        };

        assert(frame->n_payload <= FRAME_PAYLOAD_MAX);
        memcpy(ret_header, &header, sizeof(header));
}

int frame_parse(const uint8_t *bytes, size_t n_bytes, size_t payload_max, struct frame *ret_frame,
                size_t *ret_size)
{
        struct frame_header header;
        size_t n_payload;

        if (n_bytes < sizeof(header))
                return FRAME_E_INCOMPLETE;
        memcpy(&header, bytes, sizeof(header));
        n_payload = le32toh(header.n_payload);
        if (n_payload > payload_max || (header.flags & ~FRAME_FLAG_SYNC))
                return FRAME_E_MALFORMED;
        if (n_bytes - sizeof(header) < n_payload)
                return FRAME_E_INCOMPLETE;

        *ret_frame = (struct frame){
                .type = header.type,
                .flags = header.flags,
                .serial = le16toh(header.serial),
                .execution = le32toh(header.execution),
                .payload = bytes + sizeof(header),
                .n_payload = n_payload,
        };
        *ret_size = sizeof(header) + n_payload;
        return 0;
}
