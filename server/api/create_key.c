#include <inttypes.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/key_quotas.h"

static void on_done(void *userdata, int result, const struct key_record *record, const char *secret)
{
        struct api_call *call = userdata;
        const Hotcell__V1__CreateKeyRequest *request = (const void *)call->request;
        Hotcell__V1__CreateKeyResponse response = HOTCELL__V1__CREATE_KEY_RESPONSE__INIT;

        if (result == 0) {
                response.key = convert_key(&call->arena, call->api->session, record);
                response.secret = arena_text(&call->arena, secret);
                api_call_reply(call, &response.base);
        } else if (result == AUTH_E_NAME_IN_USE) {
                api_call_fail(call, REASON_NAME_IN_USE,
                              "there is a key named %s; revoke it or take another name",
                              request->name);
        } else if (result == AUTH_E_NOT_FOUND) {
                api_call_fail(call, REASON_KEY_NOT_FOUND, "there is no key %s",
                              request->owner_key_id);
        } else if (result == AUTH_E_KEY_LIMIT) {
                api_call_fail(call, REASON_KEY_LIMIT,
                              "there are as many keys as there may be; revoke some");
        } else {
                api_call_fail_store(call, result);
        }
        api_call_release(call);
}

/* A hundred years: so that what the operator meant fits every client's idea of a time. */
#define TTL_MAX_USEC INT64_C(3155760000000000)

static unsigned read_scopes(struct api_call *call, const Hotcell__V1__CreateKeyRequest *request)
{
        unsigned scopes = 0;
        enum scope scope;

        for (size_t i = 0; i < request->n_scopes; i++) {
                if (!scope_of_name(request->scopes[i], &scope)) {
                        api_call_blame(call, REASON_INVALID_FIELD, "scopes",
                                       "has an unknown scope; known are " SCOPE_NAMES);
                        return 0;
                }
                scopes |= BIT(scope);
        }
        return scopes ? scopes : (unsigned)SCOPES_OF_KEYS;
}

static int64_t read_lifetime(struct api_call *call, const Hotcell__V1__CreateKeyRequest *request)
{
        static const struct duration_rule rule = { 0, TTL_MAX_USEC, true };
        int64_t now = time_now_usec(), usec = 0;

        switch (request->lifetime_case) {
        case HOTCELL__V1__CREATE_KEY_REQUEST__LIFETIME_EXPIRE_TIME:
                (void)check_time_to_come(call, "expire_time", request->expire_time, &usec);
                return usec;
        case HOTCELL__V1__CREATE_KEY_REQUEST__LIFETIME_TTL:
                (void)check_ruled_duration(call, "ttl", request->ttl, &rule, &usec);
                return usec ? now + usec : 0;
        case HOTCELL__V1__CREATE_KEY_REQUEST__LIFETIME__NOT_SET:
        case _HOTCELL__V1__CREATE_KEY_REQUEST__LIFETIME__CASE_IS_INT_SIZE:
        default:
                return 0;
        }
}

void api_create_key(struct api_call *call, const void *message)
{
        const Hotcell__V1__CreateKeyRequest *request = message;
        struct key_request key = { .name = request->name, .owner_key_id = request->owner_key_id };

        /* All of these, so that one answer names every wrong field. */
        if (check_id(call, "name", request->name))
                (void)check_name(call, "name", request->name);
        key.scopes = read_scopes(call, request);
        key.expire_time_usec = read_lifetime(call, request);
        key.quotas = check_quotas(call, request->quotas);
        if (request->quotas && *request->owner_key_id)
                api_call_blame(
                        call, REASON_INVALID_FIELD, "quotas",
                        "are those of the owner that the key shares; UpdateKey changes them");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        auth_create_key(call->api->auth, &key, on_done, call);
}
