/*
 * Making a connection to the outside, within some time. Whatever a policy says, the host itself is
 * not the outside: the kernel is asked before each connection where its packets would go.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "runtime/egress/route.h"
#include "runtime/policy/policy.h"

struct dial; /* hidden: its descriptor and event sources belong together */

enum dial_outcome {
        DIAL_CONNECTED = 1,
        DIAL_FAILED,    /* the network or the peer refused; `error` is the errno */
        DIAL_TIMED_OUT, /* nothing was heard within the time; ETIMEDOUT */
        DIAL_LOCAL,     /* an address of the host; nothing was sent */
        DIAL_BROADCAST, /* likewise */
        DIAL_MULTICAST, /* likewise */
        DIAL_NO_ROOM,   /* no descriptor, port or memory here; `error` is the errno */
};

struct dial_result {
        enum dial_outcome outcome;
        int fd;    /* CONNECTED: belongs to the callback; does not block; else -1 */
        int error; /* positive errno; 0: none */
};

struct dial_config {
        sd_event *event;
        struct routes *routes;
        uint64_t timeout_usec;
        /* Addresses of the host that may be dialled all the same. Not needed after dial_new(). */
        const struct policy_prefix *opened;
        size_t n_opened;
        /*
         * Called once, from the loop, never out of dial_new(); then the dial is over. It may free
         * it.
         */
        void (*on_done)(void *userdata, const struct dial_result *result);
        void *userdata;
};

/* 0 or a negative errno when the dial cannot even be made; the rest is told by on_done. */
int dial_new(const struct dial_config *config, const struct endpoint *endpoint,
             struct dial **ret_dial);

/* One that is not over is given up, and on_done is not called. Takes NULL, returns NULL. */
struct dial *dial_free(struct dial *dial);
DEFINE_CLEANUP(struct dial, dial_free)
