/* Columns for people. */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "runtime/base/cleanup.h"

struct table;

/* @headers ends with NULL. */
struct table *table_new(const char *const *headers);
struct table *table_free(struct table *table);

/* @cells has as many as there are headers; they are copied and made safe for a terminal. */
void table_add(struct table *table, const char *const *cells);

void table_print(const struct table *table, FILE *out);

DEFINE_CLEANUP(struct table, table_free)
