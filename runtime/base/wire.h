/*
 * Memory for unpacking one message: all of it comes from one piece, taken beforehand, so that what
 * a packet says cannot make us allocate without bound, and a want of memory cannot make us lose a
 * packet, which the peer would wait for for ever. All of it goes at once.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct wire_arena {
        ProtobufCAllocator allocator; /* for protobuf_c_message_unpack() */
        uint8_t *bytes;               /* pages that nothing was unpacked to take no memory */
        size_t n_bytes;               /* handed out so far */
        size_t max_bytes;
};

/* 0 or -ENOMEM. The arena stays where it is: the allocator points at it. */
int wire_arena_init(struct wire_arena *arena, size_t max_bytes);

/* Everything that was unpacked with it is gone after this. */
void wire_arena_reset(struct wire_arena *arena);

void wire_arena_deinit(struct wire_arena *arena);

/* Finds memory for small messages also when malloc has none. For one thread. */
extern ProtobufCAllocator wire_sure_allocator;
