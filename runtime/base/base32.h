/* Random names in the alphabet of RFC 4648 base32, in lower case: five bits a character. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { BASE32_RANDOM_MAX = 64 };

/* Writes @n random characters, at most BASE32_RANDOM_MAX, and a NUL. */
int base32_random(char *ret_text, size_t n);

/* @text is @n characters of the alphabet and nothing else. */
bool base32_is_valid(const char *text, size_t n);
