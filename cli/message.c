#include "cli/message.h"

#include <stdio.h>
#include <time.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#include "cli/memory.h"
#include "cli/options.h"
#include "runtime/base/macros.h"

#define NSEC_PER_SEC INT64_C(1000000000)

void *message_new(const ProtobufCMessageDescriptor *descriptor)
{
        void *message = allocate(1, descriptor->sizeof_message);

        protobuf_c_message_init(descriptor, message);
        return message;
}

void message_free(void *message)
{
        protobuf_c_message_free_unpacked(message, NULL);
}

void message_freep(void *pointer)
{
        message_free(*(void **)pointer);
}

void message_set_text(char **field, const char *text)
{
        if (*field != protobuf_c_empty_string)
                free(*field);
        *field = duplicate(text);
}

Google__Protobuf__Duration *message_duration(int64_t nanoseconds)
{
        Google__Protobuf__Duration *duration = message_new(&google__protobuf__duration__descriptor);

        duration->seconds = nanoseconds / NSEC_PER_SEC;
        duration->nanos = (int32_t)(nanoseconds % NSEC_PER_SEC);
        return duration;
}

static ProtobufCMessage *entry_new(const ProtobufCMessageDescriptor *descriptor,
                                   const struct option_pair *pair)
{
        ProtobufCMessage *entry = message_new(descriptor);

        /* All map<string, string> entries look alike: field 1 is the key, field 2 the value. */
        assert(descriptor->n_fields == 2);
        *(char **)((char *)entry + descriptor->fields[0].offset) = duplicate(pair->key);
        *(char **)((char *)entry + descriptor->fields[1].offset) = duplicate(pair->value);
        return entry;
}

void message_set_map(void *message, const char *name, const struct option_pairs *pairs)
{
        const ProtobufCMessageDescriptor *descriptor = ((ProtobufCMessage *)message)->descriptor;
        const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field_by_name(descriptor, name);
        ProtobufCMessage **entries;

        assert(field && field->label == PROTOBUF_C_LABEL_REPEATED);
        if (pairs->n == 0)
                return;
        entries = allocate(pairs->n, sizeof(void *));
        for (size_t i = 0; i < pairs->n; i++)
                entries[i] = entry_new(field->descriptor, &pairs->items[i]);
        *(size_t *)((char *)message + field->quantifier_offset) = pairs->n;
        *(ProtobufCMessage ***)((char *)message + field->offset) = entries;
}

const char *message_time(const Google__Protobuf__Timestamp *timestamp,
                         char ret_text[static MESSAGE_TIME_SIZE])
{
        struct tm tm;
        time_t seconds;
        size_t n;

        *ret_text = '\0';
        if (!timestamp || timestamp->nanos < 0 || timestamp->nanos >= NSEC_PER_SEC)
                return ret_text;
        seconds = timestamp->seconds;
        if (!gmtime_r(&seconds, &tm) || tm.tm_year < -1900 || tm.tm_year > 8099)
                return ret_text;
        n = strftime(ret_text, MESSAGE_TIME_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
        (void)snprintf(ret_text + n, MESSAGE_TIME_SIZE - n, ".%03dZ", timestamp->nanos / 1000000);
        return ret_text;
}

double message_seconds(const Google__Protobuf__Duration *duration)
{
        return duration ? (double)duration->seconds + duration->nanos / 1e9 : 0;
}

void message_add_path(Google__Protobuf__FieldMask *mask, const char *path)
{
        mask->paths = reallocate(mask->paths, mask->n_paths + 1, sizeof(*mask->paths));
        mask->paths[mask->n_paths++] = duplicate(path);
}
