/*
 * Limits come as optional fields and are resolved against the operator's defaults and maxima: what
 * is unset gets the default, what is above the maximum is refused, never clamped.
 */
#include "server/api/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/check_egress.h"

enum {
        USEC_PER_SEC = 1000000,
        NSEC_PER_USEC = 1000,
        NSEC_PER_SEC = 1000000000,
        FIELD_PATH = 192,
        LABELS_MAX = 64,
        LABEL_KEY_MAX = 63,
        LABEL_VALUE_MAX = 1024,
        ENVIRONMENT_MAX = 256,
        ENVIRONMENT_BYTES_MAX = 64 << 10,
        PAGE_SIZE_DEFAULT = 50,
        PAGE_SIZE_MAX = 1000,
};

/* Files count as memory; below this room a full disk would end the interpreter for want of memory.
 */
static const int64_t disk_headroom_bytes = 64 << 20;

/* Largest first. */
struct amount_unit {
        int64_t size;
        const char *name;
};

static const struct amount_unit byte_units[] = {
        { INT64_C(1) << 40, "TiB" }, { 1 << 30, "GiB" }, { 1 << 20, "MiB" },
        { 1 << 10, "KiB" },          { 1, "B" },
};

static const struct amount_unit time_units[] = {
        { INT64_C(86400) * USEC_PER_SEC, "d" },
        { INT64_C(3600) * USEC_PER_SEC, "h" },
        { INT64_C(60) * USEC_PER_SEC, "min" },
        { USEC_PER_SEC, "s" },
        { 1000, "ms" },
        { 1, "us" },
};

/* Longest representable duration that we take (10,000 years, as google.protobuf.Duration). */
static const int64_t duration_max_seconds = 315576000000;

enum { AMOUNT_TEXT = 40 };

/* `96 MiB`, `30 d`: in the largest unit of which it is a whole number; the last one is 1. */
static const char *show_amount(int64_t amount, const struct amount_unit *units,
                               char ret_text[static AMOUNT_TEXT])
{
        while (units->size > 1 && (amount == 0 || amount % units->size != 0))
                units++;
        (void)snprintf(ret_text, AMOUNT_TEXT, "%" PRId64 " %s", amount / units->size, units->name);
        return ret_text;
}

static const char *show_bytes(int64_t n_bytes, char ret_text[static AMOUNT_TEXT])
{
        return show_amount(n_bytes, byte_units, ret_text);
}

static const char *show_duration(int64_t usec, char ret_text[static AMOUNT_TEXT])
{
        return show_amount(usec, time_units, ret_text);
}

/* Prefixes and names are ours, and short. */
static void join_path(char ret_path[static FIELD_PATH], const char *prefix, const char *name)
{
        (void)snprintf(ret_path, FIELD_PATH, "%.120s.%.60s", prefix, name);
}

/* A duration of zero or more, in microseconds. */
static bool check_duration(struct api_call *call, const char *field,
                           const Google__Protobuf__Duration *duration, int64_t *ret_usec)
{
        if (duration->seconds < 0 || duration->nanos < 0) {
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field, "must not be negative");
                return false;
        }
        if (duration->seconds > duration_max_seconds || duration->nanos >= NSEC_PER_SEC) {
                api_call_blame(
                        call, REASON_LIMIT_OUT_OF_RANGE, field,
                        "is no valid duration: seconds up to 315576000000, nanos below 10^9");
                return false;
        }
        *ret_usec = duration->seconds * USEC_PER_SEC + duration->nanos / NSEC_PER_USEC;
        /* Shorter than a microsecond, but not zero, which would mean none. */
        if (*ret_usec == 0 && duration->nanos > 0)
                *ret_usec = 1;
        return true;
}

bool check_ruled_duration(struct api_call *call, const char *field,
                          const Google__Protobuf__Duration *duration,
                          const struct duration_rule *rule, int64_t *ret_usec)
{
        if (!duration) {
                *ret_usec = rule->default_usec;
                return true;
        }
        if (!check_duration(call, field, duration, ret_usec))
                return false;
        if (*ret_usec == 0 && !rule->allow_none) {
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field,
                               "zero means none, which this server does not allow");
                return false;
        }
        if (*ret_usec > rule->max_usec) {
                char max[AMOUNT_TEXT];

                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field,
                               "is above this server's maximum of %s",
                               show_duration(rule->max_usec, max));
                return false;
        }
        return true;
}

bool check_time(struct api_call *call, const char *field, const Google__Protobuf__Timestamp *time,
                int64_t *ret_usec)
{
        if (time->seconds < 0 || time->seconds > duration_max_seconds || time->nanos < 0 ||
            time->nanos >= NSEC_PER_SEC) {
                api_call_blame(call, REASON_INVALID_FIELD, field, "is no valid time");
                return false;
        }
        *ret_usec = time->seconds * USEC_PER_SEC + time->nanos / NSEC_PER_USEC;
        return true;
}

bool check_time_to_come(struct api_call *call, const char *field,
                        const Google__Protobuf__Timestamp *time, int64_t *ret_usec)
{
        if (!check_time(call, field, time, ret_usec))
                return false;
        if (*ret_usec <= time_now_usec()) {
                api_call_blame(call, REASON_EXPIRE_TIME_IN_PAST, field, "is in the past");
                return false;
        }
        return true;
}

bool check_expire_time(struct api_call *call, const char *field,
                       const Google__Protobuf__Timestamp *time, int64_t *ret_usec)
{
        const struct api_limits *limits = &call->api->limits;
        int64_t now = time_now_usec();

        if (!check_time_to_come(call, field, time, ret_usec))
                return false;
        if (*ret_usec - now > limits->ttl_max_usec) {
                char max[AMOUNT_TEXT];

                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field,
                               "is further away than this server's longest lifetime of %s",
                               show_duration(limits->ttl_max_usec, max));
                return false;
        }
        return true;
}

bool check_ttl(struct api_call *call, const char *field, const Google__Protobuf__Duration *ttl,
               int64_t *ret_expire_time_usec)
{
        const struct api_limits *limits = &call->api->limits;
        struct duration_rule rule = { limits->ttl_default_usec, limits->ttl_max_usec,
                                      limits->allow_no_ttl };
        int64_t ttl_usec;

        if (!check_ruled_duration(call, field, ttl, &rule, &ttl_usec))
                return false;
        *ret_expire_time_usec = ttl_usec ? time_now_usec() + ttl_usec : 0;
        return true;
}

bool check_id(struct api_call *call, const char *field, const char *id)
{
        if (*id)
                return true;
        api_call_blame(call, REASON_INVALID_FIELD, field, "is required");
        return false;
}

bool check_name(struct api_call *call, const char *field, const char *name)
{
        if (!*name || dns_label_is_valid(name))
                return true;
        api_call_blame(call, REASON_INVALID_FIELD, field,
                       "must be 1 to 63 lower-case letters, digits and inner hyphens");
        return false;
}

/* All entries of string maps have this shape; protobuf-c just names each type for its field. */
typedef Hotcell__V1__SandboxSpec__LabelsEntry map_entry;
static_assert(sizeof(map_entry) == sizeof(Hotcell__V1__ExecuteRequest__EnvironmentEntry),
              "same shape");

/* Of several equal keys the last counts, as protobuf says of maps. */
static bool collect_pairs(struct api_call *call, size_t n, ProtobufCMessage **entries,
                          struct pairs *ret_pairs)
{
        struct pairs pairs = { .items = arena_new_array(&call->arena, struct pair, n) };

        if (!pairs.items)
                return false;
        for (size_t i = 0; i < n; i++) {
                const map_entry *entry = (const map_entry *)entries[i];
                size_t at = 0;

                while (at < pairs.n && strcmp(pairs.items[at].name, entry->key) != 0)
                        at++;
                pairs.items[at] = (struct pair){ entry->key, entry->value };
                if (at == pairs.n)
                        pairs.n++;
        }
        *ret_pairs = pairs;
        return true;
}

bool check_labels(struct api_call *call, const char *field, size_t n, ProtobufCMessage **entries,
                  struct pairs *ret_pairs)
{
        if (n > LABELS_MAX) {
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field, "has more than %d entries",
                               LABELS_MAX);
                return false;
        }
        if (!collect_pairs(call, n, entries, ret_pairs))
                return false;
        for (size_t i = 0; i < ret_pairs->n; i++) {
                size_t n_key = strlen(ret_pairs->items[i].name);

                if (n_key == 0 || n_key > LABEL_KEY_MAX) {
                        api_call_blame(call, REASON_INVALID_FIELD, field,
                                       "has a key that is not 1 to %d bytes long", LABEL_KEY_MAX);
                        return false;
                }
                if (strlen(ret_pairs->items[i].value) > LABEL_VALUE_MAX) {
                        api_call_blame(call, REASON_INVALID_FIELD, field,
                                       "has a value longer than %d bytes", LABEL_VALUE_MAX);
                        return false;
                }
        }
        return true;
}

bool check_environment(struct api_call *call, const char *field, size_t n,
                       ProtobufCMessage **entries, struct pairs *ret_pairs)
{
        size_t n_bytes = 0;

        if (n > ENVIRONMENT_MAX) {
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field, "has more than %d entries",
                               ENVIRONMENT_MAX);
                return false;
        }
        if (!collect_pairs(call, n, entries, ret_pairs))
                return false;
        for (size_t i = 0; i < ret_pairs->n; i++) {
                const struct pair *pair = &ret_pairs->items[i];

                if (!*pair->name || strchr(pair->name, '=')) {
                        api_call_blame(call, REASON_INVALID_FIELD, field,
                                       "has a name that is empty or contains '='");
                        return false;
                }
                n_bytes += strlen(pair->name) + strlen(pair->value) + 2;
        }
        if (n_bytes > ENVIRONMENT_BYTES_MAX) {
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, field,
                               "is larger than %d bytes together", ENVIRONMENT_BYTES_MAX);
                return false;
        }
        return true;
}

bool check_working_directory(struct api_call *call, const char *field, const char *path)
{
        if (!*path || (*path == '/' && strlen(path) < PATH_BUFFER))
                return true;
        api_call_blame(call, REASON_INVALID_FIELD, field, "must be an absolute path below %d bytes",
                       PATH_BUFFER);
        return false;
}

enum limit_unit {
        LIMIT_COUNT,
        LIMIT_BYTES,
        LIMIT_CPU_MILLIS,
};

/* One optional integer limit. */
struct limit_field {
        const char *prefix;
        const char *name;
        bool is_set;
        int64_t value;
        int64_t min;
        int64_t max;
        int64_t fallback;
        enum limit_unit unit;
};

/* People think in CPUs and MiB, the field counts in thousandths and bytes: both are told. */
static void blame_range(struct api_call *call, const char *path, const struct limit_field *field)
{
        char min[AMOUNT_TEXT], max[AMOUNT_TEXT];

        switch (field->unit) {
        case LIMIT_COUNT:
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "must be from %" PRId64 " to %" PRId64, field->min, field->max);
                break;
        case LIMIT_BYTES:
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "must be from %s to %s (%" PRId64 " to %" PRId64 " bytes)",
                               show_bytes(field->min, min), show_bytes(field->max, max), field->min,
                               field->max);
                break;
        case LIMIT_CPU_MILLIS:
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, path,
                               "must be from %g to %g CPUs (%" PRId64 " to %" PRId64
                               " thousandths of one)",
                               (double)field->min / 1000, (double)field->max / 1000, field->min,
                               field->max);
                break;
        }
}

static bool check_limit(struct api_call *call, const struct limit_field *field, int64_t *ret_value)
{
        char path[FIELD_PATH];

        *ret_value = field->is_set ? field->value : field->fallback;
        if (!field->is_set || (field->value >= field->min && field->value <= field->max))
                return true;
        join_path(path, field->prefix, field->name);
        blame_range(call, path, field);
        return false;
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
        struct limit_field output = { prefix,
                                      "output_bytes",
                                      .min = 1,
                                      .max = max->output_bytes,
                                      .fallback = fallback->output_bytes,
                                      .unit = LIMIT_BYTES };
        char path[FIELD_PATH];
        bool good;

        if (!limits) {
                *ret_limits = *fallback;
                return true;
        }
        output.is_set = limits->_output_bytes_case != HOTCELL__V1__LIMITS___OUTPUT_BYTES__NOT_SET;
        output.value = limits->output_bytes;
        join_path(path, prefix, "timeout");
        good = check_ruled_duration(call, path, limits->timeout, &timeout,
                                    &ret_limits->timeout_usec);
        return check_limit(call, &output, &ret_limits->output_bytes) && good;
}

/* The smallest sandbox that can start an interpreter, start at all. */
enum {
        MEMORY_MIN_BYTES = 96 << 20,
        DISK_MIN_BYTES = 1 << 20,
        PROCESSES_MIN = 8,
        OPEN_FILES_MIN = 32,
        CPU_MIN_MILLIS = 10,
};

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
                       show_bytes(limits->memory_bytes, other));
        join_path(path, prefix, "memory_bytes");
        api_call_blame(call, REASON_LIMITS_CONFLICT, path,
                       "must be at least 64 MiB above disk_bytes, which is %s",
                       show_bytes(limits->disk_bytes, other));
}

/* An unset disk limit gives way to a set memory limit: half of it, if the default does not fit. */
static int64_t disk_fallback(const struct sandbox_limits *defaults, int64_t memory_bytes)
{
        int64_t room = memory_bytes - disk_headroom_bytes;

        return defaults->disk_bytes <= room ? defaults->disk_bytes
                                            : MAX(room / 2, (int64_t)DISK_MIN_BYTES);
}

static bool check_sandbox_limits(struct api_call *call, const char *prefix,
                                 const Hotcell__V1__SandboxLimits *limits,
                                 struct sandbox_limits *ret_limits)
{
        const struct sandbox_limits *defaults = &call->api->limits.sandbox_default;
        const struct sandbox_limits *max = &call->api->limits.sandbox_max;
        static const Hotcell__V1__SandboxLimits unset = HOTCELL__V1__SANDBOX_LIMITS__INIT;
        const Hotcell__V1__SandboxLimits *l = limits ? limits : &unset;
        int64_t cpu, processes, open_files;
        char path[FIELD_PATH];
        bool good = true;

        good &= check_limit(call,
                            &(struct limit_field){ prefix, "memory_bytes",
                                                   l->_memory_bytes_case != 0, l->memory_bytes,
                                                   MEMORY_MIN_BYTES, max->memory_bytes,
                                                   defaults->memory_bytes, LIMIT_BYTES },
                            &ret_limits->memory_bytes);
        good &= check_limit(call,
                            &(struct limit_field){ prefix, "cpu_millis", l->_cpu_millis_case != 0,
                                                   l->cpu_millis, CPU_MIN_MILLIS, max->cpu_millis,
                                                   defaults->cpu_millis, LIMIT_CPU_MILLIS },
                            &cpu);
        good &= check_limit(call,
                            &(struct limit_field){ prefix, "processes", l->_processes_case != 0,
                                                   l->processes, PROCESSES_MIN, max->processes,
                                                   defaults->processes, LIMIT_COUNT },
                            &processes);
        good &= check_limit(call,
                            &(struct limit_field){ prefix, "open_files", l->_open_files_case != 0,
                                                   l->open_files, OPEN_FILES_MIN, max->open_files,
                                                   defaults->open_files, LIMIT_COUNT },
                            &open_files);
        good &= check_limit(
                call,
                &(struct limit_field){ prefix, "disk_bytes", l->_disk_bytes_case != 0,
                                       l->disk_bytes, DISK_MIN_BYTES, max->disk_bytes,
                                       disk_fallback(defaults, ret_limits->memory_bytes),
                                       LIMIT_BYTES },
                &ret_limits->disk_bytes);
        join_path(path, prefix, "execution");
        good &= check_execution_limits(call, path, l->execution, &defaults->execution,
                                       &ret_limits->execution);
        if (!good)
                return false;
        ret_limits->cpu_millis = (int32_t)cpu;
        ret_limits->processes = (int32_t)processes;
        ret_limits->open_files = (int32_t)open_files;
        check_disk_below_memory(call, prefix, ret_limits);
        return !api_call_has_blame(call);
}

static bool check_lifetime(struct api_call *call, const char *prefix,
                           const Hotcell__V1__SandboxSpec *spec,
                           struct sandbox_request *ret_request)
{
        const struct api_limits *limits = &call->api->limits;
        struct duration_rule idle = { limits->idle_timeout_default_usec,
                                      limits->idle_timeout_max_usec,
                                      limits->allow_no_idle_timeout };
        char path[FIELD_PATH];
        bool good;

        join_path(path, prefix, "idle_timeout");
        good = check_ruled_duration(call, path, spec->idle_timeout, &idle,
                                    &ret_request->idle_timeout_usec);
        if (spec->lifetime_case == HOTCELL__V1__SANDBOX_SPEC__LIFETIME_EXPIRE_TIME) {
                join_path(path, prefix, "expire_time");
                return check_expire_time(call, path, spec->expire_time,
                                         &ret_request->expire_time_usec) &&
                       good;
        }
        join_path(path, prefix, "ttl");
        return check_ttl(call, path,
                         spec->lifetime_case == HOTCELL__V1__SANDBOX_SPEC__LIFETIME_TTL ? spec->ttl
                                                                                        : NULL,
                         &ret_request->expire_time_usec) &&
               good;
}

bool check_spec(struct api_call *call, const char *prefix, const Hotcell__V1__SandboxSpec *spec,
                struct checked_spec *ret_spec)
{
        Hotcell__V1__SandboxSpec unset;
        char path[FIELD_PATH];

        if (!spec) {
                hotcell__v1__sandbox_spec__init(&unset);
                spec = &unset;
        }
        *ret_spec = (struct checked_spec){
                .request = {
                        .owner = call->identity.owner,
                        .name = spec->name,
                        .template_name = spec->template_,
                        .environment = &ret_spec->environment,
                        .labels = &ret_spec->labels,
                },
        };
        /* All of these, so that one answer names every wrong field. */
        join_path(path, prefix, "name");
        (void)check_name(call, path, spec->name);
        join_path(path, prefix, "limits");
        (void)check_sandbox_limits(call, path, spec->limits, &ret_spec->request.limits);
        (void)check_lifetime(call, prefix, spec, &ret_spec->request);
        join_path(path, prefix, "labels");
        (void)check_labels(call, path, spec->n_labels, (ProtobufCMessage **)spec->labels,
                           &ret_spec->labels);
        join_path(path, prefix, "environment");
        (void)check_environment(call, path, spec->n_environment,
                                (ProtobufCMessage **)spec->environment, &ret_spec->environment);
        join_path(path, prefix, "egress");
        if (check_egress(call, path, spec->egress))
                ret_spec->request.egress = call->egress;
        return !api_call_has_blame(call) && !call->arena.failed;
}

bool check_page_size(struct api_call *call, int32_t page_size, size_t *ret_limit)
{
        if (page_size < 0) {
                api_call_blame(call, REASON_INVALID_FIELD, "page_size", "must not be negative");
                return false;
        }
        *ret_limit = page_size == 0 ? PAGE_SIZE_DEFAULT : (size_t)MIN(page_size, PAGE_SIZE_MAX);
        return true;
}

bool check_states(struct api_call *call, size_t n, const int *states, int last, unsigned *ret_bits)
{
        *ret_bits = 0;
        for (size_t i = 0; i < n; i++) {
                if (states[i] < 1 || states[i] > last) {
                        api_call_blame(call, REASON_INVALID_FIELD, "states",
                                       "has an unknown state %d", states[i]);
                        return false;
                }
                *ret_bits |= BIT(states[i]);
        }
        return true;
}
