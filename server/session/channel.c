/*
 * Commands go down at once as far as the pipe takes them; the rest waits until it is writable. A
 * kernel that does not read keeps its own acknowledgements waiting, and is not read either.
 *
 * Each frame is at most PIPE_BUF bytes, so a write is all of it or nothing. Whether the last one
 * was written when this process was killed cannot be known: the successor writes it again, with the
 * same serial, and the kernel drops what it has seen.
 */
#include "server/session/channel.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/channel_private.h"

enum { PIECE_MAX = PIPE_BUF - FRAME_HEADER_SIZE }; /* bytes of payload in one frame */

static int on_writable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct channel *channel = userdata;

        (void)source;
        (void)fd;
        (void)events;
        channel_flush(channel);
        if (!channel->is_paused)
                channel_read_on(channel); /* frames may have waited for room among the ACKs */
        return 0;
}

void channel_forget_commands(struct channel *channel)
{
        channel->writable = sd_event_source_disable_unref(channel->writable);
        if (channel->commands != channel->few_commands)
                free(channel->commands);
        channel->commands = channel->few_commands;
        channel->commands_size = sizeof(channel->few_commands);
        channel->n_commands = 0;
        channel->n_written = 0;
}

size_t channel_n_acks(const struct channel *channel)
{
        const struct channel_saved *state = &channel->state;

        return channel->n_commands == 0 ? 0 : state->n_queued - MAX(state->n_sent, state->code_end);
}

/* Bytes of the frame that is written next. */
static size_t next_size(const struct channel *channel)
{
        struct frame frame;
        size_t size = 0;
        int r = frame_parse(channel->commands + channel->n_written,
                            channel->n_commands - channel->n_written, PIECE_MAX, &frame, &size);

        assert(r == 0);
        return size;
}

/* A kernel that does not read any more will be seen to end. */
void channel_flush(struct channel *channel)
{
        while (channel->n_written < channel->n_commands) {
                ssize_t n = write(channel->fds.commands, channel->commands + channel->n_written,
                                  next_size(channel));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        if (!channel->writable)
                                (void)sd_event_add_io(channel->loop, &channel->writable,
                                                      channel->fds.commands, EPOLLOUT, on_writable,
                                                      channel);
                        return;
                }
                if (n < 0)
                        break;
                channel->n_written += (size_t)n;
                channel->state.n_sent++;
        }
        channel_forget_commands(channel);
}

/* Makes room for @n more bytes of frames, and for the acknowledgements that may come after them. */
static int reserve(struct channel *channel, size_t n)
{
        size_t size = channel->n_commands + n + sizeof(channel->few_commands);
        uint8_t *commands;

        if (channel->n_commands + n <= channel->commands_size)
                return 0;
        commands = malloc(size);
        if (!commands)
                return error_origin(-ENOMEM);
        memcpy(commands, channel->commands, channel->n_commands);
        if (channel->commands != channel->few_commands)
                free(channel->commands);
        channel->commands = commands;
        channel->commands_size = size;
        return 0;
}

static int append_frame(struct channel *channel, struct frame frame, uint64_t serial)
{
        size_t size = FRAME_HEADER_SIZE + frame.n_payload;
        int r = reserve(channel, size);

        if (r)
                return r;
        frame.serial = (uint16_t)serial;
        assert(channel->commands);
        frame_write_header(channel->commands + channel->n_commands, &frame);
        if (frame.n_payload > 0)
                memcpy(channel->commands + channel->n_commands + FRAME_HEADER_SIZE, frame.payload,
                       frame.n_payload);
        channel->n_commands += size;
        return 0;
}

/* Cuts a message into frames and appends those from the serial @from on, of which the first has
 * @begin. *@ret_end: the serial after them. */
static int append_message(struct channel *channel, uint8_t type, const ProtobufCMessage *message,
                          uint64_t begin, uint64_t from, uint64_t *ret_end)
{
        size_t n = protobuf_c_message_get_packed_size(message);
        _cleanup_(freep) uint8_t *packed = malloc(n + 1);
        struct frame frame = { .execution = channel->state.order.execution };
        uint64_t serial = begin;
        int r = 0;

        if (!packed)
                return error_origin(-ENOMEM);
        if (n > FRAME_PAYLOAD_MAX)
                return error_origin(-EMSGSIZE);
        (void)protobuf_c_message_pack(message, packed);
        for (size_t start = 0; r == 0 && (start < n || serial == begin); serial++) {
                frame.payload = packed + start;
                frame.n_payload = MIN(n - start, (size_t)PIECE_MAX);
                start += frame.n_payload;
                frame.type = start < n ? HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_MORE : type;
                if (serial >= from)
                        r = append_frame(channel, frame, serial);
        }
        *ret_end = serial;
        return r;
}

static int append_hello(struct channel *channel, const char *working_directory)
{
        Hotcell__Sandbox__V1__Hello hello;
        uint64_t end;

        hotcell__sandbox__v1__hello__init(&hello);
        hello.protocol = KERNEL_PROTOCOL;
        hello.working_directory = unconst(working_directory);
        return append_message(channel, HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_HELLO,
                              &hello.base, 0, channel->state.n_sent, &end);
}

static int append_code(struct channel *channel, const Hotcell__Sandbox__V1__Execute *execute)
{
        struct channel_saved *state = &channel->state;

        return append_message(channel, HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_EXECUTE,
                              &execute->base, state->code_begin, state->n_sent, &state->code_end);
}

static int append_ack(struct channel *channel, uint32_t execution, uint64_t serial)
{
        struct frame frame = {
                .type = HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ACK,
                .execution = execution,
        };

        return append_frame(channel, frame, serial);
}

void channel_acknowledge(struct channel *channel, uint32_t execution)
{
        /* There is always room for it: at most one waits. */
        if (append_ack(channel, execution, channel->state.n_queued) == 0)
                channel->state.n_queued++;
}

int channel_queue_hello(struct channel *channel, const char *working_directory)
{
        int r = append_hello(channel, working_directory);

        if (r == 0)
                channel->state.n_queued = channel->state.code_begin = channel->state.code_end = 1;
        return r;
}

int channel_queue_execute(struct channel *channel, const Hotcell__Sandbox__V1__Execute *execute,
                          uint32_t *ret_execution)
{
        struct channel_saved *state = &channel->state;
        const struct channel_saved before = *state;
        size_t n_commands = channel->n_commands;
        uint32_t execution = kernel_order_execute(&state->order);
        int r;

        state->n_unknown = 0;
        state->code_begin = state->n_queued;
        r = append_code(channel, execute);
        if (r) {
                *state = before;
                channel->n_commands = n_commands;
                return r;
        }
        state->n_queued = state->code_end;
        *ret_execution = execution;
        return 0;
}

bool channel_is_idle(const struct channel *channel)
{
        return channel->state.order.state == KERNEL_ORDER_IDLE && !channel->state.is_broken;
}

bool channel_has_raised(const struct channel *channel)
{
        return channel->state.order.has_raised;
}

bool channel_is_paused(const struct channel *channel)
{
        return channel->is_paused;
}

bool channel_is_handling(const struct channel *channel)
{
        return channel->is_handling;
}

uint64_t channel_n_dropped(const struct channel *channel)
{
        return channel->state.order.n_dropped;
}

void channel_save(const struct channel *channel, struct channel_saved *ret_saved)
{
        *ret_saved = channel->state;
}

bool channel_saved_needs_code(const struct channel_saved *saved)
{
        return saved->n_sent < saved->code_end && saved->code_end > 1;
}

void channel_saved_drop_code(struct channel_saved *saved)
{
        if (channel_saved_needs_code(saved))
                saved->n_sent = saved->code_end;
}

static int allocate(const struct channel_config *config, struct channel_fds *fds,
                    struct channel **ret_channel)
{
        struct channel *channel = calloc(1, sizeof(*channel));

        if (!channel) {
                (void)close_fd(fds->commands);
                (void)close_fd(fds->events);
                for (size_t i = 0; i < _CHANNEL_STREAM_N; i++)
                        (void)close_fd(fds->outputs[i]);
                return error_origin(-ENOMEM);
        }
        channel->commands = channel->few_commands;
        channel->commands_size = sizeof(channel->few_commands);
        channel->loop = config->loop;
        channel->inlet = config->inlet;
        channel->observer = config->observer;
        channel->userdata = config->userdata;
        channel->fds = *fds;
        *ret_channel = channel;
        return 0;
}

int channel_new(const struct channel_config *config, struct channel_fds *fds,
                struct channel **ret_channel)
{
        _cleanup_(channel_freep) struct channel *channel = NULL;
        int r = allocate(config, fds, &channel);

        if (r)
                return r;
        assert(channel);
        kernel_order_init(&channel->state.order, config->part_max_bytes);
        r = channel_watch(channel);
        if (r)
                return error_fold(r);

        *ret_channel = take(channel);
        return 0;
}

/* What may not have arrived: it goes before everything that is queued from now on. */
static int queue_again(struct channel *channel, const char *working_directory,
                       const Hotcell__Sandbox__V1__Execute *execute)
{
        struct channel_saved *state = &channel->state;
        int r = 0;

        if (state->n_queued == 0)
                return channel_queue_hello(channel, working_directory);
        if (state->n_sent == 0)
                r = append_hello(channel, working_directory);
        if (!r && channel_saved_needs_code(state))
                r = execute ? append_code(channel, execute) : error_origin(-EINVAL);
        for (uint64_t i = MAX(state->n_sent, state->code_end); !r && i < state->n_queued; i++)
                r = append_ack(channel, state->order.execution, i);
        return r;
}

int channel_restore(const struct channel_config *config, struct channel_fds *fds,
                    const struct channel_saved *saved, const char *working_directory,
                    const Hotcell__Sandbox__V1__Execute *execute, struct channel **ret_channel)
{
        _cleanup_(channel_freep) struct channel *channel = NULL;
        int r = allocate(config, fds, &channel);

        if (r)
                return r;
        assert(channel);
        channel->state = *saved;
        channel->is_paused = true;
        r = queue_again(channel, working_directory, execute);
        if (!r)
                r = channel_watch(channel);
        if (r)
                return error_fold(r);

        *ret_channel = take(channel);
        return 0;
}

struct channel *channel_free(struct channel *channel)
{
        if (!channel)
                return NULL;

        (void)sd_event_source_disable_unref(channel->again);
        (void)sd_event_source_disable_unref(channel->events);
        channel_forget_commands(channel);
        for (enum channel_stream i = 0; i < _CHANNEL_STREAM_N; i++)
                channel_close_output(channel, i);
        (void)close_fd(channel->fds.events);
        (void)close_fd(channel->fds.commands);
        free(channel);
        return NULL;
}
