#include <string.h>

#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"

static const struct {
        const char *path;
        unsigned quotas; /* BIT(enum key_quota) */
} paths[] = {
        { "quotas", BIT(_KEY_QUOTA_N) - 1 },
        { "quotas.sandboxes", BIT(KEY_QUOTA_SANDBOXES) },
        { "quotas.memory_bytes", BIT(KEY_QUOTA_MEMORY) },
        { "quotas.cpu_millis", BIT(KEY_QUOTA_CPU) },
        { "quotas.executions", BIT(KEY_QUOTA_EXECUTIONS) },
};

static void on_done(void *userdata, int result, const struct key_record *record, const char *secret)
{
        struct api_call *call = userdata;
        const Hotcell__V1__UpdateKeyRequest *request = (const void *)call->request;
        Hotcell__V1__UpdateKeyResponse response = HOTCELL__V1__UPDATE_KEY_RESPONSE__INIT;

        (void)secret;
        if (result == 0) {
                response.key = convert_key(&call->arena, record);
                api_call_reply(call, &response.base);
        } else if (result == AUTH_E_NOT_FOUND) {
                api_call_fail(call, REASON_KEY_NOT_FOUND, "there is no key %s", request->key_id);
        } else {
                api_call_fail_store(call, result);
        }
        api_call_release(call);
}

static unsigned read_path(struct api_call *call, const char *path)
{
        for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
                if (strcmp(path, paths[i].path) == 0)
                        return paths[i].quotas;
        api_call_blame(call, REASON_INVALID_FIELD, "update_mask",
                       "has an unknown path; known are quotas, quotas.sandboxes, "
                       "quotas.memory_bytes, quotas.cpu_millis, quotas.executions");
        return 0;
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
                        set |= read_path(call, request->update_mask->paths[i]);
        quotas = check_quotas(call, request->quotas);
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        auth_update_key(call->api->auth, request->key_id, set, &quotas, on_done, call);
}
