/*
 * Decoding happens with a budget: protobuf can make large structures of few bytes (each empty
 * sub-message is two bytes on the wire and a hundred in memory).
 */
#include "server/session/kernel_frame.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "runtime/base/text.h"
#include "runtime/base/wire.h"

enum { ALLOCATION_BUDGET = 4 * KERNEL_FRAME_MAX };

static void *budget_alloc(void *userdata, size_t size)
{
        size_t *left = userdata;

        if (size > *left)
                return NULL;
        *left -= size;
        return reserve_alloc(size);
}

static void budget_free(void *userdata, void *pointer)
{
        (void)userdata;
        reserve_free(pointer);
}

static const struct {
        uint8_t type;
        const ProtobufCMessageDescriptor *message; /* NULL: no payload */
} frame_types[] = {
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_READY,
          &hotcell__sandbox__v1__ready__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_STARTED,
          &hotcell__sandbox__v1__started__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_RESULT,
          &hotcell__sandbox__v1__bundle__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DISPLAY,
          &hotcell__sandbox__v1__bundle__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_PART_DATA,
          &hotcell__sandbox__v1__part_data__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ERROR,
          &hotcell__sandbox__v1__error__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_CLEAR_OUTPUT,
          &hotcell__sandbox__v1__clear_output__descriptor },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_BARRIER, NULL },
        { HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DONE,
          &hotcell__sandbox__v1__done__descriptor },
};

static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *descriptor,
                                const uint8_t *payload, size_t n_payload)
{
        size_t left = ALLOCATION_BUDGET;
        ProtobufCAllocator allocator = {
                .alloc = budget_alloc,
                .free = budget_free,
                .allocator_data = &left,
        };

        return protobuf_c_message_unpack(descriptor, &allocator, n_payload, payload);
}

ProtobufCMessage *kernel_message_unpack(uint8_t type, const uint8_t *payload, size_t n_payload)
{
        for (size_t i = 0; i < ARRAY_SIZE(frame_types); i++)
                if (frame_types[i].type == type && frame_types[i].message)
                        return unpack(frame_types[i].message, payload, n_payload);
        return NULL;
}

/* protobuf-c knows C strings only: a NUL inside would cut what we checked from what is shown. */
static bool is_text(const char *text, size_t max)
{
        size_t n = strlen(text);

        return n <= max && text_is_utf8(text, n);
}

static bool is_mime_character(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("!#$&-^_.+", c);
}

/* RFC 6838 names in lower case, without parameters. */
static bool is_mime_type(const char *type)
{
        const char *at = type;

        if (strlen(type) > KERNEL_MIME_MAX)
                return false;
        while (*at && is_mime_character(*at))
                at++;
        if (at == type || *at++ != '/' || !*at || !is_mime_character(*at))
                return false;
        while (*at && is_mime_character(*at))
                at++;
        return !*at;
}

static const char *check_bundle(const Hotcell__Sandbox__V1__Bundle *bundle)
{
        size_t n_inline = 0;

        if (bundle->n_parts > KERNEL_PARTS_MAX)
                return "a bundle of too many parts";
        if (!is_text(bundle->display_id, KERNEL_DISPLAY_ID_MAX))
                return "a bad display_id";
        for (size_t i = 0; i < bundle->n_parts; i++) {
                const Hotcell__Sandbox__V1__Part *part = bundle->parts[i];

                if (!is_mime_type(part->type))
                        return "a bad MIME type";
                if (part->data.len > part->size || part->size > INT64_MAX / KERNEL_PARTS_MAX)
                        return "a part of a wrong size";
                n_inline += part->data.len;
        }
        return n_inline > KERNEL_INLINE_MAX ? "too much inline data" : NULL;
}

static const char *check_error(const Hotcell__Sandbox__V1__Error *error)
{
        size_t n_traceback = 0;

        if (!is_text(error->name, KERNEL_ERROR_NAME_MAX))
                return "a bad name of an error";
        if (!is_text(error->value, KERNEL_ERROR_VALUE_MAX))
                return "a bad text of an error";
        if (error->n_traceback > KERNEL_TRACEBACK_LINES_MAX)
                return "a traceback of too many lines";
        for (size_t i = 0; i < error->n_traceback; i++) {
                if (!is_text(error->traceback[i], KERNEL_TRACEBACK_MAX))
                        return "a bad traceback";
                n_traceback += strlen(error->traceback[i]);
        }
        return n_traceback > KERNEL_TRACEBACK_MAX ? "too long a traceback" : NULL;
}

static const char *check_ready(const Hotcell__Sandbox__V1__Ready *ready)
{
        if (ready->protocol != KERNEL_PROTOCOL)
                return "another version of the protocol";
        if (!is_text(ready->language, KERNEL_LANGUAGE_MAX) ||
            !is_text(ready->language_version, KERNEL_LANGUAGE_MAX))
                return "a bad name of a language";
        return NULL;
}

static const char *check_message(const struct kernel_frame *frame)
{
        switch (frame->type) {
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_READY:
                return check_ready(frame->ready);
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_RESULT:
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DISPLAY:
                return check_bundle(frame->bundle);
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_PART_DATA:
                return frame->part_data->data.len > KERNEL_INLINE_MAX ? "too large a part_data"
                                                                      : NULL;
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ERROR:
                return check_error(frame->error);
        default:
                return NULL;
        }
}

static int malformed(const char *why, const char **ret_why)
{
        *ret_why = why;
        return KERNEL_FRAME_E_MALFORMED;
}

int kernel_frame_decode(const struct frame *raw, struct kernel_frame *ret_frame,
                        const char **ret_why)
{
        struct kernel_frame frame = { .type = raw->type, .execution = raw->execution, .raw = *raw };
        const char *why;
        size_t i = 0;

        while (i < ARRAY_SIZE(frame_types) && frame_types[i].type != raw->type)
                i++;
        if (i == ARRAY_SIZE(frame_types))
                return KERNEL_FRAME_E_UNKNOWN;
        if (raw->n_payload > KERNEL_FRAME_MAX)
                return malformed("too large a frame", ret_why);

        if (!frame_types[i].message) {
                if (raw->n_payload > 0)
                        return malformed("a payload where none belongs", ret_why);
                *ret_frame = frame;
                return 0;
        }
        frame.message = unpack(frame_types[i].message, raw->payload, raw->n_payload);
        if (!frame.message)
                return malformed("a payload that is no such message", ret_why);
        why = check_message(&frame);
        if (why) {
                kernel_frame_deinit(&frame);
                return malformed(why, ret_why);
        }
        *ret_frame = frame;
        return 0;
}

void kernel_frame_deinit(struct kernel_frame *frame)
{
        if (frame->message)
                protobuf_c_message_free_unpacked(frame->message, &wire_sure_allocator);
        frame->message = NULL;
}

void kernel_order_init(struct kernel_order *order, uint64_t part_max_bytes)
{
        *order = (struct kernel_order){ .state = KERNEL_ORDER_HELLO,
                                        .part_max_bytes = part_max_bytes };
}

uint32_t kernel_order_execute(struct kernel_order *order)
{
        assert(order->state == KERNEL_ORDER_IDLE);

        order->state = KERNEL_ORDER_SENT;
        order->has_raised = false;
        order->n_parts = 0;
        return ++order->execution;
}

/* Moves to the first part that still lacks bytes. */
static void skip_complete_parts(struct kernel_order *order)
{
        while (order->part < order->n_parts &&
               order->offsets[order->part] == order->sizes[order->part])
                order->part++;
}

static int take_bundle(struct kernel_order *order, const Hotcell__Sandbox__V1__Bundle *bundle)
{
        /* An earlier bundle that is not complete was given up by an interrupt: it stays short. */
        order->n_parts = (uint32_t)bundle->n_parts;
        order->part = 0;
        order->is_too_large = false;
        for (size_t i = 0; i < bundle->n_parts; i++) {
                order->sizes[i] = bundle->parts[i]->size;
                order->offsets[i] = bundle->parts[i]->data.len;
                if (order->sizes[i] > order->part_max_bytes)
                        order->is_too_large = true;
        }
        skip_complete_parts(order);
        return order->is_too_large ? KERNEL_FRAME_E_TOO_LARGE : 0;
}

static int drop(struct kernel_order *order)
{
        order->n_dropped++;
        return KERNEL_FRAME_E_DROP;
}

static int take_part_data(struct kernel_order *order, const Hotcell__Sandbox__V1__PartData *part,
                          const char **ret_why)
{
        if (part->part != order->part || order->part >= order->n_parts)
                return malformed("part_data out of order", ret_why);
        if (part->offset != order->offsets[order->part] ||
            part->data.len > order->sizes[order->part] - part->offset)
                return malformed("part_data beside its part", ret_why);
        order->offsets[order->part] += part->data.len;
        skip_complete_parts(order);
        return order->is_too_large ? drop(order) : 0;
}

static int take_ready(struct kernel_order *order, const char **ret_why)
{
        if (order->state != KERNEL_ORDER_HELLO)
                return malformed("ready twice", ret_why);
        order->state = KERNEL_ORDER_IDLE;
        return 0;
}

static int take_started(struct kernel_order *order, const char **ret_why)
{
        if (order->state != KERNEL_ORDER_SENT)
                return malformed("started twice", ret_why);
        order->state = KERNEL_ORDER_RUNNING;
        return 0;
}

int kernel_order_take(struct kernel_order *order, const struct kernel_frame *frame,
                      const char **ret_why)
{
        if (frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_READY)
                return take_ready(order, ret_why);
        if (order->state == KERNEL_ORDER_HELLO)
                return frame->message ? malformed("a frame before ready", ret_why) : 0;
        if (frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_BARRIER)
                return 0; /* a barrier holds also between executions */
        if (order->state == KERNEL_ORDER_IDLE || frame->execution != order->execution)
                return drop(order);
        if (frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_STARTED)
                return take_started(order, ret_why);
        if (order->state == KERNEL_ORDER_SENT &&
            frame->type != HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DONE &&
            frame->type != HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ERROR)
                return drop(order);

        switch (frame->type) {
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_RESULT:
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DISPLAY:
                return take_bundle(order, frame->bundle);
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_PART_DATA:
                return take_part_data(order, frame->part_data, ret_why);
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ERROR:
                order->has_raised = true;
                return 0;
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DONE:
                order->state = KERNEL_ORDER_IDLE;
                return 0;
        default:
                return 0;
        }
}
