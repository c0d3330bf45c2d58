#include "server/api/page_token.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/text.h"

/* FNV-1a: tells filters apart, proves nothing. http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t digest(const void *bytes, size_t n_bytes)
{
        const uint8_t *at = bytes;
        uint64_t hash = 0xcbf29ce484222325;

        for (size_t i = 0; i < n_bytes; i++)
                hash = (hash ^ at[i]) * 0x100000001b3;
        return hash;
}

void page_token_write(const struct store_cursor *cursor, const void *filter, size_t n_filter,
                      char ret_token[static PAGE_TOKEN_BUFFER])
{
        (void)snprintf(ret_token, PAGE_TOKEN_BUFFER, "p1.%016" PRIx64 ".%" PRId64 ".%s",
                       digest(filter, n_filter), cursor->create_time_usec, cursor->id);
}

bool page_token_read(const char *token, const void *filter, size_t n_filter,
                     struct store_cursor *ret_cursor)
{
        char copy[PAGE_TOKEN_BUFFER];
        char expected[24];
        char *time, *id;
        uint64_t value;

        *ret_cursor = (struct store_cursor){ 0 };
        if (!*token)
                return true;
        (void)snprintf(expected, sizeof(expected), "p1.%016" PRIx64 ".", digest(filter, n_filter));
        if (strlen(token) >= sizeof(copy) || strncmp(token, expected, strlen(expected)) != 0)
                return false;
        memcpy(copy, token, strlen(token) + 1);
        time = copy + strlen(expected);
        id = strchr(time, '.');
        if (!id)
                return false;
        *id++ = '\0';
        if (!text_to_uint64(time, INT64_MAX, &value) || value == 0 || !dns_label_is_valid(id))
                return false;
        ret_cursor->create_time_usec = (int64_t)value;
        memcpy(ret_cursor->id, id, strlen(id) + 1); /* a label fits */
        return true;
}

void watch_token_write(int64_t sequence, char ret_token[static PAGE_TOKEN_BUFFER])
{
        (void)snprintf(ret_token, PAGE_TOKEN_BUFFER, "w1.%" PRId64, sequence);
}

bool watch_token_read(const char *token, int64_t *ret_sequence)
{
        uint64_t value;

        if (strncmp(token, "w1.", 3) != 0 || !text_to_uint64(token + 3, INT64_MAX, &value))
                return false;
        *ret_sequence = (int64_t)value;
        return true;
}
