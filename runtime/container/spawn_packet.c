#include "runtime/container/spawn_packet.h"

#include <errno.h>
#include <string.h>

int spawn_text_put(struct spawn_text *text, const char *string)
{
        size_t size = strlen(string) + 1;

        if (size > text->size - text->used)
                return -E2BIG;
        memcpy(text->packet->text + text->used, string, size);
        text->used += size;
        return 0;
}

char *spawn_text_get(struct spawn_text *text)
{
        char *string = text->packet->text + text->used;
        size_t left = text->size - text->used;
        size_t length = strnlen(string, left);

        if (length == left)
                return NULL;
        text->used += length + 1;
        return string;
}
