/* Small things that every file may use. */
#pragma once

#include <assert.h>
#include <stddef.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define BIT(n)            (1U << (n))
#define MIN(a, b)         ((a) < (b) ? (a) : (b))
#define MAX(a, b)         ((a) > (b) ? (a) : (b))
#define KIB(n)            ((size_t)(n) << 10)
#define MIB(n)            ((size_t)(n) << 20)

#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
