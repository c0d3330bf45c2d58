#include <stdio.h>

#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/page_token.h"

static void set_token(struct api_call *call, const struct execution_list *list,
                      Hotcell__V1__ListExecutionsResponse *response)
{
        const struct execution_record *last = list->n ? &list->records[list->n - 1] : NULL;
        struct store_cursor cursor;

        if (!list->more || !last)
                return;
        cursor.create_time_usec = last->create_time_usec;
        (void)snprintf(cursor.id, sizeof(cursor.id), "%s", last->execution_id);
        response->next_page_token = page_token_new(&call->arena, call->request, &cursor);
}

static void on_done(void *userdata, int result, const struct execution_list *list)
{
        struct api_call *call = userdata;
        Hotcell__V1__ListExecutionsResponse response = HOTCELL__V1__LIST_EXECUTIONS_RESPONSE__INIT;

        if (result != 0) {
                api_call_fail_store(call, result);
        } else {
                response.executions =
                        arena_new_array(&call->arena, Hotcell__V1__Execution *, list->n);
                for (size_t i = 0; response.executions && i < list->n; i++) {
                        const struct execution_record *record = &list->records[i];

                        response.executions[response.n_executions++] = convert_execution(
                                &call->arena, record,
                                session_first_sequence(call->api->session, record->execution_id));
                }
                set_token(call, list, &response);
                api_call_reply(call, &response.base);
        }
        api_call_release(call);
}

void api_list_executions(struct api_call *call, const void *message)
{
        const Hotcell__V1__ListExecutionsRequest *request = message;
        struct execution_query query = {
                .owner = call->identity.owner,
                .sandbox_id = *request->sandbox_id ? request->sandbox_id : NULL,
                .context_id = *request->context_id ? request->context_id : NULL,
        };

        (void)check_page_size(call, request->page_size, &query.limit);
        (void)check_states(call, request->n_states, (const int *)request->states, EXECUTION_ENDED,
                           &query.states);
        if (!page_token_check(call->request, &query.cursor))
                api_call_blame(call, REASON_INVALID_PAGE_TOKEN, "page_token",
                               "is not from an answer to the same filter; start without one");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        store_list_executions(call->api->store, &query, on_done, call);
}
