#include "cli/enum_name.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

/* All of an enum's names begin with what its zero value has before `UNSPECIFIED`. */
static size_t prefix_length(const ProtobufCEnumDescriptor *descriptor)
{
        const ProtobufCEnumValue *zero = protobuf_c_enum_descriptor_get_value(descriptor, 0);
        const char *end = zero ? strstr(zero->name, "UNSPECIFIED") : NULL;

        return end ? (size_t)(end - zero->name) : 0;
}

const char *enum_name(const ProtobufCEnumDescriptor *descriptor, int value)
{
        const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);

        return found ? found->name + prefix_length(descriptor) : "UNKNOWN";
}

/* Case does not count, and a hyphen is as good as the underscore. */
static bool is_same(const char *name, const char *text)
{
        for (; *name && *text; name++, text++) {
                if (tolower((unsigned char)*name) != tolower((unsigned char)*text) &&
                    (*name != '_' || *text != '-'))
                        return false;
        }
        return *name == *text;
}

int enum_value(const ProtobufCEnumDescriptor *descriptor, const char *name)
{
        size_t n_prefix = prefix_length(descriptor);

        for (unsigned i = 0; i < descriptor->n_values; i++) {
                const ProtobufCEnumValue *value = &descriptor->values[i];

                if (value->value != 0 && is_same(value->name + n_prefix, name))
                        return value->value;
        }
        return -1;
}
