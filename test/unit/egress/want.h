/* A want of memory, made on purpose: calloc is wrapped (see meson.build). */
#pragma once

#include <stddef.h>

/* From now on the next @n_good callocs succeed and all others fail, until end_want(). */
void begin_want(size_t n_good);
void end_want(void);

/* What runtime/base/reserve has for such a case is used up, too; give_reserve_back() ends that. */
void use_reserve_up(void);
void give_reserve_back(void);
