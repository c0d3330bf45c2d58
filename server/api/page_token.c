#include "server/api/page_token.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/text.h"
#include "server/api/arena.h"
#include "server/api/digest.h"

enum { PREFIX_BUFFER = 24 }; /* `p1.`, 16 digits, `.` and NUL */

static void *find_field(ProtobufCMessage *request, const char *name)
{
        const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field_by_name(request->descriptor, name);

        assert(field);
        return (char *)request + field->offset;
}

/* The filter is all of the request but which page of it is asked for. */
static int digest_filter(ProtobufCMessage *request, uint8_t ret_sha256[static 32])
{
        int32_t *page_size = find_field(request, "page_size");
        char **page_token = find_field(request, "page_token");
        int32_t size = *page_size;
        char *token = *page_token;
        int r;

        *page_size = 0;
        *page_token = unconst(protobuf_c_empty_string);
        r = digest_message(request, ret_sha256);
        *page_size = size;
        *page_token = token;
        return r;
}

/* What begins all tokens of a filter. A part of the digest tells filters apart; it proves nothing.
 */
static bool write_prefix(ProtobufCMessage *request, char ret_prefix[static PREFIX_BUFFER])
{
        uint8_t sha256[32];
        uint64_t part;

        if (digest_filter(request, sha256))
                return false;
        memcpy(&part, sha256, sizeof(part));
        (void)snprintf(ret_prefix, PREFIX_BUFFER, "p1.%016" PRIx64 ".", part);
        return true;
}

char *page_token_new(struct arena *arena, ProtobufCMessage *request,
                     const struct store_cursor *cursor)
{
        char prefix[PREFIX_BUFFER];
        char token[PAGE_TOKEN_BUFFER];

        if (!write_prefix(request, prefix))
                return NULL;
        (void)snprintf(token, sizeof(token), "%s%" PRId64 ".%s", prefix, cursor->create_time_usec,
                       cursor->id);
        return arena_text(arena, token);
}

bool page_token_check(ProtobufCMessage *request, struct store_cursor *ret_cursor)
{
        const char *token = *(char **)find_field(request, "page_token");
        char copy[PAGE_TOKEN_BUFFER];
        char prefix[PREFIX_BUFFER];
        char *time, *id;
        uint64_t value;

        *ret_cursor = (struct store_cursor){ 0 };
        if (!*token)
                return true;
        if (!write_prefix(request, prefix) || strlen(token) >= sizeof(copy) ||
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
