#include "cli/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/escape.h"
#include "cli/memory.h"

bool say_is_terminal(void)
{
        return isatty(STDERR_FILENO);
}

/* Colours are wanted there: a terminal, and no NO_COLOR. */
static bool say_has_color(void)
{
        const char *no_color = getenv("NO_COLOR");

        return say_is_terminal() && !(no_color && *no_color);
}

__attribute__((format(printf, 2, 0))) static void say_line(const char *what, const char *format,
                                                           va_list arguments)
{
        _cleanup_(freep) char *text = NULL;
        _cleanup_(freep) char *line = NULL;
        bool color = say_has_color();

        must(vasprintf(&text, format, arguments) < 0 ? NULL : text);
        line = escape_line(text);
        (void)fprintf(stderr, "%shotcell:%s %s%s%s\n", color ? "\033[1m" : "",
                      color ? "\033[0m" : "", what, *what ? ": " : "", line);
}

void say(const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        say_line("", format, arguments);
        va_end(arguments);
}

void say_of(const char *what, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        say_line(what, format, arguments);
        va_end(arguments);
}
