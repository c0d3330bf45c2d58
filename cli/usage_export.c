#include "cli/usage_export.h"

#include <inttypes.h>
#include <string.h>

#include "cli/enum_name.h"
#include "cli/escape.h"
#include "cli/json.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "google/protobuf/duration.pb-c.h"
#include "hotcell/v1/execution.pb-c.h"
#include "runtime/base/macros.h"

enum field_kind {
        FIELD_TEXT,
        FIELD_COUNT,
        FIELD_USEC, /* a duration */
        FIELD_TIME,
        FIELD_TYPE,
        FIELD_OUTCOME,
        FIELD_CAUSE,
        FIELD_TRUTH,
        FIELD_MISSING,
};

struct field {
        const char *name;
        enum field_kind kind;
        bool is_of_usage;
        size_t offset;
};

#define OF_RECORD(name_, kind_, member)                                                            \
        {                                                                                          \
                (name_), (kind_), false, offsetof(Hotcell__V1__UsageRecord, member)                \
        }
#define OF_USAGE(name_, kind_, member)                                                             \
        {                                                                                          \
                (name_), (kind_), true, offsetof(Hotcell__V1__Usage, member)                       \
        }

/* New ones come last: who reads by place goes on. */
static const struct field fields[] = {
        OF_RECORD("sandbox_id", FIELD_TEXT, sandbox_id),
        OF_RECORD("sequence", FIELD_COUNT, sequence),
        OF_RECORD("type", FIELD_TYPE, type),
        OF_RECORD("execution_id", FIELD_TEXT, execution_id),
        OF_RECORD("context_id", FIELD_TEXT, context_id),
        OF_RECORD("owner", FIELD_TEXT, owner),
        OF_RECORD("start_time", FIELD_TIME, start_time),
        OF_RECORD("end_time", FIELD_TIME, end_time),
        OF_RECORD("outcome", FIELD_OUTCOME, outcome),
        OF_RECORD("cause", FIELD_CAUSE, cause),
        OF_RECORD("incomplete", FIELD_TRUTH, incomplete),
        OF_USAGE("cpu_usec", FIELD_USEC, cpu_time),
        OF_USAGE("cpu_user_usec", FIELD_USEC, cpu_user_time),
        OF_USAGE("cpu_system_usec", FIELD_USEC, cpu_system_time),
        OF_USAGE("wall_usec", FIELD_USEC, wall_time),
        OF_USAGE("memory_peak_bytes", FIELD_COUNT, memory_peak_bytes),
        OF_USAGE("memory_byte_seconds", FIELD_COUNT, memory_byte_seconds),
        OF_USAGE("rss_peak_bytes", FIELD_COUNT, rss_peak_bytes),
        OF_USAGE("sent_bytes", FIELD_COUNT, sent_bytes),
        OF_USAGE("received_bytes", FIELD_COUNT, received_bytes),
        OF_USAGE("stdout_bytes", FIELD_COUNT, stdout_bytes),
        OF_USAGE("stderr_bytes", FIELD_COUNT, stderr_bytes),
        OF_USAGE("rich_bytes", FIELD_COUNT, rich_bytes),
        OF_USAGE("run_queue_wait_usec", FIELD_USEC, run_queue_wait),
        OF_USAGE("context_switches", FIELD_COUNT, context_switches),
        OF_USAGE("scheduled_usec", FIELD_USEC, scheduled_time),
        OF_USAGE("earlier_work_usec", FIELD_USEC, earlier_work_time),
        OF_USAGE("oom_kills", FIELD_COUNT, oom_kills),
        OF_USAGE("throttled_periods", FIELD_COUNT, throttled_periods),
        OF_USAGE("throttled_usec", FIELD_USEC, throttled_time),
        OF_USAGE("missing", FIELD_MISSING, missing),
};

static int64_t usec_of(const Google__Protobuf__Duration *duration)
{
        return duration ? duration->seconds * 1000000 + duration->nanos / 1000 : 0;
}

/* Columns are not called as the API's fields, which are what is missing; what has none keeps that.
 */
static const char *column_of(const char *name)
{
        const ProtobufCFieldDescriptor *member = protobuf_c_message_descriptor_get_field_by_name(
                &hotcell__v1__usage__descriptor, name);

        for (size_t i = 0; member && i < ARRAY_SIZE(fields); i++) {
                if (fields[i].is_of_usage && fields[i].offset == member->offset)
                        return fields[i].name;
        }
        return name;
}

char *usage_missing_text(const Hotcell__V1__Usage *usage)
{
        char *text = NULL;
        size_t n_text = 0;
        FILE *out = must(open_memstream(&text, &n_text));

        for (size_t i = 0; i < usage->n_missing; i++)
                (void)fprintf(out, "%s%s", i ? " " : "", column_of(usage->missing[i]));
        (void)fclose(out);
        return must(text);
}

static const char *enum_text(const struct field *field, int value)
{
        const ProtobufCEnumDescriptor *descriptor =
                field->kind == FIELD_TYPE      ? &hotcell__v1__usage_record_type__descriptor
                : field->kind == FIELD_OUTCOME ? &hotcell__v1__outcome__descriptor
                                               : &hotcell__v1__cause__descriptor;

        return value == 0 ? "" : enum_name(descriptor, value);
}

static bool is_number(const struct field *field)
{
        return field->kind == FIELD_COUNT || field->kind == FIELD_USEC;
}

static int64_t number_of(const struct field *field, const void *value)
{
        if (field->kind == FIELD_USEC)
                return usec_of(*(Google__Protobuf__Duration *const *)value);
        return *(const int64_t *)value;
}

/* What is no number. The caller frees. */
static char *text_of(const struct field *field, const void *value, const Hotcell__V1__Usage *usage)
{
        char time[MESSAGE_TIME_SIZE];

        switch (field->kind) {
        case FIELD_TEXT:
                return duplicate(*(char *const *)value);
        case FIELD_TIME:
                return duplicate(message_time(*(Google__Protobuf__Timestamp *const *)value, time));
        case FIELD_TYPE:
        case FIELD_OUTCOME:
        case FIELD_CAUSE:
                return duplicate(enum_text(field, *(const int *)value));
        case FIELD_TRUTH:
                return duplicate(*(const protobuf_c_boolean *)value ? "true" : "false");
        case FIELD_MISSING:
                return usage_missing_text(usage);
        case FIELD_COUNT:
        case FIELD_USEC:
                break;
        }
        return duplicate("");
}

/* Quoted where it must be; what a terminal would obey is escaped. */
static void write_cell(FILE *out, const char *text)
{
        _cleanup_(freep) char *line = escape_line(text);

        if (!strpbrk(line, ",\"")) {
                (void)fputs(line, out);
                return;
        }
        (void)fputc('"', out);
        for (const char *at = line; *at; at++) {
                if (*at == '"')
                        (void)fputc('"', out);
                (void)fputc(*at, out);
        }
        (void)fputc('"', out);
}

static const void *value_of(const struct field *field, const Hotcell__V1__UsageRecord *record,
                            const Hotcell__V1__Usage *usage)
{
        const void *message = field->is_of_usage ? (const void *)usage : (const void *)record;

        return (const char *)message + field->offset;
}

static void write_csv(FILE *out, const Hotcell__V1__UsageRecord *record,
                      const Hotcell__V1__Usage *usage)
{
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                const void *value = value_of(&fields[i], record, usage);

                if (i > 0)
                        (void)fputc(',', out);
                if (is_number(&fields[i])) {
                        (void)fprintf(out, "%" PRId64, number_of(&fields[i], value));
                } else {
                        _cleanup_(freep) char *text = text_of(&fields[i], value, usage);

                        write_cell(out, text);
                }
        }
        (void)fputs("\r\n", out);
}

static void write_json(FILE *out, const Hotcell__V1__UsageRecord *record,
                       const Hotcell__V1__Usage *usage)
{
        _cleanup_(json_putp) struct json_object *object = must(json_object_new_object());

        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                const struct field *field = &fields[i];
                const void *value = value_of(field, record, usage);
                struct json_object *item;

                if (is_number(field)) {
                        item = must(json_object_new_int64(number_of(field, value)));
                } else if (field->kind == FIELD_TRUTH) {
                        item = must(json_object_new_boolean(*(const protobuf_c_boolean *)value));
                } else {
                        _cleanup_(freep) char *text = text_of(field, value, usage);

                        item = json_from_text(text);
                }
                (void)json_object_object_add(object, field->name, item);
        }
        json_print_line(out, object);
}

void usage_export_head(FILE *out, enum usage_format format)
{
        if (format != USAGE_FORMAT_CSV)
                return;
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
                (void)fprintf(out, "%s%s", i ? "," : "", fields[i].name);
        (void)fputs("\r\n", out);
}

void usage_export_record(FILE *out, enum usage_format format,
                         const Hotcell__V1__UsageRecord *record)
{
        static const Hotcell__V1__Usage none = HOTCELL__V1__USAGE__INIT;
        const Hotcell__V1__Usage *usage = record->usage ? record->usage : &none;

        if (format == USAGE_FORMAT_CSV)
                write_csv(out, record, usage);
        else
                write_json(out, record, usage);
}
