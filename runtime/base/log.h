/*
 * One line an event on standard error: level, a fixed sentence, then `key=value` pairs. Program
 * output and environment values are never logged. Safe from any thread. What happens with each
 * execution is debug. Of all other levels so much is written as log_limit.h says, and then how many
 * lines were left out.
 */
#pragma once

#include <stdbool.h>

enum log_level {
        LOG_LEVEL_ERROR,
        LOG_LEVEL_WARNING,
        LOG_LEVEL_INFO,
        LOG_LEVEL_DEBUG,
        _LOG_LEVEL_N,
};

/* @program must live as long as the process. */
void log_init(const char *program, enum log_level level);

/* Sets *@ret_level; false when @name is none of error, warning, info, debug. */
bool log_level_from_name(const char *name, enum log_level *ret_level);

bool log_is_enabled(enum log_level level);

__attribute__((format(printf, 2, 3))) void log_write(enum log_level level, const char *format, ...);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
        do {                                                                                       \
                if (log_is_enabled(LOG_LEVEL_DEBUG))                                               \
                        log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                   \
        } while (0)
