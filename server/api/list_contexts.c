#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"

static void on_done(void *userdata, const struct session_result *result,
                    const struct context_view *views, size_t n)
{
        struct api_call *call = userdata;
        const Hotcell__V1__ListContextsRequest *request = (const void *)call->request;
        Hotcell__V1__ListContextsResponse response = HOTCELL__V1__LIST_CONTEXTS_RESPONSE__INIT;

        if (!api_call_fail_result(call, result, request->sandbox_id)) {
                response.contexts = arena_new_array(&call->arena, Hotcell__V1__Context *, n);
                for (size_t i = 0; response.contexts && i < n; i++)
                        response.contexts[response.n_contexts++] =
                                convert_context(&call->arena, &views[i]);
                api_call_reply(call, &response.base);
        }
        api_call_release(call);
}

void api_list_contexts(struct api_call *call, const void *message)
{
        const Hotcell__V1__ListContextsRequest *request = message;

        if (!check_id(call, "sandbox_id", request->sandbox_id)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        session_list_contexts(call->api->session, call->identity.owner, request->sandbox_id,
                              on_done, call);
}
