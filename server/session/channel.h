/*
 * The pipes of a language kernel: commands to it, events, standard output and error from it.
 *
 * Order: before a frame is handled, what the two outputs hold is drained; then a SYNC frame is
 * acknowledged. When the observer has no room, nothing is read until channel_resume: the program
 * then blocks in its writes, and an ACK waits too.
 *
 * A successor of this process can take a channel over at any moment, when it has the descriptors,
 * the inlet and what channel_save gave at the last on_progress: no frame is handled twice or missed
 * by it, and none reaches the kernel twice or never.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/session/kernel_frame.h"

struct channel;
struct inlet;

enum { CHANNEL_E_FULL = 1 }; /* there is no room now */

enum channel_stream {
        CHANNEL_STDOUT,
        CHANNEL_STDERR,
        _CHANNEL_STREAM_N,
};

/* Nothing may free the channel from within these, but for the last three, which come last. */
struct channel_observer {
        /* Takes up to @limit bytes from the pipe @fd: 0 with *@ret_n (zero: end of file), -EAGAIN,
         * or CHANNEL_E_FULL. */
        int (*take_output)(void *userdata, enum channel_stream stream, int fd, size_t limit,
                           size_t *ret_n);
        /* A frame with so large a payload can be taken. */
        bool (*has_room)(void *userdata, size_t n_payload);
        /* @is_too_large: a bundle whose part is above the operator's limit. */
        void (*on_frame)(void *userdata, const struct kernel_frame *frame, bool is_too_large);
        /* Before anything is told to the kernel: what channel_save gives now is to be kept. */
        void (*on_progress)(void *userdata);
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

struct channel_config {
        sd_event *loop;
        struct inlet *inlet; /* outlives the channel */
        uint64_t part_max_bytes;
        const struct channel_observer *observer;
        void *userdata;
};

/* Takes the descriptors over, also when it fails. They do not block. */
int channel_new(const struct channel_config *config, struct channel_fds *fds,
                struct channel **ret_channel);
struct channel *channel_free(struct channel *channel);

/* Commands are queued; channel_flush writes what the pipe takes, and the rest follows by itself. */
int channel_queue_hello(struct channel *channel, const char *working_directory);

/* The kernel is ready and nothing runs (channel_is_idle). *@ret_execution: its number. */
int channel_queue_execute(struct channel *channel, const Hotcell__Sandbox__V1__Execute *execute,
                          uint32_t *ret_execution);
void channel_flush(struct channel *channel);

/* What a successor needs to know, apart from the descriptors and the inlet. Copied as it is. */
struct channel_saved {
        uint64_t n_consumed; /* bytes of events that were handled */
        uint64_t n_sent;     /* command frames written */
        uint64_t n_queued;   /* command frames made */
        uint64_t code_begin; /* first of the frames of the code sent last */
        uint64_t code_end;   /* and the one after them */
        uint64_t n_unknown;
        struct kernel_order order;
        bool is_broken;
};

void channel_save(const struct channel *channel, struct channel_saved *ret_saved);

/* True within on_frame: what is saved then is not yet the frame's whole effect. */
bool channel_is_handling(const struct channel *channel);

/*
 * Goes on where the predecessor was. @working_directory and @execute (NULL: no code was on its way)
 * are what it sent: whatever of them may not have arrived is queued again, and so are
 * acknowledgements. Nothing is read or written before channel_flush and channel_resume.
 */
int channel_restore(const struct channel_config *config, struct channel_fds *fds,
                    const struct channel_saved *saved, const char *working_directory,
                    const Hotcell__Sandbox__V1__Execute *execute, struct channel **ret_channel);

/* Some frames of the code sent last may not have arrived: channel_restore needs it. */
bool channel_saved_needs_code(const struct channel_saved *saved);

/* What it was sent for is over: so it arrived, or nobody reads it any more. */
void channel_saved_drop_code(struct channel_saved *saved);

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
