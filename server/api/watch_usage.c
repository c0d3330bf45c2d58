/*
 * A stream of measurements. Each is packed at once, into messages well below what clients take, and
 * the next one is asked for when the last of these went out: a reader that is slow gets fewer
 * measurements, and none waits.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "hotcell/v1/usage_service.pb-c.h"
#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/rpc/rpc.h"
#include "server/session/usage_watch.h"

#define USEC_PER_SEC INT64_C(1000000)

enum {
        PERIOD_MIN_USEC = 100 * 1000,
        SANDBOXES_A_MESSAGE = 256,
        MESSAGE_BYTES = 512 << 10, /* the next one begins with the sandbox after these */
};

/* A packed message that is not sent yet. */
struct part {
        STAILQ_ENTRY(part) link;
        size_t n;
        uint8_t bytes[];
};

struct usage_stream {
        LIST_ENTRY(usage_stream) usage_streams;
        struct api_call *call;
        struct usage_watch *watch;
        struct session_watch *ends; /* of its one sandbox; NULL: it watches all */
        STAILQ_HEAD(, part) parts;
        bool is_sending; /* a measurement; the next one was not asked for */
};

/* A measurement that is being packed. */
struct packing {
        struct usage_stream *stream;
        struct arena arena;
        Hotcell__V1__WatchUsageResponse message;
        Hotcell__V1__SandboxUsageNow *sandboxes[SANDBOXES_A_MESSAGE];
        size_t n_bytes;
        bool failed;
};

static const char *sandbox_filter(const struct api_call *call)
{
        const Hotcell__V1__WatchUsageRequest *request = (const void *)call->request;

        return *request->sandbox_id ? request->sandbox_id : NULL;
}

static void packing_begin(struct packing *packing, int64_t time_usec)
{
        hotcell__v1__watch_usage_response__init(&packing->message);
        packing->message.sandboxes = packing->sandboxes;
        packing->message.time = convert_time(&packing->arena, time_usec);
        packing->n_bytes = 0;
}

/* Into a part of its own; what it was made of is given back. */
static void packing_end(struct packing *packing, bool more)
{
        struct part *part = NULL;
        size_t n;

        packing->message.more = more;
        if (!packing->arena.failed) {
                n = hotcell__v1__watch_usage_response__get_packed_size(&packing->message);
                part = malloc(sizeof(*part) + n);
        }
        if (part) {
                part->n = hotcell__v1__watch_usage_response__pack(&packing->message, part->bytes);
                STAILQ_INSERT_TAIL(&packing->stream->parts, part, link);
        }
        packing->failed |= !part;
        arena_deinit(&packing->arena);
        packing->arena = (struct arena){ 0 };
}

static void convert_executions(struct arena *arena, const struct sandbox_now *now,
                               Hotcell__V1__SandboxUsageNow *message)
{
        message->executions =
                arena_new_array(arena, Hotcell__V1__ExecutionUsageNow *, now->n_executions);
        for (size_t i = 0; message->executions && i < now->n_executions; i++) {
                const struct execution_now *execution = &now->executions[i];
                Hotcell__V1__ExecutionUsageNow *item =
                        arena_new(arena, Hotcell__V1__ExecutionUsageNow);

                if (!item)
                        return;
                hotcell__v1__execution_usage_now__init(item);
                item->execution_id = unconst(execution->execution_id);
                item->context_id = unconst(execution->context_id);
                item->usage = convert_usage(arena, &execution->usage);
                item->memory_bytes = execution->memory_bytes;
                message->executions[message->n_executions++] = item;
        }
}

static void convert_pressures(struct arena *arena, const struct sandbox_now *now,
                              Hotcell__V1__SandboxUsageNow *message)
{
        message->pressures = arena_new_array(arena, Hotcell__V1__Pressure *, now->n_pressures);
        for (size_t i = 0; message->pressures && i < now->n_pressures; i++)
                message->pressures[message->n_pressures++] =
                        convert_pressure(arena, &now->pressures[i]);
}

static Hotcell__V1__SandboxUsageNow *convert_now(struct arena *arena, const struct sandbox_now *now)
{
        Hotcell__V1__SandboxUsageNow *message = arena_new(arena, Hotcell__V1__SandboxUsageNow);

        if (!message)
                return NULL;
        hotcell__v1__sandbox_usage_now__init(message);
        message->sandbox_id = unconst(now->record->sandbox_id);
        message->name = unconst(now->record->name);
        message->state = (Hotcell__V1__SandboxState)now->record->state;
        message->limits = convert_sandbox_limits(arena, &now->record->limits);
        if (now->is_measured)
                message->usage = convert_sandbox_usage(arena, &now->usage);
        convert_executions(arena, now, message);
        convert_pressures(arena, now, message);
        return message;
}

static void add_sandbox(void *userdata, const struct sandbox_now *now)
{
        struct packing *packing = userdata;
        Hotcell__V1__SandboxUsageNow *sandbox;

        if (packing->failed)
                return;
        if (packing->message.n_sandboxes == SANDBOXES_A_MESSAGE ||
            packing->n_bytes >= MESSAGE_BYTES) {
                packing_end(packing, true);
                packing_begin(packing, usage_watch_time_usec(packing->stream->watch));
        }
        sandbox = convert_now(&packing->arena, now);
        if (!sandbox || packing->arena.failed) {
                packing->failed = true;
                return;
        }
        packing->n_bytes += hotcell__v1__sandbox_usage_now__get_packed_size(sandbox);
        packing->sandboxes[packing->message.n_sandboxes++] = sandbox;
}

/* Sends what is there; then the next measurement may come. */
static void pump(struct usage_stream *stream)
{
        struct rpc_call *rpc = stream->call->rpc;
        struct part *part;

        while (stream->is_sending && rpc_call_is_writable(rpc)) {
                part = STAILQ_FIRST(&stream->parts);
                if (!part) {
                        stream->is_sending = false;
                        if (usage_watch_go_on(stream->watch) != 0)
                                api_call_fail(stream->call, REASON_HOST_EXHAUSTED,
                                              "the server is out of memory");
                        return;
                }
                STAILQ_REMOVE_HEAD(&stream->parts, link);
                rpc_call_write(rpc, part->bytes, part->n);
                free(part);
        }
}

static void on_measured(void *userdata)
{
        struct usage_stream *stream = userdata;
        struct packing packing = { .stream = stream };
        struct api_call *call = stream->call;
        int r;

        packing_begin(&packing, usage_watch_time_usec(stream->watch));
        r = usage_watch_each(stream->watch, add_sandbox, &packing);
        packing_end(&packing, false);
        stream->is_sending = true;
        if (r == USAGE_WATCH_E_OVER)
                api_call_finish(call);
        else if (r || packing.failed)
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
        else
                pump(stream);
}

/* Something happened to a sandbox of the owner: it may have been the end of this one. */
static void on_event(void *userdata)
{
        struct usage_stream *stream = userdata;

        if (usage_watch_is_over(stream->watch))
                api_call_finish(stream->call);
}

static void on_writable(struct api_call *call)
{
        pump(call->stream);
}

static void stream_free(struct usage_stream *stream)
{
        struct part *part;

        while ((part = STAILQ_FIRST(&stream->parts))) {
                STAILQ_REMOVE_HEAD(&stream->parts, link);
                free(part);
        }
        (void)session_watch_free(stream->ends);
        (void)usage_watch_free(stream->watch);
        free(stream);
}

static void on_over(struct api_call *call)
{
        struct usage_stream *stream = call->stream;

        LIST_REMOVE(stream, usage_streams);
        stream_free(stream);
        call->stream = NULL;
}

/* Checked before; the default where it is unset. */
static bool check_period(struct api_call *call, int64_t *ret_usec)
{
        static const struct duration_rule rule = { .default_usec = USEC_PER_SEC,
                                                   .max_usec = 60 * USEC_PER_SEC };
        const Hotcell__V1__WatchUsageRequest *request = (const void *)call->request;

        if (!check_ruled_duration(call, "period", request->period, &rule, ret_usec))
                return false;
        if (*ret_usec >= PERIOD_MIN_USEC)
                return true;
        api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, "period", "is below the minimum of 100 ms");
        return false;
}

static void start(struct api_call *call)
{
        struct usage_stream *stream = calloc(1, sizeof(*stream));
        const char *owner = call->identity.owner;
        struct session *session = call->api->session;
        int64_t period_usec = USEC_PER_SEC;
        int r = stream ? 0 : -ENOMEM;

        (void)check_period(call, &period_usec);
        if (r == 0) {
                STAILQ_INIT(&stream->parts);
                stream->call = call;
                r = usage_watch_new(session, owner, sandbox_filter(call), (uint64_t)period_usec,
                                    on_measured, stream, &stream->watch);
        }
        if (r == 0 && sandbox_filter(call))
                r = session_watch_new(session, owner, on_event, stream, &stream->ends);
        if (r) {
                if (stream)
                        stream_free(stream);
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
                return;
        }
        LIST_INSERT_HEAD(&call->api->usage_streams, stream, usage_streams);
        call->stream = stream;
        call->on_writable = on_writable;
        call->on_over = on_over;
}

/* The one sandbox lives, or there is nothing to be told. */
static void on_found(void *userdata, const struct session_result *result,
                     const struct sandbox_record *record, bool created)
{
        struct api_call *call = userdata;
        struct session_result ended = { .outcome = SESSION_E_SANDBOX_ENDED };

        (void)created;
        if (call->api->is_shutting_down) {
                api_call_fail(call, REASON_SHUTTING_DOWN, "the server stops");
        } else if (!api_call_fail_result(call, result, sandbox_filter(call)) &&
                   api_call_is_open(call)) {
                (void)snprintf(ended.message, sizeof(ended.message), "Sandbox %s has ended.",
                               record->sandbox_id);
                if (record->state != SANDBOX_ENDED ||
                    !api_call_fail_result(call, &ended, record->sandbox_id))
                        start(call);
        }
        api_call_release(call);
}

void api_watch_usage(struct api_call *call, const void *message)
{
        int64_t period_usec;

        (void)message;
        if (sandbox_filter(call))
                (void)check_id(call, "sandbox_id", sandbox_filter(call));
        (void)check_period(call, &period_usec);
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        if (!api_call_take_stream(call))
                return;
        if (!sandbox_filter(call)) {
                start(call);
                return;
        }
        api_call_hold(call);
        session_get_sandbox(call->api->session, call->identity.owner, sandbox_filter(call),
                            on_found, call);
}

void api_end_usage_streams(struct api *api)
{
        struct usage_stream *stream, *next;

        for (stream = LIST_FIRST(&api->usage_streams); stream; stream = next) {
                next = LIST_NEXT(stream, usage_streams);
                api_call_fail(stream->call, REASON_SHUTTING_DOWN,
                              "the server stops; watch again later");
        }
}
