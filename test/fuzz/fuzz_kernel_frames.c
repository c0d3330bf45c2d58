/*
 * Bytes as if a kernel had sent them: frames are cut, decoded and taken in their order, as the
 * channel does it. The first byte says how often code is sent meanwhile.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "runtime/base/wire.h"
#include "server/session/kernel_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is kept in the ring must be readable again. */
static void check_kept(const struct frame *frame)
{
        ProtobufCMessage *message =
                kernel_message_unpack(frame->type, frame->payload, frame->n_payload);

        if (message)
                protobuf_c_message_free_unpacked(message, &wire_sure_allocator);
        else if (frame->n_payload > 0)
                abort();
}

/* False: the kernel would be killed. */
static bool take_frame(struct kernel_order *order, const struct frame *frame)
{
        struct kernel_frame decoded;
        const char *why = NULL;
        int r;

        r = kernel_frame_decode(frame, &decoded, &why);
        if (r == KERNEL_FRAME_E_UNKNOWN)
                return true;
        if (r)
                return false;
        check_kept(frame);
        r = kernel_order_take(order, &decoded, &why);
        kernel_frame_deinit(&decoded);
        if (r == KERNEL_FRAME_E_MALFORMED && !why)
                abort();
        if (order->part > order->n_parts || order->n_parts > KERNEL_PARTS_MAX)
                abort();
        return r != KERNEL_FRAME_E_MALFORMED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct kernel_order order;
        struct frame frame;
        size_t n_frame;
        uint8_t often;

        if (size == 0)
                return 0;
        often = (uint8_t)(data[0] % 8);
        data++;
        size--;
        kernel_order_init(&order, 1 << 20);
        while (frame_parse(data, size, FRAME_PAYLOAD_MAX, &frame, &n_frame) == 0) {
                if (order.state == KERNEL_ORDER_IDLE && often-- > 0)
                        (void)kernel_order_execute(&order);
                if (!take_frame(&order, &frame))
                        return 0;
                data += n_frame;
                size -= n_frame;
        }
        return 0;
}
