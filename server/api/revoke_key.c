#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/session/session.h"

static void on_done(void *userdata, int result, const struct key_record *record, const char *secret)
{
        struct api_call *call = userdata;
        const Hotcell__V1__RevokeKeyRequest *request = (const void *)call->request;
        Hotcell__V1__RevokeKeyResponse response = HOTCELL__V1__REVOKE_KEY_RESPONSE__INIT;

        (void)secret;
        if (result == 0 && request->delete_sandboxes && !session_is_settled(call->api->session)) {
                /* The key is revoked, whatever becomes of the answer. */
                api_call_fail(call, REASON_RUNTIME_UNAVAILABLE,
                              "the key is revoked, but the server has just started and does not "
                              "know its sandboxes yet; ask again to delete them");
        } else if (result == 0) {
                if (request->delete_sandboxes)
                        response.sandboxes_deleted = (int32_t)session_delete_sandboxes_of(
                                call->api->session, record->owner);
                response.key = convert_key(&call->arena, call->api->session, record);
                api_call_reply(call, &response.base);
        } else if (result == AUTH_E_NOT_FOUND) {
                api_call_fail(call, REASON_KEY_NOT_FOUND, "there is no key %s", request->key_id);
        } else {
                api_call_fail_store(call, result);
        }
        api_call_release(call);
}

void api_revoke_key(struct api_call *call, const void *message)
{
        const Hotcell__V1__RevokeKeyRequest *request = message;

        if (!check_id(call, "key_id", request->key_id)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        auth_revoke_key(call->api->auth, request->key_id, on_done, call);
}
