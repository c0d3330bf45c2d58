/*
 * c-ares keeps the port of a socket for as long as a question of its channel is in flight, so each
 * question has a channel of its own, with a socket that the kernel gave a random port, as long as
 * there are not too many; then they share. A channel goes with its last question.
 *
 * c-ares says which of its sockets it waits for; each has a source in the loop. It has no timer of
 * its own, and finding the next deadline would go through all questions, so while some are in
 * flight it is woken every TICK_USEC.
 */
#include "runtime/egress/upstream.h"

#include <ares.h>
#include <errno.h>
#include <fcntl.h>
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
        struct upstream_channel *channel;
};

struct upstream_channel {
        TAILQ_ENTRY(upstream_channel) link;
        struct upstream *upstream;
        ares_channel ares;
        LIST_HEAD(, upstream_socket) sockets;
        size_t n_in_flight; /* zero: it goes once c-ares is not at work with it */
        unsigned n_at_work;
};

struct upstream {
        sd_event *loop;
        /* Of which channels are made. */
        struct ares_options options;
        int option_mask;
        struct ares_addr_port_node *servers;

        sd_event_source *tick; /* enabled while questions are in flight */
        TAILQ_HEAD(channel_list, upstream_channel) channels; /* the next to be shared first */
        size_t n_channels;
        size_t n_channels_max;
        size_t n_in_flight;
        size_t in_flight_max;
};

struct upstream_query {
        struct upstream_channel *channel;
        upstream_on_answer on_answer; /* NULL: forgotten */
        void *userdata;
};

/* --- sockets ------------------------------------------------------------------------------------
 */

static struct upstream_socket *find_socket(struct upstream_channel *channel, int fd)
{
        struct upstream_socket *socket;

        LIST_FOREACH(socket, &channel->sockets, link)
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

static void free_channel(struct upstream_channel *channel)
{
        ares_destroy(channel->ares);
        assert(channel->n_in_flight == 0 && LIST_EMPTY(&channel->sockets));
        TAILQ_REMOVE(&channel->upstream->channels, channel, link);
        channel->upstream->n_channels--;
        free(channel);
}

static void begin_work(struct upstream_channel *channel)
{
        channel->n_at_work++;
}

/* The channel may be gone afterwards. */
static void end_work(struct upstream_channel *channel)
{
        if (--channel->n_at_work == 0 && channel->n_in_flight == 0)
                free_channel(channel);
}

static void process(struct upstream_channel *channel, ares_socket_t readable,
                    ares_socket_t writable)
{
        begin_work(channel);
        ares_process_fd(channel->ares, readable, writable);
        end_work(channel);
}

/* The socket may be gone when c-ares returns. */
static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct upstream_socket *socket = userdata;
        uint32_t broken = events & (EPOLLERR | EPOLLHUP);

        (void)source;
        process(socket->channel, events & EPOLLIN || broken ? fd : ARES_SOCKET_BAD,
                events & EPOLLOUT || broken ? fd : ARES_SOCKET_BAD);
        return 0;
}

static int add_socket(struct upstream_channel *channel, int fd, uint32_t events)
{
        struct upstream_socket *socket = calloc(1, sizeof(*socket));
        int r;

        if (!socket)
                return error_origin(-ENOMEM);
        *socket = (struct upstream_socket){ .fd = fd, .channel = channel };
        r = sd_event_add_io(channel->upstream->loop, &socket->source, fd, events, on_socket,
                            socket);
        if (r < 0) {
                free(socket);
                return error_origin(r);
        }
        LIST_INSERT_HEAD(&channel->sockets, socket, link);
        return 0;
}

/* Without a source the questions on that socket end by their timeout. */
static void on_socket_state(void *userdata, ares_socket_t fd, int is_read, int is_written)
{
        static struct log_quota quota;
        struct upstream_channel *channel = userdata;
        struct upstream_socket *socket = find_socket(channel, fd);
        uint32_t events = (is_read ? (uint32_t)EPOLLIN : 0) | (is_written ? (uint32_t)EPOLLOUT : 0);
        int r;

        if (events == 0) {
                if (socket)
                        remove_socket(socket);
                return;
        }
        r = socket ? sd_event_source_set_io_events(socket->source, events)
                   : add_socket(channel, fd, events);
        if (r < 0)
                log_warning_of(&quota, "a name server cannot be waited for: error=%s",
                               strerrorname_np(-r));
}

/* --- time ---------------------------------------------------------------------------------------
 */

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
        struct upstream_channel *channel = TAILQ_FIRST(&upstream->channels);
        struct upstream_channel *last = TAILQ_LAST(&upstream->channels, channel_list);

        (void)source;
        (void)usec;
        /* Those behind the last one were made by what is asked out of an answer. One that is to
         * come has a question, and so stays until its turn. */
        while (channel) {
                struct upstream_channel *following =
                        channel == last ? NULL : TAILQ_NEXT(channel, link);

                process(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
                channel = following;
        }
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

/* --- channels -----------------------------------------------------------------------------------
 */

static int set_servers(struct upstream *upstream, ares_channel ares, const char *text)
{
        struct server_list servers;
        int status = ARES_SUCCESS;

        if (text && !server_list_parse(text, &servers))
                return UPSTREAM_E_SERVERS;
        if (text)
                status = ares_set_servers_ports(ares, servers.nodes);
        if (status == ARES_SUCCESS)
                status = ares_get_servers_ports(ares, &upstream->servers);
        if (status == ARES_SUCCESS)
                status = ares_save_options(ares, &upstream->options, &upstream->option_mask);
        return ares_error(status);
}

/* The host's configuration is read here, once: what is saved leaves nothing to be read. */
static int read_configuration(struct upstream *upstream, const struct upstream_config *config)
{
        struct ares_options options = {
                .flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
                .timeout = (int)config->timeout_msec,
                .tries = (int)config->n_attempts,
                .sock_state_cb = on_socket_state,
        };
        ares_channel ares;
        int status = ares_init_options(&ares, &options,
                                       ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                               ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE);
        int r;

        if (status != ARES_SUCCESS)
                return ares_error(status);
        r = set_servers(upstream, ares, config->servers);
        ares_destroy(ares);
        /* The one option of ours that is not saved. */
        upstream->options.ednspsz = DNS_UDP_ANSWER_MAX;
        upstream->option_mask |= ARES_OPT_EDNSPSZ;
        return r;
}

/* c-ares goes on with guessable ids when it cannot open this. */
static bool has_random_ids(void)
{
        _cleanup_(closep) int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

        return fd >= 0;
}

static int open_ares(struct upstream *upstream, struct upstream_channel *channel)
{
        struct ares_options options = upstream->options;
        int status;

        options.sock_state_cb_data = channel;
        if (!has_random_ids())
                return error_origin(-errno);
        status = ares_init_options(&channel->ares, &options, upstream->option_mask);
        if (status != ARES_SUCCESS)
                return ares_error(status);
        status = ares_set_servers_ports(channel->ares, upstream->servers);
        if (status != ARES_SUCCESS)
                ares_destroy(channel->ares);
        return ares_error(status);
}

static int add_channel(struct upstream *upstream, struct upstream_channel **ret_channel)
{
        _cleanup_(freep) struct upstream_channel *channel = calloc(1, sizeof(*channel));
        int r;

        if (!channel)
                return error_origin(-ENOMEM);
        channel->upstream = upstream;
        LIST_INIT(&channel->sockets);
        r = open_ares(upstream, channel);
        if (r)
                return r;
        TAILQ_INSERT_TAIL(&upstream->channels, channel, link);
        upstream->n_channels++;
        *ret_channel = take(channel);
        return 0;
}

/* One of its own, or else the one that was shared longest ago. NULL: there is no memory or
 * descriptor for the first one. */
static struct upstream_channel *find_channel(struct upstream *upstream)
{
        struct upstream_channel *added = NULL;
        struct upstream_channel *shared;

        if (upstream->n_channels < upstream->n_channels_max)
                (void)add_channel(upstream, &added);
        if (added)
                return added;
        shared = TAILQ_FIRST(&upstream->channels);
        if (!shared)
                return NULL;
        TAILQ_REMOVE(&upstream->channels, shared, link);
        TAILQ_INSERT_TAIL(&upstream->channels, shared, link);
        return shared;
}

/* --- its life -----------------------------------------------------------------------------------
 */

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
        upstream->n_channels_max = config->channels_max;
        TAILQ_INIT(&upstream->channels);
        r = add_tick(upstream);
        if (r)
                return r;
        r = read_configuration(upstream, config);
        if (r)
                return r;
        *ret_upstream = take(upstream);
        return 0;
}

struct upstream *upstream_free(struct upstream *upstream)
{
        struct upstream_channel *channel;

        if (!upstream)
                return NULL;
        while ((channel = TAILQ_FIRST(&upstream->channels))) {
                begin_work(channel);
                ares_cancel(channel->ares);
                end_work(channel);
        }
        assert(upstream->n_in_flight == 0);
        ares_destroy_options(&upstream->options);
        if (upstream->servers)
                ares_free_data(upstream->servers);
        sd_event_source_disable_unref(upstream->tick);
        sd_event_unref(upstream->loop);
        free(upstream);
        ares_library_cleanup();
        return NULL;
}

/* --- questions ----------------------------------------------------------------------------------
 */

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
        query->channel->n_in_flight--;
        query->channel->upstream->n_in_flight--;
        free(query);
        if (on_answer)
                on_answer(answer_userdata, bytes ? 0 : error_of(status), bytes,
                          bytes ? (size_t)n_bytes : 0);
}

int upstream_ask(struct upstream *upstream, const char *name, uint16_t type,
                 upstream_on_answer on_answer, void *userdata, struct upstream_query **ret_query)
{
        _cleanup_(freep) struct upstream_query *query = malloc(sizeof(*query));
        struct upstream_channel *channel;
        struct upstream_query *asked;
        int r = 0;

        if (upstream->n_in_flight >= upstream->in_flight_max)
                return UPSTREAM_E_BUSY;
        if (!query)
                return error_origin(-ENOMEM);
        if (upstream->n_in_flight == 0)
                r = arm_tick(upstream);
        if (r)
                return error_fold(r);
        channel = find_channel(upstream);
        if (!channel)
                return error_origin(-ENOMEM);
        *query = (struct upstream_query){ .channel = channel,
                                          .on_answer = on_answer,
                                          .userdata = userdata };
        channel->n_in_flight++;
        upstream->n_in_flight++;
        *ret_query = asked = take(query);
        begin_work(channel);
        ares_query(channel->ares, name, DNS_CLASS_IN, type, on_ares_answer, asked);
        end_work(channel);
        return 0;
}

void upstream_forget(struct upstream_query *query)
{
        query->on_answer = NULL;
}
