/*
 * Readers: each has a place of its own in the ring. What was evicted before a reader came is told
 * by a gap, which carries the sequence of the last event missing: the numbers go on after it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/wire.h"
#include "server/session/context.h"
#include "server/session/execution.h"
#include "server/session/pressure.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

void execution_reader_wake(struct execution_reader *reader)
{
        if (!reader->is_waiting)
                return;
        reader->is_waiting = false;
        session_wake_reader_soon(reader->session, reader);
}

/* The sandbox is not idle while somebody is attached to one of its executions. */
static void hold_sandbox(struct execution_reader *reader)
{
        reader->sandbox =
                session_find_sandbox(reader->session, NULL, reader->execution->record.sandbox_id);
        if (!reader->sandbox)
                return;
        LIST_INSERT_HEAD(&reader->sandbox->readers, reader, sandbox_link);
        sandbox_check(reader->sandbox);
}

/* NOLINTNEXTLINE(readability-function-size): a callback and two answers make eight */
int execution_reader_new(struct session *session, const char *owner, const char *execution_id,
                         int64_t after_sequence, void (*on_readable)(void *userdata),
                         void *userdata, struct execution_reader **ret_reader,
                         struct session_result *ret_result)
{
        struct execution *execution = session_find_execution(session, owner, execution_id);
        struct execution_reader *reader;

        if (session->is_leaving) {
                *ret_result = result_of(SESSION_E_SHUTTING_DOWN, "The server is being renewed.");
                return ret_result->outcome;
        }
        if (!execution || session->is_stopped) {
                *ret_result = result_of(SESSION_E_EXECUTION_NOT_FOUND,
                                        "There is no execution %s whose events are retained.",
                                        execution_id);
                return ret_result->outcome;
        }
        reader = calloc(1, sizeof(*reader));
        if (!reader) {
                *ret_result = result_of(-ENOMEM, "There is no memory for a reader of execution %s.",
                                        execution_id);
                return error_origin(-ENOMEM);
        }
        reader->session = session;
        reader->execution = execution;
        reader->next_sequence = MAX(after_sequence, (int64_t)0) + 1;
        reader->on_readable = on_readable;
        reader->userdata = userdata;
        reader->is_waiting = true;
        LIST_INSERT_HEAD(&execution->readers, reader, link);
        execution->n_readers++;
        execution_on_readers_changed(execution);
        hold_sandbox(reader);

        if (reader->next_sequence < ring_next_sequence(execution->ring) ||
            execution->phase == PHASE_ENDED)
                execution_reader_wake(reader);
        *ret_result = (struct session_result){ 0 };
        *ret_reader = reader;
        return 0;
}

static void drop_message(struct execution_reader *reader)
{
        if (reader->message)
                protobuf_c_message_free_unpacked(reader->message, &wire_sure_allocator);
        reader->message = NULL;
}

static void leave_execution(struct execution_reader *reader)
{
        LIST_REMOVE(reader, link);
        reader->execution->n_readers--;
        reader->execution = NULL;
}

void execution_reader_orphan(struct execution_reader *reader)
{
        leave_execution(reader);
        execution_reader_wake(reader);
}

struct execution_reader *execution_reader_free(struct execution_reader *reader)
{
        struct execution *execution;
        struct sandbox *sandbox;

        if (!reader)
                return NULL;

        execution = reader->execution;
        sandbox = reader->sandbox;
        drop_message(reader);
        if (reader->is_wake_pending)
                LIST_REMOVE(reader, wake_link);
        if (execution) {
                leave_execution(reader);
                execution_on_readers_changed(execution);
        }
        if (sandbox) {
                LIST_REMOVE(reader, sandbox_link);
                sandbox_check(sandbox);
        }
        free(reader);
        return NULL;
}

/* What lies between the reader's place and the oldest event kept. */
static void make_gap(struct execution_reader *reader, struct execution_event *ret_event)
{
        const struct ring *ring = reader->execution->ring;
        int64_t first = ring_first_sequence(ring);
        struct ring_totals before = ring_totals_at(ring, reader->next_sequence - 1);
        struct ring_totals after = ring_totals_now(ring);
        uint64_t position = ring_seek(ring, 0);
        struct ring_record oldest;

        *ret_event = (struct execution_event){ .kind = EXECUTION_EVENT_GAP };
        ret_event->event_time_usec = time_now_usec();
        if (ring_read(ring, &position, &oldest)) {
                after = oldest.before;
                ret_event->event_time_usec = oldest.time_usec;
        }
        ret_event->sequence = first - 1;
        ret_event->gap.events = first - reader->next_sequence;
        ret_event->gap.stdout_bytes = after.stdout_bytes - before.stdout_bytes;
        ret_event->gap.stderr_bytes = after.stderr_bytes - before.stderr_bytes;
        reader->next_sequence = first;
        reader->has_position = false;
}

static void show_bundle(struct execution_reader *reader, struct execution_event *event)
{
        const Hotcell__Sandbox__V1__Bundle *bundle = (void *)reader->message;

        for (size_t i = 0; i < bundle->n_parts && i < ARRAY_SIZE(reader->parts); i++)
                reader->parts[i] = (struct event_part){
                        .type = bundle->parts[i]->type,
                        .data = { bundle->parts[i]->data.data, bundle->parts[i]->data.len },
                        .size_bytes = bundle->parts[i]->size,
                };
        event->bundle.parts = reader->parts;
        event->bundle.n_parts = MIN(bundle->n_parts, ARRAY_SIZE(reader->parts));
        event->bundle.display_id = bundle->display_id;
        event->bundle.update = bundle->update;
}

static void show_message(struct execution_reader *reader, struct execution_event *event)
{
        const Hotcell__Sandbox__V1__Error *error = (void *)reader->message;
        const Hotcell__Sandbox__V1__PartData *part = (void *)reader->message;
        const Hotcell__Sandbox__V1__ClearOutput *clear = (void *)reader->message;

        if (event->kind == EXECUTION_EVENT_ERROR) {
                event->error.name = error->name;
                event->error.value = error->value;
                event->error.traceback = error->traceback;
                event->error.n_traceback = error->n_traceback;
        } else if (event->kind == EXECUTION_EVENT_PART_DATA) {
                event->part_data.part_index = (int32_t)part->part;
                event->part_data.offset = (int64_t)part->offset;
                event->part_data.data = (struct bytes){ part->data.data, part->data.len };
        } else if (event->kind == EXECUTION_EVENT_CLEAR_OUTPUT)
                event->clear_output.wait = clear->wait;
        else
                show_bundle(reader, event);
}

/* Frames are kept as they came: checked, and decoded again here. */
static int decode_frame(struct execution_reader *reader, const struct ring_record *record,
                        struct execution_event *event)
{
        static const uint8_t frame_types[_EXECUTION_EVENT_KIND_N] = {
                [EXECUTION_EVENT_RESULT] = HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_RESULT,
                [EXECUTION_EVENT_DISPLAY] = HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DISPLAY,
                [EXECUTION_EVENT_CLEAR_OUTPUT] =
                        HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_CLEAR_OUTPUT,
                [EXECUTION_EVENT_ERROR] = HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ERROR,
                [EXECUTION_EVENT_PART_DATA] =
                        HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_PART_DATA,
        };
        const uint8_t *payload = record->payload;
        size_t n_payload = record->n_payload;

        if (event->kind == EXECUTION_EVENT_PART_DATA) {
                struct part_data_payload head;

                memcpy(&head, payload, sizeof(head));
                event->part_data.bundle_sequence = head.bundle_sequence;
                payload += sizeof(head);
                n_payload -= sizeof(head);
        }
        reader->message = kernel_message_unpack(frame_types[event->kind], payload, n_payload);
        if (!reader->message)
                return error_origin(-ENOMEM);
        show_message(reader, event);
        return 0;
}

static void show_queued(const struct execution_record *record, const uint8_t *payload,
                        struct execution_event *event)
{
        struct queued_payload queued;

        memcpy(&queued, payload, sizeof(queued));
        event->queued.execution_id = record->execution_id;
        event->queued.sandbox_id = record->sandbox_id;
        event->queued.context_id = record->context_id;
        event->queued.position = (int32_t)queued.position;
}

static void show_started(const uint8_t *payload, struct execution_event *event)
{
        struct started_payload started;

        memcpy(&started, payload, sizeof(started));
        event->started.context_generation = started.generation;
        event->started.execution_count = started.count;
}

static int show_egress(struct execution_reader *reader, const struct ring_record *record,
                       struct execution_event *event)
{
        const struct execution_record *execution = &reader->execution->record;
        struct egress_record *egress = &reader->egress;
        int64_t number;

        if (!egress_payload_read(record->payload, record->n_payload, egress,
                                 &event->egress.left_out, &number))
                return error_origin(-EBADMSG);
        (void)snprintf(egress->sandbox_id, sizeof(egress->sandbox_id), "%s", execution->sandbox_id);
        (void)snprintf(egress->execution_id, sizeof(egress->execution_id), "%s",
                       execution->execution_id);
        event->egress.record = egress;
        return 0;
}

static int show_pressure(const struct ring_record *record, struct execution_event *event)
{
        if (!pressure_payload_read(record->payload, record->n_payload, &event->pressure))
                return error_origin(-EBADMSG);
        event->pressure.time_usec = record->time_usec;
        return 0;
}

static int decode(struct execution_reader *reader, const struct ring_record *record,
                  struct execution_event *event)
{
        event->sequence = record->sequence;
        event->event_time_usec = record->time_usec;
        event->kind = (enum execution_event_kind)record->kind;

        switch (event->kind) {
        case EXECUTION_EVENT_QUEUED:
                show_queued(&reader->execution->record, record->payload, event);
                return 0;
        case EXECUTION_EVENT_STARTED:
                show_started(record->payload, event);
                return 0;
        case EXECUTION_EVENT_STDOUT:
        case EXECUTION_EVENT_STDERR:
                event->chunk.data = (struct bytes){ record->payload, record->n_payload };
                event->chunk.offset = event->kind == EXECUTION_EVENT_STDOUT
                                              ? record->before.stdout_bytes
                                              : record->before.stderr_bytes;
                return 0;
        case EXECUTION_EVENT_RESULT:
        case EXECUTION_EVENT_DISPLAY:
        case EXECUTION_EVENT_CLEAR_OUTPUT:
        case EXECUTION_EVENT_ERROR:
        case EXECUTION_EVENT_PART_DATA:
                return decode_frame(reader, record, event);
        case EXECUTION_EVENT_ENDED:
                event->ended = &reader->execution->record;
                return 0;
        case EXECUTION_EVENT_EGRESS:
                return show_egress(reader, record, event);
        case EXECUTION_EVENT_PRESSURE:
                return show_pressure(record, event);
        case EXECUTION_EVENT_GAP: /* never kept */
        case _EXECUTION_EVENT_KIND_N:
                break;
        }
        return error_origin(-EBADMSG);
}

static int wait_for_more(struct execution_reader *reader)
{
        if (reader->execution->phase == PHASE_ENDED) {
                reader->has_ended = true;
                return READER_E_END;
        }
        reader->is_waiting = true;
        return READER_E_WAIT;
}

/* The next record that the reader has not seen, at *@ret_position the place after it. */
static bool find_next(struct execution_reader *reader, struct ring_record *ret_record,
                      uint64_t *ret_position)
{
        const struct ring *ring = reader->execution->ring;

        *ret_position = reader->has_position ? reader->position
                                             : ring_seek(ring, reader->next_sequence - 1);
        do {
                if (!ring_read(ring, ret_position, ret_record))
                        return false;
        } while (ret_record->sequence < reader->next_sequence);
        return true;
}

int execution_reader_next(struct execution_reader *reader, struct execution_event *ret_event)
{
        struct execution *execution = reader->execution;
        struct execution_event event = { 0 };
        struct ring_record record;
        uint64_t position;
        int r;

        drop_message(reader);
        if (reader->has_ended)
                return READER_E_END;
        if (!execution)
                return READER_E_CLOSED;
        if (reader->next_sequence < ring_first_sequence(execution->ring)) {
                make_gap(reader, ret_event);
                return 0;
        }
        if (!find_next(reader, &record, &position))
                return wait_for_more(reader);
        r = decode(reader, &record, &event);
        if (r)
                return error_fold(r);

        reader->next_sequence = record.sequence + 1;
        reader->position = position;
        reader->has_position = true;
        reader->has_ended = event.kind == EXECUTION_EVENT_ENDED;
        *ret_event = event;
        if (execution_is_blocked(execution))
                session_resume_soon(reader->session, execution);
        return 0;
}

int64_t session_first_sequence(struct session *session, const char *execution_id)
{
        const struct execution *execution = session_find_execution(session, NULL, execution_id);

        return execution ? ring_first_sequence(execution->ring) : 0;
}
