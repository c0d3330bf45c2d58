/*
 * Details are packed into one arena and measured; while they are too long, the least important
 * thing goes: descriptions of further fields, then metadata, quota, further fields, and at last
 * half of the message. Reason, retry and the first field stay.
 */
#include "server/api/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/clip.h"
#include "server/rpc/rpc.h"

#define STATUS_DOMAIN "hotcell.dev"

/* --- building --- */

__attribute__((format(printf, 3, 0))) static void format_into(char *buffer, size_t size,
                                                              const char *format, va_list arguments)
{
        char text[2048];

        (void)vsnprintf(text, sizeof(text), format, arguments);
        (void)clip_copy(buffer, size, text);
}

void status_init(struct status *status, enum reason reason, const char *format, ...)
{
        va_list arguments;

        *status = (struct status){ .reason = reason };
        if (!format) {
                (void)clip_copy(status->message, sizeof(status->message),
                                reason_info(reason)->sentence);
                return;
        }
        va_start(arguments, format);
        format_into(status->message, sizeof(status->message), format, arguments);
        va_end(arguments);
}

void status_add_metadata(struct status *status, const char *key, const char *value)
{
        struct status_metadata *metadata = &status->metadata[status->n_metadata];

        if (status->n_metadata == STATUS_METADATA_MAX)
                return;
        (void)clip_copy(metadata->key, sizeof(metadata->key), key);
        (void)clip_copy(metadata->value, sizeof(metadata->value), value);
        status->n_metadata++;
}

void status_add_field(struct status *status, const char *path, const char *format, ...)
{
        struct status_field *field = &status->fields[status->n_fields];
        va_list arguments;

        if (status->n_fields == STATUS_FIELDS_MAX)
                return;
        (void)clip_copy(field->path, sizeof(field->path), path);
        va_start(arguments, format);
        format_into(field->description, sizeof(field->description), format, arguments);
        va_end(arguments);
        field->reason = status->reason;
        status->n_fields++;
}

void status_set_resource(struct status *status, const char *type, const char *name)
{
        (void)clip_copy(status->resource_type, sizeof(status->resource_type), type);
        (void)clip_copy(status->resource_name, sizeof(status->resource_name), name);
}

void status_set_quota(struct status *status, const char *subject, const char *format, ...)
{
        va_list arguments;

        (void)clip_copy(status->quota_subject, sizeof(status->quota_subject), subject);
        va_start(arguments, format);
        format_into(status->quota_description, sizeof(status->quota_description), format,
                    arguments);
        va_end(arguments);
}

void status_set_retry(struct status *status, uint64_t delay_usec)
{
        status->retry_usec = delay_usec;
}

/* --- packing --- */

enum {
        ANY_MAX = 5,       /* kinds of details */
        ARENA_SIZE = 8192, /* above what the fixed sizes of struct status can take */
};
static_assert(STATUS_FIELDS_MAX * (STATUS_PATH_SIZE + STATUS_TEXT_SIZE + STATUS_KEY_SIZE + 16) +
                              STATUS_METADATA_MAX * (STATUS_KEY_SIZE + STATUS_TEXT_SIZE + 16) +
                              2 * (STATUS_PATH_SIZE + STATUS_TEXT_SIZE) + 256 <=
                      ARENA_SIZE,
              "all details fit into the arena");

/* The packed details, one after the other, and the Anys that point at them. */
struct details {
        uint8_t arena[ARENA_SIZE];
        size_t used;
        Google__Protobuf__Any anys[ANY_MAX];
        Google__Protobuf__Any *pointers[ANY_MAX];
        size_t n;
};

static void details_add(struct details *details, const char *type, const ProtobufCMessage *message)
{
        Google__Protobuf__Any *any = &details->anys[details->n];
        size_t size = protobuf_c_message_get_packed_size(message);

        assert(details->n < ANY_MAX && details->used + size <= ARENA_SIZE);

        google__protobuf__any__init(any);
        any->type_url = unconst(type);
        any->value.data = details->arena + details->used;
        any->value.len = protobuf_c_message_pack(message, any->value.data);
        details->used += size;
        details->pointers[details->n++] = any;
}

static void add_error_info(struct details *details, const struct status *status)
{
        Google__Rpc__ErrorInfo info;
        Google__Rpc__ErrorInfo__MetadataEntry entries[STATUS_METADATA_MAX];
        Google__Rpc__ErrorInfo__MetadataEntry *pointers[STATUS_METADATA_MAX];

        google__rpc__error_info__init(&info);
        for (size_t i = 0; i < status->n_metadata; i++) {
                google__rpc__error_info__metadata_entry__init(&entries[i]);
                entries[i].key = unconst(status->metadata[i].key);
                entries[i].value = unconst(status->metadata[i].value);
                pointers[i] = &entries[i];
        }
        info.reason = unconst(reason_info(status->reason)->name);
        info.domain = unconst(STATUS_DOMAIN);
        info.metadata = pointers;
        info.n_metadata = status->n_metadata;
        details_add(details, "type.googleapis.com/google.rpc.ErrorInfo", &info.base);
}

static void add_bad_request(struct details *details, const struct status *status)
{
        Google__Rpc__BadRequest bad;
        Google__Rpc__BadRequest__FieldViolation violations[STATUS_FIELDS_MAX];
        Google__Rpc__BadRequest__FieldViolation *pointers[STATUS_FIELDS_MAX];

        if (status->n_fields == 0)
                return;
        for (size_t i = 0; i < status->n_fields; i++) {
                google__rpc__bad_request__field_violation__init(&violations[i]);
                violations[i].field = unconst(status->fields[i].path);
                violations[i].description = unconst(status->fields[i].description);
                violations[i].reason = unconst(reason_info(status->fields[i].reason)->name);
                pointers[i] = &violations[i];
        }
        google__rpc__bad_request__init(&bad);
        bad.field_violations = pointers;
        bad.n_field_violations = status->n_fields;
        details_add(details, "type.googleapis.com/google.rpc.BadRequest", &bad.base);
}

static void add_resource_info(struct details *details, const struct status *status)
{
        Google__Rpc__ResourceInfo info;

        if (!status->resource_type[0])
                return;
        google__rpc__resource_info__init(&info);
        info.resource_type = unconst(status->resource_type);
        info.resource_name = unconst(status->resource_name);
        details_add(details, "type.googleapis.com/google.rpc.ResourceInfo", &info.base);
}

static void add_quota_failure(struct details *details, const struct status *status)
{
        Google__Rpc__QuotaFailure failure;
        Google__Rpc__QuotaFailure__Violation violation;
        Google__Rpc__QuotaFailure__Violation *pointer = &violation;

        if (!status->quota_subject[0])
                return;
        google__rpc__quota_failure__init(&failure);
        google__rpc__quota_failure__violation__init(&violation);
        violation.subject = unconst(status->quota_subject);
        violation.description = unconst(status->quota_description);
        failure.violations = &pointer;
        failure.n_violations = 1;
        details_add(details, "type.googleapis.com/google.rpc.QuotaFailure", &failure.base);
}

static void add_retry_info(struct details *details, const struct status *status)
{
        Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
        Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;

        if (status->retry_usec == 0)
                return;
        delay.seconds = (int64_t)(status->retry_usec / 1000000);
        delay.nanos = (int32_t)(status->retry_usec % 1000000) * 1000;
        info.retry_delay = &delay;
        details_add(details, "type.googleapis.com/google.rpc.RetryInfo", &info.base);
}

static int pack_once(const struct status *status, void **ret_bytes, size_t *ret_n_bytes)
{
        Google__Rpc__Status message;
        _cleanup_(freep) struct details *details = calloc(1, sizeof(*details));
        uint8_t *bytes;

        if (!details)
                return error_origin(-ENOMEM);
        add_error_info(details, status);
        add_bad_request(details, status);
        add_resource_info(details, status);
        add_quota_failure(details, status);
        add_retry_info(details, status);

        google__rpc__status__init(&message);
        message.code = (int32_t)reason_info(status->reason)->code;
        message.message = unconst(status->message);
        message.details = details->pointers;
        message.n_details = details->n;
        bytes = malloc(google__rpc__status__get_packed_size(&message));
        if (!bytes)
                return error_origin(-ENOMEM);
        *ret_n_bytes = google__rpc__status__pack(&message, bytes);
        *ret_bytes = bytes;
        return 0;
}

/* The details go as base64. */
static size_t wire_size(const struct status *status, size_t n_details)
{
        return clip_header_size(status->message) + (n_details + 2) / 3 * 4;
}

/* Leaves out the least important thing that is left. */
static void cut_one(struct status *status)
{
        char message[STATUS_MESSAGE_SIZE];

        for (size_t i = status->n_fields; i > 1; i--) {
                if (!status->fields[i - 1].description[0])
                        continue;
                status->fields[i - 1].description[0] = '\0';
                return;
        }
        if (status->n_metadata > 0) {
                status->n_metadata--;
        } else if (status->quota_subject[0]) {
                status->quota_subject[0] = '\0';
        } else if (status->n_fields > 1) {
                status->n_fields--;
        } else {
                memcpy(message, status->message, sizeof(message));
                (void)clip_copy(status->message, strlen(message) / 2 + 1, message);
        }
}

int status_pack(struct status *status, void **ret_bytes, size_t *ret_n_bytes)
{
        for (;;) {
                _cleanup_(freep) void *bytes = NULL;
                size_t n_bytes = 0;
                int r;

                r = pack_once(status, &bytes, &n_bytes);
                if (r)
                        return error_fold(r);
                if (wire_size(status, n_bytes) <= STATUS_WIRE_MAX) {
                        *ret_bytes = take(bytes);
                        *ret_n_bytes = n_bytes;
                        return 0;
                }
                cut_one(status);
        }
}

void status_send(struct rpc_call *call, const struct status *status)
{
        struct status fitting = *status;
        _cleanup_(freep) void *details = NULL;
        size_t n_details = 0;

        /* Without memory for the details, code and message must do. */
        (void)status_pack(&fitting, &details, &n_details);
        rpc_call_fail(call, reason_info(status->reason)->code, fitting.message, details, n_details);
}
