/*
 * The pipes of a language kernel: commands to it, events, standard output and error from it.
 *
 * Order: before a frame is handled, what the two outputs hold is drained; then a SYNC frame is
 * acknowledged. When the observer has no room, nothing is read until channel_resume: the program
 * then blocks in its writes, and an ACK waits too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/session/kernel_frame.h"

struct channel;

enum channel_stream {
        CHANNEL_STDOUT,
        CHANNEL_STDERR,
        _CHANNEL_STREAM_N,
};

/* Nothing may free the channel from within these, but for the last three, which come last. */
struct channel_observer {
        /* Where the next bytes of @stream go and how many at most; 0: no room now. */
        size_t (*reserve)(void *userdata, enum channel_stream stream, uint8_t **ret_buffer);
        void (*commit)(void *userdata, enum channel_stream stream, size_t n);
        /* A frame with so large a payload can be taken. */
        bool (*has_room)(void *userdata, size_t n_payload);
        /* @is_too_large: a bundle whose part is above the operator's limit. */
        void (*on_frame)(void *userdata, const struct kernel_frame *frame, bool is_too_large);
        /* The kernel broke its protocol; nothing is read from its events any more. */
        void (*on_malformed)(void *userdata, const char *why);
        /* The kernel closed its end of the events. */
        void (*on_closed)(void *userdata);
        /* After channel_finish: all that was in the pipes was taken. */
        void (*on_drained)(void *userdata);
};

struct channel_fds {
        int commands;
        int events;
        int outputs[_CHANNEL_STREAM_N];
};

/* Takes the descriptors over, also when it fails. They do not block. */
int channel_new(sd_event *loop, struct channel_fds *fds, uint64_t part_max_bytes,
                const struct channel_observer *observer, void *userdata,
                struct channel **ret_channel);
struct channel *channel_free(struct channel *channel);

int channel_send_hello(struct channel *channel, const char *working_directory);

/* Sends code; the kernel is ready and nothing runs (channel_is_idle). *@ret_execution: its number.
 */
int channel_send_execute(struct channel *channel, const Hotcell__Sandbox__V1__Execute *execute,
                         uint32_t *ret_execution);

/* READY was seen and no execution is between its EXECUTE and its DONE. */
bool channel_is_idle(const struct channel *channel);

/* ERROR was seen in the execution sent last. */
bool channel_has_raised(const struct channel *channel);

/* Takes what the outputs hold now, before the next code may write to them. */
void channel_drain(struct channel *channel);

bool channel_is_paused(const struct channel *channel);

/* There may be room again. Reads on from the loop, not at once. */
void channel_resume(struct channel *channel);

/* The kernel's process is gone: takes what is left, as room allows, then calls on_drained. */
void channel_finish(struct channel *channel);

/* Frames that were dropped because they came out of turn. */
uint64_t channel_n_dropped(const struct channel *channel);

DEFINE_CLEANUP(struct channel, channel_free)
