#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/macros.h"

static const char *const level_names[] = {
        [LOG_LEVEL_ERROR] = "error",
        [LOG_LEVEL_WARNING] = "warning",
        [LOG_LEVEL_INFO] = "info",
        [LOG_LEVEL_DEBUG] = "debug",
};
static_assert(ARRAY_SIZE(level_names) == _LOG_LEVEL_N, "every level has a name");

static const char *log_program = "hotcell";
static enum log_level log_max = LOG_LEVEL_WARNING;

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

/* Control bytes in a value would let its author write lines, or to the reader's terminal. */
static void escape_controls(char *line)
{
        for (; *line; line++)
                if ((unsigned char)*line < 0x20 || *line == 0x7f)
                        *line = '?';
}

void log_write(enum log_level level, const char *format, ...)
{
        char line[2048];
        struct timespec now;
        struct tm utc;
        va_list arguments;
        size_t used;
        int n;

        if (!log_is_enabled(level))
                return;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)gmtime_r(&now.tv_sec, &utc);
        used = strftime(line, sizeof(line), "%FT%T", &utc);
        n = snprintf(line + used, sizeof(line) - used, ".%03ldZ %s %s: ", now.tv_nsec / 1000000,
                     log_program, level_names[level]);
        used += (size_t)n;

        va_start(arguments, format);
        n = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
        va_end(arguments);
        if (n < 0)
                return;

        escape_controls(line);
        used = MIN(used + (size_t)n, sizeof(line) - 2);
        line[used++] = '\n';

        /* One write a line, so that lines of threads and processes do not mix. */
        (void)!write(STDERR_FILENO, line, used);
}
