/*
 * Why requests fail: each reason's stable name (ErrorInfo.reason), its code and what it means.
 * docs/REASONS.md is written from this table (`reasons-doc`), and a test compares them.
 */
#pragma once

#include "server/rpc/rpc.h"

/* X(NAME, rpc_code, sentence). In the order of the codes; never reuse or rename a name. */
#define REASONS(X)                                                                                  \
        X(REQUEST_MALFORMED, RPC_INVALID_ARGUMENT,                                                  \
          "The request is not a message of its method's type.")                                     \
        X(REQUEST_TOO_COMPLEX, RPC_INVALID_ARGUMENT,                                                \
          "The request has far more parts, or deeper ones, than its meaning needs.")                \
        X(INVALID_UTF8, RPC_INVALID_ARGUMENT,                                                       \
          "A text field is not UTF-8, or contains a NUL byte.")                                     \
        X(INVALID_FIELD, RPC_INVALID_ARGUMENT,                                                      \
          "A field is missing or has a value that it cannot have; the field violations say which.") \
        X(LIMIT_OUT_OF_RANGE, RPC_INVALID_ARGUMENT,                                                 \
          "A limit is below its minimum or above the server's maximum; limits are never clamped.")  \
        X(LIMITS_CONFLICT, RPC_INVALID_ARGUMENT,                                                    \
          "Limits do not go together, such as a disk limit without room below the memory limit.")   \
        X(EXPIRE_TIME_IN_PAST, RPC_INVALID_ARGUMENT, "The expire time is over already.")            \
        X(UNKNOWN_TEMPLATE, RPC_INVALID_ARGUMENT, "The server has no template of that name.")       \
        X(UNKNOWN_LANGUAGE, RPC_INVALID_ARGUMENT,                                                   \
          "The sandbox's template has no kernel for that language.")                                \
        X(CODE_TOO_LARGE, RPC_INVALID_ARGUMENT, "The code is larger than 1 MiB.")                   \
        X(CONTEXT_AND_LANGUAGE, RPC_INVALID_ARGUMENT,                                               \
          "A request names a context, or a language, or a sandbox to be made; not two of them.")    \
        X(UPDATE_MASK_REQUIRED, RPC_INVALID_ARGUMENT,                                               \
          "An update names the fields that it changes in `update_mask`.")                           \
        X(INVALID_PAGE_TOKEN, RPC_INVALID_ARGUMENT,                                                 \
          "The page token was not given by this server, or for another filter.")                    \
        X(INVALID_WATCH_TOKEN, RPC_INVALID_ARGUMENT,                                                \
          "The watch token was not given by this server.")                                          \
        X(REQUEST_ID_REUSED, RPC_INVALID_ARGUMENT,                                                  \
          "The request id was used for a request with other fields.")                               \
        X(RULE_TOO_COMPLEX, RPC_INVALID_ARGUMENT,                                                   \
          "More ranges of ports meet at the destination of an egress rule than there is room for.") \
        X(NEEDS_DIRECT_MODE, RPC_INVALID_ARGUMENT,                                                  \
          "Without direct mode a network carries TCP and DNS only; the rule is about another.")     \
        X(SANDBOX_NOT_FOUND, RPC_NOT_FOUND, "There is no such sandbox, or it is not yours.")        \
        X(CONTEXT_NOT_FOUND, RPC_NOT_FOUND, "The sandbox has no such context.")                     \
        X(EXECUTION_NOT_FOUND, RPC_NOT_FOUND, "There is no such execution, or it is not yours.")    \
        X(KEY_NOT_FOUND, RPC_NOT_FOUND, "There is no such key.")                                    \
        X(SERVICE_NOT_FOUND, RPC_NOT_FOUND, "The server has no service of that name.")              \
        X(NAME_IN_USE, RPC_ALREADY_EXISTS,                                                          \
          "Another living sandbox of yours, or another key, has that name.")                        \
        X(OPERATOR_ONLY, RPC_PERMISSION_DENIED, "Only the operator may do that.")                   \
        X(SCOPE_MISSING, RPC_PERMISSION_DENIED,                                                     \
          "The API key lacks the scope that the method needs; the metadata names both.")            \
        X(SANDBOX_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                    \
          "There are as many sandboxes as there may be, or as the owner may have.")                 \
        X(CONTEXT_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                    \
          "The sandbox has as many contexts as it may have.")                                       \
        X(KEY_LIMIT, RPC_RESOURCE_EXHAUSTED, "There are as many keys as there may be.")             \
        X(QUEUE_FULL, RPC_RESOURCE_EXHAUSTED,                                                       \
          "As many executions, or as much code, wait in the context or its sandbox as may.")        \
        X(MEMORY_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                     \
          "The memory limits of all sandboxes, or of the owner's, add up to what may be promised.") \
        X(CPU_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                        \
          "The CPU limits of all sandboxes, or of the owner's, add up to what may be promised.")    \
        X(CREATION_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                   \
          "As many sandboxes are being made as may be at once.")                                    \
        X(EXECUTION_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                  \
          "As many contexts have something to run as may at once.")                                 \
        X(QUEUE_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                      \
          "As many executions, or as much code, wait in all contexts together as may.")             \
        X(STREAM_LIMIT, RPC_RESOURCE_EXHAUSTED, "As many streams are open as may be at once.")      \
        X(UPDATE_RATE, RPC_RESOURCE_EXHAUSTED,                                                      \
          "The owner makes more updates of sandboxes than it may in that time, or has egress "      \
          "policies with more rules on their way, or asks for more rules than it may in that "      \
          "time.")                                                                                  \
        X(EGRESS_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                     \
          "The egress rules of all sandboxes, or of the owner's, are as many, or as many bytes, "   \
          "as may be.")                                                                             \
        X(CONNECTION_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                 \
          "The key has as many connections as it may have; use one of them for many calls.")        \
        X(CALL_LIMIT, RPC_RESOURCE_EXHAUSTED,                                                       \
          "The owner has as many calls under way as it may have, or as many readings of usage are " \
          "waited for as may be; try again when some are over.")                                    \
        X(ANSWERS_UNREAD, RPC_RESOURCE_EXHAUSTED,                                                   \
          "As many answers as may wait were not read by the owner's clients; read them first.")     \
        X(HOST_EXHAUSTED, RPC_RESOURCE_EXHAUSTED,                                                   \
          "The host lacks the memory, disk or numbers that this takes.")                            \
        X(STATE_FULL, RPC_RESOURCE_EXHAUSTED,                                                       \
          "The disk of the server's state is full: nothing new is taken, what runs goes on.")       \
        X(SANDBOX_ENDED, RPC_FAILED_PRECONDITION, "The sandbox is over; it can only be read.")      \
        X(EXECUTION_ENDED, RPC_FAILED_PRECONDITION, "The execution is over; it can only be read.")  \
        X(WALL_MISSING, RPC_FAILED_PRECONDITION,                                                    \
          "A wall between sandboxes and the host does not hold, so none is made.")                  \
        X(LIMIT_NOT_POSSIBLE, RPC_FAILED_PRECONDITION,                                              \
          "More is used now than the limit would allow, or the host has nothing that holds it.")    \
        X(EGRESS_UNAVAILABLE, RPC_FAILED_PRECONDITION,                                              \
          "Nothing keeps egress to the policy here, so it is not made or not changed.")             \
        X(KERNEL_FAILED, RPC_FAILED_PRECONDITION,                                                   \
          "The interpreter did not start in the sandbox; the message says why.")                    \
        X(CONFLICT, RPC_ABORTED, "Another request changed it meanwhile; read it and try again.")    \
        X(WATCH_TOKEN_EXPIRED, RPC_OUT_OF_RANGE,                                                    \
          "Events since that watch token are no longer kept; list again and watch from there.")     \
        X(INTERNAL, RPC_INTERNAL, "A mistake of the server's; its log says more.")                  \
        X(RUNTIME_UNAVAILABLE, RPC_UNAVAILABLE,                                                     \
          "The server has no connection to its runtime; try again.")                                \
        X(STORE_UNAVAILABLE, RPC_UNAVAILABLE, "The server cannot write its state; try again.")      \
        X(SHUTTING_DOWN, RPC_UNAVAILABLE, "The server is being stopped; try again.")                \
        X(API_KEY_MISSING, RPC_UNAUTHENTICATED,                                                     \
          "Over TCP a request needs `authorization: Bearer KEY` or `x-api-key: KEY`.")              \
        X(API_KEY_INVALID, RPC_UNAUTHENTICATED, "What was sent is no API key of this server.")      \
        X(KEY_EXPIRED, RPC_UNAUTHENTICATED, "The API key has expired, perhaps during the call.")    \
        X(KEY_REVOKED, RPC_UNAUTHENTICATED, "The API key was revoked, perhaps during the call.")

#define REASON_ENUM(name, code, sentence) REASON_##name,
enum reason { REASONS(REASON_ENUM) _REASON_N };
#undef REASON_ENUM

struct reason_info {
        const char *name;
        enum rpc_code code;
        const char *code_name;
        const char *sentence;
};

const struct reason_info *reason_info(enum reason reason);
