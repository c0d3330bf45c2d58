/*
 * Answers and events come in one stream. While there is no room for an event nothing is read, so
 * what waits in memory is one packet.
 */
#include "server/session/egress_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/wire.h"
#include "server/session/egress_requests.h"

enum {
        PACKET_MAX = 128 << 10,
        ARENA_MAX = 2 << 20, /* bytes that unpacking one packet may take */
        PACKETS_A_TURN = 16, /* received before other sources have their turn */
        FDS_MAX = 16,        /* in one packet; none is expected */
};

#define TO_SERVER(name) HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name

struct egress_client {
        sd_event *loop;
        uint64_t answer_usec;
        const struct egress_client_observer *observer;
        void *userdata;
        int fd; /* negative: disconnected */
        sd_event_source *source;
        struct egress_requests requests;
        uint64_t to_acknowledge; /* zero: nothing */
        bool is_paused;
        /* The packet whose events are being told. */
        Hotcell__Egress__V1__ToServer *packet;
        size_t n_told;
        uint64_t last_event; /* the highest number of this connection */
        uint8_t *buffer;
        struct wire_arena arena;
        struct log_quota log;
};

/* --- the connection --- */

static void drop_packet(struct egress_client *client)
{
        client->packet = NULL;
        wire_arena_reset(&client->arena);
}

static void close_connection(struct egress_client *client)
{
        client->source = sd_event_source_disable_unref(client->source);
        client->fd = close_fd(client->fd);
        client->to_acknowledge = 0;
        client->last_event = 0;
        drop_packet(client);
}

static void lose(struct egress_client *client, const char *why)
{
        if (client->fd < 0)
                return;
        log_warning("the connection to hotcell-egress is lost reason=\"%s\"", why);
        close_connection(client);
        egress_requests_lose(&client->requests);
        client->observer->on_lost(client->userdata);
}

/* --- sending --- */

/* The packet is still where it was. */
static bool is_to_be_tried_again(int r)
{
        return r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM;
}

static int send_acknowledgement(struct egress_client *client)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__AcknowledgeEvents acknowledge;
        int r;

        if (client->to_acknowledge == 0)
                return 0;
        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__acknowledge_events__init(&acknowledge);
        acknowledge.number = client->to_acknowledge;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_ACKNOWLEDGE_EVENTS;
        message.acknowledge_events = &acknowledge;
        r = egress_message_send(client->fd, &message, NULL, 0);
        if (r == 0)
                client->to_acknowledge = 0;
        return r;
}

/* What does not fit is sent once there is room. An error is seen by the read side, or by whoever
 * waits for an answer: callers are not surprised by a loss. */
static void flush(struct egress_client *client)
{
        int r = send_acknowledgement(client);
        bool has_more;

        if (r == 0)
                r = egress_requests_send(&client->requests, client->fd);
        has_more = is_to_be_tried_again(r);
        if (r && !has_more)
                log_warning_of(&client->log, "hotcell-egress cannot be told anything error=\"%s\"",
                               strerror(-r));
        (void)sd_event_source_set_io_events(client->source, EPOLLIN | (has_more ? EPOLLOUT : 0));
}

void egress_client_acknowledge(struct egress_client *client, uint64_t number)
{
        if (client->fd < 0)
                return;
        client->to_acknowledge = number;
        flush(client);
}

int egress_client_set_policy(struct egress_client *client, const struct egress_order *order,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request)
{
        int r;

        if (client->fd < 0)
                return EGRESS_CLIENT_E_DISCONNECTED;
        r = egress_requests_add_policy(&client->requests, order, client->answer_usec, on_answer,
                                       userdata, ret_request);
        if (r == 0)
                flush(client);
        return r;
}

int egress_client_ping(struct egress_client *client, egress_on_answer on_answer, void *userdata,
                       struct egress_request **ret_request)
{
        int r;

        if (client->fd < 0)
                return EGRESS_CLIENT_E_DISCONNECTED;
        r = egress_requests_add_ping(&client->requests, client->answer_usec, on_answer, userdata,
                                     ret_request);
        if (r == 0)
                flush(client);
        return r;
}

int egress_client_sync(struct egress_client *client, const char *sandbox_id,
                       egress_on_answer on_answer, void *userdata,
                       struct egress_request **ret_request)
{
        int r;

        if (client->fd < 0)
                return EGRESS_CLIENT_E_DISCONNECTED;
        r = egress_requests_add_sync(&client->requests, sandbox_id, on_answer, userdata,
                                     ret_request);
        if (r == 0)
                flush(client);
        return r;
}

/* --- hearing --- */

static void tell_event(struct egress_client *client, const Hotcell__Egress__V1__Event *message)
{
        struct egress_event event;

        if (!egress_check_event(message, time_now_usec(), &event)) {
                log_warning_of(&client->log,
                               "hotcell-egress told an event that is none number=%llu",
                               (unsigned long long)message->number);
                client->n_told++;
        } else if (event.number <= client->last_event) {
                client->n_told++; /* it was told before */
        } else if (client->observer->on_event(client->userdata, &event)) {
                client->last_event = event.number;
                client->n_told++;
        } else {
                client->is_paused = true;
        }
}

static void tell_events(struct egress_client *client)
{
        while (!client->is_paused && client->packet &&
               client->n_told < client->packet->events->n_events)
                tell_event(client, client->packet->events->events[client->n_told]);
        if (!client->is_paused)
                drop_packet(client);
        client->observer->on_events_told(client->userdata);
}

static int hear_counts(struct egress_client *client, const Hotcell__Egress__V1__ToServer *packet)
{
        if (packet->request != 0 || packet->counts->n_counts > EGRESS_EVENTS_MAX)
                return -EBADMSG;
        for (size_t i = 0; i < packet->counts->n_counts; i++) {
                const Hotcell__Egress__V1__Count *message = packet->counts->counts[i];
                struct egress_refusals refusals;

                if (egress_check_count(message, &refusals))
                        client->observer->on_count(client->userdata, message->cgroup_id, &refusals);
        }
        return 0;
}

static int hear(struct egress_client *client, size_t n_bytes)
{
        Hotcell__Egress__V1__ToServer *packet;

        packet = hotcell__egress__v1__to_server__unpack(&client->arena.allocator, n_bytes,
                                                        client->buffer);
        if (!packet)
                return -EBADMSG;
        if (packet->body_case == TO_SERVER(EVENTS)) {
                if (packet->request != 0 || packet->events->n_events > EGRESS_EVENTS_MAX)
                        return -EBADMSG;
                client->packet = packet;
                client->n_told = 0;
                tell_events(client);
                return 0;
        }
        if (packet->body_case == TO_SERVER(COUNTS))
                return hear_counts(client, packet);
        /* Its message is in the arena until the next one. */
        return egress_requests_hear(&client->requests, packet) ? 0 : -EBADMSG;
}

/* 0, -EAGAIN, or another error that ends the connection. */
static int receive_packet(struct egress_client *client)
{
        size_t n_bytes = PACKET_MAX, n_fds = FDS_MAX;
        int fds[FDS_MAX];
        int r;

        wire_arena_reset(&client->arena);
        r = io_receive_packet(client->fd, client->buffer, &n_bytes, fds, &n_fds);
        if (r)
                return r < 0 ? r : -EPROTO;
        for (size_t i = 0; i < n_fds; i++)
                (void)close_fd(fds[i]);
        return hear(client, n_bytes);
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct egress_client *client = userdata;
        int r = 0;

        (void)source;
        if (events & EPOLLOUT)
                flush(client);
        /* Whoever is told may connect another one. */
        for (size_t i = 0; i < PACKETS_A_TURN && r == 0 && !client->is_paused && client->fd == fd;
             i++)
                r = receive_packet(client);
        if (r && !is_to_be_tried_again(r)) {
                lose(client, r == -EPROTO ? "it was closed" : strerror(-r));
                return 0;
        }
        if (client->is_paused)
                (void)sd_event_source_set_enabled(client->source, SD_EVENT_OFF);
        return 0;
}

void egress_client_resume(struct egress_client *client)
{
        if (!client->is_paused)
                return;
        client->is_paused = false;
        if (client->fd < 0)
                return;
        if (client->packet)
                tell_events(client);
        if (client->fd >= 0 && !client->is_paused)
                (void)sd_event_source_set_enabled(client->source, SD_EVENT_ON);
}

/* --- life --- */

void egress_client_connect(struct egress_client *client, int fd)
{
        lose(client, "there is another one");
        if (sd_event_add_io(client->loop, &client->source, fd, EPOLLIN, on_socket, client) < 0) {
                log_error("there is no memory to speak to hotcell-egress");
                (void)close_fd(fd);
                return;
        }
        client->fd = fd;
        log_info("connected to hotcell-egress");
        if (client->is_paused)
                (void)sd_event_source_set_enabled(client->source, SD_EVENT_OFF);
}

bool egress_client_is_connected(const struct egress_client *client)
{
        return client->fd >= 0;
}

int egress_client_new(sd_event *loop, uint64_t answer_usec,
                      const struct egress_client_observer *observer, void *userdata,
                      struct egress_client **ret_client)
{
        _cleanup_(egress_client_freep) struct egress_client *client = calloc(1, sizeof(*client));
        int r;

        if (!client)
                return error_origin(-ENOMEM);
        client->loop = loop;
        client->answer_usec = answer_usec;
        client->observer = observer;
        client->userdata = userdata;
        client->fd = -1;
        client->is_paused = true;
        client->buffer = malloc(PACKET_MAX);
        if (!client->buffer || wire_arena_init(&client->arena, ARENA_MAX))
                return error_origin(-ENOMEM);
        r = egress_requests_init(&client->requests, loop);
        if (r)
                return error_fold(r);
        *ret_client = take(client);
        return 0;
}

struct egress_client *egress_client_free(struct egress_client *client)
{
        if (!client)
                return NULL;
        close_connection(client);
        egress_requests_deinit(&client->requests);
        wire_arena_deinit(&client->arena);
        free(client->buffer);
        free(client);
        return NULL;
}
