/*
 * gRPC tells of a call only that it came over `fd:N`, and the caller's identity hangs on N. Numbers
 * are reused: a call that is still on its way to the loop when its connection is gone must not be
 * taken for one of whoever connects next. So each connection is moved to a number of our own
 * window, which is gone through in a circle, and a number found closed rests before it is given
 * again, by the clock and by turns of the loop (the process may have been stopped meanwhile). Calls
 * on their way are handled within a few turns, since handling and accepting share the loop.
 *
 * gRPC owns the descriptors and does not say when it closes them: the socket's cookie tells.
 *
 *      free ──▶ taken ──▶ resting ──▶ free
 *                 └──▶ dropped ──▲ (we have shut it down, and gRPC has not closed it yet)
 *
 * A TCP connection is a stranger's until a call has shown whose it is: it has so much time for
 * that, and when places run out those of the oldest strangers are given to newcomers.
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
#include "server/rpc/accounts.h"
#include "server/rpc/tap.h"

enum {
        WINDOW_MAX = 16384, /* numbers; the kernel's table grows with the highest one */
        REST_MSEC = 1000,
        REST_TURNS = 16,
};

enum seat_state {
        SEAT_FREE = 0,
        SEAT_TAKEN,   /* by a connection, as far as we know */
        SEAT_DROPPED, /* hung up on; gRPC is about to close it */
        SEAT_RESTING, /* closed; not to be given yet */
};

struct seat {
        enum seat_state state;
        bool is_stranger;
        TAILQ_ENTRY(seat) open;      /* taken and dropped ones */
        TAILQ_ENTRY(seat) strangers; /* is_stranger */
        struct rpc_peer peer;
        struct http2_guard *guard;
        struct account *account; /* NULL: nobody's yet */
        uint64_t begin_msec;
        uint64_t cookie;
        uint64_t rest_until; /* ms */
        uint64_t rest_turn;  /* of the loop */
};

TAILQ_HEAD(seat_list, seat);

struct peers {
        sd_event *loop;
        struct peers_limits limits;
        unsigned n_taken;
        unsigned n_tcp; /* of these */
        struct seat_list open;
        struct seat_list strangers; /* oldest first */
        bool is_full;               /* said so already */
        uint64_t log_msec;
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

int peers_new(sd_event *loop, const struct peers_limits *limits, struct peers **ret_peers)
{
        _cleanup_(peers_freep) struct peers *peers = NULL;

        peers = calloc(1, sizeof(*peers));
        if (!peers)
                return error_origin(-ENOMEM);

        peers->loop = sd_event_ref(loop);
        peers->limits = *limits;
        TAILQ_INIT(&peers->open);
        TAILQ_INIT(&peers->strangers);
        choose_window(peers);
        if (peers->n_seats < limits->connections_max)
                log_warning("fewer connections than configured, for the limit of open files "
                            "configured=%u possible=%u",
                            limits->connections_max, peers->n_seats);

        peers->seats = calloc(peers->n_seats, sizeof(*peers->seats));
        if (!peers->seats)
                return error_origin(-ENOMEM);

        *ret_peers = take(peers);
        return 0;
}

static int seat_fd(const struct peers *peers, const struct seat *seat)
{
        return peers->first + (int)(seat - peers->seats);
}

/* Its place is free for another connection. */
static void seat_give_up(struct peers *peers, struct seat *seat)
{
        peers->n_taken--;
        if (!seat->peer.is_unix)
                peers->n_tcp--;
        if (seat->is_stranger)
                TAILQ_REMOVE(&peers->strangers, seat, strangers);
        seat->is_stranger = false;
        if (seat->account)
                account_end_connection(take(seat->account));
}

/* Many are closed by what their guards saw in a flood: one line a second tells. */
static void log_verdict(struct peers *peers, const struct seat *seat)
{
        enum http2_verdict verdict = http2_guard_verdict(seat->guard);
        uint64_t now_msec = clock_monotonic_msec();

        if (!verdict || now_msec < peers->log_msec)
                return;
        peers->log_msec = now_msec + 1000;
        log_warning("a connection was closed for what it sent reason=\"%s\" uid=%d",
                    http2_verdict_text(verdict), seat->peer.is_unix ? (int)seat->peer.uid : -1);
}

/* Nobody reads its socket any more. */
static void seat_close(struct peers *peers, struct seat *seat)
{
        if (seat->state == SEAT_TAKEN)
                seat_give_up(peers, seat);
        log_verdict(peers, seat);
        tap_set(seat_fd(peers, seat), NULL);
        seat->guard = http2_guard_free(seat->guard);
        TAILQ_REMOVE(&peers->open, seat, open);
}

struct peers *peers_free(struct peers *peers)
{
        struct seat *seat;

        if (!peers)
                return NULL;
        while ((seat = TAILQ_FIRST(&peers->open)))
                seat_close(peers, seat);
        (void)sd_event_unref(peers->loop);
        free(peers->seats);
        free(peers);
        return NULL;
}

/* Lets the seat rest when its connection is gone. */
static void seat_check(struct peers *peers, struct seat *seat)
{
        uint64_t cookie;

        if (seat->state != SEAT_TAKEN && seat->state != SEAT_DROPPED)
                return;
        if (socket_cookie(seat_fd(peers, seat), &cookie) == 0 && cookie == seat->cookie)
                return;
        seat_close(peers, seat);
        seat->state = SEAT_RESTING;
        seat->rest_until = clock_monotonic_msec() + REST_MSEC;
        seat->rest_turn = now_turn(peers) + REST_TURNS;
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

/* --- places --- */

static bool has_place(const struct peers *peers, const struct rpc_peer *peer)
{
        unsigned max = peers->limits.connections_max;

        return peers->n_taken < max && (peer->is_unix || peers->n_tcp < max - max / 8);
}

void peers_check(struct peers *peers)
{
        struct seat *next;

        for (struct seat *seat = TAILQ_FIRST(&peers->open); seat; seat = next) {
                next = TAILQ_NEXT(seat, open);
                seat_check(peers, seat);
        }
}

/* gRPC reads the end of the connection, and closes it. */
static void seat_drop(struct peers *peers, struct seat *seat)
{
        (void)shutdown(seat_fd(peers, seat), SHUT_RDWR);
        seat_give_up(peers, seat);
        seat->state = SEAT_DROPPED;
}

static int make_place(struct peers *peers, const struct rpc_peer *peer)
{
        struct seat *oldest;

        /* A flood that goes on is said once: a place comes free for each one that is closed. */
        if (peers->n_taken < peers->limits.connections_max / 2)
                peers->is_full = false;
        if (has_place(peers, peer))
                return 0;
        peers_check(peers);
        while (!has_place(peers, peer)) {
                if (!peers->is_full)
                        log_warning("connections are as many as there may be: the oldest of those "
                                    "without a key are closed, else new ones");
                peers->is_full = true;
                oldest = TAILQ_FIRST(&peers->strangers);
                if (!oldest)
                        return PEERS_E_FULL;
                seat_drop(peers, oldest);
        }
        return 0;
}

static void seat_open(struct peers *peers, struct seat *seat, const struct rpc_peer *peer,
                      struct http2_guard *guard, uint64_t cookie)
{
        *seat = (struct seat){
                .state = SEAT_TAKEN,
                .is_stranger = !peer->is_unix,
                .peer = *peer,
                .guard = guard,
                .cookie = cookie,
                .begin_msec = clock_monotonic_msec(),
        };
        peers->n_taken++;
        TAILQ_INSERT_TAIL(&peers->open, seat, open);
        if (seat->is_stranger) {
                peers->n_tcp++;
                TAILQ_INSERT_TAIL(&peers->strangers, seat, strangers);
        }
        tap_set(seat_fd(peers, seat), guard);
}

int peers_admit(struct peers *peers, int fd, const struct rpc_peer *peer, int *ret_fd)
{
        _cleanup_(http2_guard_freep) struct http2_guard *guard = NULL;
        struct seat *seat = NULL;
        uint64_t cookie;
        int r;

        r = make_place(peers, peer);
        if (r)
                return r;
        r = socket_cookie(fd, &cookie);
        if (r)
                return error_origin(r);
        r = http2_guard_new(&peers->limits.http2, &guard);
        if (r)
                return error_fold(r);
        r = seat_take(peers, fd, &seat, ret_fd);
        if (r)
                return r;

        assert(seat);
        seat_open(peers, seat, peer, take(guard), cookie);
        (void)close_fd(fd);
        return 0;
}

struct seat *peers_find(const struct peers *peers, int fd)
{
        struct seat *seat;

        if (fd < peers->first || (unsigned)(fd - peers->first) >= peers->n_seats)
                return NULL;
        seat = &peers->seats[fd - peers->first];
        if (seat->state == SEAT_FREE)
                return NULL;
        return !seat->guard || http2_guard_has_begun(seat->guard) ? seat : NULL;
}

const struct rpc_peer *seat_peer(const struct seat *seat)
{
        return &seat->peer;
}

struct account *seat_account(const struct seat *seat)
{
        return seat->account;
}

void seat_set_account(struct peers *peers, struct seat *seat, struct account *account)
{
        assert(!seat->account);
        if (seat->state != SEAT_TAKEN) {
                account_end_connection(account); /* it is gone already */
                return;
        }
        seat->account = account;
        http2_guard_trust(seat->guard);
        if (seat->is_stranger)
                TAILQ_REMOVE(&peers->strangers, seat, strangers);
        seat->is_stranger = false;
}

bool peers_tend(struct peers *peers)
{
        uint64_t now_msec = clock_monotonic_msec();
        uint64_t timeout_msec = peers->limits.identify_timeout_msec;
        struct seat *oldest;

        peers_check(peers);
        while (timeout_msec && (oldest = TAILQ_FIRST(&peers->strangers)) &&
               now_msec - oldest->begin_msec >= timeout_msec)
                seat_drop(peers, oldest);
        return !TAILQ_EMPTY(&peers->open);
}
