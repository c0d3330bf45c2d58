#include "server/api/page_token.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/text.h"
#include "server/api/arena.h"

enum { PREFIX_BUFFER = 24 }; /* `p1.`, 16 digits, `.` and NUL */

/* FNV-1a: tells filters apart, proves nothing. http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t digest(const void *bytes, size_t n_bytes)
{
        const uint8_t *at = bytes;
        uint64_t hash = 0xcbf29ce484222325;

        for (size_t i = 0; i < n_bytes; i++)
                hash = (hash ^ at[i]) * 0x100000001b3;
        return hash;
}

/* What begins all tokens of a filter. */
static bool write_prefix(struct arena *arena, const ProtobufCMessage *filter,
                         char ret_prefix[static PREFIX_BUFFER])
{
        size_t n = protobuf_c_message_get_packed_size(filter);
        uint8_t *bytes = arena_alloc(arena, n + 1);

        if (!bytes)
                return false;
        (void)protobuf_c_message_pack(filter, bytes);
        (void)snprintf(ret_prefix, PREFIX_BUFFER, "p1.%016" PRIx64 ".", digest(bytes, n));
        return true;
}

char *page_token_new(struct arena *arena, const ProtobufCMessage *filter,
                     const struct store_cursor *cursor)
{
        char prefix[PREFIX_BUFFER];
        char token[PAGE_TOKEN_BUFFER];

        if (!write_prefix(arena, filter, prefix))
                return NULL;
        (void)snprintf(token, sizeof(token), "%s%" PRId64 ".%s", prefix, cursor->create_time_usec,
                       cursor->id);
        return arena_text(arena, token);
}

bool page_token_check(struct arena *arena, const ProtobufCMessage *filter, const char *token,
                      struct store_cursor *ret_cursor)
{
        char copy[PAGE_TOKEN_BUFFER];
        char prefix[PREFIX_BUFFER];
        char *time, *id;
        uint64_t value;

        *ret_cursor = (struct store_cursor){ 0 };
        if (!*token)
                return true;
        if (!write_prefix(arena, filter, prefix) || strlen(token) >= sizeof(copy) ||
            strncmp(token, prefix, strlen(prefix)) != 0)
                return false;
        memcpy(copy, token, strlen(token) + 1);
        time = copy + strlen(prefix);
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
