#include <stdio.h>

#include "hotcell/v1/egress_service.pb-c.h"
#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/page_token.h"

/* The cursor's time is an event's number, which alone says where to go on. */
static void set_token(struct api_call *call, const struct egress_list *list,
                      Hotcell__V1__ListEgressEventsResponse *response)
{
        const struct egress_record *last = list->n ? &list->records[list->n - 1] : NULL;
        struct store_cursor cursor = { 0 };

        if (!list->more || !last)
                return;
        cursor.create_time_usec = last->sequence;
        (void)snprintf(cursor.id, sizeof(cursor.id), "%s", last->sandbox_id);
        response->next_page_token = page_token_new(&call->arena, call->request, &cursor);
}

static void reply(struct api_call *call, const struct egress_list *list)
{
        Hotcell__V1__ListEgressEventsResponse response =
                HOTCELL__V1__LIST_EGRESS_EVENTS_RESPONSE__INIT;

        response.events = arena_new_array(&call->arena, Hotcell__V1__EgressEvent *, list->n);
        for (size_t i = 0; response.events && i < list->n; i++)
                response.events[response.n_events++] =
                        convert_egress_event(&call->arena, &list->records[i], 0);
        set_token(call, list, &response);
        api_call_reply(call, &response.base);
}

static void fail(struct api_call *call, int result)
{
        const Hotcell__V1__ListEgressEventsRequest *request = (const void *)call->request;
        struct session_result missing = { 0 };

        if (result == STORE_E_NOT_FOUND) {
                missing.outcome = SESSION_E_SANDBOX_NOT_FOUND;
                (void)snprintf(missing.message, sizeof(missing.message), "There is no sandbox %s.",
                               request->sandbox_id);
                (void)api_call_fail_result(call, &missing, request->sandbox_id);
        } else if (result == STORE_E_NO_EXECUTION) {
                missing.outcome = SESSION_E_EXECUTION_NOT_FOUND;
                (void)snprintf(missing.message, sizeof(missing.message),
                               "There is no execution %s in sandbox %s.", request->execution_id,
                               request->sandbox_id);
                (void)api_call_fail_result(call, &missing, request->execution_id);
        } else {
                api_call_fail_store(call, result);
        }
}

static void on_done(void *userdata, int result, const struct egress_list *list)
{
        struct api_call *call = userdata;

        if (result == 0)
                reply(call, list);
        else
                fail(call, result);
        api_call_release(call);
}

static void check_types(struct api_call *call, const Hotcell__V1__ListEgressEventsRequest *request,
                        unsigned *ret_bits)
{
        for (size_t i = 0; i < request->n_types; i++) {
                int type = (int)request->types[i];

                if (type < 1 || type >= _EGRESS_EVENT_TYPE_N)
                        api_call_blame(call, REASON_INVALID_FIELD, "types",
                                       "has an unknown type %d", type);
                else
                        *ret_bits |= BIT(type);
        }
}

void api_list_egress_events(struct api_call *call, const void *message)
{
        const Hotcell__V1__ListEgressEventsRequest *request = message;
        struct egress_query query = {
                .owner = call->identity.owner,
                .sandbox_id = request->sandbox_id,
                .execution_id = *request->execution_id ? request->execution_id : NULL,
        };
        struct store_cursor cursor;

        (void)check_id(call, "sandbox_id", request->sandbox_id);
        if (query.execution_id)
                (void)check_id(call, "execution_id", query.execution_id);
        (void)check_page_size(call, request->page_size, &query.limit);
        check_types(call, request, &query.types);
        if (!page_token_check(call->request, &cursor))
                api_call_blame(call, REASON_INVALID_PAGE_TOKEN, "page_token",
                               "is not from an answer to the same filter; start without one");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        query.after_sequence = cursor.create_time_usec;
        api_call_hold(call);
        store_list_egress_events(call->api->store, &query, on_done, call);
}
