#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/convert.h"

void api_list_keys(struct api_call *call, const void *request)
{
        Hotcell__V1__ListKeysResponse response = HOTCELL__V1__LIST_KEYS_RESPONSE__INIT;
        const struct key_record *records;
        size_t n;

        (void)request;
        records = auth_list(call->api->auth, &n);
        response.keys = arena_new_array(&call->arena, Hotcell__V1__Key *, n);
        for (size_t i = 0; response.keys && i < n; i++)
                response.keys[response.n_keys++] =
                        convert_key(&call->arena, call->api->session, &records[i]);
        api_call_reply(call, &response.base);
}
