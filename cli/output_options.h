/* -o text|json|jsonl, and how lists follow it. */
#pragma once

#include "cli/json.h"
#include "cli/options.h"
#include "cli/print_events.h"

struct output_options {
        int format; /* enum output_format */
};

/* A row for a table of options, where @offset is that of the int. */
extern const char *const output_format_names[];
#define OUTPUT_ROW(offset_)                                                                        \
        {                                                                                          \
                'o', "output", OPTION_CHOICE, (offset_), "text|json|jsonl",                        \
                        "for people, JSON, or JSON one value a line", output_format_names, 0       \
        }

struct option_group output_options_group(struct output_options *options);

/* One message: indented, or as a line with OUTPUT_JSONL. */
void output_message(enum output_format format, const void *message);

/* Adds @n messages to @array, or prints them as lines with OUTPUT_JSONL. */
void output_add(enum output_format format, struct json_object *array, void *messages, size_t n);

/* Both at once, for a list that is whole. */
void output_list(enum output_format format, void *messages, size_t n);
