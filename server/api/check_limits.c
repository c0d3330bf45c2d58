/*
 * Limits come as optional fields and are resolved against the operator's defaults and maxima: what
 * is unset gets the default, what is above the maximum is refused, never clamped. A table has them
 * all, for the message, the record and what an update names are the same things.
 */
#include "server/api/check_limits.h"

#include <inttypes.h>
#include <string.h>

#include "hotcell/v1/execution_service.pb-c.h"
#include "runtime/base/macros.h"
#include "server/api/amount.h"
#include "server/api/api_private.h"
#include "server/api/check.h"

/* Files count as memory; below this room a full disk would end the interpreter for want of memory.
 */
static const int64_t disk_headroom_bytes = SESSION_DISK_HEADROOM_BYTES;

/* The smallest sandbox that can start an interpreter, start at all. */
enum {
        MEMORY_MIN_BYTES = 96 << 20,
        DISK_MIN_BYTES = 1 << 20,
        INODES_MIN = 256,
        INODES_DEFAULT_MIN = 1024,
        BYTES_AN_INODE = 4096,
        PROCESSES_MIN = 8,
        OPEN_FILES_MIN = 32,
        CPU_MIN_MILLIS = 10,
        IO_MIN_BYTES = 64 << 10,
};

enum limit_unit {
        LIMIT_COUNT,
        LIMIT_BYTES,
        LIMIT_CPU_MILLIS,
};

/* Where a limit is in the message and in the record: numbers of four or eight bytes. */
struct limit_row {
        const char *name;
        enum sandbox_limit limit;
        enum limit_unit unit;
        int64_t min;
        bool takes_zero; /* no bound, where that is the default */
        size_t message_offset, message_size, case_offset;
        size_t record_offset, record_size;
};

#define ROW(field, which, least, kind, zero)                                                       \
        {                                                                                          \
                .name = #field, .limit = SANDBOX_LIMIT_##which, .unit = LIMIT_##kind,              \
                .min = (least), .takes_zero = (zero),                                              \
                .message_offset = offsetof(Hotcell__V1__SandboxLimits, field),                     \
                .message_size = sizeof(((Hotcell__V1__SandboxLimits *)NULL)->field),               \
                .case_offset = offsetof(Hotcell__V1__SandboxLimits, _##field##_case),              \
                .record_offset = offsetof(struct sandbox_limits, field),                           \
                .record_size = sizeof(((struct sandbox_limits *)NULL)->field),                     \
        }

/* In this order: a default may depend on those before. */
static const struct limit_row rows[] = {
        ROW(memory_bytes, MEMORY, MEMORY_MIN_BYTES, BYTES, false),
        ROW(cpu_millis, CPU, CPU_MIN_MILLIS, CPU_MILLIS, false),
        ROW(processes, PROCESSES, PROCESSES_MIN, COUNT, false),
        ROW(open_files, OPEN_FILES, OPEN_FILES_MIN, COUNT, false),
        ROW(disk_bytes, DISK, DISK_MIN_BYTES, BYTES, false),
        ROW(disk_inodes, INODES, INODES_MIN, COUNT, false),
        ROW(cpu_weight, WEIGHT, 1, COUNT, false),
        ROW(io_bytes_per_second, IO, IO_MIN_BYTES, BYTES, true),
};

int64_t limit_least(enum sandbox_limit limit)
{
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (rows[i].limit == limit)
                        return rows[i].min;
        return 0;
}

static int64_t number_at(const void *base, size_t offset, size_t size)
{
        int32_t small;
        int64_t large;

        if (size == sizeof(small)) {
                memcpy(&small, (const char *)base + offset, sizeof(small));
                return small;
        }
        assert(size == sizeof(large));
        memcpy(&large, (const char *)base + offset, sizeof(large));
        return large;
}

static int64_t limit_of(const struct limit_row *row, const struct sandbox_limits *limits)
{
        return number_at(limits, row->record_offset, row->record_size);
}

static void set_limit(const struct limit_row *row, struct sandbox_limits *limits, int64_t value)
{
        int32_t small = (int32_t)value;

        if (row->record_size == sizeof(small))
                memcpy((char *)limits + row->record_offset, &small, sizeof(small));
        else
                memcpy((char *)limits + row->record_offset, &value, sizeof(value));
}

static bool is_set(const struct limit_row *row, const Hotcell__V1__SandboxLimits *message)
{
        return number_at(message, row->case_offset, sizeof(int32_t)) != 0;
}

/* People think in CPUs and MiB, the field counts in thousandths and bytes: both are told. */
static void blame_range(struct api_call *call, const char *path, enum limit_unit unit,
                        int64_t least, int64_t most)
{
        char min[AMOUNT_TEXT], max[AMOUNT_TEXT];

        switch (unit) {
        case LIMIT_COUNT:
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "must be from %" PRId64 " to %" PRId64, least, most);
                break;
        case LIMIT_BYTES:
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "must be from %s to %s (%" PRId64 " to %" PRId64 " bytes)",
                               amount_show_bytes(least, min), amount_show_bytes(most, max), least,
                               most);
                break;
        case LIMIT_CPU_MILLIS:
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "must be from %g to %g CPUs (%" PRId64 " to %" PRId64
                               " thousandths of one)",
                               (double)least / 1000, (double)most / 1000, least, most);
                break;
        }
}

static bool check_value(struct api_call *call, const char *path, const struct limit_row *row,
                        int64_t value)
{
        const struct api_limits *rules = &call->api->limits;
        int64_t max = limit_of(row, &rules->sandbox_max);

        if (value >= row->min && value <= max)
                return true;
        if (row->takes_zero && value == 0) {
                if (limit_of(row, &rules->sandbox_default) == 0)
                        return true;
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "zero means no bound, which this server does not allow");
                return false;
        }
        blame_range(call, path, row->unit, row->min, max);
        return false;
}

/* An unset disk limit gives way to a set memory limit: half of it, if the default does not fit. */
static int64_t fallback_of(const struct api_limits *rules, const struct limit_row *row,
                           const struct sandbox_limits *limits)
{
        const struct sandbox_limits *defaults = &rules->sandbox_default;
        int64_t room = limits->memory_bytes - disk_headroom_bytes;
        int64_t inodes = MAX(limits->disk_bytes / BYTES_AN_INODE, (int64_t)INODES_DEFAULT_MIN);

        if (row->limit == SANDBOX_LIMIT_DISK && defaults->disk_bytes > room)
                return MAX(room / 2, (int64_t)DISK_MIN_BYTES);
        if (row->limit == SANDBOX_LIMIT_INODES)
                return MIN(inodes, rules->sandbox_max.disk_inodes);
        return limit_of(row, defaults);
}

static bool check_row(struct api_call *call, const char *prefix, const struct limit_row *row,
                      const Hotcell__V1__SandboxLimits *message, struct sandbox_limits *limits)
{
        char path[FIELD_PATH];
        int64_t value;

        if (!is_set(row, message)) {
                set_limit(row, limits, fallback_of(&call->api->limits, row, limits));
                return true;
        }
        value = number_at(message, row->message_offset, row->message_size);
        set_limit(row, limits, value);
        join_path(path, prefix, row->name);
        return check_value(call, path, row, value);
}

bool check_execution_limits(struct api_call *call, const char *prefix,
                            const Hotcell__V1__Limits *limits,
                            const struct execution_limits *fallback,
                            struct execution_limits *ret_limits)
{
        const struct api_limits *rules = &call->api->limits;
        const struct execution_limits *max = &rules->sandbox_max.execution;
        struct duration_rule timeout = { fallback->timeout_usec, max->timeout_usec,
                                         rules->allow_no_execution_timeout };
        char path[FIELD_PATH];
        bool good;

        *ret_limits = *fallback;
        if (!limits)
                return true;
        join_path(path, prefix, "timeout");
        good = check_ruled_duration(call, path, limits->timeout, &timeout,
                                    &ret_limits->timeout_usec);
        if (limits->_output_bytes_case == HOTCELL__V1__LIMITS___OUTPUT_BYTES__NOT_SET)
                return good;
        ret_limits->output_bytes = limits->output_bytes;
        if (limits->output_bytes >= 1 && limits->output_bytes <= max->output_bytes)
                return good;
        join_path(path, prefix, "output_bytes");
        blame_range(call, path, LIMIT_BYTES, 1, max->output_bytes);
        return false;
}

static void check_disk_below_memory(struct api_call *call, const char *prefix,
                                    const struct sandbox_limits *limits)
{
        char path[FIELD_PATH], other[AMOUNT_TEXT];

        if (limits->disk_bytes <= limits->memory_bytes - disk_headroom_bytes)
                return;
        join_path(path, prefix, "disk_bytes");
        api_call_blame(call, REASON_LIMITS_CONFLICT, path,
                       "must be at least 64 MiB below memory_bytes, which is %s, since files count "
                       "as memory",
                       amount_show_bytes(limits->memory_bytes, other));
        join_path(path, prefix, "memory_bytes");
        api_call_blame(call, REASON_LIMITS_CONFLICT, path,
                       "must be at least 64 MiB above disk_bytes, which is %s",
                       amount_show_bytes(limits->disk_bytes, other));
}

bool check_sandbox_limits(struct api_call *call, const char *prefix,
                          const Hotcell__V1__SandboxLimits *limits,
                          struct sandbox_limits *ret_limits)
{
        static const Hotcell__V1__SandboxLimits unset = HOTCELL__V1__SANDBOX_LIMITS__INIT;
        const Hotcell__V1__SandboxLimits *message = limits ? limits : &unset;
        char path[FIELD_PATH];
        bool good = true;

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                good &= check_row(call, prefix, &rows[i], message, ret_limits);
        join_path(path, prefix, "execution");
        good &= check_execution_limits(call, path, message->execution,
                                       &call->api->limits.sandbox_default.execution,
                                       &ret_limits->execution);
        if (!good)
                return false;
        check_disk_below_memory(call, prefix, ret_limits);
        return !api_call_has_blame(call);
}

/* --- of an update --- */

static void blame_unset(struct api_call *call, const char *path)
{
        api_call_blame(call, REASON_INVALID_FIELD, path, "is in update_mask but not set");
}

/* Both, or the one that is named. */
static void read_execution(struct api_call *call, const char *name,
                           const Hotcell__V1__Limits *limits, struct sandbox_update *update)
{
        const struct execution_limits *defaults = &call->api->limits.sandbox_default.execution;
        struct execution_limits read;

        if (!check_execution_limits(call, "limits.execution", limits, defaults, &read))
                return;
        if (strcmp(name, "output_bytes") != 0) {
                update->set_limits |= BIT(SANDBOX_LIMIT_TIMEOUT);
                update->limits.execution.timeout_usec = read.timeout_usec;
        }
        if (strcmp(name, "timeout") != 0) {
                update->set_limits |= BIT(SANDBOX_LIMIT_OUTPUT);
                update->limits.execution.output_bytes = read.output_bytes;
        }
}

static bool read_execution_path(struct api_call *call, const char *name,
                                const Hotcell__V1__Limits *limits, struct sandbox_update *update)
{
        static const char start[] = "execution.";
        bool has_output =
                limits && limits->_output_bytes_case != HOTCELL__V1__LIMITS___OUTPUT_BYTES__NOT_SET;

        if (strcmp(name, "execution") == 0) {
                read_execution(call, "", limits, update);
                return true;
        }
        if (strncmp(name, start, strlen(start)) != 0)
                return false;
        name += strlen(start);
        if (strcmp(name, "timeout") != 0 && strcmp(name, "output_bytes") != 0)
                return false;
        if (strcmp(name, "timeout") == 0 ? limits && limits->timeout : has_output)
                read_execution(call, name, limits, update);
        else
                blame_unset(call, strcmp(name, "timeout") == 0 ? "limits.execution.timeout"
                                                               : "limits.execution.output_bytes");
        return true;
}

static void read_row(struct api_call *call, const char *path, const struct limit_row *row,
                     const Hotcell__V1__SandboxLimits *message, struct sandbox_update *update)
{
        if (!message || !is_set(row, message)) {
                blame_unset(call, path);
                return;
        }
        if (check_row(call, "limits", row, message, &update->limits))
                update->set_limits |= BIT(row->limit);
}

bool check_limits_path(struct api_call *call, const char *path,
                       const Hotcell__V1__SandboxLimits *limits, struct sandbox_update *update)
{
        static const char start[] = "limits.";

        if (strcmp(path, "limits") == 0) {
                if (check_sandbox_limits(call, "limits", limits, &update->limits))
                        update->set_limits = BIT(_SANDBOX_LIMIT_N) - 1;
                return true;
        }
        if (strncmp(path, start, strlen(start)) != 0)
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                if (strcmp(path + strlen(start), rows[i].name) != 0)
                        continue;
                read_row(call, path, &rows[i], limits, update);
                return true;
        }
        return read_execution_path(call, path + strlen(start), limits ? limits->execution : NULL,
                                   update);
}
