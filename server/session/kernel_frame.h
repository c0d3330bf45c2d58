/*
 * What a language kernel says, checked: a frame becomes a message that keeps all promises of
 * `kernel.proto`, and the order of the frames is a state machine. Pure: no descriptors, no clock.
 * Every byte was written by a stranger.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/frame.h"

#include "hotcell/sandbox/v1/kernel.pb-c.h"

enum {
        KERNEL_FRAME_MAX = 384 << 10,  /* bytes of a payload that we know the type of */
        KERNEL_PARTS_MAX = 32,         /* of a bundle */
        KERNEL_MIME_MAX = 128,         /* bytes */
        KERNEL_DISPLAY_ID_MAX = 128,   /* bytes */
        KERNEL_INLINE_MAX = 256 << 10, /* bytes of all inline data of a bundle, of one PartData */
        KERNEL_ERROR_NAME_MAX = 256,   /* bytes */
        KERNEL_ERROR_VALUE_MAX = 16 << 10, /* bytes */
        KERNEL_TRACEBACK_MAX = 256 << 10,  /* bytes together */
        KERNEL_TRACEBACK_LINES_MAX = 8 << 10,
        KERNEL_LANGUAGE_MAX = 31, /* bytes of language and of its version */
        KERNEL_PROTOCOL = 2,      /* version that we speak */
};

enum {
        KERNEL_FRAME_E_MALFORMED = 1, /* end the kernel */
        KERNEL_FRAME_E_UNKNOWN,       /* a type from the future: skip it */
        KERNEL_FRAME_E_DROP,          /* well-formed, but not its turn: count and forget it */
        KERNEL_FRAME_E_TOO_LARGE,     /* a part is larger than the operator allows */
};

/* The message of a frame; by its type. Valid until _deinit. */
struct kernel_frame {
        uint8_t type;
        uint32_t execution;
        struct frame raw;  /* as it came: what the ring keeps */
        uint64_t position; /* of its end in all that the kernel has said; set by the channel */
        union {
                Hotcell__Sandbox__V1__Ready *ready;
                Hotcell__Sandbox__V1__Started *started;
                Hotcell__Sandbox__V1__Bundle *bundle;
                Hotcell__Sandbox__V1__PartData *part_data;
                Hotcell__Sandbox__V1__Error *error;
                Hotcell__Sandbox__V1__ClearOutput *clear_output;
                Hotcell__Sandbox__V1__Done *done;
                ProtobufCMessage *message; /* NULL: the type has no payload */
        };
};

/* 0, KERNEL_FRAME_E_MALFORMED (with *@ret_why: a few words) or KERNEL_FRAME_E_UNKNOWN. */
int kernel_frame_decode(const struct frame *frame, struct kernel_frame *ret_frame,
                        const char **ret_why);
void kernel_frame_deinit(struct kernel_frame *frame);

/* The same for a payload that was checked before, such as one kept in a ring. */
ProtobufCMessage *kernel_message_unpack(uint8_t type, const uint8_t *payload, size_t n_payload);

/*
 * Whose turn it is:
 *
 *   HELLO --READY--> IDLE --kernel_order_execute--> SENT --STARTED--> RUNNING --DONE--> IDLE
 *                                                    `-------------- DONE ------------'
 */
enum kernel_order_state {
        KERNEL_ORDER_HELLO,   /* waits for READY; nothing else is allowed */
        KERNEL_ORDER_IDLE,    /* no code runs: everything about executions is dropped */
        KERNEL_ORDER_SENT,    /* EXECUTE was sent */
        KERNEL_ORDER_RUNNING, /* STARTED was seen */
        _KERNEL_ORDER_STATE_N,
};

struct kernel_order {
        enum kernel_order_state state;
        uint32_t execution;      /* the number of the one sent last */
        uint64_t part_max_bytes; /* operator's limit */
        bool has_raised;         /* ERROR was seen */
        bool is_too_large;       /* the last bundle was refused: its PART_DATA is dropped */
        uint32_t n_parts;        /* of the last bundle */
        uint32_t part;           /* the one that PART_DATA continues */
        uint64_t sizes[KERNEL_PARTS_MAX];
        uint64_t offsets[KERNEL_PARTS_MAX]; /* bytes that came so far */
        uint64_t n_dropped;
};

void kernel_order_init(struct kernel_order *order, uint64_t part_max_bytes);

/* The next execution's number; the kernel is idle. */
uint32_t kernel_order_execute(struct kernel_order *order);

/* Moves on by one frame: 0 (handle it), KERNEL_FRAME_E_DROP, _MALFORMED or _TOO_LARGE. */
int kernel_order_take(struct kernel_order *order, const struct kernel_frame *frame,
                      const char **ret_why);
