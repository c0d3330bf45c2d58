/*
 * One line an event on standard error: level, a fixed sentence, then `key=value` pairs. Program
 * output and environment values are never logged. Safe from any thread. What happens with each
 * execution is debug. Of all other levels so much is written as log_limit.h says, and then how many
 * lines were left out.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/token_bucket.h"

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

/*
 * Lines that one of many can cause as often as it likes: fifty at once and then five a second pass,
 * so that it takes nothing of what the others may write. The rest is counted, and the next line
 * that passes says `left_out=` how many. A quota of zeros is a fresh one; there is one for each of
 * those who cause the lines, or for a place in the code. It belongs to one thread.
 */
struct log_quota {
        struct token_bucket bucket;
        uint64_t n_left_out;
};

__attribute__((format(printf, 3, 4))) void
log_write_of(struct log_quota *quota, enum log_level level, const char *format, ...);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
        do {                                                                                       \
                if (log_is_enabled(LOG_LEVEL_DEBUG))                                               \
                        log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                   \
        } while (0)

#define log_warning_of(quota, ...) log_write_of(quota, LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info_of(quota, ...)    log_write_of(quota, LOG_LEVEL_INFO, __VA_ARGS__)
