/*
 * The terminal as a whole, for a program that draws all of it: the alternate screen, and keys one
 * by one. Whatever ends the process but SIGKILL, the terminal is as it was.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/cleanup.h"

struct screen;

enum screen_key {
        SCREEN_KEY_NONE = 0, /* below 128: the character itself */
        SCREEN_KEY_UP = 128,
        SCREEN_KEY_DOWN,
        SCREEN_KEY_PAGE_UP,
        SCREEN_KEY_PAGE_DOWN,
        SCREEN_KEY_HOME,
        SCREEN_KEY_END,
        SCREEN_KEY_GONE, /* the terminal is not there any more */
};

enum {
        SCREEN_E_NONE = 1, /* standard output is no terminal, or none that can do this */
};

/* A program may have one at a time. That a key came is told by SIGIO, another size by SIGWINCH. */
int screen_new(struct screen **ret_screen);

struct screen *screen_free(struct screen *screen);

DEFINE_CLEANUP(struct screen, screen_free)

/* At least one of each. */
void screen_size(const struct screen *screen, size_t *ret_columns, size_t *ret_lines);

/* The next key, if there is one. */
int screen_take_key(struct screen *screen);

/* Shows lines that end with newlines, in place of all that was there; no more than fit. */
void screen_show(struct screen *screen, const char *text);

/* Colours are wanted. */
bool screen_has_color(void);
