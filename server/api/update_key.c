#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/key_quotas.h"

static void on_done(void *userdata, int result, const struct key_record *record, const char *secret)
{
        struct api_call *call = userdata;
        const Hotcell__V1__UpdateKeyRequest *request = (const void *)call->request;
        Hotcell__V1__UpdateKeyResponse response = HOTCELL__V1__UPDATE_KEY_RESPONSE__INIT;

        (void)secret;
        if (result == 0) {
                response.key = convert_key(&call->arena, call->api->session, record);
                api_call_reply(call, &response.base);
        } else if (result == AUTH_E_NOT_FOUND) {
                api_call_fail(call, REASON_KEY_NOT_FOUND, "there is no key %s", request->key_id);
        } else {
                api_call_fail_store(call, result);
        }
        api_call_release(call);
}

void api_update_key(struct api_call *call, const void *message)
{
        const Hotcell__V1__UpdateKeyRequest *request = message;
        struct key_quotas quotas;
        unsigned set = 0;

        (void)check_id(call, "key_id", request->key_id);
        if (!request->update_mask || request->update_mask->n_paths == 0)
                api_call_blame(call, REASON_UPDATE_MASK_REQUIRED, "update_mask",
                               "is required: name what to change");
        else
                for (size_t i = 0; i < request->update_mask->n_paths; i++)
                        set |= check_quota_path(call, request->update_mask->paths[i]);
        quotas = check_quotas(call, request->quotas);
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        auth_update_key(call->api->auth, request->key_id, set, &quotas, on_done, call);
}
