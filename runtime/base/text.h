/* Checks and small conversions of text that others wrote. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For structs whose strings are not const although nobody writes to them: protobuf-c's, an argv. */
static inline char *unconst(const char *text)
{
        return (char *)(uintptr_t)text;
}

/* @bytes is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms); NUL is allowed. */
bool text_is_utf8(const void *bytes, size_t n_bytes);

/* Decimal digits only, no sign, no blanks, up to @max. */
bool text_to_uint64(const char *text, uint64_t max, uint64_t *ret_value);

/* Bytes as `1048576`, `512M`, `1GiB` (powers of 1024; suffix K, M, G, T with or without `iB`). */
bool text_to_bytes(const char *text, uint64_t *ret_bytes);

/* A duration as `250ms`, `1.5s`, `2m`, `1h`, `7d` or plain seconds, in nanoseconds. */
bool text_to_duration(const char *text, int64_t *ret_nanoseconds);
