/* Protobuf messages on the heap: made field by field, freed as one. */
#pragma once

#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

struct Google__Protobuf__Duration;
struct Google__Protobuf__FieldMask;
struct Google__Protobuf__Timestamp;
struct option_pairs;

/* An empty message; strings that are set later must be on the heap. */
void *message_new(const ProtobufCMessageDescriptor *descriptor);

/* Frees a message of any type with all that it points to; NULL is fine. */
void message_free(void *message);

/* For `_cleanup_(message_freep)`. */
void message_freep(void *pointer);

/* Replaces a string field. */
void message_set_text(char **field, const char *text);

struct Google__Protobuf__Duration *message_duration(int64_t nanoseconds);

/* Sets the map field @name of @message from @pairs. */
void message_set_map(void *message, const char *name, const struct option_pairs *pairs);

/* `2026-01-31T12:00:00.123Z`; empty when @timestamp is NULL or out of range. */
enum { MESSAGE_TIME_SIZE = 40 };
const char *message_time(const struct Google__Protobuf__Timestamp *timestamp,
                         char ret_text[static MESSAGE_TIME_SIZE]);

/* In seconds; 0 when NULL. */
double message_seconds(const struct Google__Protobuf__Duration *duration);

/* Of an update: one more field that it changes. */
void message_add_path(struct Google__Protobuf__FieldMask *mask, const char *path);
