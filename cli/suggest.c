#include "cli/suggest.h"

#include <string.h>

#include "runtime/base/macros.h"

#define WORD_MAX 40

/* Edits that make @a of @b, where swapping two neighbours is one edit (optimal string alignment).
 */
static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
        size_t rows[WORD_MAX + 1][WORD_MAX + 1];

        for (size_t i = 0; i <= n_a; i++)
                rows[i][0] = i;
        for (size_t j = 0; j <= n_b; j++)
                rows[0][j] = j;
        for (size_t i = 1; i <= n_a; i++) {
                for (size_t j = 1; j <= n_b; j++) {
                        size_t best = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

                        best = MIN(best, rows[i - 1][j] + 1);
                        best = MIN(best, rows[i][j - 1] + 1);
                        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                                best = MIN(best, rows[i - 2][j - 2] + 1);
                        rows[i][j] = best;
                }
        }
        return rows[n_a][n_b];
}

const char *suggest(const char *word, const char *const *names, size_t n_names)
{
        size_t n_word = strlen(word);
        size_t near = n_word / 3 + 2; /* a third of the letters may be wrong, and one more */
        const char *found = NULL;

        if (n_word > WORD_MAX)
                return NULL;
        for (size_t i = 0; i < n_names; i++) {
                size_t n_name = strlen(names[i]);
                size_t edits;

                if (n_name > WORD_MAX)
                        continue;
                edits = distance(word, n_word, names[i], n_name);
                if (edits >= near || edits >= n_name)
                        continue;
                near = edits;
                found = names[i];
        }
        return found;
}
