/*
 * The process of a context's interpreter: started through the runtime, ready after READY, over when
 * the runtime says so and its pipes are empty.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "runtime/base/dns_label.h"
#include "server/session/channel.h"
#include "server/session/kernel_end.h"
#include "server/session/last_words.h"
#include "server/store/records.h"

#include "hotcell/runtime/v1/runtime.pb-c.h"

struct context;
struct journal;

/*
 *   NONE --start--> ASKED ----answer----> STARTING --READY--> READY
 *                     |                      |                  |
 *                    kill                    +------ kill ------+
 *                     v                      v                  |
 *                  UNWANTED --answer-----> KILLED              end (also while STARTING)
 *                     |                      |                  |
 *                    gone (also when ASKED) end                 |
 *                     v                      v                  |
 *                  MISSED ---answer-----> DRAINING <------------+
 *                                            |
 *                                          empty --> NONE
 *
 * A refusal leads from ASKED, UNWANTED and MISSED to NONE; an answer whose channel cannot be used
 * from ASKED to KILLED. One that was taken over from a predecessor begins as STARTING, READY or
 * KILLED. READY is told only once the runtime keeps the journal: from then on no restart of the
 * server loses what runs.
 */
enum kernel_state {
        KERNEL_NONE,     /* owns nothing */
        KERNEL_ASKED,    /* StartProcess was sent; owns the start timer */
        KERNEL_UNWANTED, /* the same, but it is to be killed as soon as it was started */
        KERNEL_MISSED,   /* gone before the answer that brings its descriptors */
        KERNEL_STARTING, /* owns the channel and a timer: of the start or of a closed channel */
        KERNEL_READY,    /* owns the channel; a timer when that was closed */
        KERNEL_KILLED,   /* SIGKILL was sent; owns the channel, if it could be opened */
        KERNEL_DRAINING, /* its end is known; owns the channel until that is empty */
        _KERNEL_STATE_N,
};

enum {
        KERNEL_PIPES = 4, /* output, error, commands, events, in the order of the runtime */
};

struct kernel {
        enum kernel_state state;
        char process_id[ID_BUFFER];
        uint64_t cgroup_id;      /* of its leaf; zero: not known */
        struct journal *journal; /* with the channel */
        bool has_said_ready;     /* READY was seen */
        struct channel *channel;
        sd_event_source *timer;       /* of the start, or between a closed channel and the kill */
        struct kernel_end end;        /* as far as it is known */
        struct last_words last_words; /* on standard error, while it started */
};

/* Starts a process for @context in its present generation. */
void kernel_start(struct context *context);

/* SIGKILL to its leaf cgroup, now or as soon as there is one. */
void kernel_kill(struct context *context);
void kernel_interrupt(struct context *context);

/* What a successor is to know of it and of its executions, as it is now. */
void kernel_save(struct context *context);

/* One of its rings is free, or missing. */
void kernel_on_ring_released(struct context *context);

/* A predecessor's, with the pipes that the runtime kept. @execute: the code on its way, or NULL.
 * Takes the descriptors and the journal, also when it fails. Nothing moves before kernel_go_on. */
int kernel_take_over(struct context *context, struct journal *journal, int fds[static KERNEL_PIPES],
                     const Hotcell__Sandbox__V1__Execute *execute);
void kernel_go_on(struct context *context);

/* The runtime says that it ended. */
void kernel_on_process_ended(struct context *context,
                             const Hotcell__Runtime__V1__ProcessEnded *ended);

/* It went with its sandbox or its runtime. */
void kernel_on_gone(struct context *context, enum process_end_kind kind);

void kernel_deinit(struct kernel *kernel);
