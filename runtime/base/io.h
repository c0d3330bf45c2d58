/* Reading and writing whole things, and packets that carry descriptors. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
        IO_E_END = 1, /* the peer closed the connection */
        IO_E_TOO_BIG, /* more bytes or descriptors than the caller takes; they were dropped */
};

/* Writes all of it, through EINTR; @fd must block. */
int io_write_all(int fd, const void *bytes, size_t n_bytes);

/*
 * Reads a small file (below @size) into @buffer and ends it with NUL. Relative to @dir_fd. Returns
 * 0 and sets
 * *@ret_length (may be NULL), or a negative errno; -EFBIG when it does not fit.
 */
int io_read_file(int dir_fd, const char *path, char *buffer, size_t size, size_t *ret_length);

/* Writes @text to an existing file in one write(2), as cgroup and procfs files need it. */
int io_write_file(int dir_fd, const char *path, const char *text);

/* Sends one packet with @n_fds descriptors (at most 16). -EAGAIN when the socket is full. */
int io_send_packet(int socket_fd, const void *bytes, size_t n_bytes, const int *fds, size_t n_fds);

/*
 * Receives one packet: *@n_bytes is the buffer's size before and the packet's after; *@n_fds
 * likewise. The descriptors are close-on-exec and belong to the caller. -EAGAIN when there is none.
 * On IO_E_TOO_BIG nothing is kept.
 */
int io_receive_packet(int socket_fd, void *bytes, size_t *n_bytes, int *fds, size_t *n_fds);
