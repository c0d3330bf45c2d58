/*
 * Messages as JSON, by their descriptors: field names as in the proto files, times as RFC 3339,
 * durations as `1.5s`, enums by their names without prefix, 64-bit numbers as numbers, bytes as
 * base64 with a `text` beside them when they are UTF-8. What a terminal would obey is escaped.
 */
#pragma once

#include <stdio.h>

#include <json-c/json_object.h>
#include <protobuf-c/protobuf-c.h>

#include "runtime/base/cleanup.h"

static inline void json_putp(struct json_object **object)
{
        (void)json_object_put(*object);
}

struct json_object *json_from_message(const ProtobufCMessage *message);

/* Text of unknown origin: what is not UTF-8 becomes U+FFFD. */
struct json_object *json_from_text(const char *text);

/* One line, flushed. */
void json_print_line(FILE *out, struct json_object *object);

/* For people too: indented. */
void json_print(FILE *out, struct json_object *object);

/* The message as an indented object. */
void json_print_message(FILE *out, const ProtobufCMessage *message);
