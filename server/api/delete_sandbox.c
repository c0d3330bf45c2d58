#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/request_id.h"

static void on_done(void *userdata, const struct session_result *result,
                    const struct sandbox_record *record, bool created)
{
        struct api_call *call = userdata;
        const Hotcell__V1__DeleteSandboxRequest *request = (const void *)call->request;
        Hotcell__V1__DeleteSandboxResponse response = HOTCELL__V1__DELETE_SANDBOX_RESPONSE__INIT;

        (void)created;
        if (!api_call_fail_result(call, result, request->sandbox_id)) {
                response.sandbox = convert_sandbox(&call->arena, record);
                request_id_reply(call, &response.base, request->sandbox_id);
        }
        api_call_release(call);
}

void api_delete_sandbox(struct api_call *call, const void *message)
{
        const Hotcell__V1__DeleteSandboxRequest *request = message;

        if (!check_id(call, "sandbox_id", request->sandbox_id)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        session_delete_sandbox(call->api->session, call->identity.owner, request->sandbox_id,
                               request->etag, CAUSE_CLIENT, on_done, call);
}

void api_delete_sandbox_again(struct api_call *call, const void *message)
{
        const Hotcell__V1__DeleteSandboxRequest *request = message;

        api_call_hold(call);
        session_get_sandbox(call->api->session, call->identity.owner, request->sandbox_id, on_done,
                            call);
}
