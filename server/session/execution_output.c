/*
 * What an execution says, on its way into the ring.
 *
 * Full means: the oldest events are still to be read by an attached client, or by one that may come
 * back within the grace. Then nothing is read from the kernel. Without a client the oldest go. Once
 * the execution was asked to end nothing may wait for a client any more: what finds no room is
 * thrown away and counted, from there to its end, so that offsets stay true.
 */
#include "runtime/base/clock.h"
#include "server/session/execution.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/session/context.h"
#include "server/session/session_private.h"

enum {
        RETURN_USEC = 10 * 1000 * 1000, /* for clients to find the successor of a server */
        READ_CHUNK = 64 << 10,          /* bytes: what a pipe holds */
        SPARE = 4 << 10,                /* bytes kept free for `started` and `ended` */
        FRAME_SLACK = 64,               /* bytes that a frame's record has besides its payload */
};

static uint8_t scratch[READ_CHUNK]; /* thrown away; loop thread only */

/*
 * Half of the ring behind each reader stays: what was sent and not received yet is wanted again
 * when the connection breaks. The largest record fits in the other half.
 */
static bool make_room_for(struct execution *execution, size_t n)
{
        const struct execution_reader *reader;
        struct ring *ring = execution->ring;
        uint64_t n_kept = ring_capacity(ring) / 2;
        int64_t floor = INT64_MAX;
        uint64_t kept = UINT64_MAX;

        if (execution->n_readers == 0)
                return ring_make_room(ring, n, execution->is_detached ? INT64_MAX : 0, kept);
        LIST_FOREACH(reader, &execution->readers, link)
        {
                floor = MIN(floor, reader->next_sequence);
                if (reader->has_position)
                        kept = MIN(kept, reader->position - MIN(reader->position, n_kept));
        }
        return ring_make_room(ring, n, floor, kept);
}

bool execution_make_room(struct execution *execution, size_t n_payload)
{
        return make_room_for(execution, n_payload + SPARE);
}

/* What it is made of was handled by a predecessor, which was killed before it could say so. */
static bool is_recorded(const struct execution *execution, uint64_t tag)
{
        return tag > 0 && tag <= ring_tag(execution->ring);
}

void execution_append(struct execution *execution, enum execution_event_kind kind, uint64_t tag,
                      const struct ring_piece *pieces, size_t n_pieces)
{
        struct ring_entry entry = {
                .kind = (uint16_t)kind,
                .time_usec = time_now_usec(),
                .tag = tag,
        };
        size_t n_payload = 0;
        int64_t sequence;

        if (is_recorded(execution, tag))
                return;

        for (size_t i = 0; i < n_pieces; i++)
                n_payload += pieces[i].n;
        if (!ring_has_room(execution->ring, n_payload) && !make_room_for(execution, n_payload))
                return; /* only after is_cut: SPARE is for the few events that do not ask */
        sequence = ring_append(execution->ring, &entry, pieces, n_pieces);
        execution->record.last_sequence = sequence;
        execution_wake_readers(execution);
}

static int64_t n_produced(const struct execution *execution)
{
        const struct usage *usage = &execution->record.usage;

        return usage->stdout_bytes + usage->stderr_bytes + usage->rich_bytes;
}

static int64_t n_allowed(const struct execution *execution)
{
        int64_t limit = execution->record.limits.output_bytes;

        if (limit <= 0)
                return INT64_MAX;
        return MAX(limit - n_produced(execution), (int64_t)0);
}

/* Output went beyond the limit, or came too late for a client that does not read. The ring does not
 * know of it, so it is saved at once. */
static void cut(struct execution *execution, int64_t n)
{
        execution->is_cut = true;
        execution->record.truncated_bytes += n;
        kernel_save(execution->context);
        if (!execution->truncate_output && n_allowed(execution) == 0)
                execution_stop(execution, OUTCOME_OUTPUT_LIMIT, CAUSE_LIMIT, false);
}

/* Thrown away and counted. */
static int take_scratch(struct execution *execution, enum channel_stream stream, int fd,
                        size_t limit, size_t *ret_n)
{
        struct usage *usage = &execution->record.usage;
        ssize_t n;

        do
                n = read(fd, scratch, MIN(limit, sizeof(scratch)));
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        *ret_n = (size_t)n;
        *(stream == CHANNEL_STDOUT ? &usage->stdout_bytes : &usage->stderr_bytes) += n;
        if (n > 0)
                cut(execution, n);
        return 0;
}

static int take_into_ring(struct execution *execution, enum channel_stream stream, int fd,
                          size_t limit, size_t *ret_n)
{
        bool is_stdout = stream == CHANNEL_STDOUT;
        struct usage *usage = &execution->record.usage;
        struct ring_entry entry = {
                .kind = is_stdout ? EXECUTION_EVENT_STDOUT : EXECUTION_EVENT_STDERR,
                .stream = is_stdout ? RING_STREAM_STDOUT : RING_STREAM_STDERR,
                .time_usec = time_now_usec(),
        };
        int r = ring_fill(execution->ring, &entry, fd, limit, ret_n);

        if (r || *ret_n == 0)
                return r;
        *(is_stdout ? &usage->stdout_bytes : &usage->stderr_bytes) += (int64_t)*ret_n;
        execution->record.last_sequence = ring_next_sequence(execution->ring) - 1;
        execution_wake_readers(execution);
        return 0;
}

int execution_take(struct execution *execution, enum channel_stream stream, int fd, size_t limit,
                   size_t *ret_n)
{
        int64_t allowed = n_allowed(execution);

        if (execution->is_cut || allowed == 0)
                return take_scratch(execution, stream, fd, limit, ret_n);
        limit = MIN(MIN(limit, (size_t)allowed), (size_t)READ_CHUNK);
        if (execution_make_room(execution, READ_CHUNK))
                return take_into_ring(execution, stream, fd, limit, ret_n);
        return execution->is_discarding ? take_scratch(execution, stream, fd, limit, ret_n)
                                        : CHANNEL_E_FULL;
}

bool execution_has_room(struct execution *execution, size_t n_payload)
{
        return execution->is_discarding || execution_make_room(execution, n_payload + FRAME_SLACK);
}

/* Bytes of representations in a frame, and those that it announces. */
static void count_rich(const struct kernel_frame *frame, int64_t *ret_here, int64_t *ret_announced)
{
        *ret_here = 0;
        *ret_announced = 0;
        for (size_t i = 0; i < frame->bundle->n_parts; i++) {
                *ret_here += (int64_t)frame->bundle->parts[i]->data.len;
                *ret_announced += (int64_t)frame->bundle->parts[i]->size;
        }
}

static void append_frame(struct execution *execution, enum execution_event_kind kind,
                         const struct kernel_frame *frame)
{
        struct ring_piece piece = { frame->raw.payload, frame->raw.n_payload };

        execution_append(execution, kind, frame->position, &piece, 1);
}

static void on_bundle(struct execution *execution, const struct kernel_frame *frame,
                      bool is_too_large)
{
        bool is_result = frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_RESULT;
        int64_t here, announced;
        bool fits;

        count_rich(frame, &here, &announced);
        fits = is_recorded(execution, frame->position) ||
               (!execution->is_cut && announced <= n_allowed(execution) && !is_too_large &&
                execution_make_room(execution, frame->raw.n_payload));
        execution->record.usage.rich_bytes += here;
        execution->bundle_sequence = 0;
        if (fits) {
                append_frame(execution,
                             is_result ? EXECUTION_EVENT_RESULT : EXECUTION_EVENT_DISPLAY, frame);
                execution->bundle_sequence = ring_tag_sequence(execution->ring);
                return;
        }
        execution->record.truncated_bytes += here;
        if (execution->is_discarding)
                return;
        if (is_too_large || !execution->truncate_output)
                execution_stop(execution, OUTCOME_OUTPUT_LIMIT, CAUSE_LIMIT, false);
}

static void on_part_data(struct execution *execution, const struct kernel_frame *frame)
{
        struct part_data_payload head = { .bundle_sequence = execution->bundle_sequence };
        struct ring_piece pieces[] = {
                { &head, sizeof(head) },
                { frame->raw.payload, frame->raw.n_payload },
        };
        int64_t n = (int64_t)frame->part_data->data.len;

        execution->record.usage.rich_bytes += n;
        if (head.bundle_sequence > 0 &&
            (is_recorded(execution, frame->position) ||
             execution_make_room(execution, frame->raw.n_payload + sizeof(head)))) {
                execution_append(execution, EXECUTION_EVENT_PART_DATA, frame->position, pieces,
                                 ARRAY_SIZE(pieces));
                return;
        }
        execution->bundle_sequence = 0;
        execution->record.truncated_bytes += n;
}

void execution_on_output_frame(struct execution *execution, const struct kernel_frame *frame,
                               bool is_too_large)
{
        switch (frame->type) {
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_RESULT:
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_DISPLAY:
                on_bundle(execution, frame, is_too_large);
                return;
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_PART_DATA:
                on_part_data(execution, frame);
                return;
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ERROR:
                if (execution_make_room(execution, frame->raw.n_payload))
                        append_frame(execution, EXECUTION_EVENT_ERROR, frame);
                return;
        case HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_CLEAR_OUTPUT:
                if (execution_make_room(execution, frame->raw.n_payload))
                        append_frame(execution, EXECUTION_EVENT_CLEAR_OUTPUT, frame);
                return;
        default:
                return;
        }
}

void execution_start_discarding(struct execution *execution)
{
        execution->is_discarding = true;
        session_resume_soon(execution->session, execution);
}

bool execution_is_blocked(const struct execution *execution)
{
        const struct context *context = execution->context;

        return execution->phase == PHASE_RUNNING && context->kernel.channel &&
               channel_is_paused(context->kernel.channel);
}

void execution_resume(struct execution *execution)
{
        if (execution_is_blocked(execution) &&
            (execution->is_discarding || execution_make_room(execution, READ_CHUNK)))
                channel_resume(execution->context->kernel.channel);
}

void execution_wake_readers(struct execution *execution)
{
        struct execution_reader *reader;

        LIST_FOREACH(reader, &execution->readers, link)
        {
                execution_reader_wake(reader);
        }
}

static int on_grace_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct execution *execution = userdata;

        (void)source;
        (void)usec;
        execution->is_detached = true;
        if (execution->goes_on_without_client)
                session_resume_soon(execution->session, execution);
        else
                execution_stop(execution, OUTCOME_INTERRUPTED, CAUSE_CLIENT_GONE, false);
        return 0;
}

static void wait_for_client(struct execution *execution, int64_t grace_usec)
{
        (void)session_arm(execution->session, &execution->grace_timer,
                          (uint64_t)MAX(grace_usec, (int64_t)1), on_grace_over, execution);
        session_resume_soon(execution->session, execution);
}

void execution_on_readers_changed(struct execution *execution)
{
        if (execution_is_over(execution) || execution->phase == PHASE_ACCEPTING ||
            execution->session->is_leaving)
                return;
        if (execution->n_readers > 0) {
                execution->is_detached = false;
                (void)session_arm(execution->session, &execution->grace_timer, 0, on_grace_over,
                                  execution);
        } else if (execution->goes_on_without_client) {
                execution->is_detached = true;
                session_resume_soon(execution->session, execution);
        } else {
                wait_for_client(execution, execution->disconnect_grace_usec);
        }
}

/* Also one that goes on without: a client that reads it misses nothing. */
void execution_await_readers(struct execution *execution)
{
        int64_t grace_usec =
                execution->goes_on_without_client ? 0 : execution->disconnect_grace_usec;

        wait_for_client(execution, MAX(grace_usec, (int64_t)RETURN_USEC));
}
