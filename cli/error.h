/* How a RPC failed: its status, and the typed details that came with it. */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "runtime/base/cleanup.h"

struct Google__Rpc__Status;

/* google.rpc.Code; those that this client treats apart. */
enum rpc_code {
        RPC_OK = 0,
        RPC_CANCELLED = 1,
        RPC_UNKNOWN = 2,
        RPC_DEADLINE_EXCEEDED = 4,
        RPC_NOT_FOUND = 5,
        RPC_PERMISSION_DENIED = 7,
        RPC_RESOURCE_EXHAUSTED = 8,
        RPC_FAILED_PRECONDITION = 9,
        RPC_UNIMPLEMENTED = 12,
        RPC_INTERNAL = 13,
        RPC_UNAVAILABLE = 14,
        RPC_UNAUTHENTICATED = 16,
};

struct rpc_error {
        int code;
        char *message;
        struct Google__Rpc__Status *status; /* the details; may be NULL */
};

/* Takes copies. @details is a packed google.rpc.Status; broken or huge ones are left out. */
void rpc_error_init(struct rpc_error *error, int code, const char *message, const void *details,
                    size_t n_details);
void rpc_error_deinit(struct rpc_error *error);

/* The reason of its ErrorInfo as a copy, or NULL. */
char *rpc_error_reason(const struct rpc_error *error);

/* What happened, the reason, what is wrong with which field, and what to do about it. */
void rpc_error_print(const struct rpc_error *error, FILE *out);
