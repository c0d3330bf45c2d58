/* Names of enum values as people see them: `RUNNING` for SANDBOX_STATE_RUNNING. */
#pragma once

#include <protobuf-c/protobuf-c.h>

/* A value that this client does not know is `UNKNOWN`. */
const char *enum_name(const ProtobufCEnumDescriptor *descriptor, int value);

/* The value called @name, in any case, with `-` or `_`; -1: none. The zero value has no name. */
int enum_value(const ProtobufCEnumDescriptor *descriptor, const char *name);
