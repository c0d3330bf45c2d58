/* Fair parts of what many share: up to half of what the others leave, so that there is always a
 * part for the next one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Whether one that has @n_own of the @n_all that are taken, of @n_max, may have one more. */
static inline bool fair_has_room(size_t n_own, size_t n_all, size_t n_max)
{
        size_t n_others = n_all - n_own;

        return n_others < n_max && n_own < (n_max - n_others) / 2;
}
