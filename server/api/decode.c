/*
 * protobuf-c does not check text: bytes that are not UTF-8 pass, and a NUL cuts the rest off
 * without a word. Both show only in the wire bytes, so these are walked by the type's descriptor
 * before they are unpacked; the walk also bounds the depth, which protobuf-c does not.
 */
#include "server/api/decode.h"

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hotcell/v1/egress.pb-c.h"
#include "hotcell/v1/sandbox.pb-c.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/clip.h"
#include "server/api/status.h"
#include "server/api/wire.h"

enum {
        DEPTH_MAX = 16, /* our requests need 5 */
        MAP_KEY_MAX = 48,
        /* Structures around the bytes; 64 KiB of the shortest environment variables take 1.4 MiB.
         */
        STRUCTURE_BYTES = 2 << 20,
        BLOCK_BYTES = 16, /* what malloc needs for itself */
        /* The same around each egress rule with 8 ranges of ports, of as many as may be. */
        RULE_STRUCTURE_BYTES = 720,
        RULES_MAX = 10000,
};

/* --- the path of a bad field, built from its end --- */

struct path {
        char text[DECODE_PATH_SIZE];
        size_t start; /* of the path so far; its NUL is the last byte */
};

static void path_prepend(struct path *path, const char *component)
{
        static const char cut[] = "….";
        size_t n = strlen(component);
        bool has_more = path->text[path->start] != '\0';
        size_t n_dot = has_more ? 1 : 0;

        /* What is left in front is kept for the mark of a cut. */
        if (path->start < n + n_dot + sizeof(cut)) {
                if (path->start >= sizeof(cut) - 1) {
                        path->start -= sizeof(cut) - 1;
                        memcpy(path->text + path->start, cut, sizeof(cut) - 1);
                }
                return;
        }
        if (has_more)
                path->text[--path->start] = '.';
        path->start -= n;
        memcpy(path->text + path->start, component, n);
}

/* Protobuf-c does not mark the entries of maps: they are known by their form. */
bool decode_is_map_entry(const ProtobufCMessageDescriptor *type)
{
        size_t n_name = strlen(type->short_name);

        return n_name > 5 && strcmp(type->short_name + n_name - 5, "Entry") == 0 &&
               type->n_fields == 2 && type->fields[0].id == 1 && type->fields[1].id == 2 &&
               strcmp(type->fields[0].name, "key") == 0 &&
               strcmp(type->fields[1].name, "value") == 0 &&
               type->fields[0].type == PROTOBUF_C_TYPE_STRING;
}

/* How many fields of the same number come before @field in @message. */
static size_t index_of(const struct wire_bytes *message, const struct wire_field *field)
{
        struct wire_bytes rest = *message;
        struct wire_field other;
        size_t index = 0;

        while (wire_next(&rest, &other) == 0 && other.value.start != field->value.start)
                if (other.number == field->number)
                        index++;
        return index;
}

static bool map_key(struct wire_bytes entry, char *buffer, size_t size)
{
        struct wire_field field;
        bool is_found = false;

        while (wire_next(&entry, &field) == 0) {
                char key[MAP_KEY_MAX + 1] = { 0 };

                if (field.number != 1 || field.type != WIRE_BYTES)
                        continue;
                if (memchr(field.value.start, '\0', field.value.n))
                        return false;
                memcpy(key, field.value.start, MIN(field.value.n, sizeof(key) - 1));
                (void)clip_copy(buffer, size, key);
                is_found = true;
        }
        return is_found;
}

static void path_add(struct path *path, const ProtobufCFieldDescriptor *descriptor,
                     const struct wire_bytes *message, const struct wire_field *field)
{
        char component[DECODE_PATH_SIZE];
        char key[MAP_KEY_MAX];
        const ProtobufCMessageDescriptor *type =
                descriptor->type == PROTOBUF_C_TYPE_MESSAGE ? descriptor->descriptor : NULL;
        bool is_key_bad = strcmp(path->text + path->start, "key") == 0;

        if (descriptor->label != PROTOBUF_C_LABEL_REPEATED)
                (void)snprintf(component, sizeof(component), "%s", descriptor->name);
        else if (type && decode_is_map_entry(type) && !is_key_bad &&
                 map_key(field->value, key, sizeof(key)))
                (void)snprintf(component, sizeof(component), "%s[\"%s\"]", descriptor->name, key);
        else
                (void)snprintf(component, sizeof(component), "%s[%zu]", descriptor->name,
                               index_of(message, field));
        path_prepend(path, component);
}

/* --- the walk --- */

static bool is_text(const struct wire_bytes *bytes)
{
        return text_is_utf8(bytes->start, bytes->n) &&
               (bytes->n == 0 || !memchr(bytes->start, '\0', bytes->n));
}

struct walk {
        struct path path; /* of the bad field */
        size_t n_rules;   /* of egress policies, seen so far */
};

/* As deep as DEPTH_MAX calls of itself. */
static int check_message(const ProtobufCMessageDescriptor *type, const struct wire_bytes *message,
                         unsigned depth, struct walk *walk)
{
        struct wire_bytes rest = *message;
        struct wire_field field;
        int r;

        if (depth > DEPTH_MAX)
                return DECODE_E_TOO_COMPLEX;
        if (type == &hotcell__v1__egress_rule__descriptor)
                walk->n_rules++;

        while ((r = wire_next(&rest, &field)) == 0) {
                const ProtobufCFieldDescriptor *descriptor =
                        protobuf_c_message_descriptor_get_field(type, field.number);

                if (!descriptor || field.type != WIRE_BYTES)
                        continue; /* unknown, or the unpacker refuses it */
                if (descriptor->type == PROTOBUF_C_TYPE_STRING)
                        r = is_text(&field.value) ? 0 : DECODE_E_TEXT;
                else if (descriptor->type == PROTOBUF_C_TYPE_MESSAGE)
                        r = check_message(descriptor->descriptor, &field.value, depth + 1, walk);
                if (r == DECODE_E_TEXT)
                        path_add(&walk->path, descriptor, message, &field);
                if (r)
                        return r;
        }
        return r == WIRE_E_END ? 0 : DECODE_E_MALFORMED;
}

/* --- unpacking within a budget --- */

struct budget {
        size_t left;
        bool is_spent;
        bool is_out_of_memory;
};

/* What the structures of a request may take. */
static size_t structure_bytes(const struct walk *walk)
{
        return STRUCTURE_BYTES + MIN(walk->n_rules, (size_t)RULES_MAX) * RULE_STRUCTURE_BYTES;
}

static size_t block_size(void *block)
{
        return malloc_usable_size(block) + BLOCK_BYTES;
}

static void *budget_alloc(void *userdata, size_t size)
{
        struct budget *budget = userdata;
        void *block;

        /* First of all: a huge size is not to be asked for. */
        if (size > budget->left) {
                budget->is_spent = true;
                return NULL;
        }
        block = malloc(size);
        if (!block) {
                budget->is_out_of_memory = true;
                return NULL;
        }
        if (block_size(block) > budget->left) {
                budget->is_spent = true;
                free(block);
                return NULL;
        }
        budget->left -= block_size(block);
        return block;
}

static void budget_free(void *userdata, void *block)
{
        struct budget *budget = userdata;

        if (!block)
                return;
        budget->left += block_size(block);
        free(block);
}

int decode_message(const ProtobufCMessageDescriptor *type, const void *bytes, size_t n_bytes,
                   ProtobufCMessage **ret_message, struct decode_path *ret_path)
{
        struct budget budget = { .left = n_bytes };
        ProtobufCAllocator allocator = { budget_alloc, budget_free, &budget };
        struct wire_bytes message = { bytes, n_bytes };
        struct walk walk = { .path = { .start = DECODE_PATH_SIZE - 1 } };
        const struct path *path = &walk.path;
        ProtobufCMessage *unpacked;
        int r;

        r = check_message(type, &message, 0, &walk);
        if (r == DECODE_E_TEXT)
                memcpy(ret_path->text, path->text + path->start, DECODE_PATH_SIZE - path->start);
        if (r)
                return r;
        budget.left += structure_bytes(&walk);

        unpacked = protobuf_c_message_unpack(type, &allocator, n_bytes, bytes);
        if (unpacked) {
                *ret_message = unpacked;
                return 0;
        }
        if (budget.is_out_of_memory)
                return error_origin(-ENOMEM);
        return budget.is_spent ? DECODE_E_TOO_COMPLEX : DECODE_E_MALFORMED;
}

void *decode_request(struct rpc_call *call, const ProtobufCMessageDescriptor *type,
                     const void *bytes, size_t n_bytes)
{
        ProtobufCMessage *message = NULL;
        struct decode_path path;
        struct status status;
        int r;

        r = decode_message(type, bytes, n_bytes, &message, &path);
        if (r == 0)
                return message;

        if (r == DECODE_E_TEXT) {
                status_init(&status, REASON_INVALID_UTF8, "%s is not valid text.", path.text);
                status_add_field(&status, path.text, "%s",
                                 reason_info(REASON_INVALID_UTF8)->sentence);
        } else if (r == DECODE_E_TOO_COMPLEX) {
                status_init(&status, REASON_REQUEST_TOO_COMPLEX, NULL);
        } else if (r == DECODE_E_MALFORMED) {
                status_init(&status, REASON_REQUEST_MALFORMED, "The request is no %s.", type->name);
        } else {
                status_init(&status, REASON_HOST_EXHAUSTED, "The server is out of memory.");
        }
        status_send(call, &status);
        return NULL;
}

/* --- maps --- */

/* How protobuf-c lays out an entry of any map whose keys are strings. */
struct map_entry {
        ProtobufCMessage base;
        char *key;
};
static_assert(offsetof(struct map_entry, key) ==
                      offsetof(Hotcell__V1__SandboxSpec__LabelsEntry, key),
              "entries of maps begin with their key");

const char *decode_map_key(const ProtobufCMessage *entry)
{
        return ((const struct map_entry *)entry)->key;
}

struct map_place {
        struct map_entry *entry;
        size_t index;
        bool is_shadowed;
};

static int compare_keys(const void *a, const void *b)
{
        const struct map_place *left = a;
        const struct map_place *right = b;
        int order = strcmp(left->entry->key, right->entry->key);

        if (order)
                return order;
        return left->index < right->index ? -1 : left->index > right->index;
}

static int compare_places(const void *a, const void *b)
{
        const struct map_place *left = a;
        const struct map_place *right = b;

        return left->index < right->index ? -1 : left->index > right->index;
}

int decode_map_unique(void *entries, size_t *n_entries)
{
        struct map_entry **all = entries;
        size_t n = *n_entries;
        size_t n_kept = 0;
        _cleanup_(freep) struct map_place *places = NULL;

        if (n < 2)
                return 0;
        places = calloc(n, sizeof(*places));
        if (!places)
                return error_origin(-ENOMEM);

        for (size_t i = 0; i < n; i++)
                places[i] = (struct map_place){ .entry = all[i], .index = i };
        qsort(places, n, sizeof(*places), compare_keys);
        for (size_t i = 0; i + 1 < n; i++)
                places[i].is_shadowed = !strcmp(places[i].entry->key, places[i + 1].entry->key);
        qsort(places, n, sizeof(*places), compare_places);

        for (size_t i = 0; i < n; i++) {
                if (places[i].is_shadowed)
                        protobuf_c_message_free_unpacked(&places[i].entry->base, NULL);
                else
                        all[n_kept++] = places[i].entry;
        }
        *n_entries = n_kept;
        return 0;
}
