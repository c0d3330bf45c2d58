/*
 * A watch reads events from the store after the last one that it sent, and sleeps when there are
 * none until the session says that one was committed. So a resumed watch and a live one are the
 * same.
 */
#include <stdlib.h>

#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/page_token.h"
#include "server/rpc/rpc.h"

enum { EVENTS_A_MESSAGE = 64 };

struct sandbox_watch {
        LIST_ENTRY(sandbox_watch) watches;
        struct api_call *call;
        struct session_watch *wakes;
        int64_t after_sequence; /* negative: from now on */
        bool is_reading;        /* a job of the store is under way */
        bool is_stale;          /* an event was committed since that job was queued */
};

static void read_more(struct sandbox_watch *watch);

static const char *sandbox_filter(const struct api_call *call)
{
        const Hotcell__V1__WatchSandboxesRequest *request = (const void *)call->request;

        return *request->sandbox_id ? request->sandbox_id : NULL;
}

static Hotcell__V1__SandboxEvent *convert_event(struct arena *arena,
                                                const struct sandbox_event_record *record)
{
        Hotcell__V1__SandboxEvent *event = arena_new(arena, Hotcell__V1__SandboxEvent);
        char token[PAGE_TOKEN_BUFFER];

        if (!event)
                return NULL;
        hotcell__v1__sandbox_event__init(event);
        watch_token_write(record->sequence, token);
        event->watch_token = arena_text(arena, token);
        event->event_time = convert_time(arena, record->event_time_usec);
        event->type = (Hotcell__V1__SandboxEventType)record->event;
        event->sandbox = convert_sandbox(arena, &record->sandbox);
        return event;
}

static void send_events(struct api_call *call, const struct sandbox_event_list *list)
{
        Hotcell__V1__WatchSandboxesResponse response = HOTCELL__V1__WATCH_SANDBOXES_RESPONSE__INIT;
        struct arena arena = { 0 };
        uint8_t *bytes = NULL;

        response.events = arena_new_array(&arena, Hotcell__V1__SandboxEvent *, list->n);
        for (size_t i = 0; response.events && i < list->n; i++)
                response.events[response.n_events++] = convert_event(&arena, &list->records[i]);
        if (!arena.failed)
                bytes = arena_alloc(
                        &arena, hotcell__v1__watch_sandboxes_response__get_packed_size(&response));
        if (bytes)
                rpc_call_write(call->rpc, bytes,
                               hotcell__v1__watch_sandboxes_response__pack(&response, bytes));
        else
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
        arena_deinit(&arena);
}

static void on_events(void *userdata, int result, const struct sandbox_event_list *list)
{
        struct api_call *call = userdata;
        struct sandbox_watch *watch = call->stream;

        if (watch && api_call_is_open(call)) {
                watch->is_reading = false;
                if (result != 0) {
                        api_call_fail_store(call, result);
                } else {
                        watch->after_sequence = list->last_sequence;
                        watch->is_stale |= list->more;
                        if (list->n > 0)
                                send_events(call, list);
                        read_more(watch);
                }
        }
        api_call_release(call);
}

/* Reads when there may be something to read and the client takes it. */
static void read_more(struct sandbox_watch *watch)
{
        struct api_call *call = watch->call;
        struct sandbox_event_query query = {
                .owner = call->identity.owner,
                .sandbox_id = sandbox_filter(call),
                .after_sequence = watch->after_sequence,
                .limit = EVENTS_A_MESSAGE,
        };

        if (watch->is_reading || !watch->is_stale || !api_call_is_open(call) ||
            !rpc_call_is_writable(call->rpc))
                return;
        watch->is_reading = true;
        watch->is_stale = false;
        api_call_hold(call);
        store_list_sandbox_events(call->api->store, &query, on_events, call);
}

static void on_committed(void *userdata)
{
        struct sandbox_watch *watch = userdata;

        watch->is_stale = true;
        read_more(watch);
}

static void on_writable(struct api_call *call)
{
        read_more(call->stream);
}

static void on_over(struct api_call *call)
{
        struct sandbox_watch *watch = call->stream;

        LIST_REMOVE(watch, watches);
        (void)session_watch_free(watch->wakes);
        free(watch);
        call->stream = NULL;
}

static void start(struct api_call *call, int64_t after_sequence)
{
        struct sandbox_watch *watch;

        watch = calloc(1, sizeof(*watch));
        if (!watch || session_watch_new(call->api->session, call->identity.owner, on_committed,
                                        watch, &watch->wakes) != 0) {
                free(watch);
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
                return;
        }
        watch->call = call;
        watch->after_sequence = after_sequence;
        watch->is_stale = true;
        LIST_INSERT_HEAD(&call->api->watches, watch, watches);
        call->stream = watch;
        call->on_writable = on_writable;
        call->on_over = on_over;
        read_more(watch);
}

static bool read_token(const struct api_call *call, int64_t *ret_after_sequence)
{
        const Hotcell__V1__WatchSandboxesRequest *request = (const void *)call->request;

        *ret_after_sequence = -1;
        return !*request->watch_token || watch_token_read(request->watch_token, ret_after_sequence);
}

/* The one sandbox exists, or it does not: a watch of nothing would say nothing for ever. */
static void on_found(void *userdata, const struct session_result *result,
                     const struct sandbox_record *record, bool created)
{
        struct api_call *call = userdata;
        int64_t after_sequence;

        (void)record;
        (void)created;
        if (call->api->is_shutting_down)
                api_call_fail(call, REASON_SHUTTING_DOWN, "the server stops");
        else if (!api_call_fail_result(call, result, sandbox_filter(call)) &&
                 read_token(call, &after_sequence) && api_call_is_open(call))
                start(call, after_sequence);
        api_call_release(call);
}

void api_watch_sandboxes(struct api_call *call, const void *message)
{
        const Hotcell__V1__WatchSandboxesRequest *request = message;
        int64_t after_sequence;

        if (!read_token(call, &after_sequence)) {
                api_call_blame(call, REASON_INVALID_WATCH_TOKEN, "watch_token",
                               "is not from a list or a watch");
                api_call_fail_blamed(call);
                return;
        }
        if (!api_call_take_stream(call))
                return;
        if (!*request->sandbox_id) {
                start(call, after_sequence);
                return;
        }
        api_call_hold(call);
        session_get_sandbox(call->api->session, call->identity.owner, request->sandbox_id, on_found,
                            call);
}

void api_end_watches(struct api *api)
{
        struct sandbox_watch *watch, *next;

        for (watch = LIST_FIRST(&api->watches); watch; watch = next) {
                next = LIST_NEXT(watch, watches);
                api_call_fail(watch->call, REASON_SHUTTING_DOWN,
                              "the server stops; resume the watch later");
        }
}
