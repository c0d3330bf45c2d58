/*
 * Policies are sent in the order in which they were asked for; what does not fit the socket waits.
 * Whoever waits for too long is told so; the request stays until its answer comes or the
 * connection is lost, so that a hotcell-egress that hangs cannot be asked without bound.
 *
 * Answers and events come in one stream. While there is no room for an event nothing is read, so
 * what waits in memory is one packet.
 */
#include "server/session/egress_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/base/wire.h"
#include "runtime/policy/record_types.h"
#include "server/session/egress_file.h"
#include "server/session/map.h"

enum {
        PACKET_MAX = 128 << 10,
        ARENA_MAX = 2 << 20, /* bytes that unpacking one packet may take */
        PACKETS_A_TURN = 16, /* received before other sources have their turn */
        FDS_MAX = 16,        /* in one packet; none is expected */
};

#define TO_SERVER(name)   HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name
#define FROM_SERVER(name) HOTCELL__EGRESS__V1__FROM_SERVER__BODY_##name

enum kind {
        KIND_POLICY,
        KIND_SYNC,
        KIND_PING,
};

struct egress_request {
        TAILQ_ENTRY(egress_request) waiting_link;
        TAILQ_ENTRY(egress_request) unsent_link;
        struct map_node by_number;
        struct egress_client *client;
        uint64_t number;
        uint64_t deadline_usec;
        egress_on_answer on_answer; /* NULL: nobody waits */
        void *userdata;
        bool is_sent;
        enum kind kind; /* nothing below counts for PING, only the sandbox for SYNC */
        char sandbox_id[ID_BUFFER];
        int64_t version;
        int32_t default_action;
        uint32_t record_types;
        int fd; /* the rules, until it is sent */
        uint32_t n_bytes;
};
TAILQ_HEAD(request_list, egress_request);

struct egress_client {
        sd_event *loop;
        uint64_t answer_usec;
        const struct egress_client_observer *observer;
        void *userdata;
        int fd; /* negative: disconnected */
        sd_event_source *source;
        sd_event_source *timer;      /* for the first that waits */
        struct map requests;         /* all */
        struct request_list waiting; /* for which somebody waits, oldest first */
        struct request_list unsent;
        size_t n_unheard; /* syncs for which nobody waits any more */
        uint64_t last_number;
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

/* --- requests --- */

static void free_request(struct egress_request *request)
{
        struct egress_client *client = request->client;

        map_remove(&client->requests, &request->by_number);
        client->n_unheard -= request->kind == KIND_SYNC && !request->on_answer;
        if (request->on_answer)
                TAILQ_REMOVE(&client->waiting, request, waiting_link);
        if (!request->is_sent)
                TAILQ_REMOVE(&client->unsent, request, unsent_link);
        (void)close_fd(request->fd);
        free(request);
}

/* Nobody waits any more. */
static void abandon(struct egress_request *request)
{
        if (!request->on_answer)
                return;
        TAILQ_REMOVE(&request->client->waiting, request, waiting_link);
        request->on_answer = NULL;
        request->client->n_unheard += request->kind == KIND_SYNC;
        if (!request->is_sent)
                free_request(request);
}

/* @is_over: nothing more will come of it. */
static void answer(struct egress_request *request, const struct egress_answer *what, bool is_over)
{
        egress_on_answer on_answer = request->on_answer;
        void *userdata = request->userdata;

        if (is_over)
                free_request(request);
        else
                abandon(request);
        if (on_answer)
                on_answer(userdata, what);
}

static void arm_timer(struct egress_client *client);

static int on_silent(sd_event_source *source, uint64_t usec, void *userdata)
{
        static const struct egress_answer silent = { .result = EGRESS_E_SILENT };
        struct egress_client *client = userdata;
        uint64_t now_usec = clock_monotonic_usec();
        struct egress_request *request;

        (void)source;
        (void)usec;
        while ((request = TAILQ_FIRST(&client->waiting)) && request->deadline_usec <= now_usec) {
                log_warning_of(&client->log, "hotcell-egress does not answer sandbox=%s",
                               request->sandbox_id);
                answer(request, &silent, false);
        }
        arm_timer(client);
        return 0;
}

static void arm_timer(struct egress_client *client)
{
        const struct egress_request *first = TAILQ_FIRST(&client->waiting);

        (void)sd_event_source_set_enabled(client->timer, first ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        if (first)
                (void)sd_event_source_set_time(client->timer, first->deadline_usec);
}

struct egress_request *egress_request_free(struct egress_request *request)
{
        struct egress_client *client;

        if (!request)
                return NULL;
        client = request->client;
        abandon(request);
        arm_timer(client);
        return NULL;
}

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

/* What they ask for meanwhile is refused: the connection is closed. */
static void fail_requests(struct egress_client *client)
{
        static const struct egress_answer lost = { .result = EGRESS_E_LOST };
        struct egress_request *request;
        struct map_node *node;

        while ((request = TAILQ_FIRST(&client->waiting)))
                answer(request, &lost, true);
        while ((node = map_first(&client->requests)))
                free_request(CONTAINER_OF(node, struct egress_request, by_number));
        arm_timer(client);
}

static void lose(struct egress_client *client, const char *why)
{
        if (client->fd < 0)
                return;
        log_warning("the connection to hotcell-egress is lost reason=\"%s\"", why);
        close_connection(client);
        fail_requests(client);
        client->observer->on_lost(client->userdata);
}

/* --- sending --- */

/* The packet is still where it was. */
static bool is_to_be_tried_again(int r)
{
        return r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM;
}

static int send_message(struct egress_client *client,
                        const Hotcell__Egress__V1__FromServer *message, const int *fds,
                        size_t n_fds)
{
        uint8_t bytes[256];

        assert(hotcell__egress__v1__from_server__get_packed_size(message) <= sizeof(bytes));
        return io_send_packet(client->fd, bytes,
                              hotcell__egress__v1__from_server__pack(message, bytes), fds, n_fds);
}

static int send_sync(struct egress_client *client, const struct egress_request *request)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__Sync sync;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__sync__init(&sync);
        sync.sandbox_id = unconst(request->sandbox_id);
        message.request = request->number;
        message.body_case = FROM_SERVER(SYNC);
        message.sync = &sync;
        return send_message(client, &message, NULL, 0);
}

static int send_ping(struct egress_client *client, const struct egress_request *request)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__Ping ping;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__ping__init(&ping);
        message.request = request->number;
        message.body_case = FROM_SERVER(PING);
        message.ping = &ping;
        return send_message(client, &message, NULL, 0);
}

static int send_policy(struct egress_client *client, const struct egress_request *request)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__SetPolicy set_policy;
        uint32_t record_types[_POLICY_RECORD_N];

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__set_policy__init(&set_policy);
        set_policy.sandbox_id = unconst(request->sandbox_id);
        set_policy.policy_version = request->version;
        set_policy.default_action = (Hotcell__Egress__V1__DefaultAction)request->default_action;
        set_policy.policy_bytes = request->n_bytes;
        set_policy.record_types = record_types;
        set_policy.n_record_types = policy_records_list(request->record_types, record_types);
        message.request = request->number;
        message.body_case = FROM_SERVER(SET_POLICY);
        message.set_policy = &set_policy;
        return send_message(client, &message, &request->fd, request->fd >= 0);
}

static int send_request(struct egress_client *client, const struct egress_request *request)
{
        switch (request->kind) {
        case KIND_SYNC:
                return send_sync(client, request);
        case KIND_PING:
                return send_ping(client, request);
        case KIND_POLICY:
        default:
                return send_policy(client, request);
        }
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
        message.body_case = FROM_SERVER(ACKNOWLEDGE_EVENTS);
        message.acknowledge_events = &acknowledge;
        r = send_message(client, &message, NULL, 0);
        if (r == 0)
                client->to_acknowledge = 0;
        return r;
}

static int send_requests(struct egress_client *client)
{
        struct egress_request *request;
        int r = 0;

        while (r == 0 && (request = TAILQ_FIRST(&client->unsent))) {
                r = send_request(client, request);
                if (r)
                        break;
                TAILQ_REMOVE(&client->unsent, request, unsent_link);
                request->is_sent = true;
                request->fd = close_fd(request->fd);
        }
        return r;
}

/* What does not fit is sent once there is room. An error is seen by the read side, or by whoever
 * waits for an answer: callers are not surprised by a loss. */
static void flush(struct egress_client *client)
{
        int r = send_acknowledgement(client);
        bool has_more;

        if (r == 0)
                r = send_requests(client);
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

static void fill_request(struct egress_request *request, const struct egress_order *order)
{
        (void)snprintf(request->sandbox_id, sizeof(request->sandbox_id), "%s", order->sandbox_id);
        request->version = order->version;
        request->default_action =
                order->egress ? order->egress->default_action
                              : HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY;
        request->record_types = order->egress ? order->egress->record_types : 0;
}

/* Syncs are waited for shorter, and so go before policies. */
static void insert_waiting(struct egress_client *client, struct egress_request *request)
{
        struct egress_request *before = TAILQ_LAST(&client->waiting, request_list);

        while (before && before->deadline_usec > request->deadline_usec)
                before = TAILQ_PREV(before, request_list, waiting_link);
        if (before)
                TAILQ_INSERT_AFTER(&client->waiting, before, request, waiting_link);
        else
                TAILQ_INSERT_HEAD(&client->waiting, request, waiting_link);
}

static void enqueue(struct egress_client *client, struct egress_request *request,
                    uint64_t answer_usec)
{
        request->client = client;
        request->number = ++client->last_number;
        request->deadline_usec = clock_monotonic_usec() + answer_usec;
        map_add(&client->requests, &request->by_number, &request->number, sizeof(request->number));
        insert_waiting(client, request);
        TAILQ_INSERT_TAIL(&client->unsent, request, unsent_link);
        arm_timer(client);
        flush(client);
}

static int check_room(const struct egress_client *client)
{
        if (client->fd < 0)
                return EGRESS_CLIENT_E_DISCONNECTED;
        return map_count(&client->requests) < EGRESS_REQUESTS_MAX ? 0 : EGRESS_CLIENT_E_BUSY;
}

/* Of nobody yet: enqueue() makes it the client's. NULL: no memory. */
static struct egress_request *new_request(enum kind kind, egress_on_answer on_answer,
                                          void *userdata)
{
        struct egress_request *request = calloc(1, sizeof(*request));

        if (!request)
                return NULL;
        request->kind = kind;
        request->fd = -1;
        request->on_answer = on_answer;
        request->userdata = userdata;
        return request;
}

int egress_client_ping(struct egress_client *client, egress_on_answer on_answer, void *userdata,
                       struct egress_request **ret_request)
{
        struct egress_request *request;
        int r = check_room(client);

        if (r)
                return r;
        request = new_request(KIND_PING, on_answer, userdata);
        if (!request)
                return error_origin(-ENOMEM);
        enqueue(client, request, client->answer_usec);
        *ret_request = request;
        return 0;
}

int egress_client_set_policy(struct egress_client *client, const struct egress_order *order,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request)
{
        struct egress_request *request;
        int r = check_room(client);

        if (r)
                return r;
        request = new_request(KIND_POLICY, on_answer, userdata);
        if (!request)
                return error_origin(-ENOMEM);
        r = egress_file_make(order->egress, &request->fd, &request->n_bytes);
        if (r) {
                free(request);
                return error_fold(r);
        }
        fill_request(request, order);
        enqueue(client, request, client->answer_usec);
        *ret_request = request;
        return 0;
}

int egress_client_sync(struct egress_client *client, const char *sandbox_id,
                       egress_on_answer on_answer, void *userdata,
                       struct egress_request **ret_request)
{
        struct egress_request *request;

        if (client->fd < 0)
                return EGRESS_CLIENT_E_DISCONNECTED;
        if (client->n_unheard > 0 || map_count(&client->requests) >= EGRESS_REQUESTS_MAX / 2)
                return EGRESS_CLIENT_E_BUSY;
        request = new_request(KIND_SYNC, on_answer, userdata);
        if (!request)
                return error_origin(-ENOMEM);
        (void)snprintf(request->sandbox_id, sizeof(request->sandbox_id), "%s", sandbox_id);
        enqueue(client, request, EGRESS_SYNC_USEC);
        *ret_request = request;
        return 0;
}

/* --- hearing --- */

static enum egress_result result_of(const Hotcell__Egress__V1__Failure *failure)
{
        return failure->reason == HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_TOO_COMPLEX
                       ? EGRESS_E_TOO_COMPLEX
                       : EGRESS_E_REFUSED;
}

/* False: it is no answer to anything. */
static bool hear_answer(struct egress_client *client, const Hotcell__Egress__V1__ToServer *packet)
{
        struct map_node *node =
                map_find(&client->requests, &packet->request, sizeof(packet->request));
        struct egress_request *request = MAP_ITEM(node, struct egress_request, by_number);
        struct egress_answer what = { .result = EGRESS_ENFORCED };
        char text[EGRESS_REASON_BUFFER];

        if (!request || !request->is_sent)
                return false;
        if (request->kind == KIND_SYNC) {
                what.result =
                        packet->body_case == TO_SERVER(SYNCED) ? EGRESS_SYNCED : EGRESS_E_REFUSED;
                if (what.result && packet->body_case != TO_SERVER(FAILURE))
                        return false;
        } else if (packet->body_case == TO_SERVER(FAILURE)) {
                egress_check_text(packet->failure->message, text);
                what.result = result_of(packet->failure);
                what.message = text;
                log_warning_of(&client->log,
                               "hotcell-egress refused a policy sandbox=%s version=%lld reason=%d "
                               "message=\"%s\"",
                               request->sandbox_id, (long long)request->version,
                               (int)packet->failure->reason, text);
        } else if (request->kind == KIND_PING) {
                if (packet->body_case != TO_SERVER(PONG))
                        return false;
        } else if (packet->body_case != TO_SERVER(ENFORCED) ||
                   !egress_check_enforced(packet->enforced, &what.enforced)) {
                return false;
        }
        answer(request, &what, true);
        return true;
}

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
        return hear_answer(client, packet) ? 0 : -EBADMSG;
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
        arm_timer(client);
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
        TAILQ_INIT(&client->waiting);
        TAILQ_INIT(&client->unsent);
        client->buffer = malloc(PACKET_MAX);
        if (!client->buffer || wire_arena_init(&client->arena, ARENA_MAX))
                return error_origin(-ENOMEM);
        r = sd_event_add_time(loop, &client->timer, CLOCK_MONOTONIC, 0, 1000, on_silent, client);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_enabled(client->timer, SD_EVENT_OFF);
        *ret_client = take(client);
        return 0;
}

struct egress_client *egress_client_free(struct egress_client *client)
{
        struct map_node *node;

        if (!client)
                return NULL;
        close_connection(client);
        while ((node = map_first(&client->requests)))
                free_request(CONTAINER_OF(node, struct egress_request, by_number));
        (void)sd_event_source_disable_unref(client->timer);
        wire_arena_deinit(&client->arena);
        free(client->buffer);
        free(client);
        return NULL;
}
