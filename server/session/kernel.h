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
#include "server/session/process_end.h"
#include "server/store/records.h"

#include "hotcell/runtime/v1/runtime.pb-c.h"

struct context;

/*
 *   NONE --start--> STARTING --READY--> READY --kill or end--> DYING --drained--> NONE
 *    ^-- refused ------'`------------- kill or end --------------^
 */
enum kernel_state {
        KERNEL_NONE,     /* owns nothing */
        KERNEL_STARTING, /* StartProcess was sent; owns the start timer, and the channel once
                            answered */
        KERNEL_READY,    /* owns the channel */
        KERNEL_DYING,    /* SIGKILL was sent or the end was seen; the pipes are being emptied */
        _KERNEL_STATE_N,
};

struct kernel {
        enum kernel_state state;
        char process_id[ID_BUFFER];
        struct channel *channel;
        sd_event_source *timer; /* of the start, or between a closed channel and the kill */
        bool is_answer_pending; /* of StartProcess */
        bool was_ready;         /* code may have run in it */
        bool is_unwanted;       /* to be killed as soon as it was started */
        bool has_ended;         /* @end is good */
        struct process_end end;
        const char *protocol_error;
        int failure; /* SESSION_E_: why it did not start */
        enum cause failure_cause;
        char failure_message[MESSAGE_BUFFER];
        uint8_t said[160]; /* the last it wrote to standard error while it started */
        size_t n_said;
};

/* Starts a process for @context in its present generation. */
void kernel_start(struct context *context);

/* SIGKILL to its leaf cgroup, now or as soon as there is one. */
void kernel_kill(struct context *context);
void kernel_interrupt(struct context *context);

/* The runtime says that it ended. */
void kernel_on_process_ended(struct context *context,
                             const Hotcell__Runtime__V1__ProcessEnded *ended);

/* It went with its sandbox or its runtime. */
void kernel_on_gone(struct context *context, enum process_end_kind kind);

void kernel_deinit(struct kernel *kernel);
