/*
 * Events are packed one by one behind each other as field 1 of the response, which is all that a
 * repeated field is: so each output byte is copied once from the ring to the message, and both RPCs
 * share the bytes.
 */
#include "server/api/event_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/convert.h"
#include "server/rpc/rpc.h"

enum {
        /* A message is sent when it has this many bytes; with the largest single event it stays
           below 1 MiB. */
        MESSAGE_FULL_BYTES = 64 << 10,
        VARINT_MAX = 10,
};

struct event_stream {
        struct api_call *call;
        struct execution_reader *reader;
        /* The message under construction; kept between messages. */
        uint8_t *message;
        size_t n_message;
        size_t n_allocated;
};

static bool reserve(struct event_stream *stream, size_t n_bytes)
{
        size_t needed = stream->n_message + n_bytes;
        uint8_t *grown;

        if (needed <= stream->n_allocated)
                return true;
        grown = realloc(stream->message, needed);
        if (!grown)
                return false;
        stream->message = grown;
        stream->n_allocated = needed;
        return true;
}

static size_t write_varint(uint8_t *at, uint64_t value)
{
        size_t n = 0;

        while (value >= 0x80) {
                at[n++] = (uint8_t)(value | 0x80);
                value >>= 7;
        }
        at[n++] = (uint8_t)value;
        return n;
}

static bool append(struct event_stream *stream, const Hotcell__V1__ExecutionEvent *event)
{
        size_t n_event = hotcell__v1__execution_event__get_packed_size(event);

        if (!reserve(stream, 1 + VARINT_MAX + n_event))
                return false;
        assert(stream->message);
        stream->message[stream->n_message++] = 1 << 3 | 2; /* field 1, length-delimited */
        stream->n_message += write_varint(stream->message + stream->n_message, n_event);
        stream->n_message +=
                hotcell__v1__execution_event__pack(event, stream->message + stream->n_message);
        return true;
}

static ProtobufCBinaryData borrow_bytes(const struct bytes *bytes)
{
        return (ProtobufCBinaryData){ .data = (uint8_t *)(uintptr_t)bytes->data, .len = bytes->n };
}

static Hotcell__V1__MimeBundle *convert_bundle(struct arena *arena,
                                               const struct execution_event *event)
{
        Hotcell__V1__MimeBundle *bundle = arena_new(arena, Hotcell__V1__MimeBundle);

        if (!bundle)
                return NULL;
        hotcell__v1__mime_bundle__init(bundle);
        bundle->parts = arena_new_array(arena, Hotcell__V1__MimePart *, event->bundle.n_parts);
        for (size_t i = 0; bundle->parts && i < event->bundle.n_parts; i++) {
                const struct event_part *part = &event->bundle.parts[i];
                Hotcell__V1__MimePart *message = arena_new(arena, Hotcell__V1__MimePart);

                if (!message)
                        return NULL;
                hotcell__v1__mime_part__init(message);
                message->type = unconst(part->type);
                message->data = borrow_bytes(&part->data);
                message->size_bytes = (int64_t)part->size_bytes;
                bundle->parts[bundle->n_parts++] = message;
        }
        return bundle;
}

/* One body for each kind of event, as protobuf-c's oneof wants a pointer to something. */
union event_body {
        Hotcell__V1__Queued queued;
        Hotcell__V1__Started started;
        Hotcell__V1__OutputChunk chunk;
        Hotcell__V1__Result result;
        Hotcell__V1__Display display;
        Hotcell__V1__ClearOutput clear_output;
        Hotcell__V1__ExecutionError error;
        Hotcell__V1__PartData part_data;
        Hotcell__V1__Gap gap;
};

static void fill_queued(const struct execution_event *event, struct arena *arena,
                        union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__queued__init(&body->queued);
        body->queued.execution_id = unconst(event->queued.execution_id);
        body->queued.sandbox_id = unconst(event->queued.sandbox_id);
        body->queued.context_id = unconst(event->queued.context_id);
        body->queued.position = event->queued.position;
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_QUEUED;
        message->queued = &body->queued;
}

static void fill_started(const struct execution_event *event, struct arena *arena,
                         union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__started__init(&body->started);
        body->started.context_generation = event->started.context_generation;
        body->started.execution_count = event->started.execution_count;
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_STARTED;
        message->started = &body->started;
}

static void fill_chunk(const struct execution_event *event, struct arena *arena,
                       union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__output_chunk__init(&body->chunk);
        body->chunk.data = borrow_bytes(&event->chunk.data);
        body->chunk.offset = event->chunk.offset;
        message->event_case = event->kind == EXECUTION_EVENT_STDOUT
                                      ? HOTCELL__V1__EXECUTION_EVENT__EVENT_STDOUT
                                      : HOTCELL__V1__EXECUTION_EVENT__EVENT_STDERR;
        message->stdout = &body->chunk; /* both are the same pointer of the oneof */
}

static void fill_result(const struct execution_event *event, struct arena *arena,
                        union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        hotcell__v1__result__init(&body->result);
        body->result.bundle = convert_bundle(arena, event);
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_RESULT;
        message->result = &body->result;
}

static void fill_display(const struct execution_event *event, struct arena *arena,
                         union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        hotcell__v1__display__init(&body->display);
        body->display.bundle = convert_bundle(arena, event);
        body->display.display_id = unconst(event->bundle.display_id);
        body->display.update = event->bundle.update;
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_DISPLAY;
        message->display = &body->display;
}

static void fill_clear_output(const struct execution_event *event, struct arena *arena,
                              union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__clear_output__init(&body->clear_output);
        body->clear_output.wait = event->clear_output.wait;
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_CLEAR_OUTPUT;
        message->clear_output = &body->clear_output;
}

static void fill_error(const struct execution_event *event, struct arena *arena,
                       union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__execution_error__init(&body->error);
        body->error.name = unconst(event->error.name);
        body->error.value = unconst(event->error.value);
        body->error.traceback = event->error.traceback;
        body->error.n_traceback = event->error.n_traceback;
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_ERROR;
        message->error = &body->error;
}

static void fill_part_data(const struct execution_event *event, struct arena *arena,
                           union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__part_data__init(&body->part_data);
        body->part_data.bundle_sequence = event->part_data.bundle_sequence;
        body->part_data.part_index = event->part_data.part_index;
        body->part_data.offset = event->part_data.offset;
        body->part_data.data = borrow_bytes(&event->part_data.data);
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_PART_DATA;
        message->part_data = &body->part_data;
}

static void fill_gap(const struct execution_event *event, struct arena *arena,
                     union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)arena;
        hotcell__v1__gap__init(&body->gap);
        body->gap.events = event->gap.events;
        body->gap.stdout_bytes = event->gap.stdout_bytes;
        body->gap.stderr_bytes = event->gap.stderr_bytes;
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_GAP;
        message->gap = &body->gap;
}

static void fill_ended(const struct execution_event *event, struct arena *arena,
                       union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)body;
        message->ended = convert_ended(arena, event->ended);
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED;
}

static void fill_egress(const struct execution_event *event, struct arena *arena,
                        union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)body;
        message->egress = convert_egress_event(arena, event->egress.record, event->egress.left_out);
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_EGRESS;
}

static void fill_pressure(const struct execution_event *event, struct arena *arena,
                          union event_body *body, Hotcell__V1__ExecutionEvent *message)
{
        (void)body;
        message->pressure = convert_pressure(arena, &event->pressure);
        message->event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_PRESSURE;
}

static void (*const fillers[])(const struct execution_event *event, struct arena *arena,
                               union event_body *body, Hotcell__V1__ExecutionEvent *message) = {
        [EXECUTION_EVENT_QUEUED] = fill_queued,
        [EXECUTION_EVENT_STARTED] = fill_started,
        [EXECUTION_EVENT_STDOUT] = fill_chunk,
        [EXECUTION_EVENT_STDERR] = fill_chunk,
        [EXECUTION_EVENT_RESULT] = fill_result,
        [EXECUTION_EVENT_DISPLAY] = fill_display,
        [EXECUTION_EVENT_CLEAR_OUTPUT] = fill_clear_output,
        [EXECUTION_EVENT_ERROR] = fill_error,
        [EXECUTION_EVENT_PART_DATA] = fill_part_data,
        [EXECUTION_EVENT_GAP] = fill_gap,
        [EXECUTION_EVENT_ENDED] = fill_ended,
        [EXECUTION_EVENT_EGRESS] = fill_egress,
        [EXECUTION_EVENT_PRESSURE] = fill_pressure,
};
static_assert(ARRAY_SIZE(fillers) == _EXECUTION_EVENT_KIND_N, "every kind has its message");

/* Packs at once: the event's bytes are only good until the reader moves on. */
static bool append_event(struct event_stream *stream, const struct execution_event *event)
{
        struct arena arena = { 0 };
        Hotcell__V1__ExecutionEvent message = HOTCELL__V1__EXECUTION_EVENT__INIT;
        union event_body body;
        bool good;

        message.sequence = event->sequence;
        message.event_time = convert_time(&arena, event->event_time_usec);
        fillers[event->kind](event, &arena, &body, &message);
        good = !arena.failed && append(stream, &message);
        arena_deinit(&arena);
        return good;
}

/* Fills one message; what ended the filling: 0 when it is full, READER_E_, or -ENOMEM. */
static int fill_message(struct event_stream *stream)
{
        while (stream->n_message < MESSAGE_FULL_BYTES) {
                struct execution_event event;
                int r = execution_reader_next(stream->reader, &event);

                if (r != 0)
                        return r;
                if (!append_event(stream, &event))
                        return -ENOMEM;
        }
        return 0;
}

static void close_reader(struct event_stream *stream)
{
        stream->reader = execution_reader_free(stream->reader);
}

/* Sends what there is, as long as the client takes it. Ends the call with the stream. */
static void pump(struct event_stream *stream)
{
        struct api_call *call = stream->call;
        int r;

        if (!api_call_is_open(call) || !stream->reader || !rpc_call_is_writable(call->rpc))
                return;
        r = fill_message(stream);
        if (stream->n_message > 0) {
                rpc_call_write(call->rpc, stream->message, stream->n_message);
                stream->n_message = 0;
        }
        if (r == 0 || r == READER_E_WAIT)
                return;
        close_reader(stream);
        if (r == READER_E_END)
                api_call_finish(call);
        else if (r == READER_E_CLOSED)
                api_call_fail(call, REASON_SHUTTING_DOWN,
                              "the server stops; attach to the execution again later");
        else
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
}

static void on_readable(void *userdata)
{
        pump(userdata);
}

static void on_writable(struct api_call *call)
{
        pump(call->stream);
}

static void on_over(struct api_call *call)
{
        struct event_stream *stream = call->stream;

        close_reader(stream);
        free(stream->message);
        free(stream);
        call->stream = NULL;
}

void event_stream_start(struct api_call *call, const char *execution_id, int64_t after_sequence)
{
        struct event_stream *stream;
        struct session_result result;
        int r;

        if (!api_call_is_open(call))
                return;
        stream = calloc(1, sizeof(*stream));
        if (!stream) {
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
                return;
        }
        stream->call = call;
        r = execution_reader_new(call->api->session, call->identity.owner, execution_id,
                                 after_sequence, on_readable, stream, &stream->reader, &result);
        if (r != 0) {
                (void)api_call_fail_result(call, &result, execution_id);
                free(stream);
                return;
        }
        call->stream = stream;
        call->on_writable = on_writable;
        call->on_over = on_over;
        pump(stream);
}

void event_stream_tell_end(struct api_call *call, const struct execution_record *record)
{
        struct event_stream stream = { .call = call };
        int64_t last = MAX(record->last_sequence, INT64_C(2));
        const struct execution_event events[] = {
                { .sequence = 1,
                  .event_time_usec = record->create_time_usec,
                  .kind = EXECUTION_EVENT_QUEUED,
                  .queued = { .execution_id = record->execution_id,
                              .sandbox_id = record->sandbox_id,
                              .context_id = record->context_id } },
                { .sequence = last - 1,
                  .event_time_usec = record->end_time_usec,
                  .kind = EXECUTION_EVENT_GAP,
                  .gap = { .events = last - 2,
                           .stdout_bytes = record->usage.stdout_bytes,
                           .stderr_bytes = record->usage.stderr_bytes } },
                { .sequence = last,
                  .event_time_usec = record->end_time_usec,
                  .kind = EXECUTION_EVENT_ENDED,
                  .ended = record },
        };
        bool good = true;

        if (!api_call_is_open(call))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(events); i++)
                if (events[i].kind != EXECUTION_EVENT_GAP || events[i].gap.events > 0)
                        good = good && append_event(&stream, &events[i]);
        if (good) {
                rpc_call_write(call->rpc, stream.message, stream.n_message);
                api_call_finish(call);
        } else
                api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
        free(stream.message);
}
