#include <string.h>

#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/event_stream.h"
#include "server/api/request_id.h"

enum { CODE_MAX_BYTES = 1 << 20 };

static const int64_t disconnect_grace_default_usec = INT64_C(10) * 1000000;
static const int64_t disconnect_grace_max_usec = INT64_C(3600) * 1000000;

static void check_target(struct api_call *call, const Hotcell__V1__ExecuteRequest *request)
{
        if (request->target_case == HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX_ID)
                (void)check_id(call, "sandbox_id", request->sandbox_id);
        else if (request->target_case != HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX)
                api_call_blame(call, REASON_INVALID_FIELD, "sandbox_id", "or sandbox is required");
        else if (*request->context_id)
                api_call_blame(call, REASON_INVALID_FIELD, "context_id",
                               "names a context of an existing sandbox; not with sandbox");
        if (*request->context_id && *request->language)
                api_call_blame(call, REASON_CONTEXT_AND_LANGUAGE, "language",
                               "is that of the context; give context_id or language, not both");
        if (strlen(request->language) >= LANGUAGE_BUFFER)
                api_call_blame(call, REASON_UNKNOWN_LANGUAGE, "language",
                               "is no language of this template");
}

static void check_code(struct api_call *call, const char *code)
{
        if (strlen(code) > CODE_MAX_BYTES)
                api_call_blame(call, REASON_CODE_TOO_LARGE, "code",
                               "is larger than 1 MiB; put data into files of the sandbox");
}

static void read_limits(struct api_call *call, const Hotcell__V1__ExecuteRequest *request,
                        struct execute_request *ret_execute)
{
        const Hotcell__V1__Limits *limits = request->limits;

        /* Unset ones are the sandbox's, which only the session knows. */
        if (!check_execution_limits(call, "limits", limits,
                                    &call->api->limits.sandbox_default.execution,
                                    &ret_execute->limits))
                return;
        ret_execute->has_timeout = limits && limits->timeout;
        ret_execute->has_output_bytes = limits && limits->_output_bytes_case != 0;
}

static void read_behaviour(struct api_call *call, const Hotcell__V1__ExecuteRequest *request,
                           struct execute_request *ret_execute)
{
        const struct api_limits *limits = &call->api->limits;
        struct duration_rule grace = { disconnect_grace_default_usec, disconnect_grace_max_usec,
                                       true };
        struct duration_rule queue = { limits->queue_timeout_default_usec,
                                       limits->queue_timeout_max_usec, true };

        if (request->on_disconnect > HOTCELL__V1__ON_DISCONNECT__ON_DISCONNECT_CONTINUE)
                api_call_blame(call, REASON_INVALID_FIELD, "on_disconnect", "is unknown");
        if (request->on_output_limit > HOTCELL__V1__ON_OUTPUT_LIMIT__ON_OUTPUT_LIMIT_TRUNCATE)
                api_call_blame(call, REASON_INVALID_FIELD, "on_output_limit", "is unknown");
        (void)check_ruled_duration(call, "disconnect_grace", request->disconnect_grace, &grace,
                                   &ret_execute->disconnect_grace_usec);
        (void)check_ruled_duration(call, "queue_timeout", request->queue_timeout, &queue,
                                   &ret_execute->queue_timeout_usec);
        ret_execute->goes_on_without_client =
                request->on_disconnect == HOTCELL__V1__ON_DISCONNECT__ON_DISCONNECT_CONTINUE;
        ret_execute->truncate_output =
                request->on_output_limit == HOTCELL__V1__ON_OUTPUT_LIMIT__ON_OUTPUT_LIMIT_TRUNCATE;
        ret_execute->combine_output = request->combine_output;
}

static void on_done(void *userdata, const struct session_result *result,
                    const struct execution_record *record)
{
        struct api_call *call = userdata;
        const Hotcell__V1__ExecuteRequest *request = (const void *)call->request;

        if (!api_call_awaits_room(call, result)) {
                request_id_settle(call);
                if (!api_call_fail_result(call, result,
                                          *request->context_id ? request->context_id
                                                               : request->sandbox_id))
                        event_stream_start(call, record->execution_id, 0);
        }
        api_call_release(call);
}

/* The session has a copy of its own, which it keeps only until it is sent. */
static void forget_code(struct api_call *call)
{
        Hotcell__V1__ExecuteRequest *request = (void *)call->request;

        if (request->code != protobuf_c_empty_string)
                free(request->code);
        request->code = unconst(protobuf_c_empty_string);
}

void api_execute(struct api_call *call, const void *message)
{
        const Hotcell__V1__ExecuteRequest *request = message;
        struct execute_request execute = {
                .request = request_id_of(call, NULL),
                .owner = call->identity.owner,
                .context_id = request->context_id,
                .language = request->language,
                .code = request->code,
                .n_code = strlen(request->code),
        };
        struct checked_spec spec;
        struct pairs environment = { 0 };

        check_target(call, request);
        check_code(call, request->code);
        (void)check_environment(call, "environment", request->n_environment,
                                (ProtobufCMessage **)request->environment, &environment);
        read_limits(call, request, &execute);
        read_behaviour(call, request, &execute);
        execute.environment = &environment;
        if (request->target_case == HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX) {
                (void)check_spec(call, "sandbox", request->sandbox, &spec);
                execute.one_shot = &spec.request;
        } else {
                execute.sandbox_id = request->sandbox_id;
        }
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        if (!api_call_take_stream(call))
                return;
        api_call_hold(call);
        session_execute(call->api->session, &execute, on_done, call);
        if (!call->is_waiting)
                forget_code(call);
}

static void on_found(void *userdata, const struct session_result *result,
                     const struct execution_record *record)
{
        struct api_call *call = userdata;

        if (api_call_fail_result(call, result, call->asked.object_id))
                ;
        else if (session_first_sequence(call->api->session, record->execution_id) > 0)
                event_stream_start(call, record->execution_id, 0);
        else if (record->state == EXECUTION_ENDED)
                event_stream_tell_end(call, record);
        else
                api_call_fail(call, REASON_RUNTIME_UNAVAILABLE,
                              "the server has just started and looks for execution %s; try again",
                              record->execution_id);
        api_call_release(call);
}

/* Joins its own execution. */
void api_execute_again(struct api_call *call, const void *message)
{
        (void)message;
        forget_code(call);
        if (!api_call_take_stream(call))
                return;
        api_call_hold(call);
        session_get_execution(call->api->session, call->identity.owner, call->asked.object_id,
                              on_found, call);
}
