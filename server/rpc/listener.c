/*
 * A unix socket belongs to whoever holds a flock on `<path>.lock`, a file that stays: unlinking it
 * would let two servers each lock their own. Under the lock a socket file that nobody answers on is
 * stale.
 */
#include "server/rpc/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/address.h"

enum {
        BACKLOG = 512,
        ACCEPT_BATCH = 16, /* a wake-up, so that calls get their turn */
        REST_USEC = 100000,
};

struct listener {
        int fd;
        int lock_fd;                /* unix only */
        struct sockaddr_un address; /* unix only; empty path: nothing to unlink */
        sd_event_source *source;
        sd_event_source *rest;
        bool is_resting;
        listener_on_connection on_connection;
        void *userdata;
};

static struct listener *listener_new(void)
{
        struct listener *listener = calloc(1, sizeof(*listener));

        if (listener) {
                listener->fd = -1;
                listener->lock_fd = -1;
        }
        return listener;
}

struct listener *listener_free(struct listener *listener)
{
        if (!listener)
                return NULL;
        listener_stop(listener);
        (void)close_fd(listener->lock_fd);
        free(listener);
        return NULL;
}

void listener_stop(struct listener *listener)
{
        listener->source = sd_event_source_disable_unref(listener->source);
        listener->rest = sd_event_source_disable_unref(listener->rest);
        listener->fd = close_fd(listener->fd);
        if (listener->address.sun_path[0])
                (void)unlink(listener->address.sun_path);
        listener->address.sun_path[0] = '\0';
}

/* --- opening: unix --- */

static int take_lock(struct listener *listener, const char *path)
{
        char lock_path[sizeof(listener->address.sun_path) + sizeof(".lock")];

        (void)snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
        listener->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (listener->lock_fd < 0)
                return error_origin(-errno);
        if (flock(listener->lock_fd, LOCK_EX | LOCK_NB) == 0)
                return 0;
        return errno == EWOULDBLOCK ? RPC_E_IN_USE : error_origin(-errno);
}

/* Also one that knows nothing of our lock may live there. */
static bool is_answered(const struct sockaddr_un *address)
{
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return true; /* cannot tell: leave it alone */
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
                return true;
        return errno == EAGAIN; /* alive, with a full backlog */
}

static int remove_stale(const struct sockaddr_un *address)
{
        struct stat file;

        if (lstat(address->sun_path, &file) < 0)
                return errno == ENOENT ? 0 : error_origin(-errno);
        if (!S_ISSOCK(file.st_mode))
                return RPC_E_BAD_ADDRESS;
        if (is_answered(address))
                return RPC_E_IN_USE;
        if (unlink(address->sun_path) < 0 && errno != ENOENT)
                return error_origin(-errno);
        log_info("stale socket removed path=%s", address->sun_path);
        return 0;
}

/* The socket is nobody's until it has its group: 0600 first. */
static int bind_unix(int fd, const struct sockaddr_un *address, gid_t gid)
{
        mode_t before = umask(0177);
        int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;

        (void)umask(before);
        if (r)
                return r == -EADDRINUSE ? RPC_E_IN_USE : error_origin(r);
        if (gid != (gid_t)-1 && lchown(address->sun_path, (uid_t)-1, gid) < 0)
                r = error_origin(-errno);
        else if (chmod(address->sun_path, 0660) < 0)
                r = error_origin(-errno);
        else if (listen(fd, BACKLOG) < 0)
                r = error_origin(-errno);
        if (r)
                (void)unlink(address->sun_path);
        return r;
}

int listener_new_unix(const char *path, gid_t gid, struct listener **ret_listener)
{
        _cleanup_(listener_freep) struct listener *listener = NULL;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int r;

        if (!path[0] || strlen(path) >= sizeof(address.sun_path))
                return RPC_E_BAD_ADDRESS;
        memcpy(address.sun_path, path, strlen(path) + 1);

        listener = listener_new();
        if (!listener)
                return error_origin(-ENOMEM);
        r = take_lock(listener, path);
        if (r)
                return r;
        r = remove_stale(&address);
        if (r)
                return r;

        listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (listener->fd < 0)
                return error_origin(-errno);
        r = bind_unix(listener->fd, &address, gid);
        if (r)
                return r;

        listener->address = address; /* ours to unlink from here on */
        *ret_listener = take(listener);
        return 0;
}

/* --- opening: TCP --- */

static int bind_tcp(int fd, const struct sockaddr_storage *address, socklen_t size)
{
        const int on = 1;

        /* Only against TIME_WAIT; two listeners on one port stay impossible. */
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
                return error_origin(-errno);
        if (bind(fd, (const struct sockaddr *)address, size) < 0)
                return errno == EADDRINUSE ? RPC_E_IN_USE : error_origin(-errno);
        if (listen(fd, BACKLOG) < 0)
                return errno == EADDRINUSE ? RPC_E_IN_USE : error_origin(-errno);
        return 0;
}

static uint16_t bound_port(int fd)
{
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        } address = { .v6 = { 0 } };
        socklen_t size = sizeof(address);

        if (getsockname(fd, &address.any, &size) < 0)
                return 0;
        return ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

int listener_new_tcp(const char *address, uint16_t *ret_port, struct listener **ret_listener)
{
        _cleanup_(listener_freep) struct listener *listener = NULL;
        struct sockaddr_storage parsed = { 0 };
        socklen_t size = 0;
        int r;

        r = address_parse_loopback(address, &parsed, &size);
        if (r)
                return r;

        listener = listener_new();
        if (!listener)
                return error_origin(-ENOMEM);
        listener->fd = socket(parsed.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (listener->fd < 0)
                return error_origin(-errno);
        r = bind_tcp(listener->fd, &parsed, size);
        if (r)
                return r;

        if (ret_port)
                *ret_port = bound_port(listener->fd);
        *ret_listener = take(listener);
        return 0;
}

/* --- accepting --- */

static int peer_of(int fd, struct rpc_peer *ret_peer)
{
        struct ucred credentials;
        socklen_t size = sizeof(credentials);
        int family;
        socklen_t n_family = sizeof(family);
        const int on = 1;

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n_family) < 0)
                return error_origin(-errno);
        if (family != AF_UNIX) {
                *ret_peer = (struct rpc_peer){ .is_unix = false };
                (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                return 0;
        }

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
                return error_origin(-errno);
        *ret_peer = (struct rpc_peer){
                .is_unix = true,
                .uid = credentials.uid,
                .gid = credentials.gid,
                .pid = credentials.pid,
        };
        return 0;
}

/* Level-triggered and with nothing to accept into, the loop would spin. */
static void rest(struct listener *listener, const char *reason)
{
        static struct log_quota quota;

        if (!listener->is_resting)
                log_warning_of(&quota, "connections are not accepted for a moment reason=%s",
                               reason);
        listener->is_resting = true;
        (void)sd_event_source_set_enabled(listener->source, SD_EVENT_OFF);
        (void)sd_event_source_set_time_relative(listener->rest, REST_USEC);
        (void)sd_event_source_set_enabled(listener->rest, SD_EVENT_ONESHOT);
}

static int on_rested(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct listener *listener = userdata;

        (void)source;
        (void)usec;
        (void)sd_event_source_set_enabled(listener->source, SD_EVENT_ON);
        return 0;
}

/* False when there is nothing more to accept now. */
static bool accept_one(struct listener *listener)
{
        _cleanup_(closep) int fd = -1;
        struct rpc_peer peer;

        fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
                if (errno == EAGAIN)
                        return false;
                if (errno == EINTR || errno == ECONNABORTED)
                        return true;
                rest(listener, strerrorname_np(errno)); /* EMFILE, ENFILE, ENOMEM, ENOBUFS … */
                return false;
        }

        if (peer_of(fd, &peer))
                return true; /* without a name nobody gets in */
        if (listener->on_connection(fd, &peer, listener->userdata)) {
                rest(listener, "no descriptor number");
                return false;
        }
        (void)take_fd(&fd);
        listener->is_resting = false;
        return true;
}

static int on_connecting(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct listener *listener = userdata;

        (void)source;
        (void)fd;
        (void)events;
        for (unsigned i = 0; i < ACCEPT_BATCH && accept_one(listener); i++)
                ;
        return 0;
}

int listener_start(struct listener *listener, sd_event *loop, listener_on_connection on_connection,
                   void *userdata)
{
        int r;

        listener->on_connection = on_connection;
        listener->userdata = userdata;
        r = sd_event_add_io(loop, &listener->source, listener->fd, EPOLLIN, on_connecting,
                            listener);
        if (r < 0)
                return error_origin(r);
        r = sd_event_add_time_relative(loop, &listener->rest, CLOCK_MONOTONIC, REST_USEC, 0,
                                       on_rested, listener);
        if (r < 0)
                return error_origin(r);
        r = sd_event_source_set_enabled(listener->rest, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}
