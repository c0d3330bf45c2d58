#include "cli/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/exit_code.h"

void *must(void *allocated)
{
        if (!allocated) {
                (void)fputs("hotcell: out of memory\n", stderr);
                exit(EXIT_OURS);
        }
        return allocated;
}

void *allocate(size_t n, size_t size)
{
        return must(calloc(n ? n : 1, size));
}

void *reallocate(void *items, size_t n, size_t size)
{
        return must(reallocarray(items, n ? n : 1, size));
}

char *duplicate(const char *text)
{
        return must(strdup(text));
}

char *format_text(const char *format, ...)
{
        char *text = NULL;
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vasprintf(&text, format, arguments);
        va_end(arguments);
        return must(n < 0 ? NULL : text);
}
