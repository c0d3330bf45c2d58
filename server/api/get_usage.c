/*
 * A page of the ledger. The first one also has what all that was asked for adds up to. It is read
 * and summed up in steps, and waits for its turn before each of them (usage_turns.h).
 */
#include <stdio.h>
#include <string.h>

#include "hotcell/v1/usage_service.pb-c.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/page_token.h"

/* In the call's arena. */
struct get_usage {
        struct api_call *call;
        struct usage_turn turn;
        void (*step)(struct get_usage *get); /* when its turn comes */
        struct usage_query query;
        struct pairs labels;
        struct usage sums;
        struct usage_gaps gaps;
        char after_sandbox[ID_BUFFER];
        Hotcell__V1__GetUsageResponse response;
};

static bool is_first_page(const struct get_usage *get)
{
        const Hotcell__V1__GetUsageRequest *request = (const void *)get->call->request;

        return !*request->page_token;
}

static void finish(struct get_usage *get, uint64_t cost_usec)
{
        struct api_call *call = get->call;

        usage_turn_end(&get->turn, cost_usec);
        api_call_reply(call, &get->response.base);
        api_call_release(call);
}

static void fail(struct get_usage *get, int result)
{
        struct api_call *call = get->call;

        usage_turn_end(&get->turn, 0);
        api_call_fail_store(call, result);
        api_call_release(call);
}

/* Where its place was taken, as when the server is freed, there are no more steps. */
static void go_on(struct get_usage *get, void (*step)(struct get_usage *get), uint64_t cost_usec)
{
        get->step = step;
        if (get->turn.turns)
                usage_turn_again(&get->turn, cost_usec);
        else
                finish(get, cost_usec);
}

/* Copies: rows are good only now. */
static Hotcell__V1__UsageRecord *convert_record(struct arena *arena,
                                                const struct usage_record *record)
{
        Hotcell__V1__UsageRecord *message = arena_new(arena, Hotcell__V1__UsageRecord);

        if (!message)
                return NULL;
        hotcell__v1__usage_record__init(message);
        message->sandbox_id = arena_text(arena, record->sandbox_id);
        message->sequence = record->sequence;
        message->type = (Hotcell__V1__UsageRecordType)record->type;
        message->execution_id = arena_text(arena, record->execution_id);
        message->context_id = arena_text(arena, record->context_id);
        message->owner = arena_text(arena, record->owner);
        message->start_time = convert_time(arena, record->start_time_usec);
        message->end_time = convert_time(arena, record->end_time_usec);
        message->usage = convert_usage(arena, &record->usage);
        message->outcome = (Hotcell__V1__Outcome)record->outcome;
        message->cause = (Hotcell__V1__Cause)record->cause;
        message->incomplete = record->is_incomplete;
        return message;
}

static Hotcell__V1__UsageDestination *
convert_destination(struct arena *arena, const struct usage_destination *destination)
{
        Hotcell__V1__UsageDestination *message = arena_new(arena, Hotcell__V1__UsageDestination);

        if (!message)
                return NULL;
        hotcell__v1__usage_destination__init(message);
        message->name = arena_text(arena, destination->name);
        message->address = arena_text(arena, destination->address);
        message->port = destination->port;
        message->connections = destination->connections;
        message->sent_bytes = destination->sent_bytes;
        message->received_bytes = destination->received_bytes;
        return message;
}

static void on_destinations(void *userdata, int result, const struct usage_destinations *found)
{
        struct get_usage *get = userdata;
        Hotcell__V1__GetUsageResponse *response = &get->response;
        struct arena *arena = &get->call->arena;

        if (result) {
                fail(get, result);
                return;
        }
        response->destinations = arena_new_array(arena, Hotcell__V1__UsageDestination *, found->n);
        for (size_t i = 0; response->destinations && i < found->n; i++)
                response->destinations[response->n_destinations++] =
                        convert_destination(arena, &found->items[i]);
        finish(get, found->cost_usec);
}

static void list_destinations(struct get_usage *get)
{
        store_list_usage_destinations(get->call->api->store, get->query.owner,
                                      get->query.sandbox_id, get->query.execution_id,
                                      on_destinations, get);
}

static void set_sums(struct get_usage *get)
{
        Hotcell__V1__GetUsageResponse *response = &get->response;
        struct arena *arena = &get->call->arena;

        get->sums.missing &= ~BIT(USAGE_PART_REST); /* records_incomplete tells of that */
        response->sums = convert_usage(arena, &get->sums);
        response->gaps = convert_gaps(arena, &get->gaps, response->sums, &response->n_gaps);
        response->records_incomplete = get->gaps.n_incomplete;
}

static void sum_up(struct get_usage *get);

static void on_sums(void *userdata, int result, const struct usage_sums *sums)
{
        struct get_usage *get = userdata;
        const Hotcell__V1__GetUsageRequest *request = (const void *)get->call->request;

        if (result) {
                fail(get, result);
                return;
        }
        usage_add(&get->sums, &sums->usage);
        usage_gaps_add(&get->gaps, &sums->gaps);
        get->response.records_total += sums->n;
        get->query.after_id = sums->last_id;
        memcpy(get->after_sandbox, sums->last_sandbox, sizeof(get->after_sandbox));
        get->query.after_sandbox = get->after_sandbox;
        if (sums->more) {
                go_on(get, sum_up, sums->cost_usec);
                return;
        }
        set_sums(get);
        if (request->destinations)
                go_on(get, list_destinations, sums->cost_usec);
        else
                finish(get, sums->cost_usec);
}

static void sum_up(struct get_usage *get)
{
        store_sum_usage(get->call->api->store, &get->query, on_sums, get);
}

/* When the last row came alone says where to go on: its number would tell how much others do. */
static void set_token(struct get_usage *get, const struct usage_list *list)
{
        struct store_cursor cursor = { .create_time_usec = list->last_time_usec, .id = "ledger" };

        if (list->more)
                get->response.next_page_token =
                        page_token_new(&get->call->arena, get->call->request, &cursor);
}

static void on_list(void *userdata, int result, const struct usage_list *list)
{
        struct get_usage *get = userdata;
        Hotcell__V1__GetUsageResponse *response = &get->response;
        struct arena *arena = &get->call->arena;

        if (result) {
                fail(get, result);
                return;
        }
        response->records = arena_new_array(arena, Hotcell__V1__UsageRecord *, list->n);
        for (size_t i = 0; response->records && i < list->n; i++)
                response->records[response->n_records++] = convert_record(arena, &list->records[i]);
        set_token(get, list);
        if (is_first_page(get))
                go_on(get, sum_up, list->cost_usec);
        else
                finish(get, list->cost_usec);
}

static void list_page(struct get_usage *get)
{
        store_list_usage(get->call->api->store, &get->query, on_list, get);
}

/* True: it was answered. */
static bool fail_unknown(struct get_usage *get, const struct usage_scope *scope)
{
        struct session_result missing = { 0 };
        const char *id = get->query.sandbox_id, *what = "sandbox";

        /* Of users of the host nothing is known before they come. */
        if (!scope->is_owner_known && strncmp(get->query.owner, "key-", strlen("key-")) == 0) {
                api_call_fail(get->call, REASON_KEY_NOT_FOUND, "there is and was no key %s",
                              get->query.owner);
                return true;
        }
        if (!scope->is_sandbox_known) {
                missing.outcome = SESSION_E_SANDBOX_NOT_FOUND;
        } else if (!scope->is_execution_known) {
                missing.outcome = SESSION_E_EXECUTION_NOT_FOUND;
                id = get->query.execution_id;
                what = "execution";
        }
        (void)snprintf(missing.message, sizeof(missing.message), "There is no %s %s.", what, id);
        return api_call_fail_result(get->call, &missing, id);
}

static void on_scope(void *userdata, int result, const struct usage_scope *scope)
{
        struct get_usage *get = userdata;

        if (result) {
                fail(get, result);
                return;
        }
        if (fail_unknown(get, scope)) {
                finish(get, scope->cost_usec);
                return;
        }
        if (scope->complete_until_usec)
                get->response.complete_until =
                        convert_time(&get->call->arena, scope->complete_until_usec);
        go_on(get, list_page, scope->cost_usec);
}

static void find_scope(struct get_usage *get)
{
        store_find_usage_scope(get->call->api->store, &get->query, on_scope, get);
}

static void on_turn(struct usage_turn *turn)
{
        struct get_usage *get = CONTAINER_OF(turn, struct get_usage, turn);
        struct api_call *call = get->call;

        if (api_call_is_open(call) && call->api->is_shutting_down)
                api_call_fail(call, REASON_SHUTTING_DOWN, "the server is being stopped");
        if (api_call_is_open(call))
                get->step(get);
        else
                finish(get, 0);
}

static void ask_for_turn(struct get_usage *get)
{
        struct api_call *call = get->call;
        int r;

        get->turn.owner = call->identity.owner;
        get->turn.on_turn = on_turn;
        get->step = is_first_page(get) ? find_scope : list_page;
        r = usage_turns_ask(&call->api->usage_turns, &get->turn);
        if (r == 0)
                return;
        api_call_fail_exhausted(call, REASON_CALL_LIMIT,
                                r == USAGE_TURNS_E_FULL ? "server" : call->identity.owner);
        api_call_release(call);
}

static bool is_owner(const char *text)
{
        uint64_t uid;

        if (strncmp(text, "uid:", strlen("uid:")) == 0)
                return text_to_uint64(text + strlen("uid:"), UINT32_MAX, &uid);
        return strncmp(text, "key-", strlen("key-")) == 0 && dns_label_is_valid(text);
}

static void check_ids(struct api_call *call, const Hotcell__V1__GetUsageRequest *request)
{
        if (*request->owner && !is_owner(request->owner))
                api_call_blame(call, REASON_INVALID_FIELD, "owner",
                               "is none: it takes a key's id, `key-…`, or a user's, `uid:1000`");
        if (request->destinations && !*request->sandbox_id && !*request->execution_id)
                api_call_blame(call, REASON_INVALID_FIELD, "destinations",
                               "needs sandbox_id or execution_id");
}

static void check_times(struct api_call *call, const Hotcell__V1__GetUsageRequest *request,
                        struct usage_query *query)
{
        bool good = true;

        if (request->start_time)
                good = check_time(call, "start_time", request->start_time, &query->start_time_usec);
        if (request->end_time)
                good = check_time(call, "end_time", request->end_time, &query->end_time_usec) &&
                       good;
        if (good && request->end_time && query->end_time_usec <= query->start_time_usec)
                api_call_blame(call, REASON_INVALID_FIELD, "end_time", "is not after start_time");
}

static void check(struct get_usage *get, const Hotcell__V1__GetUsageRequest *request)
{
        struct api_call *call = get->call;
        struct store_cursor cursor;

        check_ids(call, request);
        check_times(call, request, &get->query);
        (void)check_labels(call, "labels", request->n_labels, (ProtobufCMessage **)request->labels,
                           &get->labels);
        (void)check_page_size(call, request->page_size, &get->query.limit);
        if (!page_token_check(call->request, &cursor))
                api_call_blame(call, REASON_INVALID_PAGE_TOKEN, "page_token",
                               "is not from an answer to the same filter; start without one");
        get->query.after_time_usec = cursor.create_time_usec;
}

/* Whose records: one's own, or for operators anybody's. False: the call was answered. */
static bool choose_owner(struct get_usage *get, const char *owner)
{
        const struct identity *identity = &get->call->identity;

        if (identity->is_operator) {
                get->query.owner = *owner ? owner : NULL;
                return true;
        }
        get->query.owner = identity->owner;
        if (!*owner || strcmp(owner, identity->owner) == 0)
                return true;
        api_call_fail(get->call, REASON_OPERATOR_ONLY,
                      "what others used is for operators: use the unix socket, without a key");
        return false;
}

void api_get_usage(struct api_call *call, const void *message)
{
        const Hotcell__V1__GetUsageRequest *request = message;
        struct get_usage *get = arena_new(&call->arena, struct get_usage);

        if (!get) {
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
                return;
        }
        get->call = call;
        hotcell__v1__get_usage_response__init(&get->response);
        check(get, request);
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        if (!choose_owner(get, request->owner))
                return;
        get->query.sandbox_id = *request->sandbox_id ? request->sandbox_id : NULL;
        get->query.execution_id = *request->execution_id ? request->execution_id : NULL;
        get->query.labels = &get->labels;
        api_call_hold(call);
        ask_for_turn(get);
}
