#include "cli/output_options.h"

#include "cli/memory.h"
#include "runtime/base/macros.h"

const char *const output_format_names[] = { "text", "json", "jsonl", NULL };

struct option_group output_options_group(struct output_options *options)
{
        static const struct option_row rows[] = {
                OUTPUT_ROW(offsetof(struct output_options, format)),
        };

        return (struct option_group)OPTION_GROUP("Output", rows, options);
}

void output_message(enum output_format format, const void *message)
{
        _cleanup_(json_putp) struct json_object *object = json_from_message(message);

        if (format == OUTPUT_JSONL)
                json_print_line(stdout, object);
        else
                json_print(stdout, object);
}

void output_add(enum output_format format, struct json_object *array, void *messages, size_t n)
{
        ProtobufCMessage *const *items = messages;

        for (size_t i = 0; i < n; i++) {
                if (format == OUTPUT_JSONL)
                        output_message(format, items[i]);
                else
                        (void)json_object_array_add(array, json_from_message(items[i]));
        }
}

void output_list(enum output_format format, void *messages, size_t n)
{
        _cleanup_(json_putp) struct json_object *array = must(json_object_new_array());

        output_add(format, array, messages, n);
        if (format == OUTPUT_JSON)
                json_print(stdout, array);
}
