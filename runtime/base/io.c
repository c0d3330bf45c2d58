#include "runtime/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum { PACKET_FDS_MAX = 16 };

int io_write_all(int fd, const void *bytes, size_t n_bytes)
{
        const char *at = bytes;

        while (n_bytes > 0) {
                ssize_t n = write(fd, at, n_bytes);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_origin(-errno);
                at += n;
                n_bytes -= (size_t)n;
        }
        return 0;
}

int io_read_file(int dir_fd, const char *path, char *buffer, size_t size, size_t *ret_length)
{
        _cleanup_(closep) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
        size_t used = 0;

        if (fd < 0)
                return -errno;
        for (;;) {
                ssize_t n = read(fd, buffer + used, size - used);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                used += (size_t)n;
                if (used == size)
                        return error_origin(-EFBIG);
        }
        buffer[used] = '\0';
        if (ret_length)
                *ret_length = used;
        return 0;
}

int io_write_file(int dir_fd, const char *path, const char *text)
{
        _cleanup_(closep) int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC);
        size_t length = strlen(text);
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = write(fd, text, length);
        if (n < 0)
                return -errno;
        return (size_t)n == length ? 0 : error_origin(-EIO);
}

int io_send_packet(int socket_fd, const void *bytes, size_t n_bytes, const int *fds, size_t n_fds)
{
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
        } control = { 0 };
        struct iovec data = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n_bytes };
        struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
        ssize_t n;

        assert(n_fds <= PACKET_FDS_MAX);
        if (n_fds > 0) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n_fds);
        }
        do
                n = sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

static size_t collect_fds(struct msghdr *message, int *fds, size_t capacity)
{
        size_t n_fds = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t n;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (n_fds < capacity)
                                fds[n_fds] = fd;
                        else
                                (void)close(fd);
                        n_fds++;
                }
        }
        return n_fds;
}

int io_receive_packet(int socket_fd, void *bytes, size_t *n_bytes, int *fds, size_t *n_fds)
{
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
        } control;
        struct iovec data = { .iov_base = bytes, .iov_len = *n_bytes };
        struct msghdr message = {
                .msg_iov = &data,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        size_t n_received;
        ssize_t n;

        do
                n = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;

        n_received = collect_fds(&message, fds, *n_fds);
        if (n == 0 && n_received == 0)
                return IO_E_END;
        if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || n_received > *n_fds) {
                for (size_t i = 0; i < MIN(n_received, *n_fds); i++)
                        (void)close(fds[i]);
                *n_fds = 0;
                return IO_E_TOO_BIG;
        }
        *n_bytes = (size_t)n;
        *n_fds = n_received;
        return 0;
}
