#include "server/api/call.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "server/api/api_private.h"
#include "server/api/decode.h"
#include "server/api/request_id.h"
#include "server/rpc/rpc.h"
#include "server/session/session.h"
#include "server/store/store.h"

enum {
        ROOM_PATIENCE_USEC = 10 * 1000000, /* for what ends already to be gone */
        RETRY_USEC = 1000000,              /* what clients are told to wait before they try again */
        ANSWER_SMALL = 128 << 10, /* all of what changed something, which is told in any case */
};

void api_call_hold(struct api_call *call)
{
        call->n_holders++;
}

void api_call_release(struct api_call *call)
{
        assert(call->n_holders > 0);
        if (--call->n_holders > 0)
                return;
        assert(!call->rpc && !call->stream);
        request_id_settle(call);
        protobuf_c_message_free_unpacked(call->request, NULL);
        call->egress = egress_release(call->egress);
        reserve_free(call->answer);
        arena_deinit(&call->arena);
        free(call);
}

bool api_call_is_open(const struct api_call *call)
{
        return call->rpc != NULL;
}

/* Nobody waits any more: the stream, if any, is put away. The caller's own hold keeps the call
 * alive. */
static void close_call(struct api_call *call)
{
        call->rpc = NULL;
        call->share = session_stream_free(call->share);
        if (call->is_of_key)
                LIST_REMOVE(call, key_calls);
        if (call->stream)
                call->on_over(call);
        api_call_release(call);
}

static void on_gone(struct rpc_call *rpc, void *userdata)
{
        (void)rpc;
        close_call(userdata);
}

static void on_writable(struct rpc_call *rpc, void *userdata)
{
        struct api_call *call = userdata;

        (void)rpc;
        if (call->on_writable && call->stream)
                call->on_writable(call);
}

static const struct rpc_call_observer call_observer = { .on_writable = on_writable,
                                                        .on_gone = on_gone };

/* Takes the rpc call off, so that an answer is given once. */
static struct rpc_call *take_rpc(struct api_call *call)
{
        struct rpc_call *rpc = call->rpc;

        rpc_call_observe(rpc, NULL, NULL);
        return rpc;
}

void api_call_blame(struct api_call *call, enum reason reason, const char *field,
                    const char *format, ...)
{
        char description[STATUS_TEXT_SIZE];
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(description, sizeof(description), format, arguments);
        va_end(arguments);
        if (call->status.n_fields == 0)
                status_init(&call->status, reason, "%s %s", field, description);
        status_add_field(&call->status, field, "%s", description);
}

bool api_call_has_blame(const struct api_call *call)
{
        return call->status.n_fields > 0;
}

static void send_status(struct api_call *call, const struct status *status)
{
        if (!api_call_is_open(call))
                return;
        status_send(take_rpc(call), status);
        close_call(call);
}

void api_call_fail_blamed(struct api_call *call)
{
        /* Without blame the check could not even note it. */
        if (!api_call_has_blame(call)) {
                status_init(&call->status, REASON_HOST_EXHAUSTED, "the server is out of memory");
                status_set_retry(&call->status, RETRY_USEC);
        }
        send_status(call, &call->status);
}

void api_call_fail(struct api_call *call, enum reason reason, const char *format, ...)
{
        char message[STATUS_MESSAGE_SIZE];
        struct status status;
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);
        status_init(&status, reason, "%s", message);
        if (reason_info(reason)->code == RPC_UNAVAILABLE || reason == REASON_HOST_EXHAUSTED)
                status_set_retry(&status, RETRY_USEC);
        send_status(call, &status);
}

/* How a session's outcome is told: the reason, what kind of thing it is about, and which field
 * asked for it. */
static const struct {
        enum reason reason;
        const char *resource_type;
        const char *field;
} session_outcomes[] = {
        [SESSION_E_SANDBOX_NOT_FOUND] = { REASON_SANDBOX_NOT_FOUND, "sandbox", NULL },
        [SESSION_E_CONTEXT_NOT_FOUND] = { REASON_CONTEXT_NOT_FOUND, "context", NULL },
        [SESSION_E_EXECUTION_NOT_FOUND] = { REASON_EXECUTION_NOT_FOUND, "execution", NULL },
        [SESSION_E_SANDBOX_ENDED] = { REASON_SANDBOX_ENDED, "sandbox", NULL },
        [SESSION_E_EXECUTION_ENDED] = { REASON_EXECUTION_ENDED, "execution", NULL },
        [SESSION_E_NAME_IN_USE] = { REASON_NAME_IN_USE, NULL, NULL },
        [SESSION_E_UNKNOWN_TEMPLATE] = { REASON_UNKNOWN_TEMPLATE, NULL, "template" },
        [SESSION_E_UNKNOWN_LANGUAGE] = { REASON_UNKNOWN_LANGUAGE, NULL, "language" },
        [SESSION_E_SANDBOX_LIMIT] = { REASON_SANDBOX_LIMIT, NULL, NULL },
        [SESSION_E_CONTEXT_LIMIT] = { REASON_CONTEXT_LIMIT, NULL, NULL },
        [SESSION_E_QUEUE_FULL] = { REASON_QUEUE_FULL, NULL, NULL },
        [SESSION_E_HOST_EXHAUSTED] = { REASON_HOST_EXHAUSTED, NULL, NULL },
        [SESSION_E_WALL_MISSING] = { REASON_WALL_MISSING, NULL, NULL },
        [SESSION_E_EGRESS] = { REASON_EGRESS_UNAVAILABLE, NULL, NULL },
        [SESSION_E_RULE_TOO_COMPLEX] = { REASON_RULE_TOO_COMPLEX, NULL, "egress" },
        [SESSION_E_RUNTIME_UNAVAILABLE] = { REASON_RUNTIME_UNAVAILABLE, NULL, NULL },
        [SESSION_E_STORE_UNAVAILABLE] = { REASON_STORE_UNAVAILABLE, NULL, NULL },
        [SESSION_E_STATE_FULL] = { REASON_STATE_FULL, NULL, NULL },
        [SESSION_E_SHUTTING_DOWN] = { REASON_SHUTTING_DOWN, NULL, NULL },
        [SESSION_E_KERNEL_FAILED] = { REASON_KERNEL_FAILED, NULL, NULL },
        [SESSION_E_WORKING_DIRECTORY] = { REASON_INVALID_FIELD, NULL, "working_directory" },
        [SESSION_E_CONFLICT] = { REASON_CONFLICT, "sandbox", NULL },
        [SESSION_E_MEMORY_LIMIT] = { REASON_MEMORY_LIMIT, NULL, NULL },
        [SESSION_E_CREATION_LIMIT] = { REASON_CREATION_LIMIT, NULL, NULL },
        [SESSION_E_EXECUTION_LIMIT] = { REASON_EXECUTION_LIMIT, NULL, NULL },
        [SESSION_E_QUEUE_LIMIT] = { REASON_QUEUE_LIMIT, NULL, NULL },
        [SESSION_E_STREAM_LIMIT] = { REASON_STREAM_LIMIT, NULL, NULL },
        [SESSION_E_UPDATE_RATE] = { REASON_UPDATE_RATE, NULL, NULL },
        [SESSION_E_EGRESS_LIMIT] = { REASON_EGRESS_LIMIT, NULL, NULL },
        [SESSION_E_CPU_LIMIT] = { REASON_CPU_LIMIT, NULL, NULL },
        [SESSION_E_LIMIT] = { REASON_LIMIT_NOT_POSSIBLE, NULL, NULL },
};

static void set_exhausted(struct status *status, const char *whose)
{
        status_set_quota(status, whose, "%s", reason_info(status->reason)->sentence);
        status_set_retry(status, RETRY_USEC);
}

/* Names what to look at. The server's files are for operators only. */
static void init_store_status(struct status *status, const struct api_call *call,
                              enum reason reason, const char *sentence)
{
        if (call->identity.is_operator)
                status_init(status, reason,
                            "%s hotcelld's log says why; see that the disk of %s has room and that "
                            "the file can be written.",
                            sentence, store_path(call->api->store));
        else
                status_init(status, reason, "%s hotcelld's log on the server says why.", sentence);
}

static void describe_result(struct status *status, const struct api_call *call,
                            const struct session_result *result, const char *resource)
{
        const char *type = session_outcomes[result->outcome].resource_type;
        const char *field = session_outcomes[result->outcome].field;
        enum reason reason = session_outcomes[result->outcome].reason;

        if (reason == REASON_STORE_UNAVAILABLE || reason == REASON_STATE_FULL)
                init_store_status(status, call, reason, result->message);
        else
                status_init(status, reason, "%s",
                            *result->message ? result->message : reason_info(reason)->sentence);
        if (type && resource)
                status_set_resource(status, type, resource);
        if (field)
                status_add_field(status, field, "%s", status->message);
        if (reason_info(reason)->code == RPC_RESOURCE_EXHAUSTED) {
                status_set_quota(status, *result->quota ? result->quota : "server", "%s%s%s",
                                 result->limit ? result->limit : "", result->limit ? ": " : "",
                                 *result->message ? result->message
                                                  : reason_info(reason)->sentence);
        }
        if (result->retry_usec > 0)
                status_set_retry(status, (uint64_t)result->retry_usec);
        else if (result->retry_usec == 0 && (reason_info(reason)->code == RPC_RESOURCE_EXHAUSTED ||
                                             reason_info(reason)->code == RPC_UNAVAILABLE))
                status_set_retry(status, RETRY_USEC);
}

static bool is_shortage(int error)
{
        return error == ENOMEM || error == EMFILE || error == ENFILE || error == ENOBUFS ||
               error == ENOSPC;
}

bool api_call_fail_result(struct api_call *call, const struct session_result *result,
                          const char *resource)
{
        static struct log_quota quota;
        struct status status;

        if (result->outcome == 0)
                return false;
        if (is_shortage(-result->outcome)) {
                api_call_fail(call, REASON_HOST_EXHAUSTED, "%s The server has too little: %s.",
                              result->message, strerrordesc_np(-result->outcome));
                return true;
        }
        if (result->outcome < 0) {
                log_write_of(&quota, LOG_LEVEL_ERROR, "a call failed method=%s error=%s message=%s",
                             call->method->path, strerrorname_np(-result->outcome),
                             result->message);
                api_call_fail(call, REASON_INTERNAL, "the server failed: %s",
                              strerrordesc_np(-result->outcome));
                return true;
        }
        assert((size_t)result->outcome < ARRAY_SIZE(session_outcomes));
        describe_result(&status, call, result, resource);
        send_status(call, &status);
        return true;
}

static void on_room(void *userdata)
{
        struct api_call *call = userdata;

        call->is_waiting = false;
        if (api_call_is_open(call))
                call->method->handle(call, call->request);
        api_call_release(call);
}

bool api_call_awaits_room(struct api_call *call, const struct session_result *result)
{
        uint64_t now = clock_monotonic_usec();

        if (!result->outcome || !result->may_pass || !api_call_is_open(call))
                return false;
        if (!call->patience_until_usec)
                call->patience_until_usec = now + ROOM_PATIENCE_USEC;
        if (now >= call->patience_until_usec ||
            session_await_room(call->api->session, result, call->patience_until_usec - now, on_room,
                               call))
                return false;
        api_call_hold(call);
        call->is_waiting = true;
        return true;
}

bool api_call_take_stream(struct api_call *call)
{
        struct session_result result;

        if (call->share)
                return true; /* it has waited */
        result = session_stream_new(call->api->session, call->identity.owner, &call->share);
        return !api_call_fail_result(call, &result, NULL);
}

void api_call_fail_store(struct api_call *call, int result)
{
        struct status status;

        if (result == STORE_E_TOKEN_EXPIRED) {
                api_call_fail(
                        call, REASON_WATCH_TOKEN_EXPIRED,
                        "events since that token are no longer kept; list again and watch from there");
                return;
        }
        if (result == STORE_E_FULL || result == -ENOSPC || result == -EDQUOT) {
                init_store_status(&status, call, REASON_STATE_FULL,
                                  "The disk of the server's state is full.");
                status_set_quota(&status, "server", "%s", reason_info(REASON_STATE_FULL)->sentence);
        } else
                init_store_status(&status, call, REASON_STORE_UNAVAILABLE,
                                  "The server's database cannot be used now.");
        status_set_retry(&status, RETRY_USEC);
        send_status(call, &status);
}

void api_call_fail_exhausted(struct api_call *call, enum reason reason, const char *whose)
{
        struct status status;

        status_init(&status, reason, NULL);
        set_exhausted(&status, whose);
        send_status(call, &status);
}

bool api_call_pack(struct api_call *call, const ProtobufCMessage *response)
{
        size_t n_bytes = protobuf_c_message_get_packed_size(response);

        assert(!call->answer);
        if (!call->arena.failed)
                call->answer = reserve_alloc(n_bytes ? n_bytes : 1); /* what it tells is done */
        if (!call->answer) {
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
                return false;
        }
        call->n_answer = protobuf_c_message_pack(response, call->answer);
        return true;
}

static bool has_room(const struct api_call *call, size_t n_bytes)
{
        return n_bytes <= ANSWER_SMALL || rpc_call_has_room(call->rpc, n_bytes);
}

bool api_call_has_room(const struct api_call *call, const ProtobufCMessage *response)
{
        return !api_call_is_open(call) || call->arena.failed ||
               has_room(call, protobuf_c_message_get_packed_size(response));
}

void api_call_send(struct api_call *call)
{
        if (!api_call_is_open(call))
                return;
        if (!has_room(call, call->n_answer)) {
                api_call_fail_exhausted(call, REASON_ANSWERS_UNREAD, call->identity.owner);
                return;
        }
        rpc_call_reply(take_rpc(call), call->answer, call->n_answer);
        close_call(call);
}

void api_call_reply(struct api_call *call, const ProtobufCMessage *response)
{
        if (api_call_is_open(call) && api_call_pack(call, response))
                api_call_send(call);
}

void api_call_finish(struct api_call *call)
{
        if (!api_call_is_open(call))
                return;
        rpc_call_finish(take_rpc(call));
        close_call(call);
}

/* Why a key lets nobody in. */
static void fail_key(struct api_call *call, int outcome)
{
        switch (outcome) {
        case AUTH_E_MISSING:
                api_call_fail(
                        call, REASON_API_KEY_MISSING,
                        "an API key is required: send `authorization: Bearer KEY` or `x-api-key: KEY`");
                break;
        case AUTH_E_EXPIRED:
                api_call_fail(call, REASON_KEY_EXPIRED, "the API key has expired");
                break;
        case AUTH_E_REVOKED:
                api_call_fail(call, REASON_KEY_REVOKED, "the API key was revoked");
                break;
        default:
                api_call_fail(call, REASON_API_KEY_INVALID,
                              "what was sent is no API key of this server");
        }
}

void api_end_key_calls(void *userdata, const char *key_id, int outcome)
{
        struct api_call_list ending = LIST_HEAD_INITIALIZER(ending);
        struct api *api = userdata;
        struct api_call *call, *next;

        /* Apart first: to end one may close others. Each takes itself off its list. */
        for (call = LIST_FIRST(&api->key_calls); call; call = next) {
                next = LIST_NEXT(call, key_calls);
                if (strcmp(call->identity.key_id, key_id) != 0)
                        continue;
                LIST_REMOVE(call, key_calls);
                LIST_INSERT_HEAD(&ending, call, key_calls);
        }
        while ((call = LIST_FIRST(&ending)))
                fail_key(call, outcome);
}

/* Who calls; false when that was already answered. */
static bool identify(struct api_call *call)
{
        const char *authorization = rpc_call_metadata(call->rpc, "authorization");
        const char *x_api_key = rpc_call_metadata(call->rpc, "x-api-key");
        int r = auth_identify(call->api->auth, rpc_call_peer(call->rpc), authorization, x_api_key,
                              &call->identity);

        if (r)
                fail_key(call, r);
        return r == 0;
}

/* Whether they may; false when that was already answered. */
static bool authorize(struct api_call *call)
{
        enum scope scope = call->method->scope;
        struct status status;

        if (identity_has_scope(&call->identity, scope))
                return true;
        if (scope == SCOPE_OPERATOR) {
                api_call_fail(call, REASON_OPERATOR_ONLY,
                              "only operators may do that: use the unix socket, without a key");
                return false;
        }
        status_init(&status, REASON_SCOPE_MISSING, "the API key lacks the scope %s",
                    scope_name(scope));
        status_add_metadata(&status, "scope", scope_name(scope));
        status_add_metadata(&status, "method", call->method->path + 1); /* without the slash */
        send_status(call, &status);
        return false;
}

/* What the owner may have at once; false when that was already answered. */
static bool charge(struct api_call *call)
{
        int r = rpc_call_charge(call->rpc, call->identity.owner, !call->identity.is_operator);

        if (r == 0)
                return true;
        if (r < 0) {
                api_call_fail(call, REASON_INTERNAL, "out of memory");
                return false;
        }
        api_call_fail_exhausted(
                call, r == RPC_E_CONNECTION_LIMIT ? REASON_CONNECTION_LIMIT : REASON_CALL_LIMIT,
                call->identity.owner);
        return false;
}

/* Fails the call if it may not be; else its request may come. */
static void admit(struct api_call *call)
{
        if (call->api->is_shutting_down) {
                api_call_fail(call, REASON_SHUTTING_DOWN, "the server stops");
                return;
        }
        if (!identify(call) || !charge(call) || !authorize(call))
                return;
        rpc_call_set_context(call->rpc, call);
        rpc_call_observe(call->rpc, &call_observer, call);
        if (*call->identity.key_id) {
                call->is_of_key = true;
                LIST_INSERT_HEAD(&call->api->key_calls, call, key_calls);
        }
}

void api_call_admit(struct api *api, struct rpc_call *rpc, const struct api_method *method)
{
        struct api_call *call = calloc(1, sizeof(*call));

        if (!call) {
                rpc_call_fail(rpc, RPC_RESOURCE_EXHAUSTED, "out of memory", NULL, 0);
                return;
        }
        *call = (struct api_call){ .api = api, .rpc = rpc, .method = method, .n_holders = 2 };
        /* One hold is the open rpc call's, the other this function's. */
        admit(call);
        api_call_release(call);
}

static void run(struct api_call *call, const void *bytes, size_t n_bytes)
{
        if (call->api->is_shutting_down) {
                api_call_fail(call, REASON_SHUTTING_DOWN, "the server stops");
                return;
        }
        if (call->method->is_about_living && !session_is_settled(call->api->session)) {
                api_call_fail(call, REASON_RUNTIME_UNAVAILABLE,
                              "hotcelld has just started and does not know yet what goes on; try "
                              "again");
                return;
        }
        rpc_call_observe(call->rpc, NULL, NULL);
        call->request = decode_request(call->rpc, call->method->request, bytes, n_bytes);
        if (!call->request) {
                /* Already answered, with the reason. */
                close_call(call);
                return;
        }
        rpc_call_observe(call->rpc, &call_observer, call);
        if (call->method->retry)
                request_id_run(call);
        else
                call->method->handle(call, call->request);
}

void api_call_run(struct rpc_call *rpc, const void *bytes, size_t n_bytes)
{
        struct api_call *call = rpc_call_context(rpc);

        api_call_hold(call);
        run(call, bytes, n_bytes);
        api_call_release(call);
}
