#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"

static void on_done(void *userdata, int result, const struct key_record *record, const char *secret)
{
        struct api_call *call = userdata;
        const Hotcell__V1__CreateKeyRequest *request = (const void *)call->request;
        Hotcell__V1__CreateKeyResponse response = HOTCELL__V1__CREATE_KEY_RESPONSE__INIT;

        if (result == 0) {
                response.key = convert_key(&call->arena, record);
                response.secret = arena_text(&call->arena, secret);
                api_call_reply(call, &response.base);
        } else if (result == AUTH_E_NAME_IN_USE) {
                api_call_fail(call, REASON_NAME_IN_USE,
                              "there is a key named %s; revoke it or take another name",
                              request->name);
        } else if (result == AUTH_E_KEY_LIMIT) {
                api_call_fail(call, REASON_KEY_LIMIT,
                              "there are as many keys as there may be; revoke some");
        } else {
                api_call_fail_store(call, result);
        }
        api_call_release(call);
}

void api_create_key(struct api_call *call, const void *message)
{
        const Hotcell__V1__CreateKeyRequest *request = message;

        if (!check_id(call, "name", request->name) || !check_name(call, "name", request->name)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        auth_create_key(call->api->auth, request->name, on_done, call);
}
