/*
 * Makes text that others wrote safe for a terminal: control characters, those that change the
 * direction of writing, and broken UTF-8 become `\x1b` and the like.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Carries a character that is cut between two chunks. Zeroed is empty. */
struct escaper {
        uint8_t cut[4];
        size_t n_cut;
};

/* Writes @bytes to @out; newlines and tabs stay. */
void escaper_write(struct escaper *escaper, FILE *out, const void *bytes, size_t n_bytes);

/* Writes what is left of a cut character. */
void escaper_finish(struct escaper *escaper, FILE *out);

/* A character of two or three bytes that a terminal obeys instead of showing it. */
bool escape_is_hidden(const uint8_t *at, size_t length);

/* One line of text: newlines and tabs are escaped too. The caller frees. */
char *escape_line(const char *text);
