/* The table of all settings: how each is called, read, bounded, shown and explained. */
#pragma once

#include <stddef.h>

#include "server/config.h"

enum setting_type {
        SETTING_PATH,   /* not empty */
        SETTING_SOCKET, /* a path that fits a socket address */
        SETTING_NAME,   /* any text */
        SETTING_TCP,    /* empty or a loopback address with a port */
        SETTING_BOOL,
        SETTING_COUNT,
        SETTING_BYTES,
        SETTING_DURATION, /* in microseconds */
        SETTING_LOG_LEVEL,
        _SETTING_TYPE_N,
};

struct setting {
        const char *title; /* of the group that begins here, or NULL */
        const char *key;   /* the flag is the same with hyphens */
        enum setting_type type;
        size_t offset; /* in struct config */
        const char *text;
        int64_t min, max;
        const char *doc;
};

extern const struct setting settings[];
extern const size_t n_settings;

enum {
        SETTING_E_INVALID = 1,
        SETTING_VALUE_BUFFER = CONFIG_TEXT_BUFFER,
};

/* NULL when there is none. */
const struct setting *setting_find(const char *key);

/* Checks @text and stores it; on SETTING_E_INVALID @ret_why says what would be accepted. */
int setting_set(const struct setting *setting, const char *text, struct config *config,
                char ret_why[static CONFIG_MESSAGE_BUFFER]);

/* Everything at its default. */
void settings_set_defaults(struct config *config);

/* The value in a form that setting_set takes. */
void setting_format(const struct setting *setting, const struct config *config,
                    char ret_text[static SETTING_VALUE_BUFFER]);

/* What must hold between settings; SETTING_E_INVALID and a sentence that names them. */
int settings_check(const struct config *config, char ret_why[static CONFIG_MESSAGE_BUFFER]);
