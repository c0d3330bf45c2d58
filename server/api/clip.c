#include "server/api/clip.h"

#include <stdbool.h>
#include <string.h>

#include "runtime/base/text.h"

/* Length of the well-formed character at @text, or 0. */
static size_t character_size(const char *text)
{
        for (size_t n = 1; n <= 4 && text[n - 1]; n++)
                if (text_is_utf8(text, n))
                        return n;
        return 0;
}

size_t clip_copy(char *buffer, size_t size, const char *text)
{
        static const char ellipsis[] = "…";
        size_t n_ellipsis = sizeof(ellipsis) - 1;
        size_t used = 0;
        size_t fits = 0; /* the longest cut that leaves room for the ellipsis */

        while (*text) {
                size_t n = character_size(text);
                const char *from = n ? text : "?";
                size_t n_written = n ? n : 1;

                if (used + n_written >= size) {
                        bool has_room = size > n_ellipsis;

                        if (has_room)
                                memcpy(buffer + fits, ellipsis, n_ellipsis);
                        used = has_room ? fits + n_ellipsis : used;
                        break;
                }
                memcpy(buffer + used, from, n_written);
                used += n_written;
                if (used + n_ellipsis < size)
                        fits = used;
                text += n ? n : 1;
        }
        buffer[used] = '\0';
        return used;
}

size_t clip_header_size(const char *text)
{
        size_t size = 0;

        for (; *text; text++)
                size += *text < ' ' || *text > '~' || *text == '%' ? 3 : 1;
        return size;
}
