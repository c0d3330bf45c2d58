/*
 * Memory for unpacking one message: all of it comes from one arena with a fixed ceiling, so that
 * what a packet says cannot make the runtime allocate without bound, and all of it goes at once.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

struct wire_arena {
        ProtobufCAllocator allocator; /* for protobuf_c_message_unpack() */
        void *chunks;                 /* private: linked list */
        size_t n_bytes;               /* handed out so far */
        size_t max_bytes;
};

void wire_arena_init(struct wire_arena *arena, size_t max_bytes);

/* Everything that was unpacked with it is gone after this. */
void wire_arena_deinit(struct wire_arena *arena);
