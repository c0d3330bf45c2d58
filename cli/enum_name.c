#include "cli/enum_name.h"

#include <stdlib.h>
#include <string.h>

#include "cli/memory.h"
#include "runtime/base/macros.h"

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

int enum_value(const ProtobufCEnumDescriptor *descriptor, const char *name)
{
        _cleanup_(freep) char *wanted = duplicate(name);
        size_t n_prefix = prefix_length(descriptor);

        for (char *hyphen = strchr(wanted, '-'); hyphen; hyphen = strchr(hyphen, '-'))
                *hyphen = '_';
        for (unsigned i = 0; i < descriptor->n_values; i++) {
                const ProtobufCEnumValue *value = &descriptor->values[i];

                if (value->value != 0 && strcasecmp(value->name + n_prefix, wanted) == 0)
                        return value->value;
        }
        return -1;
}
