/*
 * One direction of a relayed connection: the kernel moves bytes from a socket into a pipe and from
 * there into another socket. It knows of no loop: whoever does tells it when there may be something
 * to do.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 *   open ──▶ draining ──▶ over
 */
enum direction_state {
        DIRECTION_OPEN,     /* more may come */
        DIRECTION_DRAINING, /* the end came; bytes may still be in the pipe */
        DIRECTION_OVER,     /* the end was passed on, the pipe is closed */
        _DIRECTION_STATE_N,
};

enum {
        DIRECTION_E_FROM = 1, /* the socket that it comes from is broken; see `error` */
        DIRECTION_E_TO,       /* the one that it goes to is */
        DIRECTION_E_URGENT,   /* urgent data came, which splice(2) does not carry */
};

struct direction {
        enum direction_state state;
        int from_fd; /* not its own; must not block */
        int to_fd;   /* likewise */
        int pipe_out;
        int pipe_in;
        size_t n_held;    /* bytes in the pipe */
        uint64_t n_bytes; /* that the other socket took */
        /* Told of them at once, before what is behind them is passed on; NULL: nobody asks. */
        void (*on_moved)(void *userdata, size_t n_bytes);
        void *userdata;
};

struct direction_turn {
        size_t n_moved;    /* bytes, in and out */
        bool is_cut_short; /* there is more to do at once */
        int error;         /* E_FROM, E_TO: positive errno */
};

/* With a narrow pipe. 0 or a negative errno: then there is nothing to deinit. */
int direction_init(struct direction *direction, int from_fd, int to_fd);
void direction_deinit(struct direction *direction);

/*
 * A wide pipe halves the work of many bytes. What all pipes of a user may hold is bounded
 * (fs.pipe-user-pages-soft: 64 MiB, of which a wide one takes 128 KiB and a narrow one 8): beyond
 * that this is false, nothing is changed, and all goes on.
 */
bool direction_widen(struct direction *direction);

/*
 * Moves what can be moved, up to some 256 KiB, and passes the end on once all is moved (shutdown(2)
 * of the other socket). 0 or an outcome above, after which it must not be called again. Unless the
 * turn was cut short, one of these will be an edge in epoll's sense (EPOLLET) before there is
 * anything to do: `from` becomes readable, or, with bytes in the pipe, `to` writable.
 */
int direction_pump(struct direction *direction, struct direction_turn *ret_turn);
