/* Hash maps whose nodes are embedded in what they hold; keys are bytes that the holder keeps. */
#pragma once

#include <stddef.h>

#include <uthash.h>

#include "runtime/base/macros.h"

struct map_node {
        UT_hash_handle hh;
};

/* An empty map is all zeros. */
struct map {
        struct map_node *first;
};

void map_add(struct map *map, struct map_node *node, const void *key, size_t n_key);
void map_remove(struct map *map, struct map_node *node);

/* The node of that key, or NULL. */
struct map_node *map_find(const struct map *map, const void *key, size_t n_key);

size_t map_count(const struct map *map);

/* The oldest node and the one after @node; NULL at the end. A walk may remove the node it stands at
 * once it has the next one. */
struct map_node *map_first(const struct map *map);
struct map_node *map_next(const struct map_node *node);

#define MAP_ITEM(node, type, member) ((node) ? CONTAINER_OF((node), type, member) : NULL)
