#include <string.h>

#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/request_id.h"
#include "server/store/egress.h"

/* What it means: the order of rules and how they are written do not count. */
static bool is_same_egress(const struct egress *a, const struct egress *b)
{
        return a && b ? memcmp(a->sha256, b->sha256, sizeof(a->sha256)) == 0 : a == b;
}

static void on_done(void *userdata, const struct session_result *result,
                    const struct sandbox_record *record, bool created)
{
        struct api_call *call = userdata;
        Hotcell__V1__CreateSandboxResponse response = HOTCELL__V1__CREATE_SANDBOX_RESPONSE__INIT;

        if (!api_call_awaits_room(call, result) && !api_call_fail_result(call, result, NULL)) {
                response.sandbox = convert_whole_sandbox(&call->arena, record);
                response.created = created || (call->is_retry && call->asked.created);
                response.egress_differs =
                        !response.created && !is_same_egress(call->egress, record->egress);
                if (response.sandbox && !api_call_has_room(call, &response.base))
                        response.sandbox->egress = NULL;
                if (created)
                        api_call_reply(call, &response.base);
                else
                        request_id_reply(call, &response.base, record->sandbox_id);
        }
        api_call_release(call);
}

void api_create_sandbox(struct api_call *call, const void *message)
{
        const Hotcell__V1__CreateSandboxRequest *request = message;
        struct checked_spec spec;

        if (request->get_or_create && (!request->spec || !*request->spec->name))
                api_call_blame(call, REASON_INVALID_FIELD, "spec.name",
                               "is required with get_or_create");
        if (!check_spec(call, "spec", request->spec, &spec)) {
                api_call_fail_blamed(call);
                return;
        }
        spec.request.get_or_create = request->get_or_create;
        spec.request.request = request_id_of(call, NULL);
        api_call_hold(call);
        session_create_sandbox(call->api->session, &spec.request, on_done, call);
}

void api_create_sandbox_again(struct api_call *call, const void *message)
{
        (void)message;
        api_call_hold(call);
        session_get_sandbox(call->api->session, call->identity.owner, call->asked.object_id,
                            on_done, call);
}
