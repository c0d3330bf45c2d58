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
        struct inlet *inlet;
        size_t turn_bytes; /* taken in this turn */
        uint8_t *commands; /* frames not yet taken by the pipe */
        size_t n_commands; /* bytes */
        size_t commands_size;
        uint8_t few_commands[512];  /* an acknowledgement must not want memory: the kernel waits */
        size_t n_written;           /* bytes of them */
        struct channel_saved state; /* what a successor is to know */
        size_t final_left[_CHANNEL_STREAM_N];
        size_t final_events_left;
        bool is_paused;
        bool is_handling; /* a frame */
        bool is_final;
};

/* Reading. */
int channel_watch(struct channel *channel);
void channel_read_on(struct channel *channel); /* from the loop, not at once */
void channel_close_output(struct channel *channel, enum channel_stream stream);

/* Sending. */
size_t channel_n_acks(const struct channel *channel); /* not yet written */
void channel_acknowledge(struct channel *channel, uint32_t execution);
void channel_forget_commands(struct channel *channel);
