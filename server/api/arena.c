#include "server/api/arena.h"

#include <stdalign.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"

enum { BLOCK_SIZE = 4096 };

struct arena_block {
        struct arena_block *next;
        alignas(max_align_t) char memory[];
};

static bool add_block(struct arena *arena, size_t size)
{
        struct arena_block *block = reserve_alloc(sizeof(*block) + size);

        if (!block) {
                arena->failed = true;
                return false;
        }
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
        arena->size = size;
        return true;
}

void *arena_alloc(struct arena *arena, size_t size)
{
        size_t aligned = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
        void *memory;

        if (arena->failed)
                return NULL;
        if ((!arena->blocks || arena->size - arena->used < aligned) &&
            !add_block(arena, MAX(aligned, (size_t)BLOCK_SIZE)))
                return NULL;
        memory = arena->blocks->memory + arena->used;
        arena->used += aligned;
        return memory;
}

char *arena_text(struct arena *arena, const char *text)
{
        size_t size = strlen(text) + 1;
        char *copy = arena_alloc(arena, size);

        return copy ? memcpy(copy, text, size) : NULL;
}

void arena_deinit(struct arena *arena)
{
        struct arena_block *block = arena->blocks;

        while (block) {
                struct arena_block *next = block->next;

                reserve_free(block);
                block = next;
        }
        *arena = (struct arena){ 0 };
}
