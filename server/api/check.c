#include "server/api/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/api/amount.h"
#include "server/api/api_private.h"
#include "server/api/check_egress.h"
#include "server/api/check_limits.h"

enum {
        USEC_PER_SEC = 1000000,
        NSEC_PER_USEC = 1000,
        NSEC_PER_SEC = 1000000000,
        LABELS_MAX = 64,
        LABEL_KEY_MAX = 63,
        LABEL_VALUE_MAX = 1024,
        ENVIRONMENT_MAX = 256,
        ENVIRONMENT_BYTES_MAX = 64 << 10,
        PAGE_SIZE_DEFAULT = 50,
        PAGE_SIZE_MAX = 1000,
};

/* Longest representable duration that we take (10,000 years, as google.protobuf.Duration). */
static const int64_t duration_max_seconds = 315576000000;

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
                               amount_show_duration(rule->max_usec, max));
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
                               amount_show_duration(limits->ttl_max_usec, max));
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
