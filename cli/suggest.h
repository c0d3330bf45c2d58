/* "Did you mean …?" */
#pragma once

#include <stddef.h>

/* The name that @word was probably meant to be, or NULL when none is near. */
const char *suggest(const char *word, const char *const *names, size_t n_names);
