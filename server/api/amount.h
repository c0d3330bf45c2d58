/* Amounts and paths of fields as people read them. */
#pragma once

#include <stdint.h>

enum {
        AMOUNT_TEXT = 40,
        FIELD_PATH = 192,
};

/* `96 MiB`, `30 d`: in the largest unit of which it is a whole number. */
const char *amount_show_bytes(int64_t n_bytes, char ret_text[static AMOUNT_TEXT]);
const char *amount_show_duration(int64_t usec, char ret_text[static AMOUNT_TEXT]);

/* Prefixes and names are ours, and short. */
void join_path(char ret_path[static FIELD_PATH], const char *prefix, const char *name);
