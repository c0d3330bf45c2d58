#include <string.h>

#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/request_id.h"

static void on_done(void *userdata, const struct session_result *result,
                    const struct context_view *views, size_t n)
{
        struct api_call *call = userdata;
        const Hotcell__V1__CreateContextRequest *request = (const void *)call->request;
        Hotcell__V1__CreateContextResponse response = HOTCELL__V1__CREATE_CONTEXT_RESPONSE__INIT;

        (void)n;
        if (!api_call_fail_result(call, result, request->sandbox_id)) {
                response.context = convert_context(&call->arena, views);
                api_call_reply(call, &response.base);
        }
        api_call_release(call);
}

void api_create_context(struct api_call *call, const void *message)
{
        const Hotcell__V1__CreateContextRequest *request = message;
        const struct context_request create = {
                .request = request_id_of(call, NULL),
                .owner = call->identity.owner,
                .sandbox_id = request->sandbox_id,
                .language = request->language,
                .working_directory = request->working_directory,
        };

        (void)check_id(call, "sandbox_id", request->sandbox_id);
        (void)check_working_directory(call, "working_directory", request->working_directory);
        if (strlen(request->language) >= LANGUAGE_BUFFER)
                api_call_blame(call, REASON_UNKNOWN_LANGUAGE, "language",
                               "is no language of this template");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        session_create_context(call->api->session, &create, on_done, call);
}

void api_create_context_again(struct api_call *call, const void *message)
{
        const Hotcell__V1__CreateContextRequest *request = message;

        api_call_hold(call);
        session_await_context(call->api->session, call->identity.owner, request->sandbox_id,
                              call->asked.object_id, on_done, call);
}
