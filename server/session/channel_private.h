/* What the two halves of a channel share: `channel.c` sends, `channel_read.c` reads. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "server/session/channel.h"

struct channel {
        sd_event *loop;
        const struct channel_observer *observer;
        void *userdata;
        struct channel_fds fds;
        sd_event_source *outputs[_CHANNEL_STREAM_N];
        sd_event_source *events;
        sd_event_source *writable; /* NULL: nothing waits to be written */
        sd_event_source *again;
        uint8_t *input;
        size_t input_capacity;
        size_t input_start; /* what is before it was handled */
        size_t n_input;     /* end of what was read */
        size_t turn_bytes;  /* taken in this turn */
        size_t n_unknown;
        uint8_t *commands; /* not yet taken by the pipe */
        size_t n_commands; /* bytes */
        size_t commands_sent;
        size_t n_acks; /* in commands */
        struct kernel_order order;
        size_t final_left[_CHANNEL_STREAM_N];
        size_t final_events_left;
        bool is_paused;
        bool is_broken; /* events are not read any more */
        bool is_final;
};

/* Reading. */
int channel_watch(struct channel *channel);
void channel_read_on(struct channel *channel); /* from the loop, not at once */
void channel_close_output(struct channel *channel, enum channel_stream stream);

/* Sending. */
void channel_acknowledge(struct channel *channel, uint32_t execution);
void channel_forget_commands(struct channel *channel);
