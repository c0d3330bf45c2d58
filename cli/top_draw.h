/* A view of what is used, as lines of text. Nothing that others wrote reaches the terminal but
 * printable ASCII. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/top_view.h"

struct top_look {
        size_t columns;
        size_t lines;
        size_t first; /* row at the top; made smaller if there are not so many */
        bool has_color;
        double period;    /* seconds */
        const char *note; /* instead of the list of keys; may be NULL */
};

/* At most @look->lines lines of @look->columns characters. */
void top_draw_screen(FILE *out, const struct top_view *view, struct top_look *look);

/* Rows that are scrolled by a page. */
size_t top_page(const struct top_look *look);

/* All of it, without bars, as wide as it is. */
void top_draw_table(FILE *out, const struct top_view *view);

/* The measurement as it came, with the rates: an object a line, or indented. */
void top_print_json(FILE *out, const struct top_view *view, bool is_line);
