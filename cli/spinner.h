/* A sign of life on a terminal, for what takes more than a second; leaves no trace. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct spinner {
        bool is_wanted;
        bool is_drawn;
        int64_t start_msec;
        unsigned frame;
};

/* Only with @is_allowed and when standard error is a terminal it ever draws. */
void spinner_start(struct spinner *spinner, bool is_allowed);

/* How long to wait before spinner_draw() is due; negative: never. */
int64_t spinner_due_msec(const struct spinner *spinner);

void spinner_draw(struct spinner *spinner, const char *what);

/* Takes it off the screen; more may be drawn later. */
void spinner_erase(struct spinner *spinner);

/* Erases and never draws again. */
void spinner_stop(struct spinner *spinner);
