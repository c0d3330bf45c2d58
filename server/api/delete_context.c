#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/request_id.h"

static void on_done(void *userdata, const struct session_result *result,
                    const struct context_view *views, size_t n)
{
        struct api_call *call = userdata;
        const Hotcell__V1__DeleteContextRequest *request = (const void *)call->request;
        Hotcell__V1__DeleteContextResponse response = HOTCELL__V1__DELETE_CONTEXT_RESPONSE__INIT;

        (void)views;
        (void)n;
        if (!api_call_fail_result(call, result, request->context_id))
                request_id_reply(call, &response.base, request->context_id);
        api_call_release(call);
}

void api_delete_context(struct api_call *call, const void *message)
{
        const Hotcell__V1__DeleteContextRequest *request = message;

        (void)check_id(call, "sandbox_id", request->sandbox_id);
        (void)check_id(call, "context_id", request->context_id);
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        session_delete_context(call->api->session, call->identity.owner, request->sandbox_id,
                               request->context_id, on_done, call);
}

void api_delete_context_again(struct api_call *call, const void *message)
{
        Hotcell__V1__DeleteContextResponse response = HOTCELL__V1__DELETE_CONTEXT_RESPONSE__INIT;

        (void)message;
        api_call_reply(call, &response.base);
}
