/* Memory of one answer: allocated piece by piece, freed at once. After a failed allocation the
 * arena stays failed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena {
        struct arena_block *blocks;
        size_t used;
        size_t size;
        bool failed;
};

/* Zeroed memory, aligned for anything; NULL when there is none or it failed before. */
void *arena_alloc(struct arena *arena, size_t size);

/* A copy of @text. */
char *arena_text(struct arena *arena, const char *text);

void arena_deinit(struct arena *arena);

#define arena_new(arena, type)          ((type *)arena_alloc((arena), sizeof(type)))
#define arena_new_array(arena, type, n) ((type *)arena_alloc((arena), sizeof(type) * (n)))
