#include "cli/candidates.h"

#include <string.h>

#include "cli/memory.h"
#include "runtime/base/dns_label.h"

enum { RANDOM_PART = 26 };

bool candidates_is_whole_id(const char *kind, const char *text)
{
        size_t n_kind = strlen(kind);

        return strncmp(text, kind, n_kind) == 0 && text[n_kind] == '-' &&
               strlen(text + n_kind + 1) >= RANDOM_PART && dns_label_is_valid(text);
}

/* @text begins @id, with or without the id's kind. */
static bool is_beginning(const struct candidates *candidates, const char *id)
{
        size_t n_text = strlen(candidates->text);
        size_t n_kind = strlen(candidates->kind);

        if (n_text == 0)
                return false;
        if (strncmp(id, candidates->text, n_text) == 0)
                return n_text > n_kind + 1;
        return strncmp(id, candidates->kind, n_kind) == 0 && id[n_kind] == '-' &&
               strncmp(id + n_kind + 1, candidates->text, n_text) == 0;
}

static bool is_name(const struct candidates *candidates, const char *name)
{
        return *name && strcmp(name, candidates->text) == 0;
}

void candidates_offer(struct candidates *candidates, const char *id, const char *name,
                      bool is_ended)
{
        if (!is_name(candidates, name) && !is_beginning(candidates, id))
                return;
        candidates->items =
                reallocate(candidates->items, candidates->n + 1, sizeof(*candidates->items));
        candidates->items[candidates->n++] = (struct candidate){
                .id = duplicate(id),
                .name = duplicate(name),
                .is_ended = is_ended,
        };
}

/* The only one called so. */
static int pick_name(const struct candidates *candidates, bool is_ended, const char **ret_id)
{
        const char *found = NULL;

        for (size_t i = 0; i < candidates->n; i++) {
                const struct candidate *candidate = &candidates->items[i];

                if (candidate->is_ended != is_ended || !is_name(candidates, candidate->name))
                        continue;
                if (found)
                        return CANDIDATES_E_AMBIGUOUS;
                found = candidate->id;
        }
        if (!found)
                return CANDIDATES_E_NONE;
        *ret_id = found;
        return 0;
}

int candidates_pick(const struct candidates *candidates, const char **ret_id)
{
        int r = pick_name(candidates, false, ret_id);

        if (r == CANDIDATES_E_NONE)
                r = pick_name(candidates, true, ret_id);
        if (r != CANDIDATES_E_NONE)
                return r;
        if (candidates->n == 0)
                return CANDIDATES_E_NONE;
        if (candidates->n > 1)
                return CANDIDATES_E_AMBIGUOUS;
        *ret_id = candidates->items[0].id;
        return 0;
}

void candidates_deinit(struct candidates *candidates)
{
        for (size_t i = 0; i < candidates->n; i++) {
                free(candidates->items[i].id);
                free(candidates->items[i].name);
        }
        free(candidates->items);
        *candidates = (struct candidates){ 0 };
}
