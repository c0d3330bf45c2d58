/*
 * Commands go down at once as far as the pipe takes them; the rest waits until it is writable. A
 * kernel that does not read keeps its own acknowledgements waiting, and is not read either.
 */
#include "server/session/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "server/session/channel_private.h"

static int flush_commands(struct channel *channel);

static int on_writable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct channel *channel = userdata;

        (void)source;
        (void)fd;
        (void)events;
        (void)flush_commands(channel);
        if (!channel->is_paused)
                channel_read_on(channel); /* frames may have waited for room among the ACKs */
        return 0;
}

void channel_forget_commands(struct channel *channel)
{
        channel->writable = sd_event_source_disable_unref(channel->writable);
        free(channel->commands);
        channel->commands = NULL;
        channel->n_commands = 0;
        channel->commands_sent = 0;
        channel->n_acks = 0;
}

/* Writes what the pipe takes. A kernel that does not read any more will be seen to end. */
static int flush_commands(struct channel *channel)
{
        while (channel->commands_sent < channel->n_commands) {
                ssize_t n = write(channel->fds.commands, channel->commands + channel->commands_sent,
                                  channel->n_commands - channel->commands_sent);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        if (channel->writable)
                                return 0;
                        return sd_event_add_io(channel->loop, &channel->writable,
                                               channel->fds.commands, EPOLLOUT, on_writable,
                                               channel);
                }
                if (n < 0)
                        break;
                channel->commands_sent += (size_t)n;
        }
        channel_forget_commands(channel);
        return 0;
}

static int queue_command(struct channel *channel, const struct frame *frame,
                         const ProtobufCMessage *message)
{
        size_t n = FRAME_HEADER_SIZE + frame->n_payload;
        uint8_t *commands = realloc(channel->commands, channel->n_commands + n);

        if (!commands)
                return error_origin(-ENOMEM);
        channel->commands = commands;
        frame_write_header(commands + channel->n_commands, frame);
        if (message)
                (void)protobuf_c_message_pack(message,
                                              commands + channel->n_commands + FRAME_HEADER_SIZE);
        channel->n_commands += n;
        return flush_commands(channel);
}

static int send_message(struct channel *channel, uint8_t type, uint32_t execution,
                        const ProtobufCMessage *message)
{
        struct frame frame = {
                .type = type,
                .execution = execution,
                .n_payload = protobuf_c_message_get_packed_size(message),
        };

        if (frame.n_payload > FRAME_PAYLOAD_MAX)
                return error_origin(-EMSGSIZE);
        return queue_command(channel, &frame, message);
}

void channel_acknowledge(struct channel *channel, uint32_t execution)
{
        uint8_t header[FRAME_HEADER_SIZE];
        struct frame frame = {
                .type = HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_ACK,
                .execution = execution,
        };

        if (channel->n_commands == 0) {
                frame_write_header(header, &frame);
                if (write(channel->fds.commands, header, sizeof(header)) == sizeof(header))
                        return; /* 12 bytes are below PIPE_BUF: all or nothing */
        }
        channel->n_acks++;
        (void)queue_command(channel, &frame, NULL);
}

int channel_send_hello(struct channel *channel, const char *working_directory)
{
        Hotcell__Sandbox__V1__Hello hello;

        hotcell__sandbox__v1__hello__init(&hello);
        hello.protocol = KERNEL_PROTOCOL;
        hello.working_directory = unconst(working_directory);
        return send_message(channel, HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_HELLO, 0,
                            &hello.base);
}

int channel_send_execute(struct channel *channel, const Hotcell__Sandbox__V1__Execute *execute,
                         uint32_t *ret_execution)
{
        uint32_t execution = kernel_order_execute(&channel->order);

        channel->n_unknown = 0;
        *ret_execution = execution;
        return send_message(channel, HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_EXECUTE,
                            execution, &execute->base);
}

bool channel_is_idle(const struct channel *channel)
{
        return channel->order.state == KERNEL_ORDER_IDLE && !channel->is_broken;
}

bool channel_has_raised(const struct channel *channel)
{
        return channel->order.has_raised;
}

bool channel_is_paused(const struct channel *channel)
{
        return channel->is_paused;
}

uint64_t channel_n_dropped(const struct channel *channel)
{
        return channel->order.n_dropped;
}

int channel_new(sd_event *loop, struct channel_fds *fds, uint64_t part_max_bytes,
                const struct channel_observer *observer, void *userdata,
                struct channel **ret_channel)
{
        _cleanup_(channel_freep) struct channel *channel = NULL;
        int r;

        channel = calloc(1, sizeof(*channel));
        if (!channel) {
                (void)close_fd(fds->commands);
                (void)close_fd(fds->events);
                for (size_t i = 0; i < _CHANNEL_STREAM_N; i++)
                        (void)close_fd(fds->outputs[i]);
                return error_origin(-ENOMEM);
        }
        channel->loop = loop;
        channel->observer = observer;
        channel->userdata = userdata;
        channel->fds = *fds;
        kernel_order_init(&channel->order, part_max_bytes);
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
        free(channel->input);
        free(channel);
        return NULL;
}
