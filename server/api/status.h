/*
 * An error for a client: code and message, and details that programs can read (google.rpc.Status).
 * A value on the stack; all texts are copied and cut to size, and what is too much is left out.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "server/api/reasons.h"

struct rpc_call;

enum {
        STATUS_MESSAGE_SIZE = 768,
        STATUS_PATH_SIZE = 128,
        STATUS_TEXT_SIZE = 256,
        STATUS_KEY_SIZE = 64,
        STATUS_FIELDS_MAX = 8,
        STATUS_METADATA_MAX = 8,
        /* Of message and details as they go over the wire. At 8 KiB clients on gRPC core lose the
         * connection, and a proxy may add its own. */
        STATUS_WIRE_MAX = 4096,
};

struct status_field {
        char path[STATUS_PATH_SIZE];
        char description[STATUS_TEXT_SIZE];
        enum reason reason;
};

struct status_metadata {
        char key[STATUS_KEY_SIZE];
        char value[STATUS_TEXT_SIZE];
};

struct status {
        enum reason reason;
        char message[STATUS_MESSAGE_SIZE];
        struct status_metadata metadata[STATUS_METADATA_MAX];
        size_t n_metadata;
        struct status_field fields[STATUS_FIELDS_MAX];
        size_t n_fields;
        char resource_type[STATUS_KEY_SIZE]; /* empty: none */
        char resource_name[STATUS_PATH_SIZE];
        char quota_subject[STATUS_PATH_SIZE]; /* empty: none */
        char quota_description[STATUS_TEXT_SIZE];
        uint64_t retry_usec; /* 0: none */
};

/* @format makes the sentence for people; NULL: the reason's own. */
__attribute__((format(printf, 3, 4))) void status_init(struct status *status, enum reason reason,
                                                       const char *format, ...);

/* More than STATUS_METADATA_MAX or STATUS_FIELDS_MAX: further ones are left out. */
void status_add_metadata(struct status *status, const char *key, const char *value);
__attribute__((format(printf, 3, 4))) void status_add_field(struct status *status, const char *path,
                                                            const char *format, ...);

/* The thing in question, as `sandbox`, `sbx-…`. */
void status_set_resource(struct status *status, const char *type, const char *name);

/* Whose limit of what was reached. */
__attribute__((format(printf, 3, 4))) void
status_set_quota(struct status *status, const char *subject, const char *format, ...);

/* The same request may succeed after that long. */
void status_set_retry(struct status *status, uint64_t delay_usec);

/* Ends the call with it. */
void status_send(struct rpc_call *call, const struct status *status);

/* Packs the google.rpc.Status into memory that the caller frees. May cut @status to fit. */
int status_pack(struct status *status, void **ret_bytes, size_t *ret_n_bytes);
