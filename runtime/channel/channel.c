#include "runtime/channel/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"

enum {
        BACKLOG = 4,
        PACKETS_A_TURN = 32, /* then others get their turn */
        QUEUE_PACKETS_MAX = 16384,
        QUEUE_FDS_MAX = 4096,
};

/* A packet that the socket did not take yet. */
struct outgoing {
        STAILQ_ENTRY(outgoing) link;
        int fds[CHANNEL_FDS_MAX];
        size_t n_fds;
        size_t n_bytes;
        uint8_t bytes[];
};

struct channel {
        struct channel_config config;
        char *path;
        sd_event *event;
        int listen_fd;
        sd_event_source *listen_source;

        int peer_fd; /* -1: nobody is connected */
        sd_event_source *peer_source;
        sd_event_source *drop_source; /* enabled: the peer is to be dropped */
        uint64_t connection;
        bool is_held;
        STAILQ_HEAD(, outgoing) queue;
        size_t n_queued_bytes;
        size_t n_queued;
        size_t n_queued_fds;

        uint8_t *buffer; /* for one packet */
};

static void outgoing_free(struct outgoing *packet)
{
        for (size_t i = 0; i < packet->n_fds; i++)
                (void)close(packet->fds[i]);
        reserve_free(packet);
}

static void discard_queue(struct channel *channel)
{
        while (!STAILQ_EMPTY(&channel->queue)) {
                struct outgoing *packet = STAILQ_FIRST(&channel->queue);

                STAILQ_REMOVE_HEAD(&channel->queue, link);
                outgoing_free(packet);
        }
        channel->n_queued_bytes = 0;
        channel->n_queued = 0;
        channel->n_queued_fds = 0;
}

static void disconnect(struct channel *channel)
{
        channel->peer_source = sd_event_source_disable_unref(channel->peer_source);
        channel->peer_fd = close_fd(channel->peer_fd);
        (void)sd_event_source_set_enabled(channel->drop_source, SD_EVENT_OFF);
        discard_queue(channel);
}

static int on_drop(sd_event_source *source, void *userdata)
{
        struct channel *channel = userdata;

        (void)source;
        if (channel->peer_fd >= 0) {
                disconnect(channel);
                channel->config.observer.on_disconnect(channel->config.observer.userdata);
        }
        return 0;
}

void channel_drop(struct channel *channel)
{
        (void)sd_event_source_set_enabled(channel->drop_source, SD_EVENT_ONESHOT);
}

static int want_events(struct channel *channel)
{
        uint32_t events = (channel->is_held ? 0U : (uint32_t)EPOLLIN) |
                          (STAILQ_EMPTY(&channel->queue) ? 0U : (uint32_t)EPOLLOUT);

        return sd_event_source_set_io_events(channel->peer_source, events);
}

/* Nothing was sent, and the peer is still there. */
static bool is_to_be_tried_again(int r)
{
        return r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM;
}

static int flush(struct channel *channel)
{
        while (!STAILQ_EMPTY(&channel->queue)) {
                struct outgoing *packet = STAILQ_FIRST(&channel->queue);
                int r = io_send_packet(channel->peer_fd, packet->bytes, packet->n_bytes,
                                       packet->fds, packet->n_fds);

                if (is_to_be_tried_again(r))
                        break;
                if (r)
                        return r;
                STAILQ_REMOVE_HEAD(&channel->queue, link);
                channel->n_queued_bytes -= packet->n_bytes;
                channel->n_queued--;
                channel->n_queued_fds -= packet->n_fds;
                outgoing_free(packet);
        }
        return want_events(channel);
}

/* 0: go on; IO_E_END or an error: the peer is gone. */
static int receive_one(struct channel *channel)
{
        size_t n_bytes = channel->config.packet_max;
        int fds[CHANNEL_FDS_MAX];
        size_t n_fds = ARRAY_SIZE(fds);
        int r;

        r = io_receive_packet(channel->peer_fd, channel->buffer, &n_bytes, fds, &n_fds);
        if (r == IO_E_TOO_BIG) {
                log_warning("dropped a packet of %s that is too large or carries too many "
                            "descriptors",
                            channel->config.peer);
                return 0;
        }
        if (r)
                return r;
        channel->config.observer.on_packet(channel->config.observer.userdata, channel->buffer,
                                           n_bytes, fds, n_fds);
        for (size_t i = 0; i < n_fds; i++)
                (void)close_fd(fds[i]);
        return 0;
}

/* @r: of the last packet; the peer may be gone. */
static void end_turn(struct channel *channel, int r)
{
        if (!r || is_to_be_tried_again(r))
                return;
        log_info("%s disconnected: reason=%s", channel->config.peer,
                 r == IO_E_END ? "closed" : strerrorname_np(-r));
        disconnect(channel);
        channel->config.observer.on_disconnect(channel->config.observer.userdata);
}

void channel_catch_up(struct channel *channel)
{
        int r = 0;

        if (channel->peer_fd < 0)
                return;
        while (!r && !channel->is_held)
                r = receive_one(channel);
        end_turn(channel, r);
}

static int on_peer(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct channel *channel = userdata;
        int r = 0;

        (void)source;
        (void)fd;
        if (events & EPOLLOUT)
                r = flush(channel);
        if (events & EPOLLOUT && !r && channel_is_drained(channel) &&
            channel->config.observer.on_drained)
                channel->config.observer.on_drained(channel->config.observer.userdata);
        if (!r && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                for (unsigned i = 0; i < PACKETS_A_TURN && !r && !channel->is_held; i++)
                        r = receive_one(channel);
        end_turn(channel, r);
        return 0;
}

/* Not by switching the source off: to switch it on again could fail. */
void channel_hold(struct channel *channel, bool is_held)
{
        channel->is_held = is_held;
        if (channel->peer_source)
                (void)want_events(channel);
}

/* Only the server and root may ask the runtime for anything. */
static bool may_connect(const struct channel *channel, int fd)
{
        struct ucred peer;
        socklen_t size = sizeof(peer);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return false;
        if (peer.uid == 0 || peer.uid == channel->config.peer_uid)
                return true;
        log_warning("refused a connection: uid=%u pid=%d", peer.uid, peer.pid);
        return false;
}

int channel_adopt(struct channel *channel, int fd)
{
        int r;

        disconnect(channel);
        r = sd_event_add_io(channel->event, &channel->peer_source, fd, EPOLLIN, on_peer, channel);
        if (r < 0) {
                (void)close(fd);
                return error_origin(r);
        }
        channel->peer_fd = fd;
        channel->connection++;
        return want_events(channel);
}

/* The end of the old peer and the connection of the new one may arrive in either order. */
static bool has_hung_up(int fd)
{
        struct pollfd peer = { .fd = fd };

        return poll(&peer, 1, 0) > 0 && (peer.revents & (POLLHUP | POLLERR));
}

static int on_listen(sd_event_source *source, int listen_fd, uint32_t events, void *userdata)
{
        struct channel *channel = userdata;
        _cleanup_(closep) int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void)source;
        (void)events;
        if (fd < 0) {
                if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
                        log_warning("cannot accept: error=%s", strerrorname_np(errno));
                return 0;
        }
        if (!may_connect(channel, fd))
                return 0;
        if (channel->peer_fd >= 0 && has_hung_up(channel->peer_fd)) {
                disconnect(channel);
                channel->config.observer.on_disconnect(channel->config.observer.userdata);
        }
        if (channel->peer_fd >= 0) {
                log_warning("refused a second connection: one %s is connected",
                            channel->config.peer);
                return 0;
        }
        if (!channel_adopt(channel, take_fd(&fd)))
                log_info("%s connected: connection=%llu", channel->config.peer,
                         (unsigned long long)channel->connection);
        return 0;
}

/* Made under another name and moved into place, so that it never has wrong permissions. */
static int listen_at(const struct channel_config *config, int *ret_fd)
{
        _cleanup_(closep) int fd =
                socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s.new", config->path);

        if (fd < 0)
                return error_origin(-errno);
        if (n < 0 || (size_t)n >= sizeof(address.sun_path))
                return error_origin(-ENAMETOOLONG);
        (void)unlink(address.sun_path);
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return error_origin(-errno);
        if (chown(address.sun_path, 0, config->peer_gid) < 0 || chmod(address.sun_path, 0660) < 0 ||
            listen(fd, BACKLOG) < 0 || rename(address.sun_path, config->path) < 0)
                return error_origin(-errno);
        *ret_fd = take_fd(&fd);
        return 0;
}

static int start_listening(struct channel *channel)
{
        int r = listen_at(&channel->config, &channel->listen_fd);

        if (r)
                return error_fold(r);
        channel->path = strdup(channel->config.path);
        if (!channel->path)
                return error_origin(-ENOMEM);
        r = sd_event_add_io(channel->event, &channel->listen_source, channel->listen_fd, EPOLLIN,
                            on_listen, channel);
        return r < 0 ? error_origin(r) : 0;
}

DEFINE_CLEANUP(struct channel, channel_free)

int channel_new(sd_event *event, const struct channel_config *config, struct channel **ret_channel)
{
        _cleanup_(channel_freep) struct channel *channel = calloc(1, sizeof(*channel));
        int r;

        if (!channel)
                return error_origin(-ENOMEM);
        channel->config = *config;
        channel->listen_fd = channel->peer_fd = -1;
        channel->event = sd_event_ref(event);
        STAILQ_INIT(&channel->queue);
        channel->buffer = malloc(config->packet_max);
        if (!channel->buffer)
                return error_origin(-ENOMEM);

        r = sd_event_add_defer(event, &channel->drop_source, on_drop, channel);
        if (r >= 0)
                r = sd_event_source_set_enabled(channel->drop_source, SD_EVENT_OFF);
        if (r < 0)
                return error_origin(r);
        r = config->path ? start_listening(channel) : 0;
        if (r)
                return r;
        *ret_channel = take(channel);
        return 0;
}

struct channel *channel_free(struct channel *channel)
{
        if (!channel)
                return NULL;
        disconnect(channel);
        sd_event_source_disable_unref(channel->drop_source);
        sd_event_source_disable_unref(channel->listen_source);
        (void)close_fd(channel->listen_fd);
        if (channel->path)
                (void)unlink(channel->path);
        sd_event_unref(channel->event);
        free(channel->path);
        free(channel->buffer);
        free(channel);
        return NULL;
}

bool channel_is_drained(const struct channel *channel)
{
        return STAILQ_EMPTY(&channel->queue);
}

uint64_t channel_connection(const struct channel *channel)
{
        return channel->peer_fd >= 0 ? channel->connection : 0;
}

static struct outgoing *outgoing_new(const void *bytes, size_t n_bytes, const int *fds,
                                     size_t n_fds)
{
        struct outgoing *packet = reserve_alloc(sizeof(*packet) + n_bytes);

        assert(n_fds <= CHANNEL_FDS_MAX);
        if (!packet)
                return NULL;
        packet->n_bytes = n_bytes;
        packet->n_fds = n_fds;
        memcpy(packet->bytes, bytes, n_bytes);
        for (size_t i = 0; i < n_fds; i++)
                packet->fds[i] = fds[i];
        return packet;
}

static void close_all(const int *fds, size_t n_fds)
{
        for (size_t i = 0; i < n_fds; i++)
                (void)close(fds[i]);
}

static bool has_room(const struct channel *channel, size_t n_bytes, size_t n_fds)
{
        return channel->n_queued < QUEUE_PACKETS_MAX &&
               channel->n_queued_fds + n_fds <= QUEUE_FDS_MAX &&
               channel->n_queued_bytes + n_bytes <= channel->config.queue_bytes_max;
}

static void drop_unsendable(struct channel *channel, int r)
{
        log_info("cannot send to %s: error=%s", channel->config.peer, strerrorname_np(-r));
        channel_drop(channel);
}

void channel_send(struct channel *channel, const void *bytes, size_t n_bytes, const int *fds,
                  size_t n_fds)
{
        struct outgoing *packet;
        int r;

        r = channel->peer_fd < 0 ? 0 : -EAGAIN;
        if (r && STAILQ_EMPTY(&channel->queue))
                r = io_send_packet(channel->peer_fd, bytes, n_bytes, fds, n_fds);
        if (!is_to_be_tried_again(r)) {
                close_all(fds, n_fds);
                if (r)
                        drop_unsendable(channel, r);
                return;
        }
        packet =
                has_room(channel, n_bytes, n_fds) ? outgoing_new(bytes, n_bytes, fds, n_fds) : NULL;
        if (!packet) {
                log_warning("%s does not read: dropping the connection", channel->config.peer);
                close_all(fds, n_fds);
                channel_drop(channel);
                return;
        }
        STAILQ_INSERT_TAIL(&channel->queue, packet, link);
        channel->n_queued_bytes += n_bytes;
        channel->n_queued++;
        channel->n_queued_fds += n_fds;
        r = flush(channel);
        if (r < 0)
                drop_unsendable(channel, r);
}
