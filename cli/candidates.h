/* Which thing is meant by an id, the beginning of one, or a name. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* One thing that @text may mean; exact names win over beginnings of ids. */
struct candidate {
        char *id;
        char *name;
        bool is_ended;
};

struct candidates {
        const char *kind; /* prefix of the ids: `sbx` */
        const char *text; /* what the user wrote */
        struct candidate *items;
        size_t n;
};

enum {
        CANDIDATES_E_NONE = 1,
        CANDIDATES_E_AMBIGUOUS,
};

/* @text looks like a whole id of @kind: `sbx-` and at least 26 characters. */
bool candidates_is_whole_id(const char *kind, const char *text);

/* Remembers a thing if it may be meant. */
void candidates_offer(struct candidates *candidates, const char *id, const char *name,
                      bool is_ended);

/* A living thing's name, else an ended one's, else the beginning of an id. */
int candidates_pick(const struct candidates *candidates, const char **ret_id);

void candidates_deinit(struct candidates *candidates);
