#include "server/store/rows.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/sqlite_error.h"

enum field_type {
        FIELD_TEXT,
        FIELD_OPTIONAL_TEXT, /* empty is NULL */
        FIELD_INT32,         /* also of enums */
        FIELD_INT64,
        FIELD_BOOL,
        FIELD_BLOB,
};

struct field {
        const char *column;
        enum field_type type;
        size_t offset;
        size_t size;
};

#define FIELD(kind, record, column_name, member)                                                   \
        {                                                                                          \
                .column = (column_name), .type = FIELD_##kind,                                     \
                .offset = offsetof(struct record, member),                                         \
                .size = sizeof(((struct record *)NULL)->member),                                   \
        }

#define SANDBOX(kind, member)          FIELD(kind, sandbox_record, #member, member)
#define SANDBOX_AS(kind, name, member) FIELD(kind, sandbox_record, name, member)

static const struct field sandbox_fields[] = {
        SANDBOX(TEXT, sandbox_id),
        SANDBOX(TEXT, owner),
        SANDBOX(OPTIONAL_TEXT, name),
        SANDBOX(INT32, state),
        SANDBOX(TEXT, template_name),
        SANDBOX(TEXT, template_digest),
        SANDBOX(INT64, create_time_usec),
        SANDBOX(INT64, expire_time_usec),
        SANDBOX(INT64, idle_timeout_usec),
        SANDBOX(INT64, end_time_usec),
        SANDBOX(INT32, end_cause),
        SANDBOX(TEXT, end_message),
        SANDBOX_AS(INT64, "limit_memory_bytes", limits.memory_bytes),
        SANDBOX_AS(INT32, "limit_cpu_millis", limits.cpu_millis),
        SANDBOX_AS(INT32, "limit_processes", limits.processes),
        SANDBOX_AS(INT64, "limit_disk_bytes", limits.disk_bytes),
        SANDBOX_AS(INT32, "limit_open_files", limits.open_files),
        SANDBOX_AS(INT64, "limit_timeout_usec", limits.execution.timeout_usec),
        SANDBOX_AS(INT64, "limit_output_bytes", limits.execution.output_bytes),
        SANDBOX_AS(INT64, "used_cpu_usec", usage.total.cpu_usec),
        SANDBOX_AS(INT64, "used_memory_bytes", usage.memory_bytes),
        SANDBOX_AS(INT64, "used_memory_peak_bytes", usage.total.memory_peak_bytes),
        SANDBOX_AS(INT64, "used_disk_bytes", usage.disk_bytes),
        SANDBOX_AS(INT32, "used_processes", usage.processes),
        SANDBOX(INT64, cgroup_id),
        SANDBOX(TEXT, boot_id),
        SANDBOX(BOOL, is_one_shot),
        SANDBOX(INT64, egress_version),
        SANDBOX_AS(BOOL, "egress_counted", egress_refusals.is_known),
        SANDBOX_AS(INT64, "egress_logged", egress_refusals.logged),
        SANDBOX_AS(INT64, "egress_dropped", egress_refusals.dropped),
        SANDBOX_AS(INT32, "limit_cpu_weight", limits.cpu_weight),
        SANDBOX_AS(INT64, "limit_disk_inodes", limits.disk_inodes),
        SANDBOX_AS(INT64, "limit_io_bytes_per_second", limits.io_bytes_per_second),
};

#define SANDBOX_USAGE(member, kind) FIELD(INT64, sandbox_record, #member, usage.total.member),

/* Of one that has ended, from its account: they stand behind its own columns. */
static const struct field sandbox_usage_fields[] = {
        USAGE_FIELDS(SANDBOX_USAGE) SANDBOX_AS(INT32, "missing", usage.total.missing),
};

#define CONTEXT(kind, member) FIELD(kind, context_record, #member, member)

static const struct field context_fields[] = {
        CONTEXT(TEXT, context_id),
        CONTEXT(TEXT, sandbox_id),
        CONTEXT(TEXT, owner),
        CONTEXT(TEXT, language),
        CONTEXT(TEXT, working_directory),
        CONTEXT(BOOL, is_default),
        CONTEXT(INT64, generation),
        CONTEXT(INT64, create_time_usec),
        CONTEXT(INT64, delete_time_usec),
};

#define EXECUTION(kind, member)          FIELD(kind, execution_record, #member, member)
#define EXECUTION_AS(kind, name, member) FIELD(kind, execution_record, name, member)

static const struct field execution_fields[] = {
        EXECUTION(TEXT, execution_id),
        EXECUTION(TEXT, sandbox_id),
        EXECUTION(OPTIONAL_TEXT, context_id),
        EXECUTION(TEXT, owner),
        EXECUTION(INT32, state),
        EXECUTION(INT64, context_generation),
        EXECUTION(INT64, create_time_usec),
        EXECUTION(INT64, start_time_usec),
        EXECUTION(INT64, end_time_usec),
        EXECUTION_AS(INT64, "limit_timeout_usec", limits.timeout_usec),
        EXECUTION_AS(INT64, "limit_output_bytes", limits.output_bytes),
        EXECUTION(INT32, outcome),
        EXECUTION(INT32, cause),
        EXECUTION(BOOL, has_exit_code),
        EXECUTION(INT32, exit_code),
        EXECUTION(INT32, signal),
        EXECUTION(BOOL, state_lost),
        EXECUTION(TEXT, message),
        EXECUTION_AS(INT64, "used_cpu_usec", usage.cpu_usec),
        EXECUTION_AS(INT64, "used_wall_usec", usage.wall_usec),
        EXECUTION_AS(INT64, "used_memory_peak_bytes", usage.memory_peak_bytes),
        EXECUTION_AS(INT64, "stdout_bytes", usage.stdout_bytes),
        EXECUTION_AS(INT64, "stderr_bytes", usage.stderr_bytes),
        EXECUTION_AS(INT64, "rich_bytes", usage.rich_bytes),
        EXECUTION(INT64, truncated_bytes),
        EXECUTION(INT64, last_sequence),
        EXECUTION_AS(INT64, "used_cpu_user_usec", usage.cpu_user_usec),
        EXECUTION_AS(INT64, "used_cpu_system_usec", usage.cpu_system_usec),
        EXECUTION_AS(INT64, "used_memory_byte_seconds", usage.memory_byte_seconds),
        EXECUTION_AS(INT64, "used_oom_kills", usage.oom_kills),
        EXECUTION_AS(INT64, "used_throttled_periods", usage.throttled_periods),
        EXECUTION_AS(INT64, "used_throttled_usec", usage.throttled_usec),
        EXECUTION_AS(INT64, "used_scheduled_usec", usage.scheduled_usec),
        EXECUTION_AS(INT64, "used_wait_usec", usage.wait_usec),
        EXECUTION_AS(INT64, "used_context_switches", usage.context_switches),
        EXECUTION_AS(INT64, "used_earlier_usec", usage.earlier_usec),
        EXECUTION_AS(INT64, "used_rss_peak_bytes", usage.rss_peak_bytes),
        EXECUTION_AS(INT64, "used_sent_bytes", usage.sent_bytes),
        EXECUTION_AS(INT64, "used_received_bytes", usage.received_bytes),
        EXECUTION_AS(INT32, "used_missing", usage.missing),
};

#define KEY(kind, member) FIELD(kind, key_record, #member, member)

static const struct field key_fields[] = {
        KEY(TEXT, key_id),
        KEY(TEXT, name),
        KEY(BLOB, secret_sha256),
        KEY(INT64, create_time_usec),
        KEY(INT64, revoke_time_usec),
        KEY(TEXT, owner),
        KEY(INT64, scopes),
        KEY(INT64, expire_time_usec),
        KEY(INT64, last_used_time_usec),
        FIELD(INT64, key_record, "quota_sandboxes", quotas.most[KEY_QUOTA_SANDBOXES]),
        FIELD(INT64, key_record, "quota_memory_bytes", quotas.most[KEY_QUOTA_MEMORY]),
        FIELD(INT64, key_record, "quota_cpu_millis", quotas.most[KEY_QUOTA_CPU]),
        FIELD(INT64, key_record, "quota_executions", quotas.most[KEY_QUOTA_EXECUTIONS]),
};

#define REQUEST(kind, member) FIELD(kind, request_record, #member, member)

static const struct field request_fields[] = {
        REQUEST(TEXT, owner),          REQUEST(TEXT, method),    REQUEST(TEXT, request_id),
        REQUEST(BLOB, request_sha256), REQUEST(TEXT, object_id), REQUEST(BOOL, created),
};

#define EGRESS(kind, member) FIELD(kind, egress_record, #member, member)

static const struct field egress_fields[] = {
        EGRESS(TEXT, sandbox_id),
        EGRESS(INT64, sequence),
        EGRESS(OPTIONAL_TEXT, execution_id),
        EGRESS(INT64, event_time_usec),
        EGRESS(INT32, type),
        EGRESS(INT32, protocol),
        EGRESS(TEXT, address),
        EGRESS(INT32, port),
        EGRESS(TEXT, name),
        EGRESS(INT32, reason),
        EGRESS(INT32, rule_index),
        EGRESS(INT64, policy_version),
        EGRESS(INT64, pid),
        EGRESS(TEXT, command),
        EGRESS(INT64, count),
        EGRESS(INT32, error_number),
        EGRESS(INT64, sent_bytes),
        EGRESS(INT64, received_bytes),
        EGRESS(INT64, duration_usec),
        EGRESS(INT32, source),
        EGRESS(INT64, serial),
        EGRESS(TEXT, rule),
};

#define RECORD(kind, member)       FIELD(kind, usage_record, #member, member)
#define RECORD_USAGE(member, kind) FIELD(INT64, usage_record, #member, usage.member),

static const struct field usage_record_fields[] = {
        RECORD(TEXT, sandbox_id),
        RECORD(INT64, sequence),
        RECORD(INT32, type),
        RECORD(OPTIONAL_TEXT, execution_id),
        RECORD(OPTIONAL_TEXT, context_id),
        RECORD(TEXT, owner),
        RECORD(INT64, start_time_usec),
        RECORD(INT64, end_time_usec),
        RECORD(INT32, outcome),
        RECORD(INT32, cause),
        RECORD(BOOL, is_incomplete),
        USAGE_FIELDS(RECORD_USAGE) FIELD(INT32, usage_record, "missing", usage.missing),
};

#define ACCOUNT(kind, member)       FIELD(kind, usage_account, #member, member)
#define ACCOUNT_USAGE(member, kind) FIELD(INT64, usage_account, #member, usage.member),
#define ACCOUNT_GAP(column, part)                                                                  \
        FIELD(INT64, usage_account, column, gaps.n_without[USAGE_PART_##part])

static const struct field usage_account_fields[] = {
        ACCOUNT(TEXT, sandbox_id),
        ACCOUNT(TEXT, owner),
        ACCOUNT(INT64, n_records),
        ACCOUNT(INT64, billed_time_usec),
        ACCOUNT(INT64, end_time_usec),
        ACCOUNT(INT32, end_cause),
        ACCOUNT(TEXT, end_message),
        USAGE_FIELDS(ACCOUNT_USAGE) FIELD(INT32, usage_account, "missing", usage.missing),
        ACCOUNT_GAP("n_without_memory", MEMORY),
        ACCOUNT_GAP("n_without_memory_peak", MEMORY_PEAK),
        ACCOUNT_GAP("n_without_scheduled", SCHEDULED),
        ACCOUNT_GAP("n_without_rss_peak", RSS_PEAK),
        ACCOUNT_GAP("n_without_traffic", TRAFFIC),
        ACCOUNT_GAP("n_without_throttled", THROTTLED),
        ACCOUNT_GAP("n_without_wait", WAIT),
        FIELD(INT64, usage_account, "n_incomplete", gaps.n_incomplete),
};

static_assert(sizeof(enum sandbox_state) == sizeof(int32_t), "enums are read as int32");

static int bind_field(sqlite3_stmt *statement, int parameter, const struct field *field,
                      const void *value)
{
        const char *text = value;
        int32_t int32;
        int64_t int64;

        switch (field->type) {
        case FIELD_OPTIONAL_TEXT:
                if (!*text)
                        return sqlite3_bind_null(statement, parameter);
                return sqlite3_bind_text(statement, parameter, text, -1, SQLITE_STATIC);
        case FIELD_TEXT:
                return sqlite3_bind_text(statement, parameter, text, -1, SQLITE_STATIC);
        case FIELD_INT32:
                memcpy(&int32, value, sizeof(int32));
                return sqlite3_bind_int(statement, parameter, int32);
        case FIELD_INT64:
                memcpy(&int64, value, sizeof(int64));
                return sqlite3_bind_int64(statement, parameter, int64);
        case FIELD_BOOL:
                return sqlite3_bind_int(statement, parameter, *(const bool *)value);
        case FIELD_BLOB:
                return sqlite3_bind_blob(statement, parameter, value, (int)field->size,
                                         SQLITE_STATIC);
        }
        return SQLITE_MISUSE;
}

static int bind_fields(sqlite3_stmt *statement, const struct field *fields, size_t n_fields,
                       const void *record)
{
        for (size_t i = 0; i < n_fields; i++) {
                const char *value = (const char *)record + fields[i].offset;
                int r = bind_field(statement, (int)i + 1, &fields[i], value);

                if (r != SQLITE_OK)
                        return error_origin(sqlite_error(sqlite3_db_handle(statement), r));
        }
        return 0;
}

static int read_text(sqlite3_stmt *statement, int column, size_t size, char *ret_text)
{
        const char *text = (const char *)sqlite3_column_text(statement, column);
        size_t n = (size_t)sqlite3_column_bytes(statement, column);

        if (!text)
                return error_origin(-ENOMEM);
        if (n >= size || strlen(text) != n)
                return error_origin(-EUCLEAN);
        memcpy(ret_text, text, n + 1);
        return 0;
}

static int read_blob(sqlite3_stmt *statement, int column, size_t size, void *ret_bytes)
{
        const void *bytes = sqlite3_column_blob(statement, column);

        if (!bytes || (size_t)sqlite3_column_bytes(statement, column) != size)
                return error_origin(-EUCLEAN);
        memcpy(ret_bytes, bytes, size);
        return 0;
}

static int read_field(sqlite3_stmt *statement, int column, const struct field *field, void *value)
{
        int32_t int32;
        int64_t int64;

        switch (field->type) {
        case FIELD_OPTIONAL_TEXT:
                if (sqlite3_column_type(statement, column) == SQLITE_NULL)
                        return 0;
                return read_text(statement, column, field->size, value);
        case FIELD_TEXT:
                return read_text(statement, column, field->size, value);
        case FIELD_INT32:
                int32 = sqlite3_column_int(statement, column);
                memcpy(value, &int32, sizeof(int32));
                return 0;
        case FIELD_INT64:
                int64 = sqlite3_column_int64(statement, column);
                memcpy(value, &int64, sizeof(int64));
                return 0;
        case FIELD_BOOL:
                *(bool *)value = sqlite3_column_int(statement, column) != 0;
                return 0;
        case FIELD_BLOB:
                return read_blob(statement, column, field->size, value);
        }
        return error_origin(-EUCLEAN);
}

static int read_fields_from(sqlite3_stmt *statement, int first_column, const struct field *fields,
                            size_t n_fields, void *record)
{
        for (size_t i = 0; i < n_fields; i++) {
                int column = first_column + (int)i;
                int r;

                assert(strcmp(sqlite3_column_name(statement, column), fields[i].column) == 0);
                r = read_field(statement, column, &fields[i], (char *)record + fields[i].offset);
                if (r)
                        return error_fold(r);
        }
        return 0;
}

static int read_fields(sqlite3_stmt *statement, const struct field *fields, size_t n_fields,
                       void *record)
{
        return read_fields_from(statement, 0, fields, n_fields, record);
}

int row_bind_sandbox(sqlite3_stmt *statement, const struct sandbox_record *record)
{
        return bind_fields(statement, sandbox_fields, ARRAY_SIZE(sandbox_fields), record);
}

int row_bind_context(sqlite3_stmt *statement, const struct context_record *record)
{
        return bind_fields(statement, context_fields, ARRAY_SIZE(context_fields), record);
}

int row_bind_execution(sqlite3_stmt *statement, const struct execution_record *record)
{
        return bind_fields(statement, execution_fields, ARRAY_SIZE(execution_fields), record);
}

int row_bind_key(sqlite3_stmt *statement, const struct key_record *record)
{
        return bind_fields(statement, key_fields, ARRAY_SIZE(key_fields), record);
}

int row_bind_request(sqlite3_stmt *statement, const struct request_record *record)
{
        return bind_fields(statement, request_fields, ARRAY_SIZE(request_fields), record);
}

int row_bind_egress_event(sqlite3_stmt *statement, const struct egress_record *record)
{
        return bind_fields(statement, egress_fields, ARRAY_SIZE(egress_fields), record);
}

int row_bind_usage_record(sqlite3_stmt *statement, const struct usage_record *record)
{
        return bind_fields(statement, usage_record_fields, ARRAY_SIZE(usage_record_fields), record);
}

int row_bind_usage_account(sqlite3_stmt *statement, const struct usage_account *account)
{
        return bind_fields(statement, usage_account_fields, ARRAY_SIZE(usage_account_fields),
                           account);
}

int row_read_sandbox(sqlite3_stmt *statement, struct sandbox_record *ret_record)
{
        int first = ARRAY_SIZE(sandbox_fields);
        int r;

        *ret_record = (struct sandbox_record){ 0 };
        r = read_fields(statement, sandbox_fields, ARRAY_SIZE(sandbox_fields), ret_record);
        if (r)
                return error_fold(r);
        /* Without an account its own columns tell: it lives, or ended before there was a ledger. */
        if (sqlite3_column_type(statement, first) == SQLITE_NULL)
                return 0;
        return read_fields_from(statement, first, sandbox_usage_fields,
                                ARRAY_SIZE(sandbox_usage_fields), ret_record);
}

int row_read_context(sqlite3_stmt *statement, struct context_record *ret_record)
{
        *ret_record = (struct context_record){ 0 };
        return read_fields(statement, context_fields, ARRAY_SIZE(context_fields), ret_record);
}

int row_read_execution(sqlite3_stmt *statement, struct execution_record *ret_record)
{
        *ret_record = (struct execution_record){ 0 };
        return read_fields(statement, execution_fields, ARRAY_SIZE(execution_fields), ret_record);
}

int row_read_key(sqlite3_stmt *statement, struct key_record *ret_record)
{
        *ret_record = (struct key_record){ 0 };
        return read_fields(statement, key_fields, ARRAY_SIZE(key_fields), ret_record);
}

int row_read_request(sqlite3_stmt *statement, struct request_record *ret_record)
{
        *ret_record = (struct request_record){ 0 };
        return read_fields(statement, request_fields, ARRAY_SIZE(request_fields), ret_record);
}

int row_read_egress_event(sqlite3_stmt *statement, struct egress_record *ret_record)
{
        *ret_record = (struct egress_record){ 0 };
        return read_fields(statement, egress_fields, ARRAY_SIZE(egress_fields), ret_record);
}

int row_read_usage_record(sqlite3_stmt *statement, struct usage_record *ret_record)
{
        *ret_record = (struct usage_record){ 0 };
        return read_fields(statement, usage_record_fields, ARRAY_SIZE(usage_record_fields),
                           ret_record);
}

int row_read_usage_account(sqlite3_stmt *statement, struct usage_account *ret_account)
{
        *ret_account = (struct usage_account){ 0 };
        return read_fields(statement, usage_account_fields, ARRAY_SIZE(usage_account_fields),
                           ret_account);
}

int row_sandbox_n_columns(void)
{
        return ARRAY_SIZE(sandbox_fields) + ARRAY_SIZE(sandbox_usage_fields);
}

int row_usage_record_n_columns(void)
{
        return ARRAY_SIZE(usage_record_fields);
}

int row_usage_account_n_columns(void)
{
        return ARRAY_SIZE(usage_account_fields);
}

static int parameter_index(sqlite3_stmt *statement, const char *parameter)
{
        int index = sqlite3_bind_parameter_index(statement, parameter);

        assert(index > 0);
        return index;
}

void row_bind_text(sqlite3_stmt *statement, const char *parameter, const char *text)
{
        int index = parameter_index(statement, parameter);

        /* SQLITE_STATIC: binding allocates nothing and cannot fail. */
        if (text)
                (void)sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
        else
                (void)sqlite3_bind_null(statement, index);
}

void row_bind_blob(sqlite3_stmt *statement, const char *parameter, const void *bytes, size_t n)
{
        int index = parameter_index(statement, parameter);

        (void)sqlite3_bind_blob64(statement, index, bytes, n, SQLITE_STATIC);
}

void row_bind_int64(sqlite3_stmt *statement, const char *parameter, int64_t value)
{
        (void)sqlite3_bind_int64(statement, parameter_index(statement, parameter), value);
}

/* What was bound belongs to the caller: forget it with the run. */
void row_end(sqlite3_stmt *statement)
{
        (void)sqlite3_reset(statement);
        (void)sqlite3_clear_bindings(statement);
}

static int step_error(sqlite3_stmt *statement, int code)
{
        switch (code) {
        case SQLITE_CONSTRAINT_UNIQUE:
                return ROW_E_NOT_UNIQUE;
        case SQLITE_CONSTRAINT_FOREIGNKEY:
                return ROW_E_NO_PARENT;
        case SQLITE_CONSTRAINT_PRIMARYKEY:
        case SQLITE_CONSTRAINT_ROWID:
                return error_origin(-EEXIST);
        default:
                return error_origin(sqlite_error(sqlite3_db_handle(statement), code));
        }
}

int row_step(sqlite3_stmt *statement)
{
        int code = sqlite3_step(statement), r = 0;

        if (code == SQLITE_ROW)
                return ROW_E_ROW;
        if (code != SQLITE_DONE)
                r = step_error(statement, code);
        row_end(statement);
        return r;
}

int row_run(sqlite3_stmt *statement)
{
        int r = row_step(statement);

        assert(r != ROW_E_ROW);
        return r;
}

int row_number(sqlite3_stmt *statement, int64_t *ret_value)
{
        int r = row_step(statement);

        if (r != ROW_E_ROW)
                return r;
        if (sqlite3_column_type(statement, 0) != SQLITE_NULL)
                *ret_value = sqlite3_column_int64(statement, 0);
        row_end(statement);
        return 0;
}

int row_read_pairs(sqlite3_stmt *statement, struct pairs *pairs)
{
        int r;

        while ((r = row_step(statement)) == ROW_E_ROW) {
                const char *name = (const char *)sqlite3_column_text(statement, 0);
                const char *value = (const char *)sqlite3_column_text(statement, 1);

                r = name && value ? pairs_add(pairs, name, value) : -ENOMEM;
                if (r) {
                        row_end(statement);
                        return error_fold(r);
                }
        }
        return r ? error_fold(r) : 0;
}

void row_bind_egress(sqlite3_stmt *statement, const struct sandbox_record *record)
{
        const struct egress *egress = record->egress;

        row_bind_text(statement, ":id", record->sandbox_id);
        row_bind_text(statement, ":owner", record->owner);
        row_bind_int64(statement, ":version", record->egress_version);
        row_bind_int64(statement, ":default_action", egress->default_action);
        row_bind_int64(statement, ":allows", egress->allows);
        row_bind_blob(statement, ":sha256", egress->sha256, sizeof(egress->sha256));
        row_bind_int64(statement, ":n_rules", egress->n_rules);
        row_bind_blob(statement, ":rules", egress->bytes, egress->n_bytes);
        row_bind_int64(statement, ":record_types", egress->record_types);
}

int row_read_egress(sqlite3_stmt *statement, struct egress **ret_egress)
{
        const void *bytes = sqlite3_column_blob(statement, 4);
        size_t n_bytes = (size_t)sqlite3_column_bytes(statement, 4);
        _cleanup_(egress_releasep) struct egress *egress = NULL;
        int r;

        if (!bytes && n_bytes > 0)
                return error_origin(-ENOMEM);
        egress = egress_new(n_bytes);
        if (!egress)
                return error_origin(-ENOMEM);
        egress->default_action = sqlite3_column_int(statement, 0);
        egress->allows = sqlite3_column_int(statement, 1) != 0;
        r = read_blob(statement, 2, sizeof(egress->sha256), egress->sha256);
        if (r)
                return error_fold(r);
        egress->n_rules = sqlite3_column_int64(statement, 3);
        if (n_bytes > 0)
                memcpy(egress->bytes, bytes, n_bytes);
        egress->record_types = (uint32_t)sqlite3_column_int64(statement, 5);
        *ret_egress = take(egress);
        return 0;
}

int row_read_packed_pairs(sqlite3_stmt *statement, int column, struct pairs *pairs)
{
        const char *bytes = sqlite3_column_blob(statement, column);
        size_t n_bytes = (size_t)sqlite3_column_bytes(statement, column);
        int r;

        if (!bytes && n_bytes > 0)
                return error_origin(-ENOMEM);
        r = pairs_unpack(bytes, n_bytes, pairs);
        return r ? error_fold(r) : 0;
}
