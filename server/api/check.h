/* Checks of request fields. What is wrong is blamed on the call with its field path; the functions
 * then return false. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/key_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"
#include "server/api/call.h"
#include "server/session/session.h"

/* A duration that is the default when unset, at most @max, and zero (none) only when @allow_none.
 */
struct duration_rule {
        int64_t default_usec;
        int64_t max_usec;
        bool allow_none;
};

bool check_ruled_duration(struct api_call *call, const char *field,
                          const Google__Protobuf__Duration *duration,
                          const struct duration_rule *rule, int64_t *ret_usec);

bool check_time(struct api_call *call, const char *field, const Google__Protobuf__Timestamp *time,
                int64_t *ret_usec);

/* A time that is still to come. */
bool check_time_to_come(struct api_call *call, const char *field,
                        const Google__Protobuf__Timestamp *time, int64_t *ret_usec);

/* A time that is still to come, and no more than the longest lifetime away. */
bool check_expire_time(struct api_call *call, const char *field,
                       const Google__Protobuf__Timestamp *time, int64_t *ret_usec);

/* A lifetime from `ttl`: the resulting expire time, zero for none. */
bool check_ttl(struct api_call *call, const char *field, const Google__Protobuf__Duration *ttl,
               int64_t *ret_expire_time_usec);

/* An id that could exist. Anything else cannot be found, but an empty one is the client's mistake.
 */
bool check_id(struct api_call *call, const char *field, const char *id);

/* An empty text or a DNS label. */
bool check_name(struct api_call *call, const char *field, const char *name);

/* A map of labels; of several equal keys the last counts. Memory is the call's arena. */
bool check_labels(struct api_call *call, const char *field, size_t n, ProtobufCMessage **entries,
                  struct pairs *ret_pairs);

/* A map of environment variables. */
bool check_environment(struct api_call *call, const char *field, size_t n,
                       ProtobufCMessage **entries, struct pairs *ret_pairs);

/* An absolute path without NUL, or empty. */
bool check_working_directory(struct api_call *call, const char *field, const char *path);

/*
 * A whole spec (may be NULL: all defaults). @prefix is its own field path, such as `spec`. Strings
 * and pairs belong to the call.
 */
struct checked_spec {
        struct sandbox_request request;
        struct pairs environment;
        struct pairs labels;
};

bool check_spec(struct api_call *call, const char *prefix, const Hotcell__V1__SandboxSpec *spec,
                struct checked_spec *ret_spec);

/* A page size: 50 when zero, at most 1,000. */
bool check_page_size(struct api_call *call, int32_t page_size, size_t *ret_limit);

/* The limits of one execution; what is unset comes from @fallback. */
bool check_execution_limits(struct api_call *call, const char *prefix,
                            const Hotcell__V1__Limits *limits,
                            const struct execution_limits *fallback,
                            struct execution_limits *ret_limits);

/* Names of states as bits: BIT(state). @last: the highest state. */
bool check_states(struct api_call *call, size_t n, const int *states, int last, unsigned *ret_bits);
