#include "server/session/last_words.h"

#include <string.h>

#include "runtime/base/macros.h"

void last_words_add(struct last_words *words, const uint8_t *bytes, size_t n)
{
        size_t n_new = MIN(n, sizeof(words->bytes));
        size_t n_old = MIN(words->n, sizeof(words->bytes) - n_new);

        memmove(words->bytes, words->bytes + words->n - n_old, n_old);
        memcpy(words->bytes + n_old, bytes + n - n_new, n_new);
        words->n = n_old + n_new;
}

void last_words_print(const struct last_words *words, char ret_text[static LAST_WORDS_BUFFER])
{
        for (size_t i = 0; i < words->n; i++) {
                uint8_t c = words->bytes[i];

                ret_text[i] = ' ';
                if (c > ' ' && c < 0x7f)
                        ret_text[i] = (char)c;
        }
        ret_text[words->n] = '\0';
}
