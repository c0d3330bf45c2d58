/* All that is expanded from uthash is here: its macros are larger than a function may be. */
#include "runtime/base/hash.h"

#include "server/session/map.h"

/* NOLINTBEGIN(readability-function-size, clang-analyzer-core.NullDereference): uthash's macros */

void map_add(struct map *map, struct map_node *node, const void *key, size_t n_key)
{
        HASH_ADD_SURELY(map->first, node, HASH_ADD_KEYPTR(hh, map->first, key, n_key, node));
}

void map_remove(struct map *map, struct map_node *node)
{
        HASH_DEL(map->first, node);
}

struct map_node *map_find(const struct map *map, const void *key, size_t n_key)
{
        struct map_node *node;

        HASH_FIND(hh, map->first, key, n_key, node);
        return node;
}

/* NOLINTEND(readability-function-size, clang-analyzer-core.NullDereference) */

size_t map_count(const struct map *map)
{
        return HASH_COUNT(map->first);
}

struct map_node *map_first(const struct map *map)
{
        return map->first;
}

struct map_node *map_next(const struct map_node *node)
{
        return node->hh.next;
}
