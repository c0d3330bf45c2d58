/*
 * uthash, whose tables find memory also when malloc has none: a new table lives in the reserve; a
 * large one goes on without growing, which makes it slower, not wrong.
 *
 * To be included before <uthash.h> where things are added. One thread.
 */
#pragma once

#include "runtime/base/reserve.h"

#define HASH_NONFATAL_OOM     1
#define uthash_malloc(n)      reserve_alloc(n)
#define uthash_free(bytes, n) reserve_free(bytes)
#include <uthash.h>

/*
 * When the table did not grow, what was to be added was not: the addition is made again to the
 * table as it is. @node is outside, and the table of its @handle is NULL, only if there is no
 * memory for a new table. The addition comes last, for its macros have commas.
 */
#define HASH_ADD_IF_ROOM(handle, head, node, ...)                                                  \
        do {                                                                                       \
                __VA_ARGS__;                                                                       \
                if (!(node)->handle.tbl && (head)) {                                               \
                        (head)->handle.tbl->noexpand = 1;                                          \
                        __VA_ARGS__;                                                               \
                }                                                                                  \
        } while (0)

/* The same, but the process ends rather than that it goes on without. */
#define HASH_ADD_SURELY(head, node, add)                                                           \
        do {                                                                                       \
                HASH_ADD_IF_ROOM(hh, head, node, add);                                             \
                if (!(node)->hh.tbl)                                                               \
                        reserve_exhausted();                                                       \
        } while (0)
