#include "cli/json.h"

#include <stdint.h>
#include <string.h>

#include <openssl/evp.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#include "cli/enum_name.h"
#include "cli/escape.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "runtime/base/text.h"

enum { PLAIN_FLAGS = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE };

/* Copies @text; bytes that are no UTF-8 become U+FFFD, one for each. */
static char *repair(const char *text)
{
        size_t n = strlen(text);
        char *repaired = allocate(3 * n + 1, 1), *to = repaired;

        for (size_t i = 0; i < n;) {
                size_t length = 1;

                while (length <= 4 && i + length <= n && !text_is_utf8(text + i, length))
                        length++;
                if (length <= 4 && i + length <= n) {
                        to = mempcpy(to, text + i, length);
                        i += length;
                } else {
                        to = mempcpy(to, "\xef\xbf\xbd", 3);
                        i++;
                }
        }
        return repaired;
}

struct json_object *json_from_text(const char *text)
{
        _cleanup_(freep) char *repaired = NULL;

        if (text_is_utf8(text, strlen(text)))
                return must(json_object_new_string(text));
        repaired = repair(text);
        return must(json_object_new_string(repaired));
}

static struct json_object *from_base64(const ProtobufCBinaryData *bytes)
{
        _cleanup_(freep) char *text = allocate(bytes->len / 3 * 4 + 5, 1);
        int n = EVP_EncodeBlock((unsigned char *)text, bytes->data, (int)bytes->len);

        return must(json_object_new_string_len(text, n));
}

static struct json_object *from_duration(const Google__Protobuf__Duration *duration)
{
        _cleanup_(freep) char *text = format_text("%.9f", message_seconds(duration));
        size_t n = strlen(text);

        while (text[n - 1] == '0')
                n--;
        if (text[n - 1] == '.')
                n--;
        text[n++] = 's'; /* there is room: the zeros were more */
        return must(json_object_new_string_len(text, (int)n));
}

static struct json_object *from_any_message(const ProtobufCMessage *message)
{
        char time[MESSAGE_TIME_SIZE];

        if (!message)
                return NULL;
        if (message->descriptor == &google__protobuf__timestamp__descriptor)
                return must(json_object_new_string(
                        message_time((const Google__Protobuf__Timestamp *)message, time)));
        if (message->descriptor == &google__protobuf__duration__descriptor)
                return from_duration((const Google__Protobuf__Duration *)message);
        return json_from_message(message);
}

static struct json_object *from_value(const ProtobufCFieldDescriptor *field, const void *value)
{
        switch (field->type) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
                return must(json_object_new_int64(*(const int32_t *)value));
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
                return must(json_object_new_int64(*(const uint32_t *)value));
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
                return must(json_object_new_int64(*(const int64_t *)value));
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
                return must(json_object_new_uint64(*(const uint64_t *)value));
        case PROTOBUF_C_TYPE_FLOAT:
                return must(json_object_new_double((double)*(const float *)value));
        case PROTOBUF_C_TYPE_DOUBLE:
                return must(json_object_new_double(*(const double *)value));
        case PROTOBUF_C_TYPE_BOOL:
                return must(json_object_new_boolean(*(const protobuf_c_boolean *)value));
        case PROTOBUF_C_TYPE_ENUM:
                return must(
                        json_object_new_string(enum_name(field->descriptor, *(const int *)value)));
        case PROTOBUF_C_TYPE_STRING:
                return json_from_text(*(const char *const *)value);
        case PROTOBUF_C_TYPE_BYTES:
                return from_base64(value);
        case PROTOBUF_C_TYPE_MESSAGE:
                return from_any_message(*(const ProtobufCMessage *const *)value);
        }
        return NULL;
}

static size_t value_size(ProtobufCType type)
{
        switch (type) {
        case PROTOBUF_C_TYPE_STRING:
        case PROTOBUF_C_TYPE_MESSAGE:
                return sizeof(void *);
        case PROTOBUF_C_TYPE_BYTES:
                return sizeof(ProtobufCBinaryData);
        case PROTOBUF_C_TYPE_BOOL:
                return sizeof(protobuf_c_boolean);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
        case PROTOBUF_C_TYPE_DOUBLE:
                return 8;
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
        case PROTOBUF_C_TYPE_FLOAT:
        case PROTOBUF_C_TYPE_ENUM:
                break;
        }
        return 4;
}

/* protobuf-c does not say what is a map: protoc names their entries so, and nothing else of ours.
 */
static bool is_map(const ProtobufCFieldDescriptor *field)
{
        const ProtobufCMessageDescriptor *entry = field->descriptor;
        size_t n;

        if (field->type != PROTOBUF_C_TYPE_MESSAGE || entry->n_fields != 2)
                return false;
        n = strlen(entry->name);
        return n > 5 && strcmp(entry->name + n - 5, "Entry") == 0 &&
               strcmp(entry->fields[0].name, "key") == 0;
}

static struct json_object *from_map(const ProtobufCFieldDescriptor *field,
                                    ProtobufCMessage *const *entries, size_t n)
{
        const ProtobufCMessageDescriptor *entry = field->descriptor;
        struct json_object *object = must(json_object_new_object());

        for (size_t i = 0; i < n; i++) {
                const char *at = (const char *)entries[i];
                _cleanup_(freep) char *key =
                        repair(*(const char *const *)(at + entry->fields[0].offset));

                (void)json_object_object_add(
                        object, key, from_value(&entry->fields[1], at + entry->fields[1].offset));
        }
        return object;
}

static struct json_object *from_repeated(const ProtobufCFieldDescriptor *field, const char *message)
{
        size_t n = *(const size_t *)(message + field->quantifier_offset);
        const char *values = *(const char *const *)(message + field->offset);
        struct json_object *array;

        if (is_map(field))
                return from_map(field, (ProtobufCMessage *const *)values, n);
        array = must(json_object_new_array());
        for (size_t i = 0; i < n; i++)
                (void)json_object_array_add(
                        array, from_value(field, values + i * value_size(field->type)));
        return array;
}

/* Is there a value? Plain scalars always have one; they are shown also when zero. */
static bool is_present(const ProtobufCFieldDescriptor *field, const char *message)
{
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
                return *(const uint32_t *)(message + field->quantifier_offset) == field->id;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
                return *(void *const *)(message + field->offset) != NULL;
        return true;
}

/* `text` beside bytes: readable without decoding, and only there when nothing is lost by it. */
static void add_text(struct json_object *object, const ProtobufCBinaryData *bytes)
{
        if (bytes->len > 0 && !text_is_utf8(bytes->data, bytes->len))
                return;
        (void)json_object_object_add(
                object, "text",
                must(json_object_new_string_len((const char *)bytes->data, (int)bytes->len)));
}

static void add_field(struct json_object *object, const ProtobufCFieldDescriptor *field,
                      const char *message)
{
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
                (void)json_object_object_add(object, field->name, from_repeated(field, message));
                return;
        }
        if (!is_present(field, message))
                return;
        (void)json_object_object_add(object, field->name,
                                     from_value(field, message + field->offset));
        if (field->type == PROTOBUF_C_TYPE_BYTES)
                add_text(object, (const ProtobufCBinaryData *)(message + field->offset));
}

struct json_object *json_from_message(const ProtobufCMessage *message)
{
        struct json_object *object = must(json_object_new_object());

        for (unsigned i = 0; i < message->descriptor->n_fields; i++)
                add_field(object, &message->descriptor->fields[i], (const char *)message);
        return object;
}

static unsigned code_point(const uint8_t *at, size_t length)
{
        if (length == 2)
                return (at[0] & 0x1fU) << 6 | (at[1] & 0x3fU);
        return (at[0] & 0x0fU) << 12 | (at[1] & 0x3fU) << 6 | (at[2] & 0x3fU);
}

/* Bytes of the character at @at that a terminal would obey; 0: it is harmless. JSON itself asks
 * only for those below U+0020 to be escaped, which json-c has done. */
static size_t hidden_length(const char *at)
{
        size_t left = strnlen(at, 3);

        if (*at == 0x7f)
                return 1;
        for (size_t length = 2; length <= left; length++)
                if (escape_is_hidden((const uint8_t *)at, length))
                        return length;
        return 0;
}

/* Such characters are only in strings, where they can also be written as escapes. */
static void write_json(FILE *out, struct json_object *object, int flags)
{
        const char *at = json_object_to_json_string_ext(object, flags), *begin = at;

        while (*at) {
                size_t length = hidden_length(at);

                if (length == 0) {
                        at++;
                        continue;
                }
                (void)fwrite(begin, 1, (size_t)(at - begin), out);
                (void)fprintf(out, "\\u%04x",
                              length == 1 ? 0x7fU : code_point((const uint8_t *)at, length));
                at += length;
                begin = at;
        }
        (void)fwrite(begin, 1, (size_t)(at - begin), out);
        (void)fputc('\n', out);
        (void)fflush(out);
}

void json_print_line(FILE *out, struct json_object *object)
{
        write_json(out, object, PLAIN_FLAGS);
}

void json_print(FILE *out, struct json_object *object)
{
        write_json(out, object, PLAIN_FLAGS | JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED);
}

void json_print_message(FILE *out, const ProtobufCMessage *message)
{
        _cleanup_(json_putp) struct json_object *object = json_from_message(message);

        json_print(out, object);
}
