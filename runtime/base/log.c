#include "runtime/base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log_limit.h"
#include "runtime/base/macros.h"

enum { LINE_SIZE = 2048 };

static const char *const level_names[] = {
        [LOG_LEVEL_ERROR] = "error",
        [LOG_LEVEL_WARNING] = "warning",
        [LOG_LEVEL_INFO] = "info",
        [LOG_LEVEL_DEBUG] = "debug",
};
static_assert(ARRAY_SIZE(level_names) == _LOG_LEVEL_N, "every level has a name");

static const char *log_program = "hotcell";
static enum log_level log_max = LOG_LEVEL_WARNING;

/* One for each level: a flood of one keeps nothing out of the others. */
static struct log_limit log_limits[_LOG_LEVEL_N];
static pthread_mutex_t log_limits_lock = PTHREAD_MUTEX_INITIALIZER;

void log_init(const char *program, enum log_level level)
{
        log_program = program;
        log_max = level;
}

bool log_level_from_name(const char *name, enum log_level *ret_level)
{
        for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
                if (strcmp(name, level_names[i]) != 0)
                        continue;
                *ret_level = (enum log_level)i;
                return true;
        }
        return false;
}

bool log_is_enabled(enum log_level level)
{
        return level <= log_max;
}

/* Controls in a value, also those that UTF-8 writes in two bytes, would let its author write lines,
 * or to the reader's terminal. */
static void escape_controls(char *line)
{
        for (unsigned char *at = (unsigned char *)line; *at; at++) {
                if (*at < 0x20 || *at == 0x7f)
                        *at = '?';
                if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
                        at[0] = at[1] = '?';
        }
}

static bool may_write(enum log_level level, uint64_t *ret_n_left_out)
{
        bool may;

        *ret_n_left_out = 0;
        if (level == LOG_LEVEL_DEBUG)
                return true; /* whoever asked for it wants all of it */
        (void)pthread_mutex_lock(&log_limits_lock);
        may = log_limit_take(&log_limits[level], clock_monotonic_msec(), ret_n_left_out);
        (void)pthread_mutex_unlock(&log_limits_lock);
        return may;
}

__attribute__((format(printf, 2, 0))) static void write_line(enum log_level level,
                                                             const char *format, va_list arguments)
{
        char line[LINE_SIZE];
        struct timespec now;
        struct tm utc;
        size_t used;
        int n;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)gmtime_r(&now.tv_sec, &utc);
        used = strftime(line, sizeof(line), "%FT%T", &utc);
        n = snprintf(line + used, sizeof(line) - used, ".%03ldZ %s %s: ", now.tv_nsec / 1000000,
                     log_program, level_names[level]);
        used += (size_t)n;

        n = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
        if (n < 0)
                return;

        escape_controls(line);
        used = MIN(used + (size_t)n, sizeof(line) - 2);
        line[used++] = '\n';

        /* One write a line, so that lines of threads and processes do not mix. */
        (void)!write(STDERR_FILENO, line, used);
}

__attribute__((format(printf, 2, 3))) static void write_own(enum log_level level,
                                                            const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        write_line(level, format, arguments);
        va_end(arguments);
}

void log_write(enum log_level level, const char *format, ...)
{
        va_list arguments;
        uint64_t n_left_out;

        if (!log_is_enabled(level) || !may_write(level, &n_left_out))
                return;
        if (n_left_out)
                write_own(level, "too much to log, left out lines=%" PRIu64, n_left_out);
        va_start(arguments, format);
        write_line(level, format, arguments);
        va_end(arguments);
}

void log_write_of(struct log_quota *quota, enum log_level level, const char *format, ...)
{
        static const struct token_rate rate = { .interval_usec = 200000, .burst = 50 };
        char text[LINE_SIZE];
        va_list arguments;

        if (!log_is_enabled(level))
                return;
        if (token_bucket_take(&quota->bucket, &rate, clock_monotonic_usec()) > 0) {
                quota->n_left_out++;
                return;
        }
        va_start(arguments, format);
        (void)vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        if (quota->n_left_out)
                log_write(level, "%.1900s left_out=%" PRIu64, text, quota->n_left_out);
        else
                log_write(level, "%s", text);
        quota->n_left_out = 0;
}
