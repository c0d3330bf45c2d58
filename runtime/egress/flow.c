/*
 * The sockets are watched by edge (EPOLLET), once and for all: that a peer hung up is told by level
 * for ever, and a flow of which one direction goes on for long after it would keep the loop busy.
 * direction.h says why edges are enough. A turn that was cut short, so that others get theirs, goes
 * on by `again`.
 */
#include "runtime/egress/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/again.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/egress/direction.h"

enum {
        READ_EVENTS = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR,
        ALL_EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI,
        WIDEN_BYTES = 1 << 20,
        /* A peer that says nothing for two minutes is asked four times. */
        KEEPALIVE_IDLE_SEC = 120,
        KEEPALIVE_INTERVAL_SEC = 30,
        KEEPALIVE_PROBES = 4,
        /* The same four minutes for one with bytes on their way, which keepalives do not ask. */
        UNHEARD_MSEC = (KEEPALIVE_IDLE_SEC + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SEC) * 1000,
};

struct side {
        struct flow *flow;
        int fd;
        sd_event_source *source;
        struct direction direction; /* that comes from it */
        bool is_wide;               /* its pipe, and counts */
        uint64_t widen_at_bytes;    /* that it has carried */
};

struct flow {
        struct flow_config config;
        struct side sides[_FLOW_SIDE_N];
        sd_event_source *again; /* enabled: a turn was cut short */
        uint64_t started_usec;
        bool has_ended;
};

static enum flow_side other_side(enum flow_side which)
{
        return which == FLOW_INSIDE ? FLOW_OUTSIDE : FLOW_INSIDE;
}

void flow_reset_at_close(int fd, bool is_reset)
{
        const struct linger linger = { .l_onoff = is_reset, .l_linger = 0 };

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static int close_side(int fd, bool is_reset)
{
        flow_reset_at_close(fd, is_reset);
        return close_fd(fd);
}

/* When there is no wide pipe for it now, it is tried again after as much. */
static void widen(struct side *side)
{
        size_t *n_wide = side->flow->config.n_wide;

        side->is_wide = *n_wide < FLOW_WIDE_MAX && direction_widen(&side->direction);
        *n_wide += side->is_wide;
        side->widen_at_bytes = side->is_wide ? UINT64_MAX : 2 * side->direction.n_bytes;
}

/* Its pipe is gone, or goes. */
static void give_width_back(struct side *side)
{
        *side->flow->config.n_wide -= side->is_wide;
        side->is_wide = false;
}

static void let_go(struct flow *flow, bool is_reset)
{
        flow->again = sd_event_source_disable_unref(flow->again);
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                struct side *side = &flow->sides[i];

                side->source = sd_event_source_disable_unref(side->source);
                side->fd = close_side(side->fd, is_reset);
                direction_deinit(&side->direction);
                give_width_back(side);
        }
        flow->has_ended = true;
}

/* The last thing that is done with a flow: the callback may free it. */
static void finish(struct flow *flow, enum flow_how how, enum flow_side which, int error)
{
        const struct flow_end end = {
                .how = how,
                .side = which,
                .error = error,
                .sent.bytes = flow->sides[FLOW_INSIDE].direction.n_bytes,
                .received.bytes = flow->sides[FLOW_OUTSIDE].direction.n_bytes,
                .duration_usec = clock_monotonic_usec() - flow->started_usec,
        };

        let_go(flow, how != FLOW_CLOSED);
        flow->config.on_end(flow, &end, flow->config.userdata);
}

static void fail(struct flow *flow, enum flow_side which, int error)
{
        bool is_reset = error == ECONNRESET || error == EPIPE;

        finish(flow, is_reset ? FLOW_RESET : FLOW_FAILED, which, error);
}

/* The error that was not told yet, or 0. */
static int take_error(int fd)
{
        int error = 0;
        socklen_t size = sizeof(error);

        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

/* Some calls only say that there is no connection; the socket knows why. */
static void fail_as_told(struct flow *flow, enum flow_side which, int error)
{
        int told = error == ENOTCONN ? take_error(flow->sides[which].fd) : error;

        fail(flow, which, told ? told : ECONNRESET);
}

/* One turn of the direction from @which. False: the flow has ended. */
static bool pump(struct flow *flow, enum flow_side which)
{
        struct side *side = &flow->sides[which];
        struct side *other = &flow->sides[other_side(which)];
        struct direction_turn turn;

        if (side->direction.state == DIRECTION_OVER)
                return true;
        switch (direction_pump(&side->direction, &turn)) {
        case DIRECTION_E_FROM:
                fail_as_told(flow, which, turn.error);
                return false;
        case DIRECTION_E_TO:
                fail_as_told(flow, other_side(which), turn.error);
                return false;
        case DIRECTION_E_URGENT:
                finish(flow, FLOW_URGENT, which, 0);
                return false;
        }
        if (turn.is_cut_short)
                again(flow->again);
        if (side->direction.state != DIRECTION_OVER) {
                if (side->direction.n_bytes >= side->widen_at_bytes)
                        widen(side);
                return true;
        }
        give_width_back(side);
        if (other->direction.state != DIRECTION_OVER)
                return true;
        finish(flow, FLOW_CLOSED, which, 0);
        return false;
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct flow *flow = userdata;

        (void)source;
        (void)usec;
        if (pump(flow, FLOW_INSIDE))
                (void)pump(flow, FLOW_OUTSIDE);
        return 0;
}

/* False: the flow has ended. */
static bool pump_as_told(struct flow *flow, enum flow_side which, uint32_t events)
{
        enum flow_side other = other_side(which);

        if (events & READ_EVENTS && !pump(flow, which))
                return false;
        if (events & EPOLLOUT && flow->sides[other].direction.n_held > 0)
                return pump(flow, other);
        return true;
}

static int on_side(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct side *side = userdata;
        struct flow *flow = side->flow;
        enum flow_side which = (enum flow_side)(side - flow->sides);
        int error;

        (void)source;
        if (events & EPOLLPRI) {
                finish(flow, FLOW_URGENT, which, 0);
                return 0;
        }
        if (!pump_as_told(flow, which, events))
                return 0;
        /* One that no splice(2) met, because the direction is over or its pipe is full. */
        error = events & EPOLLERR ? take_error(fd) : 0;
        if (error)
                fail(flow, which, error);
        return 0;
}

/* Each write of one end is passed on as it comes. Unix sockets do not know TCP's options. */
static void set_options(int fd)
{
        static const struct {
                int level, name, value;
        } options[] = {
                { IPPROTO_TCP, TCP_NODELAY, 1 },
                { SOL_SOCKET, SO_KEEPALIVE, 1 },
                { IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_SEC },
                { IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SEC },
                { IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES },
        };

        for (size_t i = 0; i < ARRAY_SIZE(options); i++)
                (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                                 sizeof(options[i].value));
}

/* Not of the inside, which is in this kernel: it cannot vanish, and a program may rest as long as
 * it likes before it reads. */
static void bound_silence(int fd)
{
        const unsigned msec = UNHEARD_MSEC;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &msec, sizeof(msec));
}

static int watch(struct side *side)
{
        int r;

        assert(fcntl(side->fd, F_GETFL) & O_NONBLOCK);

        set_options(side->fd);
        flow_reset_at_close(side->fd, true);
        r = sd_event_add_io(side->flow->config.event, &side->source, side->fd, ALL_EVENTS | EPOLLET,
                            on_side, side);
        return r < 0 ? r : 0;
}

static void on_moved(void *userdata, size_t n_bytes)
{
        struct side *side = userdata;
        const struct flow_config *config = &side->flow->config;

        config->on_moved((enum flow_side)(side - side->flow->sides), n_bytes, config->userdata);
}

static int start(struct flow *flow)
{
        int r = 0;

        for (size_t i = 0; i < _FLOW_SIDE_N && !r; i++)
                r = direction_init(&flow->sides[i].direction, flow->sides[i].fd,
                                   flow->sides[other_side((enum flow_side)i)].fd);
        for (size_t i = 0; i < _FLOW_SIDE_N && !r && flow->config.on_moved; i++) {
                flow->sides[i].direction.on_moved = on_moved;
                flow->sides[i].direction.userdata = &flow->sides[i];
        }
        for (size_t i = 0; i < _FLOW_SIDE_N && !r; i++)
                r = watch(&flow->sides[i]);
        bound_silence(flow->sides[FLOW_OUTSIDE].fd);
        return r ? r : again_new(flow->config.event, &flow->again, on_again, flow);
}

static void init_side(struct flow *flow, enum flow_side which, int fd)
{
        flow->sides[which] = (struct side){
                .flow = flow,
                .fd = fd,
                .widen_at_bytes = WIDEN_BYTES,
                .direction = { .pipe_out = -1, .pipe_in = -1 },
        };
}

static bool is_want_of_room(int r)
{
        return r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOSPC;
}

int flow_new(const struct flow_config *config, int inside_fd, int outside_fd,
             struct flow **ret_flow)
{
        _cleanup_(flow_freep) struct flow *flow = calloc(1, sizeof(*flow));
        int r;

        if (!flow) {
                (void)close_side(inside_fd, true);
                (void)close_side(outside_fd, true);
                return FLOW_E_NO_ROOM;
        }
        flow->config = *config;
        flow->started_usec = clock_monotonic_usec();
        init_side(flow, FLOW_INSIDE, inside_fd);
        init_side(flow, FLOW_OUTSIDE, outside_fd);
        r = start(flow);
        if (r)
                return is_want_of_room(r) ? FLOW_E_NO_ROOM : error_origin(r);
        *ret_flow = take(flow);
        return 0;
}

void flow_cut(struct flow *flow)
{
        assert(!flow->has_ended);

        finish(flow, FLOW_CUT, FLOW_INSIDE, 0);
}

struct flow *flow_free(struct flow *flow)
{
        if (!flow)
                return NULL;

        if (!flow->has_ended)
                let_go(flow, true);
        free(flow);
        return NULL;
}
