/* The last that a process wrote, of which the end says most. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
        LAST_WORDS_MAX = 160,
        LAST_WORDS_BUFFER = LAST_WORDS_MAX + 1,
};

struct last_words {
        uint8_t bytes[LAST_WORDS_MAX];
        size_t n;
};

void last_words_add(struct last_words *words, const uint8_t *bytes, size_t n);

/* As one line: what cannot be printed, and line feeds, are spaces. */
void last_words_print(const struct last_words *words, char ret_text[static LAST_WORDS_BUFFER]);
