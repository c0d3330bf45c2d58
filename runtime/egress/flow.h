/*
 * One connection that is relayed: a socket whose other end is in a sandbox, one whose other end is
 * outside, and a pipe for each direction, through which the kernel moves the bytes (splice(2));
 * none come into this process. Who reads slowly slows the writer: what is on its way is what the
 * two sockets and the pipe hold.
 *
 * Ends are passed on as they are: the end of one direction (shutdown(2)) as that, a reset as a
 * reset. Of a reset the other end may see less than was sent before it, as with any connection.
 *
 * A flow may rest as long as it likes; a peer that is gone without a word is found in some four
 * minutes (FLOW_FAILED, ETIMEDOUT): by keepalives, or because it takes nothing of what is sent to
 * it (TCP_USER_TIMEOUT; by itself the kernel tries for a quarter of an hour). So is one outside
 * that is there, but reads nothing for as long though there is something for it.
 *
 * SIGPIPE must be ignored in the process: splice(2) has no flag against it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"

struct flow; /* hidden: descriptors, event sources and counts belong together */

enum flow_side {
        FLOW_INSIDE,
        FLOW_OUTSIDE,
        _FLOW_SIDE_N,
};

enum {
        FLOW_DESCRIPTORS = 6, /* that a flow holds: two sockets and two pipes */
        FLOW_WIDE_MAX = 64,   /* wide pipes of those who share a count of them */
        FLOW_E_NO_ROOM = 1,   /* no descriptor or memory here for another flow */
};

/*
 *   each direction:  open ──▶ draining ──▶ over      both over: FLOW_CLOSED
 *                      │          │
 *                      └──────────┴──▶ all other ways, which reset both sides
 */
enum flow_how {
        FLOW_CLOSED = 1, /* both sides ended, and all bytes were passed on */
        FLOW_RESET,      /* by `side`; `error` is ECONNRESET or EPIPE */
        FLOW_FAILED,     /* the connection of `side` broke; `error` says how */
        FLOW_URGENT,     /* `side` sent urgent data (RFC 6093), which cannot pass */
        FLOW_CUT,        /* by flow_cut() */
};

/* What was handed to the other side's socket. */
struct flow_count {
        uint64_t bytes;
};

struct flow_end {
        enum flow_how how;
        enum flow_side side;        /* RESET, FAILED, URGENT: whose doing it was */
        int error;                  /* RESET, FAILED: positive errno; else 0 */
        struct flow_count sent;     /* by the inside */
        struct flow_count received; /* by the inside */
        uint64_t duration_usec;
};

struct flow_config {
        sd_event *event;
        /* Wide pipes (direction.h) of all flows that share this: one that carries much takes one
         * while there are less than FLOW_WIDE_MAX. Outlives the flow. */
        size_t *n_wide;
        /* Bytes from @side were handed to the other side's socket: what struct flow_end adds up.
         * NULL: nobody asks. It must leave the flow alone. */
        void (*on_moved)(enum flow_side side, size_t n_bytes, void *userdata);
        /*
         * Called once, when both sockets are closed and nothing is held any more. It may free the
         * flow. Out of flow_cut() or the loop, never out of flow_new().
         */
        void (*on_end)(struct flow *flow, const struct flow_end *end, void *userdata);
        void *userdata;
};

/*
 * Takes both sockets, which must not block, in any case: when it fails both are reset. Bytes that
 * were looked at before with MSG_PEEK are still in the socket and are passed on. 0, FLOW_E_NO_ROOM
 * or a negative errno.
 */
int flow_new(const struct flow_config *config, int inside_fd, int outside_fd,
             struct flow **ret_flow);

/* Resets both sides at once, for a policy that forbids it now. on_end is called before it returns.
 * The flow must not have ended. */
void flow_cut(struct flow *flow);

/*
 * With SO_LINGER of no time, the last close of a socket sends a reset and drops what was not sent.
 * A flow's have that until it ends in order: so when the process is killed the kernel resets them,
 * and nobody takes what came so far for all.
 */
void flow_reset_at_close(int fd, bool is_reset);

/* One that has not ended is reset, and on_end is not called. Takes NULL, returns NULL. */
struct flow *flow_free(struct flow *flow);
DEFINE_CLEANUP(struct flow, flow_free)
