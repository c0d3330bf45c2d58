#include "runtime/base/wire.h"

#include <errno.h>
#include <stdlib.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"

static void *arena_alloc(void *data, size_t n_bytes)
{
        struct wire_arena *arena = data;
        size_t cost = (n_bytes + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
        void *bytes = arena->bytes + arena->n_bytes;

        if (cost < n_bytes || cost > arena->max_bytes - arena->n_bytes)
                return NULL;
        arena->n_bytes += cost;
        return bytes;
}

/* Single frees do not matter: what protobuf-c frees early, it frees because unpacking failed. */
static void arena_free(void *data, void *pointer)
{
        (void)data;
        (void)pointer;
}

int wire_arena_init(struct wire_arena *arena, size_t max_bytes)
{
        *arena = (struct wire_arena){
                .allocator = { .alloc = arena_alloc, .free = arena_free, .allocator_data = arena },
                .bytes = malloc(max_bytes),
                .max_bytes = max_bytes,
        };
        return arena->bytes ? 0 : error_origin(-ENOMEM);
}

void wire_arena_reset(struct wire_arena *arena)
{
        arena->n_bytes = 0;
}

void wire_arena_deinit(struct wire_arena *arena)
{
        free(arena->bytes);
        arena->bytes = NULL;
}

static void *sure_alloc(void *data, size_t n_bytes)
{
        (void)data;
        return reserve_alloc(n_bytes);
}

static void sure_free(void *data, void *bytes)
{
        (void)data;
        reserve_free(bytes);
}

ProtobufCAllocator wire_sure_allocator = { .alloc = sure_alloc, .free = sure_free };
