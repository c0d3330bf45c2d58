/* Locals that clean themselves: `_cleanup_(closep) int fd = -1;`, `return take_fd(&fd);`. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(function) __attribute__((cleanup(function)))

/* Hands a pointer over and forgets it, so that its cleanup does nothing. */
#define take(pointer)                                                                              \
        __extension__({                                                                            \
                __typeof__(pointer) *take_from = &(pointer);                                       \
                __typeof__(pointer) taken = *take_from;                                            \
                *take_from = NULL;                                                                 \
                taken;                                                                             \
        })

static inline int take_fd(int *fd)
{
        int taken = *fd;

        *fd = -1;
        return taken;
}

/* Closes unless negative; always returns -1, so `fd = close_fd(fd)`. */
static inline int close_fd(int fd)
{
        if (fd >= 0)
                (void)close(fd);
        return -1;
}

static inline void closep(int *fd)
{
        *fd = close_fd(*fd);
}

static inline void freep(void *pointer)
{
        free(*(void **)pointer);
}

static inline void fclosep(FILE **file)
{
        if (*file)
                (void)fclose(*file);
}

/*
 * Defines `NAMEp` for `_cleanup_(NAMEp)`, where NAME takes a pointer that may be NULL. A type
 * cannot stand in parentheses.
 */
#define DEFINE_CLEANUP(type, name)                                                                 \
        static inline void name##p(type **pointer) /* NOLINT(bugprone-macro-parentheses) */        \
        {                                                                                          \
                (void)name(*pointer);                                                              \
        }
