/*
 * gRPC tells of a call only that it came over `fd:N`, and the caller's identity hangs on N. Numbers
 * are reused: a call that is still on its way to the loop when its connection is gone must not be
 * taken for one of whoever connects next. So each connection is moved to a number of our own
 * window, which is gone through in a circle, and a number found closed rests before it is given
 * again, by the clock and by turns of the loop (the process may have been stopped meanwhile). Calls
 * on their way are handled within a few turns, since handling and accepting share the loop.
 *
 * gRPC owns the descriptors and does not say when it closes them: the socket's cookie tells.
 */
#include "server/rpc/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"

enum {
        WINDOW_MAX = 16384, /* numbers; the kernel's table grows with the highest one */
        REST_MSEC = 1000,
        REST_TURNS = 16,
};

enum seat_state {
        SEAT_FREE = 0,
        SEAT_TAKEN,   /* by a connection, as far as we know */
        SEAT_RESTING, /* closed; not to be given yet */
};

struct seat {
        enum seat_state state;
        struct rpc_peer peer;
        uint64_t cookie;
        uint64_t rest_until; /* ms */
        uint64_t rest_turn;  /* of the loop */
};

struct peers {
        sd_event *loop;
        unsigned connections_max;
        unsigned n_taken;
        int first; /* number of the first seat */
        unsigned n_seats;
        unsigned next; /* where the circle goes on */
        struct seat *seats;
};

static uint64_t now_turn(const struct peers *peers)
{
        uint64_t turn = 0;

        (void)sd_event_get_iteration(peers->loop, &turn);
        return turn;
}

static int socket_cookie(int fd, uint64_t *ret_cookie)
{
        socklen_t size = sizeof(*ret_cookie);

        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret_cookie, &size) < 0 ? -errno : 0;
}

/*
 * The upper half of what the process may open. The highest number is used once, now: growing the
 * table of a process with threads waits for a grace period of the kernel.
 */
static void choose_window(struct peers *peers)
{
        struct rlimit limit = { .rlim_cur = 1024 };
        unsigned top;
        int fd;

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        top = (unsigned)MIN(limit.rlim_cur, (rlim_t)2 * WINDOW_MAX);
        peers->first = (int)(top / 2);
        peers->n_seats = top - top / 2;

        fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, (int)top - 1);
        (void)close_fd(fd);
}

int peers_new(sd_event *loop, unsigned connections_max, struct peers **ret_peers)
{
        _cleanup_(peers_freep) struct peers *peers = NULL;

        peers = calloc(1, sizeof(*peers));
        if (!peers)
                return error_origin(-ENOMEM);

        peers->loop = sd_event_ref(loop);
        peers->connections_max = connections_max;
        choose_window(peers);
        if (peers->n_seats < connections_max)
                log_warning("fewer connections than configured, for the limit of open files "
                            "configured=%u possible=%u",
                            connections_max, peers->n_seats);

        peers->seats = calloc(peers->n_seats, sizeof(*peers->seats));
        if (!peers->seats)
                return error_origin(-ENOMEM);

        *ret_peers = take(peers);
        return 0;
}

struct peers *peers_free(struct peers *peers)
{
        if (!peers)
                return NULL;
        (void)sd_event_unref(peers->loop);
        free(peers->seats);
        free(peers);
        return NULL;
}

/* Lets the seat rest when its connection is gone. */
static void seat_check(struct peers *peers, struct seat *seat)
{
        int fd = peers->first + (int)(seat - peers->seats);
        uint64_t cookie;

        if (seat->state != SEAT_TAKEN)
                return;
        if (socket_cookie(fd, &cookie) == 0 && cookie == seat->cookie)
                return;

        seat->state = SEAT_RESTING;
        seat->rest_until = clock_monotonic_msec() + REST_MSEC;
        seat->rest_turn = now_turn(peers) + REST_TURNS;
        peers->n_taken--;
}

static bool has_rested(const struct peers *peers, const struct seat *seat)
{
        return clock_monotonic_msec() >= seat->rest_until && now_turn(peers) >= seat->rest_turn;
}

static bool seat_is_free(struct peers *peers, struct seat *seat)
{
        seat_check(peers, seat);
        if (seat->state == SEAT_RESTING && has_rested(peers, seat))
                seat->state = SEAT_FREE;
        return seat->state == SEAT_FREE;
}

/* Gives @fd the number of a free seat. Others may sit on a number of ours: then the next one. */
static int seat_take(struct peers *peers, int fd, struct seat **ret_seat, int *ret_fd)
{
        for (unsigned i = 0; i < peers->n_seats; i++) {
                struct seat *seat = &peers->seats[peers->next];
                int wanted = peers->first + (int)peers->next;
                _cleanup_(closep) int got = -1;

                peers->next = (peers->next + 1) % peers->n_seats;
                if (!seat_is_free(peers, seat))
                        continue;

                got = fcntl(fd, F_DUPFD_CLOEXEC, wanted);
                if (got < 0)
                        return errno == EINVAL || errno == EMFILE ? PEERS_E_NO_NUMBER
                                                                  : error_origin(-errno);
                if (got != wanted)
                        continue;

                *ret_seat = seat;
                *ret_fd = take_fd(&got);
                return 0;
        }
        return PEERS_E_NO_NUMBER;
}

int peers_admit(struct peers *peers, int fd, const struct rpc_peer *peer, int *ret_fd)
{
        struct seat *seat = NULL;
        uint64_t cookie;
        int r;

        for (unsigned i = 0; peers->n_taken >= peers->connections_max && i < peers->n_seats; i++)
                seat_check(peers, &peers->seats[i]);
        if (peers->n_taken >= peers->connections_max)
                return PEERS_E_FULL;

        r = socket_cookie(fd, &cookie);
        if (r)
                return error_origin(r);
        r = seat_take(peers, fd, &seat, ret_fd);
        if (r)
                return r;

        assert(seat);
        *seat = (struct seat){ .state = SEAT_TAKEN, .peer = *peer, .cookie = cookie };
        peers->n_taken++;
        (void)close_fd(fd);
        return 0;
}

const struct rpc_peer *peers_find(const struct peers *peers, int fd)
{
        const struct seat *seat;

        if (fd < peers->first || (unsigned)(fd - peers->first) >= peers->n_seats)
                return NULL;
        seat = &peers->seats[fd - peers->first];
        return seat->state == SEAT_FREE ? NULL : &seat->peer;
}
