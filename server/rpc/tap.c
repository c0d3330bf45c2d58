/*
 * The C library's recvmsg gives way to a program's own, also for the libraries that it is linked
 * with. Should gRPC read in another way one day, its calls come over connections whose guard has
 * seen nothing, and are refused (http2_guard_has_begun).
 */
#include "server/rpc/tap.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/rpc/http2_guard.h"

static _Atomic(struct http2_guard *) guards[TAP_FDS_MAX];

void tap_set(int fd, struct http2_guard *guard)
{
        assert(fd >= 0 && fd < TAP_FDS_MAX);
        atomic_store(&guards[fd], guard);
}

static struct http2_guard *guard_of(int fd)
{
        return fd >= 0 && fd < TAP_FDS_MAX ? atomic_load(&guards[fd]) : NULL;
}

static bool is_fine(struct http2_guard *guard, const struct msghdr *message, size_t n_bytes)
{
        uint64_t now_msec = clock_monotonic_msec();

        for (size_t i = 0; i < message->msg_iovlen && n_bytes > 0; i++) {
                size_t n = MIN(n_bytes, message->msg_iov[i].iov_len);

                if (http2_guard_take(guard, message->msg_iov[i].iov_base, n, now_msec))
                        return false;
                n_bytes -= n;
        }
        return true;
}

/* On any thread: gRPC reads one connection on one thread at a time. */
ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
        ssize_t n = syscall(SYS_recvmsg, fd, message, flags);
        struct http2_guard *guard = n > 0 ? guard_of(fd) : NULL;

        if (!guard || is_fine(guard, message, (size_t)n))
                return n;
        errno = ECONNRESET; /* gRPC closes it */
        return -1;
}
