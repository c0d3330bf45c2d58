/*
 * What came from a pipe and was not handled yet, in a memfd: filled by splice(2), whose count is in
 * the descriptor itself, so that whoever takes the descriptor over after a kill misses nothing.
 *
 * Positions are counts of bytes since the inlet was made.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct inlet;

enum {
        INLET_CAPACITY = 2 << 20, /* bytes: more than the largest frame */
        INLET_E_BAD = 1,          /* the descriptor is no inlet */
};

int inlet_new(struct inlet **ret_inlet);

/* Another process's, of which all before @consumed was handled. Takes the descriptor, also when it
 * fails. */
int inlet_open(int fd, uint64_t consumed, struct inlet **ret_inlet);
struct inlet *inlet_free(struct inlet *inlet);

/* Stays the inlet's. */
int inlet_fd(const struct inlet *inlet);

/* Moves up to @limit bytes from the pipe @fd. *@ret_n is zero at the end of file; negative: -EAGAIN
 * and others of splice(2), -ENOBUFS when there is no room. */
int inlet_fill(struct inlet *inlet, int fd, size_t limit, size_t *ret_n);

/* What is not consumed, in one piece; good until the next call. */
const uint8_t *inlet_bytes(const struct inlet *inlet, size_t *ret_n);

/* A successor will not ask for the next @n bytes any more: they may be overwritten. */
void inlet_consume(struct inlet *inlet, size_t n);

DEFINE_CLEANUP(struct inlet, inlet_free)
