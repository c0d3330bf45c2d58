/*
 * Clients write the entries of a map in any order, and some in another one each time. With sorted
 * maps the bytes that protobuf-c packs depend on nothing but the content; fields that this server
 * does not know are among them.
 */
#include "server/api/digest.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/api/decode.h"

static int sort_maps(ProtobufCMessage *message);

static int compare_entries(const void *a, const void *b)
{
        return strcmp(decode_map_key(*(ProtobufCMessage *const *)a),
                      decode_map_key(*(ProtobufCMessage *const *)b));
}

static int sort_repeated(const ProtobufCFieldDescriptor *field, ProtobufCMessage **items, size_t *n)
{
        int r = 0;

        if (decode_is_map_entry(field->descriptor)) {
                r = decode_map_unique(items, n);
                if (r == 0 && *n > 1)
                        qsort(items, *n, sizeof(void *), compare_entries);
        }
        for (size_t i = 0; r == 0 && i < *n; i++)
                r = sort_maps(items[i]);
        return r;
}

static bool is_in_other_case(const ProtobufCFieldDescriptor *field, const char *message)
{
        uint32_t chosen;

        if (!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
                return false;
        memcpy(&chosen, message + field->quantifier_offset, sizeof(chosen));
        return chosen != field->id;
}

/* As deep as decode_message lets messages be. */
static int sort_maps(ProtobufCMessage *message)
{
        for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
                void *value = (char *)message + field->offset;
                void *count = (char *)message + field->quantifier_offset;
                ProtobufCMessage *child;
                int r = 0;

                if (field->type != PROTOBUF_C_TYPE_MESSAGE ||
                    is_in_other_case(field, (const char *)message))
                        continue;
                child = *(ProtobufCMessage **)value;
                if (field->label == PROTOBUF_C_LABEL_REPEATED)
                        r = sort_repeated(field, *(ProtobufCMessage ***)value, count);
                else if (child)
                        r = sort_maps(child);
                if (r)
                        return error_fold(r);
        }
        return 0;
}

/* Takes packed bytes as they come, so that nothing is copied. */
struct digest_buffer {
        ProtobufCBuffer base;
        EVP_MD_CTX *context;
        bool is_good;
};

static void append(ProtobufCBuffer *base, size_t n, const uint8_t *bytes)
{
        struct digest_buffer *buffer = CONTAINER_OF(base, struct digest_buffer, base);

        buffer->is_good = buffer->is_good && EVP_DigestUpdate(buffer->context, bytes, n) == 1;
}

int digest_message(ProtobufCMessage *message, uint8_t ret_sha256[static 32])
{
        struct digest_buffer buffer = { .base = { append }, .context = EVP_MD_CTX_new() };
        int r;

        if (!buffer.context)
                return error_origin(-ENOMEM);
        buffer.is_good = EVP_DigestInit_ex(buffer.context, EVP_sha256(), NULL) == 1;
        r = sort_maps(message);
        if (r == 0)
                (void)protobuf_c_message_pack_to_buffer(message, &buffer.base);
        buffer.is_good =
                buffer.is_good && EVP_DigestFinal_ex(buffer.context, ret_sha256, NULL) == 1;
        EVP_MD_CTX_free(buffer.context);
        if (r)
                return error_fold(r);
        return buffer.is_good ? 0 : error_origin(-EIO);
}
