#include <stdio.h>

#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/page_token.h"

static void set_tokens(struct api_call *call, const struct sandbox_list *list,
                       Hotcell__V1__ListSandboxesResponse *response)
{
        const struct sandbox_record *last = list->n ? &list->records[list->n - 1] : NULL;
        char token[PAGE_TOKEN_BUFFER];
        struct store_cursor cursor;

        watch_token_write(list->watch_sequence, token);
        response->watch_token = arena_text(&call->arena, token);
        if (!list->more || !last)
                return;
        cursor.create_time_usec = last->create_time_usec;
        (void)snprintf(cursor.id, sizeof(cursor.id), "%s", last->sandbox_id);
        response->next_page_token = page_token_new(&call->arena, call->request, &cursor);
}

/* The row of one that lives is older than what is known of it. */
static Hotcell__V1__Sandbox *convert_listed(struct api_call *call,
                                            const struct sandbox_record *record)
{
        Hotcell__V1__Sandbox *message = convert_sandbox(&call->arena, record);
        struct egress_refusals refusals;

        if (message && message->egress_status &&
            session_find_refusals(call->api->session, record->sandbox_id, &refusals))
                message->egress_status->refusals = convert_refusals(&call->arena, &refusals);
        return message;
}

static void on_done(void *userdata, int result, const struct sandbox_list *list)
{
        struct api_call *call = userdata;
        Hotcell__V1__ListSandboxesResponse response = HOTCELL__V1__LIST_SANDBOXES_RESPONSE__INIT;

        if (result != 0) {
                api_call_fail_store(call, result);
        } else {
                response.sandboxes = arena_new_array(&call->arena, Hotcell__V1__Sandbox *, list->n);
                for (size_t i = 0; response.sandboxes && i < list->n; i++)
                        response.sandboxes[response.n_sandboxes++] =
                                convert_listed(call, &list->records[i]);
                set_tokens(call, list, &response);
                api_call_reply(call, &response.base);
        }
        api_call_release(call);
}

void api_list_sandboxes(struct api_call *call, const void *message)
{
        const Hotcell__V1__ListSandboxesRequest *request = message;
        struct sandbox_query query = {
                .owner = call->identity.owner,
                .name = *request->name ? request->name : NULL,
        };
        struct pairs labels = { 0 };

        (void)check_page_size(call, request->page_size, &query.limit);
        (void)check_states(call, request->n_states, (const int *)request->states, SANDBOX_ENDED,
                           &query.states);
        (void)check_labels(call, "labels", request->n_labels, (ProtobufCMessage **)request->labels,
                           &labels);
        if (!page_token_check(call->request, &query.cursor))
                api_call_blame(call, REASON_INVALID_PAGE_TOKEN, "page_token",
                               "is not from an answer to the same filter; start without one");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        query.labels = &labels;
        api_call_hold(call);
        store_list_sandboxes(call->api->store, &query, on_done, call);
}
