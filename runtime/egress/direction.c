/*
 * A turn fills the pipe and drains it until neither moves a byte. Then
 *   - the pipe is empty and so is the socket: bytes that arrive are an edge; or
 *   - the pipe holds bytes and the other socket took none: its room is an edge. An edge of the
 * first socket may be missed meanwhile, but every turn tries to read, too. What EAGAIN says of
 * filling is either, no bytes or no room in the pipe; it makes no difference.
 */
#include "runtime/egress/direction.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"

enum {
        TURN_BYTES = 256 * 1024,
        FILL_BYTES = 256 * 1024,
        NARROW_PIPE_BYTES = 8 * 1024,
        WIDE_PIPE_BYTES = 128 * 1024,
};

static const unsigned next_states[] = {
        [DIRECTION_OPEN] = BIT(DIRECTION_DRAINING),
        [DIRECTION_DRAINING] = BIT(DIRECTION_OVER),
        [DIRECTION_OVER] = 0,
};
static_assert(ARRAY_SIZE(next_states) == _DIRECTION_STATE_N, "every state has a row");

int direction_init(struct direction *direction, int from_fd, int to_fd)
{
        int fds[2];

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        /* What the kernel gives to those who have too much. */
        (void)fcntl(fds[1], F_SETPIPE_SZ, NARROW_PIPE_BYTES);
        *direction = (struct direction){
                .from_fd = from_fd, .to_fd = to_fd, .pipe_out = fds[0], .pipe_in = fds[1]
        };
        return 0;
}

bool direction_widen(struct direction *direction)
{
        return fcntl(direction->pipe_in, F_SETPIPE_SZ, WIDE_PIPE_BYTES) >= 0;
}

void direction_deinit(struct direction *direction)
{
        direction->pipe_out = close_fd(direction->pipe_out);
        direction->pipe_in = close_fd(direction->pipe_in);
}

static void enter(struct direction *direction, enum direction_state next)
{
        assert(next_states[direction->state] & BIT(next));
        assert(next != DIRECTION_OVER || direction->n_held == 0);

        direction->state = next;
        if (next == DIRECTION_OVER)
                direction_deinit(direction);
}

/* 0 and *@ret_n, which is 0 at the end; or a positive errno. */
static int move(int from_fd, int to_fd, size_t n_bytes, size_t *ret_n)
{
        ssize_t n;

        do
                n = splice(from_fd, NULL, to_fd, NULL, n_bytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        while (n < 0 && errno == EINTR);
        *ret_n = n > 0 ? (size_t)n : 0;
        return n < 0 ? errno : 0;
}

/* In front of a byte of urgent data splice(2) may say that all was read. */
static bool is_more_there(int fd)
{
        char byte;

        return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static int fill(struct direction *direction, struct direction_turn *turn)
{
        size_t n;
        int error;

        if (direction->state != DIRECTION_OPEN)
                return 0;
        error = move(direction->from_fd, direction->pipe_in, FILL_BYTES, &n);
        if (error == EAGAIN)
                return 0;
        if (error) {
                turn->error = error;
                return DIRECTION_E_FROM;
        }
        if (n == 0) {
                if (is_more_there(direction->from_fd))
                        return DIRECTION_E_URGENT;
                enter(direction, DIRECTION_DRAINING);
        }
        direction->n_held += n;
        turn->n_moved += n;
        return 0;
}

static int drain(struct direction *direction, struct direction_turn *turn)
{
        size_t n;
        int error;

        if (direction->n_held == 0)
                return 0;
        error = move(direction->pipe_out, direction->to_fd, direction->n_held, &n);
        if (error == EAGAIN)
                return 0;
        if (error || n == 0) {
                turn->error = error ? error : EIO;
                return DIRECTION_E_TO;
        }
        direction->n_held -= n;
        direction->n_bytes += n;
        turn->n_moved += n;
        if (direction->on_moved)
                direction->on_moved(direction->userdata, n);
        return 0;
}

static int pass_end_on(struct direction *direction, struct direction_turn *turn)
{
        if (direction->state != DIRECTION_DRAINING || direction->n_held > 0)
                return 0;
        if (shutdown(direction->to_fd, SHUT_WR) < 0) {
                turn->error = errno;
                return DIRECTION_E_TO;
        }
        enter(direction, DIRECTION_OVER);
        return 0;
}

int direction_pump(struct direction *direction, struct direction_turn *ret_turn)
{
        struct direction_turn turn = { 0 };
        size_t n_before;
        int r;

        do {
                n_before = turn.n_moved;
                r = fill(direction, &turn);
                if (!r)
                        r = drain(direction, &turn);
        } while (!r && turn.n_moved > n_before && turn.n_moved < TURN_BYTES);
        turn.is_cut_short = turn.n_moved > n_before;
        if (!r)
                r = pass_end_on(direction, &turn);
        *ret_turn = turn;
        return r;
}
