/*
 * All reading happens in pump_events: frames are read first and the outputs drained after that, so
 * everything that was written before a frame is there when the frame is handled. The drain takes
 * as many bytes as are in the pipe at that moment (FIONREAD): a writer that never stops cannot keep
 * the frame waiting.
 *
 * Each turn of the loop has a budget, so that a flood hurts its own sandbox only. What is left of a
 * frame's work after that waits for a further turn, see again.h.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/base/again.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/session/channel_private.h"
#include "server/session/inlet.h"

enum {
        READ_CHUNK = 64 << 10,  /* bytes: what a pipe holds */
        TURN_FRAMES = 64,       /* frames handled in one turn */
        TURN_BYTES = 256 << 10, /* bytes taken in one turn, about */
        UNKNOWN_MAX = 1000,     /* frames without a meaning, until the next code is sent */
        ACKS_MAX = 1024,        /* not yet taken by the kernel */
        FINAL_BYTES = 1 << 20,  /* taken from a pipe whose writer is dead: the largest pipe */
};

static void set_enabled(sd_event_source *source, bool enabled)
{
        if (source)
                (void)sd_event_source_set_enabled(source, enabled ? SD_EVENT_ON : SD_EVENT_OFF);
}

static void enable_reading(struct channel *channel, bool enabled)
{
        for (size_t i = 0; i < _CHANNEL_STREAM_N; i++)
                set_enabled(channel->outputs[i], enabled);
        set_enabled(channel->events, enabled && !channel->state.is_broken);
}

static void pause_reading(struct channel *channel)
{
        channel->is_paused = true;
        enable_reading(channel, false);
}

void channel_read_on(struct channel *channel)
{
        enable_reading(channel, true);
        again(channel->again);
}

void channel_close_output(struct channel *channel, enum channel_stream stream)
{
        channel->outputs[stream] = sd_event_source_disable_unref(channel->outputs[stream]);
        channel->fds.outputs[stream] = close_fd(channel->fds.outputs[stream]);
}

/* Takes up to @limit bytes: 0, or CHANNEL_E_FULL. */
static int take_output(struct channel *channel, enum channel_stream stream, size_t limit)
{
        while (limit > 0 && channel->fds.outputs[stream] >= 0) {
                size_t n = 0;
                int r = channel->observer->take_output(channel->userdata, stream,
                                                       channel->fds.outputs[stream], limit, &n);

                if (r == CHANNEL_E_FULL)
                        return CHANNEL_E_FULL;
                if (r == -EAGAIN)
                        return 0;
                if (r || n == 0) {
                        channel_close_output(channel, stream);
                        return 0;
                }
                limit -= n;
                channel->turn_bytes += n;
                if (channel->is_final)
                        channel->final_left[stream] -= MIN(channel->final_left[stream], n);
        }
        return 0;
}

static size_t bytes_in_pipe(int fd)
{
        int n = 0;

        if (fd < 0 || ioctl(fd, FIONREAD, &n) || n < 0)
                return 0;
        return (size_t)n;
}

/* Takes what both outputs hold now. */
static int drain_outputs(struct channel *channel)
{
        for (enum channel_stream i = 0; i < _CHANNEL_STREAM_N; i++) {
                size_t n = bytes_in_pipe(channel->fds.outputs[i]);

                if (channel->is_final)
                        n = MIN(n, channel->final_left[i]);
                if (n > 0 && take_output(channel, i, n))
                        return CHANNEL_E_FULL;
        }
        return 0;
}

static void stop_events(struct channel *channel)
{
        channel->state.is_broken = true;
        channel->events = sd_event_source_disable_unref(channel->events);
}

/* From the future, or a barrier that nobody waits for: a few do no harm. */
static int count_unknown(struct channel *channel, const char **ret_why)
{
        if (++channel->state.n_unknown <= UNKNOWN_MAX)
                return 0;
        *ret_why = "too many frames without a meaning";
        return KERNEL_FRAME_E_MALFORMED;
}

/* Decodes one frame and hands it on: 0 or KERNEL_FRAME_E_MALFORMED. */
static int handle_frame(struct channel *channel, const struct frame *raw, const char **ret_why)
{
        struct kernel_frame frame;
        int r;

        r = kernel_frame_decode(raw, &frame, ret_why);
        if (r == KERNEL_FRAME_E_UNKNOWN)
                return count_unknown(channel, ret_why);
        if (r)
                return r;
        if (frame.type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_BARRIER &&
            !(raw->flags & FRAME_FLAG_SYNC))
                return count_unknown(channel, ret_why);
        frame.position = channel->state.n_consumed;
        r = kernel_order_take(&channel->state.order, &frame, ret_why);
        if (r == 0 || r == KERNEL_FRAME_E_TOO_LARGE)
                channel->observer->on_frame(channel->userdata, &frame,
                                            r == KERNEL_FRAME_E_TOO_LARGE);
        kernel_frame_deinit(&frame);
        return r == KERNEL_FRAME_E_MALFORMED ? r : 0;
}

/* 1: something was read; 0: nothing now; negative: the end, or no memory. */
static int read_events(struct channel *channel)
{
        size_t n;
        int r;

        if (channel->is_final && channel->final_events_left == 0)
                return -EPIPE; /* somebody else writes into the dead kernel's pipe */
        r = inlet_fill(channel->inlet, channel->fds.events, READ_CHUNK, &n);
        if (r == -EAGAIN)
                return 0;
        if (r || n == 0)
                return -EPIPE;
        if (channel->is_final)
                channel->final_events_left -= MIN(channel->final_events_left, n);
        return 1;
}

static int parse_input(struct channel *channel, struct frame *ret_frame, size_t *ret_size)
{
        size_t n;
        const uint8_t *bytes = inlet_bytes(channel->inlet, &n);
        int r = frame_parse(bytes, n, FRAME_PAYLOAD_MAX, ret_frame, ret_size);

        /* Only commands are numbered. */
        return r == 0 && ret_frame->serial != 0 ? FRAME_E_MALFORMED : r;
}

/* What one step over the events came to. */
enum step {
        STEP_FRAME,     /* a frame was handled: go on */
        STEP_NOTHING,   /* no whole frame now */
        STEP_FULL,      /* no room: wait for channel_resume */
        STEP_CLOSED,    /* the kernel's end is closed */
        STEP_MALFORMED, /* the kernel broke its protocol */
};

/* Its effects, its place and its acknowledgement are saved together, then it is acknowledged. */
static int take_one(struct channel *channel, const struct frame *frame, size_t size,
                    const char **ret_why)
{
        int r;

        channel->is_handling = true;
        channel->state.n_consumed += size;
        r = handle_frame(channel, frame, ret_why);
        channel->is_handling = false;
        if (r == 0 && frame->flags & FRAME_FLAG_SYNC)
                channel_acknowledge(channel, frame->execution);
        inlet_consume(channel->inlet, size);
        channel->turn_bytes += size;
        channel->observer->on_progress(channel->userdata);
        channel_flush(channel);
        return r;
}

static enum step take_frame(struct channel *channel, const char **ret_why)
{
        struct frame frame;
        size_t size;
        int r;

        r = parse_input(channel, &frame, &size);
        if (r == FRAME_E_INCOMPLETE) {
                r = read_events(channel);
                if (r <= 0)
                        return r == 0 ? STEP_NOTHING : STEP_CLOSED;
                r = parse_input(channel, &frame, &size);
        }
        if (r == FRAME_E_INCOMPLETE)
                return STEP_FRAME; /* a piece of a large one */
        if (r) {
                *ret_why = "a frame with a bad header";
                return STEP_MALFORMED;
        }

        if (drain_outputs(channel) ||
            !channel->observer->has_room(channel->userdata, frame.n_payload))
                return STEP_FULL;
        return take_one(channel, &frame, size, ret_why) ? STEP_MALFORMED : STEP_FRAME;
}

/* After the process is gone: on_drained once nothing is left. */
static void finish_if_empty(struct channel *channel)
{
        for (size_t i = 0; i < _CHANNEL_STREAM_N; i++)
                if (channel->final_left[i] > 0 && bytes_in_pipe(channel->fds.outputs[i]) > 0) {
                        again(channel->again);
                        return;
                }
        enable_reading(channel, false);
        channel->observer->on_drained(channel->userdata);
}

static enum step take_frames(struct channel *channel, const char **ret_why)
{
        enum step step = STEP_FRAME;

        if (channel->state.is_broken)
                return STEP_NOTHING;
        channel->turn_bytes = 0;
        for (size_t i = 0;
             i < TURN_FRAMES && channel->turn_bytes < TURN_BYTES && step == STEP_FRAME; i++) {
                if (channel_n_acks(channel) >= ACKS_MAX) {
                        set_enabled(channel->events, false);
                        return STEP_NOTHING;
                }
                step = take_frame(channel, ret_why);
        }
        return step;
}

static void pump_events(struct channel *channel)
{
        const char *why = NULL;
        enum step step;

        if (channel->is_paused)
                return;
        step = take_frames(channel, &why);
        if (step == STEP_NOTHING && channel->is_final && drain_outputs(channel))
                step = STEP_FULL;

        switch (step) {
        case STEP_FRAME:
                again(channel->again);
                return;
        case STEP_FULL:
                pause_reading(channel);
                return;
        case STEP_NOTHING:
                if (channel->is_final)
                        finish_if_empty(channel);
                return;
        case STEP_CLOSED:
                stop_events(channel);
                if (channel->is_final)
                        again(channel->again);
                else
                        channel->observer->on_closed(channel->userdata);
                return;
        case STEP_MALFORMED:
                stop_events(channel);
                if (channel->is_final)
                        again(channel->again);
                else
                        channel->observer->on_malformed(channel->userdata, why);
                return;
        }
}

static int on_events(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        (void)source;
        (void)fd;
        (void)events;
        pump_events(userdata);
        return 0;
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        pump_events(userdata);
        return 0;
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct channel *channel = userdata;
        enum channel_stream stream =
                source == channel->outputs[CHANNEL_STDOUT] ? CHANNEL_STDOUT : CHANNEL_STDERR;

        (void)fd;
        (void)events;
        if (!channel->is_paused && take_output(channel, stream, TURN_BYTES))
                pause_reading(channel);
        return 0;
}

void channel_drain(struct channel *channel)
{
        if (drain_outputs(channel))
                pause_reading(channel);
}

void channel_resume(struct channel *channel)
{
        if (!channel->is_paused)
                return;
        channel->is_paused = false;
        channel_read_on(channel);
}

void channel_finish(struct channel *channel)
{
        if (channel->is_final)
                return;
        channel->is_final = true;
        for (size_t i = 0; i < _CHANNEL_STREAM_N; i++)
                channel->final_left[i] = FINAL_BYTES;
        channel->final_events_left = FINAL_BYTES;
        channel_forget_commands(channel);
        again(channel->again);
}

int channel_watch(struct channel *channel)
{
        int r;

        for (size_t i = 0; i < _CHANNEL_STREAM_N; i++) {
                r = sd_event_add_io(channel->loop, &channel->outputs[i], channel->fds.outputs[i],
                                    EPOLLIN, on_output, channel);
                if (r < 0)
                        return error_origin(r);
        }
        r = sd_event_add_io(channel->loop, &channel->events, channel->fds.events, EPOLLIN,
                            on_events, channel);
        if (r < 0)
                return error_origin(r);
        if (channel->state.is_broken)
                channel->events = sd_event_source_disable_unref(channel->events);
        return again_new(channel->loop, &channel->again, on_again, channel);
}
