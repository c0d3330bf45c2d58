#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"

static void on_done(void *userdata, const struct session_result *result,
                    const struct sandbox_record *record, bool created)
{
        struct api_call *call = userdata;
        const Hotcell__V1__GetSandboxRequest *request = (const void *)call->request;
        Hotcell__V1__GetSandboxResponse response = HOTCELL__V1__GET_SANDBOX_RESPONSE__INIT;

        (void)created;
        if (!api_call_fail_result(call, result, request->sandbox_id)) {
                response.sandbox = convert_whole_sandbox(&call->arena, record);
                api_call_reply(call, &response.base);
        }
        api_call_release(call);
}

void api_get_sandbox(struct api_call *call, const void *message)
{
        const Hotcell__V1__GetSandboxRequest *request = message;

        if (!check_id(call, "sandbox_id", request->sandbox_id)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        session_get_sandbox(call->api->session, call->identity.owner, request->sandbox_id, on_done,
                            call);
}
