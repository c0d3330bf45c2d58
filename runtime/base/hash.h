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

/* When the table did not grow, what was to be added was not: @add adds it to the table as it is. */
#define HASH_ADD_SURELY(head, node, add)                                                           \
        do {                                                                                       \
                add;                                                                               \
                if (!(node)->hh.tbl && (head)) {                                                   \
                        (head)->hh.tbl->noexpand = 1;                                              \
                        add;                                                                       \
                }                                                                                  \
                if (!(node)->hh.tbl)                                                               \
                        reserve_exhausted();                                                       \
        } while (0)
