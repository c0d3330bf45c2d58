/*
 * c-ares says which of its sockets it waits for; each has a source in the loop. It has no timer of
 * its own, and finding the next deadline would go through all questions, so while some are in
 * flight it is woken every TICK_USEC, which costs the same for one and for thousands.
 */
#include "runtime/egress/upstream.h"

#include <ares.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/egress/dns_format.h"
#include "runtime/egress/dns_message.h"
#include "runtime/egress/server_list.h"

enum { TICK_USEC = 50000 };

struct upstream_socket {
        LIST_ENTRY(upstream_socket) link;
        int fd; /* c-ares closes it, after it said so */
        sd_event_source *source;
        struct upstream *upstream;
};

struct upstream {
        sd_event *loop;
        ares_channel channel;
        sd_event_source *tick; /* enabled while questions are in flight */
        LIST_HEAD(, upstream_socket) sockets;
        size_t n_in_flight;
        size_t in_flight_max;
};

struct upstream_query {
        struct upstream *upstream;
        upstream_on_answer on_answer; /* NULL: forgotten */
        void *userdata;
};

static struct upstream_socket *find_socket(struct upstream *upstream, int fd)
{
        struct upstream_socket *socket;

        LIST_FOREACH(socket, &upstream->sockets, link)
        {
                if (socket->fd == fd)
                        break;
        }
        return socket;
}

static void remove_socket(struct upstream_socket *socket)
{
        LIST_REMOVE(socket, link);
        sd_event_source_disable_unref(socket->source);
        free(socket);
}

/* The socket may be gone when c-ares returns. */
static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct upstream_socket *socket = userdata;
        uint32_t broken = events & (EPOLLERR | EPOLLHUP);

        (void)source;
        ares_process_fd(socket->upstream->channel,
                        events & EPOLLIN || broken ? fd : ARES_SOCKET_BAD,
                        events & EPOLLOUT || broken ? fd : ARES_SOCKET_BAD);
        return 0;
}

static int add_socket(struct upstream *upstream, int fd, uint32_t events)
{
        struct upstream_socket *socket = calloc(1, sizeof(*socket));
        int r;

        if (!socket)
                return error_origin(-ENOMEM);
        *socket = (struct upstream_socket){ .fd = fd, .upstream = upstream };
        r = sd_event_add_io(upstream->loop, &socket->source, fd, events, on_socket, socket);
        if (r < 0) {
                free(socket);
                return error_origin(r);
        }
        LIST_INSERT_HEAD(&upstream->sockets, socket, link);
        return 0;
}

/* Without a source the questions on that socket end by their timeout. */
static void on_socket_state(void *userdata, ares_socket_t fd, int is_read, int is_written)
{
        static struct log_quota quota;
        struct upstream *upstream = userdata;
        struct upstream_socket *socket = find_socket(upstream, fd);
        uint32_t events = (is_read ? (uint32_t)EPOLLIN : 0) | (is_written ? (uint32_t)EPOLLOUT : 0);
        int r;

        if (events == 0) {
                if (socket)
                        remove_socket(socket);
                return;
        }
        r = socket ? sd_event_source_set_io_events(socket->source, events)
                   : add_socket(upstream, fd, events);
        if (r < 0)
                log_warning_of(&quota, "a name server cannot be waited for: error=%s",
                               strerrorname_np(-r));
}

static int arm_tick(struct upstream *upstream)
{
        int r = sd_event_source_set_time_relative(upstream->tick, TICK_USEC);

        if (r >= 0)
                r = sd_event_source_set_enabled(upstream->tick, SD_EVENT_ONESHOT);
        return r < 0 ? error_origin(r) : 0;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct upstream *upstream = userdata;

        (void)source;
        (void)usec;
        ares_process_fd(upstream->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        return upstream->n_in_flight > 0 ? arm_tick(upstream) : 0;
}

static int add_tick(struct upstream *upstream)
{
        int r = sd_event_add_time_relative(upstream->loop, &upstream->tick, CLOCK_MONOTONIC, 0, 1,
                                           on_tick, upstream);

        if (r >= 0)
                r = sd_event_source_set_enabled(upstream->tick, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

static int ares_error(int status)
{
        switch (status) {
        case ARES_SUCCESS:
                return 0;
        case ARES_ENOMEM:
                return error_origin(-ENOMEM);
        default:
                log_warning("the name server library does not start: reason=\"%s\"",
                            ares_strerror(status));
                return error_origin(-EIO);
        }
}

static int open_channel(struct upstream *upstream, const struct upstream_config *config)
{
        struct ares_options options = {
                .flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
                .ednspsz = DNS_UDP_ANSWER_MAX,
                .timeout = (int)config->timeout_msec,
                .tries = (int)config->n_attempts,
                .sock_state_cb = on_socket_state,
                .sock_state_cb_data = upstream,
        };
        struct server_list servers;
        int status = ares_init_options(&upstream->channel, &options,
                                       ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS |
                                               ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB |
                                               ARES_OPT_NOROTATE);

        if (status != ARES_SUCCESS) {
                upstream->channel = NULL;
                return ares_error(status);
        }
        if (!config->servers)
                return 0;
        if (!server_list_parse(config->servers, &servers))
                return UPSTREAM_E_SERVERS;
        return ares_error(ares_set_servers_ports(upstream->channel, servers.nodes));
}

DEFINE_CLEANUP(struct upstream, upstream_free)

int upstream_new(sd_event *loop, const struct upstream_config *config,
                 struct upstream **ret_upstream)
{
        _cleanup_(upstream_freep) struct upstream *upstream = NULL;
        int r = ares_error(ares_library_init(ARES_LIB_INIT_ALL));

        if (r)
                return r;
        upstream = calloc(1, sizeof(*upstream));
        if (!upstream) {
                ares_library_cleanup();
                return error_origin(-ENOMEM);
        }
        /* c-ares writes to a server that may have hung up. */
        (void)signal(SIGPIPE, SIG_IGN);
        upstream->loop = sd_event_ref(loop);
        upstream->in_flight_max = config->in_flight_max;
        LIST_INIT(&upstream->sockets);
        r = add_tick(upstream);
        if (r)
                return r;
        r = open_channel(upstream, config);
        if (r)
                return r;
        *ret_upstream = take(upstream);
        return 0;
}

struct upstream *upstream_free(struct upstream *upstream)
{
        if (!upstream)
                return NULL;
        if (upstream->channel)
                ares_destroy(upstream->channel);
        assert(upstream->n_in_flight == 0 && LIST_EMPTY(&upstream->sockets));
        sd_event_source_disable_unref(upstream->tick);
        sd_event_unref(upstream->loop);
        free(upstream);
        ares_library_cleanup();
        return NULL;
}

static int error_of(int status)
{
        switch (status) {
        case ARES_ETIMEOUT:
                return ETIMEDOUT;
        case ARES_ENOMEM:
                return ENOMEM;
        /* Also the status when all servers were skipped because of what they said. */
        case ARES_ECONNREFUSED:
        case ARES_ESERVFAIL:
        case ARES_ENOTIMP:
        case ARES_EREFUSED:
                return EREMOTEIO;
        default:
                return EBADMSG;
        }
}

static void on_ares_answer(void *userdata, int status, int n_timeouts, unsigned char *bytes,
                           int n_bytes)
{
        struct upstream_query *query = userdata;
        upstream_on_answer on_answer = query->on_answer;
        void *answer_userdata = query->userdata;

        (void)n_timeouts;
        query->upstream->n_in_flight--;
        free(query);
        if (on_answer)
                on_answer(answer_userdata, bytes ? 0 : error_of(status), bytes,
                          bytes ? (size_t)n_bytes : 0);
}

int upstream_ask(struct upstream *upstream, const char *name, uint16_t type,
                 upstream_on_answer on_answer, void *userdata, struct upstream_query **ret_query)
{
        struct upstream_query *query;

        if (upstream->n_in_flight >= upstream->in_flight_max)
                return UPSTREAM_E_BUSY;
        if (upstream->n_in_flight == 0) {
                int r = arm_tick(upstream);

                if (r)
                        return error_fold(r);
        }
        query = malloc(sizeof(*query));
        if (!query)
                return error_origin(-ENOMEM);
        *query = (struct upstream_query){ .upstream = upstream,
                                          .on_answer = on_answer,
                                          .userdata = userdata };
        upstream->n_in_flight++;
        *ret_query = query;
        ares_query(upstream->channel, name, DNS_CLASS_IN, type, on_ares_answer, query);
        return 0;
}

void upstream_forget(struct upstream_query *query)
{
        query->on_answer = NULL;
}
