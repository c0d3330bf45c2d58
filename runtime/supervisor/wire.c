#include "runtime/supervisor/wire.h"

#include <stdint.h>
#include <stdlib.h>

#include "runtime/base/macros.h"

struct chunk {
        struct chunk *next;
        max_align_t bytes[];
};

static void *arena_alloc(void *data, size_t n_bytes)
{
        struct wire_arena *arena = data;
        struct chunk *chunk;
        size_t cost = n_bytes + sizeof(struct chunk);

        if (cost < n_bytes || cost > arena->max_bytes - arena->n_bytes)
                return NULL;
        chunk = malloc(cost);
        if (!chunk)
                return NULL;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->n_bytes += cost;
        return chunk->bytes;
}

/* Single frees do not matter: what protobuf-c frees early, it frees because unpacking failed. */
static void arena_free(void *data, void *pointer)
{
        (void)data;
        (void)pointer;
}

void wire_arena_init(struct wire_arena *arena, size_t max_bytes)
{
        *arena = (struct wire_arena){
                .allocator = { .alloc = arena_alloc, .free = arena_free, .allocator_data = arena },
                .max_bytes = max_bytes,
        };
}

void wire_arena_deinit(struct wire_arena *arena)
{
        struct chunk *chunk = arena->chunks;

        while (chunk) {
                struct chunk *next = chunk->next;

                free(chunk);
                chunk = next;
        }
        arena->chunks = NULL;
        arena->n_bytes = 0;
}
