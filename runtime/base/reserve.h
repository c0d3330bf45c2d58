/*
 * Memory that is there also when malloc has none, for small things that must not fail: what has
 * begun (a process was cloned, a request was sent) and cannot be taken back. It is for one thread,
 * and for the moment: whoever lacks memory for long cannot go on anyway.
 */
#pragma once

#include <stddef.h>

/* Zeros, up to RESERVE_BYTES_MAX also from the reserve; NULL: that is used up, too. */
void *reserve_alloc(size_t n);
void reserve_free(void *bytes);

enum { RESERVE_BYTES_MAX = 16 << 10 };

/* The same, but the process ends rather than that it goes on without. */
void *reserve_alloc_surely(size_t n);

/* Ends the process: a successor takes over. */
_Noreturn void reserve_exhausted(void);
