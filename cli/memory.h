/* Allocation that cannot fail: a client without memory has nothing to save, so it says so and
 * leaves. */
#pragma once

#include <stddef.h>

#include "runtime/base/cleanup.h"

void *must(void *allocated);

/* Zeroed; may be freed with free(). */
void *allocate(size_t n, size_t size);

/* realloc for @n items of @size. */
void *reallocate(void *items, size_t n, size_t size);

char *duplicate(const char *text);

__attribute__((format(printf, 1, 2))) char *format_text(const char *format, ...);
