/*
 * The route is asked for right before connect(2), in the same turn of the loop. An address that
 * becomes the host's own in between is the one way past it, and that is the operator's doing.
 *
 * A verdict that is known at once is told by a timer of no time, so that callers have one path.
 */
#include "runtime/egress/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/policy/prefix.h"

enum { TIMER_ACCURACY_USEC = 1000 };

struct dial {
        void (*on_done)(void *userdata, const struct dial_result *result);
        void *userdata;
        int fd;
        sd_event_source *connected; /* while the kernel tries */
        sd_event_source *timer;     /* until it is over */
        struct dial_result verdict; /* what is told when the timer ends */
};

static void stop(struct dial *dial)
{
        dial->connected = sd_event_source_disable_unref(dial->connected);
        dial->timer = sd_event_source_disable_unref(dial->timer);
}

/* The last thing that is done with it: the callback may free it. */
static void finish(struct dial *dial, struct dial_result result)
{
        stop(dial);
        if (result.outcome == DIAL_CONNECTED)
                result.fd = take_fd(&dial->fd);
        dial->fd = close_fd(dial->fd);
        dial->on_done(dial->userdata, &result);
}

/* What this host lacks is not the peer's fault. */
static struct dial_result failure(int error)
{
        switch (error) {
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case ENOBUFS:
        case ENOSPC:        /* watches of epoll */
        case EADDRNOTAVAIL: /* ports */
        case EAGAIN:        /* memory for the answer about the route */
                return (struct dial_result){ .outcome = DIAL_NO_ROOM, .fd = -1, .error = error };
        case ETIMEDOUT:
                return (struct dial_result){ .outcome = DIAL_TIMED_OUT, .fd = -1, .error = error };
        default:
                return (struct dial_result){ .outcome = DIAL_FAILED, .fd = -1, .error = error };
        }
}

static int on_connected(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct dial *dial = userdata;
        int error = 0;
        socklen_t size = sizeof(error);

        (void)source;
        (void)events;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
                error = errno;
        if (error)
                finish(dial, failure(error));
        else
                finish(dial, (struct dial_result){ .outcome = DIAL_CONNECTED, .fd = -1 });
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct dial *dial = userdata;

        (void)source;
        (void)usec;
        finish(dial, dial->verdict);
        return 0;
}

static bool is_opened(const struct dial_config *config, const struct endpoint *endpoint)
{
        struct policy_prefix host = { .is_v6 = endpoint->is_v6,
                                      .n_bits = endpoint->is_v6 ? POLICY_V6_BITS : POLICY_V4_BITS };

        memcpy(host.bytes, endpoint->bytes, sizeof(host.bytes));
        for (size_t i = 0; i < config->n_opened; i++)
                if (policy_prefix_encloses(&config->opened[i], &host))
                        return true;
        return false;
}

/* 0: it may be dialled; else @ret_result. */
static int check(const struct dial_config *config, const struct endpoint *endpoint,
                 struct dial_result *ret_result)
{
        int r = route_check(config->routes, endpoint);

        *ret_result = (struct dial_result){ .fd = -1 };
        switch (r) {
        case 0:
                return 0;
        case ROUTE_E_LOCAL:
                ret_result->outcome = DIAL_LOCAL;
                return !is_opened(config, endpoint);
        case ROUTE_E_BROADCAST:
                ret_result->outcome = DIAL_BROADCAST;
                return 1;
        case ROUTE_E_MULTICAST:
                ret_result->outcome = DIAL_MULTICAST;
                return 1;
        default:
                *ret_result = failure(-r);
                return 1;
        }
}

/* 0: the kernel tries, or has done so; else a negative errno. */
static int begin(struct dial *dial, sd_event *event, const struct endpoint *endpoint)
{
        struct sockaddr_storage address;
        socklen_t n_address = endpoint_to_sockaddr(endpoint, &address);
        int r;

        dial->fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (dial->fd < 0)
                return -errno;
        if (connect(dial->fd, (const struct sockaddr *)&address, n_address) < 0 &&
            errno != EINPROGRESS)
                return -errno;
        /* Writable is also one that is connected by now. */
        r = sd_event_add_io(event, &dial->connected, dial->fd, EPOLLOUT, on_connected, dial);
        return r < 0 ? r : 0;
}

int dial_new(const struct dial_config *config, const struct endpoint *endpoint,
             struct dial **ret_dial)
{
        const struct endpoint normal = endpoint_normalise(endpoint);
        _cleanup_(dial_freep) struct dial *dial = calloc(1, sizeof(*dial));
        uint64_t pause_usec = config->timeout_usec;
        int r;

        if (!dial)
                return error_origin(-ENOMEM);
        dial->on_done = config->on_done;
        dial->userdata = config->userdata;
        dial->fd = -1;
        if (check(config, &normal, &dial->verdict)) {
                pause_usec = 0;
        } else {
                dial->verdict = failure(ETIMEDOUT);
                r = begin(dial, config->event, &normal);
                if (r) {
                        dial->verdict = failure(-r);
                        pause_usec = 0;
                }
        }
        r = sd_event_add_time_relative(config->event, &dial->timer, CLOCK_MONOTONIC, pause_usec,
                                       TIMER_ACCURACY_USEC, on_timer, dial);
        if (r < 0)
                return error_origin(r);
        *ret_dial = take(dial);
        return 0;
}

struct dial *dial_free(struct dial *dial)
{
        if (!dial)
                return NULL;

        stop(dial);
        (void)close_fd(dial->fd);
        free(dial);
        return NULL;
}
