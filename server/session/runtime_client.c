/*
 * One packet is one message. The runtime is trusted more than we are, so its packets are decoded
 * without a budget, but what makes no sense still ends the connection: two programs that do not
 * understand each other must not go on.
 */
#include "server/session/runtime_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "runtime/base/text.h"
#include "runtime/base/wire.h"
#include "server/session/map.h"

enum {
        PACKET_MAX = 128 << 10,
        ARENA_MAX = 2 << 20, /* bytes that unpacking one packet may take */
        PENDING_MAX = 16384, /* requests without an answer */
        PACKETS_A_TURN = 64, /* received before other sources have their turn */
        RETRY_FIRST_USEC = 50 * 1000,
        RETRY_LAST_USEC = 2 * 1000 * 1000,
        PROTOCOL_OLDEST = 1,
        PROTOCOL_NEWEST = 4,
        PROTOCOL_EGRESS = 3, /* the first one with EgressReady */
};

/*
 *   DISCONNECTED --connect--> GREETING --Welcome--> CONNECTED
 *        ^-------------------------'--------------------'
 */
enum client_state {
        CLIENT_DISCONNECTED, /* owns the retry timer */
        CLIENT_GREETING,     /* owns the socket; Hello was sent */
        CLIENT_CONNECTED,    /* owns the socket and the welcome */
        _CLIENT_STATE_N,
};

static const struct {
        const char *name;
        unsigned next;
} client_states[] = {
        [CLIENT_DISCONNECTED] = { "disconnected", BIT(CLIENT_GREETING) },
        [CLIENT_GREETING] = { "greeting", BIT(CLIENT_CONNECTED) | BIT(CLIENT_DISCONNECTED) },
        [CLIENT_CONNECTED] = { "connected", BIT(CLIENT_DISCONNECTED) },
};
static_assert(ARRAY_SIZE(client_states) == _CLIENT_STATE_N, "every state has a row");

struct pending {
        uint64_t id;
        runtime_on_answer on_answer;
        void *userdata;
        struct map_node by_id;
};

/* Waits for room in the socket. */
struct packet {
        STAILQ_ENTRY(packet) link;
        int fds[RUNTIME_FDS_MAX]; /* owned */
        size_t n_fds;
        size_t n;
        uint8_t bytes[];
};

struct runtime_client {
        sd_event *loop;
        char *path;
        const struct runtime_client_observer *observer;
        void *userdata;
        enum client_state state;
        int fd;
        sd_event_source *source;
        sd_event_source *retry;
        uint64_t retry_usec;
        uint64_t last_id;
        struct map pending;
        STAILQ_HEAD(, packet) packets;
        Hotcell__Runtime__V1__FromRuntime *welcome; /* the packet that holds it */
        uint8_t *buffer;                            /* of a packet received */
        struct wire_arena arena;                    /* for it; not for the welcome, which stays */
};

static void client_enter(struct runtime_client *client, enum client_state next)
{
        assert(client_states[client->state].next & BIT(next));

        log_debug("the runtime's connection moves from=%s to=%s", client_states[client->state].name,
                  client_states[next].name);
        client->state = next;
}

static void schedule_retry(struct runtime_client *client)
{
        (void)sd_event_source_set_time_relative(client->retry, client->retry_usec);
        (void)sd_event_source_set_enabled(client->retry, SD_EVENT_ONESHOT);
        client->retry_usec = MIN(client->retry_usec * 2, (uint64_t)RETRY_LAST_USEC);
}

static void packet_free(struct packet *packet)
{
        for (size_t i = 0; i < packet->n_fds; i++)
                (void)close_fd(packet->fds[i]);
        reserve_free(packet);
}

static void drop_packets(struct runtime_client *client)
{
        while (!STAILQ_EMPTY(&client->packets)) {
                struct packet *packet = STAILQ_FIRST(&client->packets);

                STAILQ_REMOVE_HEAD(&client->packets, link);
                packet_free(packet);
        }
}

/* Answers all with NULL. What they send meanwhile is refused: the state is disconnected. */
static void fail_pending(struct runtime_client *client)
{
        struct map_node *node;

        while ((node = map_first(&client->pending))) {
                struct pending *pending = CONTAINER_OF(node, struct pending, by_id);
                struct runtime_fds none = { .n = 0 };

                map_remove(&client->pending, node);
                if (pending->on_answer)
                        pending->on_answer(pending->userdata, NULL, &none);
                reserve_free(pending);
        }
}

static void close_connection(struct runtime_client *client)
{
        client->source = sd_event_source_disable_unref(client->source);
        client->fd = close_fd(client->fd);
        drop_packets(client);
}

static void lose(struct runtime_client *client, const char *why)
{
        bool was_connected = client->state == CLIENT_CONNECTED;

        if (client->state == CLIENT_DISCONNECTED)
                return;
        log_warning("the connection to the runtime is lost reason=\"%s\"", why);
        close_connection(client);
        client_enter(client, CLIENT_DISCONNECTED);
        schedule_retry(client);
        fail_pending(client);
        if (was_connected)
                client->observer->on_lost(client->userdata);
        if (client->welcome)
                hotcell__runtime__v1__from_runtime__free_unpacked(client->welcome,
                                                                  &wire_sure_allocator);
        client->welcome = NULL;
}

static void watch_writable(struct runtime_client *client)
{
        uint32_t events = EPOLLIN | (STAILQ_EMPTY(&client->packets) ? 0 : EPOLLOUT);

        (void)sd_event_source_set_io_events(client->source, events);
}

/* The packet is still where it was. */
static bool is_to_be_tried_again(int r)
{
        return r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM;
}

static int queue_packet(struct runtime_client *client, const uint8_t *bytes, size_t n,
                        const int *fds, size_t n_fds)
{
        struct packet *packet = reserve_alloc(sizeof(*packet) + n);

        if (!packet)
                return error_origin(-ENOMEM);
        packet->n = n;
        memcpy(packet->bytes, bytes, n);
        for (packet->n_fds = 0; packet->n_fds < n_fds; packet->n_fds++) {
                int copy = fcntl(fds[packet->n_fds], F_DUPFD_CLOEXEC, 3);

                if (copy < 0) {
                        packet_free(packet);
                        return error_origin(-errno);
                }
                packet->fds[packet->n_fds] = copy;
        }
        STAILQ_INSERT_TAIL(&client->packets, packet, link);
        watch_writable(client);
        return 0;
}

static int send_packet(struct runtime_client *client, Hotcell__Runtime__V1__ToRuntime *message,
                       const int *fds, size_t n_fds)
{
        size_t n = hotcell__runtime__v1__to_runtime__get_packed_size(message);
        static uint8_t bytes[PACKET_MAX]; /* one thread, and the queue copies what it keeps */
        int r;

        if (n > sizeof(bytes))
                return error_origin(-EMSGSIZE);
        (void)hotcell__runtime__v1__to_runtime__pack(message, bytes);

        if (!STAILQ_EMPTY(&client->packets))
                return queue_packet(client, bytes, n, fds, n_fds);
        r = io_send_packet(client->fd, bytes, n, fds, n_fds);
        if (is_to_be_tried_again(r))
                return queue_packet(client, bytes, n, fds, n_fds);
        if (r == -EPIPE || r == -ECONNRESET)
                return 0; /* the read side will see the end and fail the request */
        return r;
}

static void flush_packets(struct runtime_client *client)
{
        while (!STAILQ_EMPTY(&client->packets)) {
                struct packet *packet = STAILQ_FIRST(&client->packets);
                int r = io_send_packet(client->fd, packet->bytes, packet->n, packet->fds,
                                       packet->n_fds);

                if (is_to_be_tried_again(r))
                        break;
                STAILQ_REMOVE_HEAD(&client->packets, link);
                packet_free(packet);
        }
        watch_writable(client);
}

static void add_pending(struct runtime_client *client, uint64_t id, runtime_on_answer on_answer,
                        void *userdata)
{
        struct pending *pending = reserve_alloc_surely(sizeof(*pending));

        pending->id = id;
        pending->on_answer = on_answer;
        pending->userdata = userdata;
        map_add(&client->pending, &pending->by_id, &pending->id, sizeof(pending->id));
}

static struct pending *take_pending(struct runtime_client *client, uint64_t id)
{
        struct map_node *node = map_find(&client->pending, &id, sizeof(id));

        if (node)
                map_remove(&client->pending, node);
        return MAP_ITEM(node, struct pending, by_id);
}

static int send_request(struct runtime_client *client, Hotcell__Runtime__V1__ToRuntime *request,
                        const int *fds, size_t n_fds, runtime_on_answer on_answer, void *userdata)
{
        int r;

        request->request = ++client->last_id;
        add_pending(client, request->request, on_answer, userdata);
        r = send_packet(client, request, fds, n_fds);
        if (r) {
                reserve_free(take_pending(client, request->request));
                return error_fold(r);
        }
        return 0;
}

int runtime_client_request_with(struct runtime_client *client,
                                Hotcell__Runtime__V1__ToRuntime *request, const int *fds,
                                size_t n_fds, runtime_on_answer on_answer, void *userdata)
{
        if (client->state != CLIENT_CONNECTED)
                return RUNTIME_CLIENT_E_DISCONNECTED;
        if (map_count(&client->pending) >= PENDING_MAX)
                return RUNTIME_CLIENT_E_BUSY;
        return send_request(client, request, fds, n_fds, on_answer, userdata);
}

int runtime_client_request(struct runtime_client *client, Hotcell__Runtime__V1__ToRuntime *request,
                           runtime_on_answer on_answer, void *userdata)
{
        return runtime_client_request_with(client, request, NULL, 0, on_answer, userdata);
}

static void on_egress_ready(struct runtime_client *client, struct runtime_fds *fds)
{
        if (client->welcome->welcome->protocol < PROTOCOL_EGRESS || fds->n != 1)
                lose(client, "it told of hotcell-egress in another way than was agreed");
        else
                client->observer->on_egress_ready(client->userdata, take_fd(&fds->fds[0]));
}

static void on_event_packet(struct runtime_client *client,
                            const Hotcell__Runtime__V1__FromRuntime *packet,
                            struct runtime_fds *fds)
{
        if (packet->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PROCESS_ENDED)
                client->observer->on_process_ended(client->userdata, packet->process_ended);
        else if (packet->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_SANDBOX_ENDED)
                client->observer->on_sandbox_ended(client->userdata, packet->sandbox_ended);
        else if (packet->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_EGRESS_READY)
                on_egress_ready(client, fds);
        else if (packet->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PRESSURE)
                client->observer->on_pressure(client->userdata, packet->pressure);
}

static void on_packet(struct runtime_client *client,
                      const Hotcell__Runtime__V1__FromRuntime *packet, struct runtime_fds *fds)
{
        struct pending *pending;

        if (packet->request == 0) {
                on_event_packet(client, packet, fds);
                return;
        }
        pending = take_pending(client, packet->request);
        if (!pending) {
                lose(client, "an answer to no request");
                return;
        }
        if (pending->on_answer)
                pending->on_answer(pending->userdata, packet, fds);
        reserve_free(pending);
}

/* The packet of the welcome is kept. True: it was one. */
static bool take_welcome(struct runtime_client *client, Hotcell__Runtime__V1__FromRuntime *packet)
{
        struct pending *pending;

        if (client->state != CLIENT_GREETING)
                return false;
        if (packet->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE) {
                log_error("the runtime refused us message=\"%s\"", packet->failure->message);
                return false;
        }
        if (packet->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_WELCOME)
                return false;

        pending = take_pending(client, packet->request);
        if (!pending)
                return false;
        reserve_free(pending);
        client->welcome = packet;
        client->retry_usec = RETRY_FIRST_USEC;
        client_enter(client, CLIENT_CONNECTED);
        log_info("connected to the runtime version=%s instance=%s sandboxes_max=%u",
                 packet->welcome->version, packet->welcome->instance_id,
                 packet->welcome->sandboxes_max);
        client->observer->on_connected(client->userdata, packet->welcome);
        return true;
}

/* Receives one packet: 0, -EAGAIN, or another error that ends the connection. */
static int receive_packet(struct runtime_client *client)
{
        ProtobufCAllocator *allocator =
                client->state == CLIENT_GREETING ? &wire_sure_allocator : &client->arena.allocator;
        Hotcell__Runtime__V1__FromRuntime *packet;
        struct runtime_fds fds = { .n = RUNTIME_FDS_MAX };
        size_t n = PACKET_MAX;
        int r;

        r = io_receive_packet(client->fd, client->buffer, &n, fds.fds, &fds.n);
        if (r)
                return r < 0 ? r : -EPROTO;
        packet = hotcell__runtime__v1__from_runtime__unpack(allocator, n, client->buffer);
        if (!packet)
                r = -EBADMSG;
        else if (client->state == CLIENT_GREETING && packet->request != 0) {
                if (take_welcome(client, packet))
                        packet = NULL;
                else
                        r = -EPROTO;
        } else if (client->state == CLIENT_CONNECTED)
                on_packet(client, packet, &fds);

        for (size_t i = 0; i < fds.n; i++)
                (void)close_fd(fds.fds[i]);
        if (packet)
                hotcell__runtime__v1__from_runtime__free_unpacked(packet, allocator);
        wire_arena_reset(&client->arena);
        return r;
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct runtime_client *client = userdata;
        int r = 0;

        (void)source;
        (void)fd;
        if (events & EPOLLOUT)
                flush_packets(client);
        for (size_t i = 0; i < PACKETS_A_TURN && r == 0 && client->fd >= 0; i++)
                r = receive_packet(client);
        if (r && !is_to_be_tried_again(r))
                lose(client, r == -EPROTO ? "it was closed" : strerror(-r));
        return 0;
}

void runtime_client_look(struct runtime_client *client)
{
        if (client->state == CLIENT_CONNECTED)
                (void)on_socket(client->source, client->fd, EPOLLIN, client);
}

static int open_connection(struct runtime_client *client)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = -1;

        if (strlen(client->path) >= sizeof(address.sun_path))
                return error_origin(-ENAMETOOLONG);
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", client->path);

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_origin(-errno);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)))
                return -errno; /* common while the runtime starts: no trace */
        if (sd_event_add_io(client->loop, &client->source, fd, EPOLLIN, on_socket, client) < 0)
                return error_origin(-ENOMEM);
        client->fd = take_fd(&fd);
        return 0;
}

static int greet(struct runtime_client *client)
{
        Hotcell__Runtime__V1__Hello hello;
        Hotcell__Runtime__V1__ToRuntime message;

        hotcell__runtime__v1__hello__init(&hello);
        hotcell__runtime__v1__to_runtime__init(&message);
        hello.protocol_oldest = PROTOCOL_OLDEST;
        hello.protocol_newest = PROTOCOL_NEWEST;
        hello.version = unconst(HOTCELL_VERSION);
        message.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_HELLO;
        message.hello = &hello;
        return send_request(client, &message, NULL, 0, NULL, NULL);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct runtime_client *client = userdata;
        int r;

        (void)source;
        (void)usec;
        r = open_connection(client);
        if (r == 0) {
                client_enter(client, CLIENT_GREETING);
                r = greet(client);
                if (r)
                        lose(client, strerror(-r));
                return 0;
        }
        log_debug("the runtime does not answer path=%s error=\"%s\"", client->path, strerror(-r));
        schedule_retry(client);
        return 0;
}

int runtime_client_new(sd_event *loop, const char *path,
                       const struct runtime_client_observer *observer, void *userdata,
                       struct runtime_client **ret_client)
{
        _cleanup_(runtime_client_freep) struct runtime_client *client = NULL;
        int r;

        client = calloc(1, sizeof(*client));
        if (!client)
                return error_origin(-ENOMEM);
        client->loop = loop;
        client->fd = -1;
        client->observer = observer;
        client->userdata = userdata;
        client->retry_usec = RETRY_FIRST_USEC;
        STAILQ_INIT(&client->packets);
        client->path = strdup(path);
        client->buffer = malloc(PACKET_MAX);
        if (!client->path || !client->buffer || wire_arena_init(&client->arena, ARENA_MAX))
                return error_origin(-ENOMEM);
        r = sd_event_add_time_relative(loop, &client->retry, CLOCK_MONOTONIC, 0, 0, on_retry,
                                       client);
        if (r < 0)
                return error_origin(r);

        *ret_client = take(client);
        return 0;
}

struct runtime_client *runtime_client_free(struct runtime_client *client)
{
        struct map_node *node;

        if (!client)
                return NULL;

        (void)sd_event_source_disable_unref(client->retry);
        close_connection(client);
        while ((node = map_first(&client->pending))) {
                map_remove(&client->pending, node);
                reserve_free(CONTAINER_OF(node, struct pending, by_id));
        }
        if (client->welcome)
                hotcell__runtime__v1__from_runtime__free_unpacked(client->welcome,
                                                                  &wire_sure_allocator);
        wire_arena_deinit(&client->arena);
        free(client->buffer);
        free(client->path);
        free(client);
        return NULL;
}

/* The read side sees the end. */
void runtime_client_reconnect(struct runtime_client *client)
{
        if (client->fd >= 0)
                (void)shutdown(client->fd, SHUT_RDWR);
}

const Hotcell__Runtime__V1__Welcome *runtime_client_welcome(const struct runtime_client *client)
{
        return client->welcome ? client->welcome->welcome : NULL;
}
