/*
 * What a hotcell-egress is told carries descriptors, and only so many may be on their way: a new
 * one is told of thousands of networks as it takes them. What waits has its order and none of them.
 */
#include "runtime/supervisor/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <hotcell/egress/v1/egress.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "runtime/base/text.h"
#include "runtime/channel/channel.h"
#include "runtime/channel/traffic_table.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/id_ranges.h"
#include "runtime/supervisor/sandbox.h"

enum {
        PACKET_MAX = 4096,
        QUEUE_BYTES_MAX = 8 << 20,
};

/* What it is to be told; one of these. */
struct telling {
        STAILQ_ENTRY(telling) link;
        const struct sandbox *added;  /* until it ends */
        char removed[ID_BUFFER];      /* "": none */
        uint64_t n_logged, n_dropped; /* refusals of what was removed */
        int server_fd;                /* owned; negative: none */
};

struct relay {
        struct relay_config config;
        struct channel *channel;
        STAILQ_HEAD(, telling) tellings; /* for which the socket has no room yet */
        struct service *service;
};

#define BODY(name) HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_##name

static Hotcell__Egress__V1__FromRuntime new_message(Hotcell__Egress__V1__FromRuntime__BodyCase body)
{
        Hotcell__Egress__V1__FromRuntime message;

        hotcell__egress__v1__from_runtime__init(&message);
        message.body_case = body;
        return message;
}

/* @fds stay the caller's: the channel closes copies. One that cannot be told all must not go on. */
static void send_message(struct relay *relay, const Hotcell__Egress__V1__FromRuntime *message,
                         const int *fds, size_t n_fds)
{
        uint8_t bytes[PACKET_MAX];
        int copies[CHANNEL_FDS_MAX];
        size_t n_bytes = hotcell__egress__v1__from_runtime__get_packed_size(message);

        assert(n_bytes <= sizeof(bytes) && n_fds <= ARRAY_SIZE(copies));
        for (size_t i = 0; i < n_fds; i++) {
                copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
                if (copies[i] >= 0)
                        continue;
                log_warning("cannot tell hotcell-egress: error=%s", strerrorname_np(errno));
                while (i > 0)
                        (void)close(copies[--i]);
                channel_drop(relay->channel);
                return;
        }
        (void)hotcell__egress__v1__from_runtime__pack(message, bytes);
        channel_send(relay->channel, bytes, n_bytes, copies, n_fds);
}

static void send_start(struct relay *relay)
{
        Hotcell__Egress__V1__FromRuntime message = new_message(BODY(START));
        Hotcell__Egress__V1__Start start;
        size_t n_programs;
        uint32_t program_ids[EGRESS_PROGRAMS_DIRECT];
        const uint32_t *ids = egress_wall_program_ids(relay->config.wall, &n_programs);
        int fds[_EGRESS_MAP_N + 1];

        hotcell__egress__v1__start__init(&start);
        for (size_t i = 0; i < n_programs; i++)
                program_ids[i] = ids[i];
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = egress_wall_map_fd(relay->config.wall, (enum egress_map)i);
        fds[_EGRESS_MAP_N] = traffic_table_fd(relay->config.traffic);
        start.n_slots = relay->config.n_slots;
        start.program_ids = program_ids;
        start.n_program_ids = n_programs;
        message.start = &start;
        send_message(relay, &message, fds, ARRAY_SIZE(fds));
}

static void say_added(struct relay *relay, const struct sandbox *sandbox)
{
        Hotcell__Egress__V1__FromRuntime message = new_message(BODY(ADD_NETWORK));
        Hotcell__Egress__V1__AddNetwork add;
        uint8_t families = direct_families(sandbox->netns.direct);

        /* It may be ending by now: its sockets are closed. */
        if (sandbox->state != SANDBOX_RUNNING)
                return;
        hotcell__egress__v1__add_network__init(&add);
        add.sandbox_id = unconst(sandbox->id);
        add.cgroup_id = sandbox->group.id;
        add.init_cgroup_id = sandbox->init_leaf.id;
        add.slot = id_ranges_index(sandbox->host->ids, sandbox->id_base);
        add.relay_port = sandbox->netns.relay_port;
        add.direct4 = families & EGRESS_DIRECT4;
        add.direct6 = families & EGRESS_DIRECT6;
        message.add_network = &add;
        send_message(relay, &message, sandbox->netns.sockets, _NETNS_SOCKET_N);
}

static void say_removed(struct relay *relay, const struct telling *telling)
{
        Hotcell__Egress__V1__FromRuntime message = new_message(BODY(REMOVE_NETWORK));
        Hotcell__Egress__V1__RemoveNetwork remove;

        hotcell__egress__v1__remove_network__init(&remove);
        remove.sandbox_id = unconst(telling->removed);
        remove.n_logged = telling->n_logged;
        remove.n_dropped = telling->n_dropped;
        message.remove_network = &remove;
        send_message(relay, &message, NULL, 0);
}

static void say_server(struct relay *relay, int fd)
{
        Hotcell__Egress__V1__FromRuntime message = new_message(BODY(SERVE_SERVER));
        Hotcell__Egress__V1__ServeServer serve;

        hotcell__egress__v1__serve_server__init(&serve);
        message.serve_server = &serve;
        send_message(relay, &message, &fd, 1);
}

static void say(struct relay *relay, const struct telling *telling)
{
        if (telling->added)
                say_added(relay, telling->added);
        else if (telling->removed[0])
                say_removed(relay, telling);
        else if (telling->server_fd >= 0)
                say_server(relay, telling->server_fd);
}

static void forget_first(struct relay *relay)
{
        struct telling *telling = STAILQ_FIRST(&relay->tellings);

        STAILQ_REMOVE_HEAD(&relay->tellings, link);
        (void)close_fd(telling->server_fd);
        reserve_free(telling);
}

static void on_drained(void *userdata)
{
        struct relay *relay = userdata;

        while (!STAILQ_EMPTY(&relay->tellings) && channel_is_drained(relay->channel)) {
                say(relay, STAILQ_FIRST(&relay->tellings));
                forget_first(relay);
        }
}

/* Takes its descriptor. */
static void tell(struct relay *relay, const struct telling *telling)
{
        struct telling *waiting;

        if (STAILQ_EMPTY(&relay->tellings) && channel_is_drained(relay->channel)) {
                say(relay, telling);
                (void)close_fd(telling->server_fd);
                return;
        }
        waiting = reserve_alloc(sizeof(*waiting));
        if (!waiting) {
                log_warning("cannot tell hotcell-egress: error=ENOMEM");
                (void)close_fd(telling->server_fd);
                channel_drop(relay->channel);
                return;
        }
        *waiting = *telling;
        STAILQ_INSERT_TAIL(&relay->tellings, waiting, link);
}

void relay_add_network(struct relay *relay, const struct sandbox *sandbox)
{
        tell(relay, &(struct telling){ .added = sandbox, .server_fd = -1 });
}

void relay_remove_network(struct relay *relay, const struct sandbox *sandbox)
{
        struct telling removal = { .server_fd = -1 };
        struct egress_counts counts = { 0 };
        struct telling *telling;

        STAILQ_FOREACH(telling, &relay->tellings, link)
        {
                if (telling->added == sandbox)
                        telling->added = NULL; /* it says nothing any more */
        }
        (void)egress_wall_read_counts(relay->config.wall, sandbox->group.id, &counts);
        (void)snprintf(removal.removed, sizeof(removal.removed), "%s", sandbox->id);
        removal.n_logged = counts.n_logged;
        removal.n_dropped = counts.n_dropped;
        tell(relay, &removal);
}

int relay_open_server_socket(struct relay *relay, int *ret_fd)
{
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
                return error_origin(-errno);
        tell(relay, &(struct telling){ .server_fd = ends[1] });
        *ret_fd = ends[0];
        return 0;
}

/* --- its life -----------------------------------------------------------------------------------
 */

/* Its first packets wait in the socket until it reads. */
static int open_socket(void *userdata, int *ret_fd)
{
        struct relay *relay = userdata;
        int ends[2];
        int r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
                return error_origin(-errno);
        /* What waited was for the one before. */
        while (!STAILQ_EMPTY(&relay->tellings))
                forget_first(relay);
        r = channel_adopt(relay->channel, ends[0]);
        if (r) {
                (void)close(ends[1]);
                return r;
        }
        send_start(relay);
        relay->config.on_started(relay->config.userdata);
        *ret_fd = ends[1];
        return 0;
}

static void on_packet(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds, size_t n_fds)
{
        (void)userdata;
        (void)bytes;
        (void)fds;
        log_warning("hotcell-egress says something to the runtime: bytes=%zu descriptors=%zu",
                    n_bytes, n_fds);
}

/* It ended, which the reaper tells; or it was dropped: without this socket it ends by itself. */
static void on_disconnect(void *userdata)
{
        (void)userdata;
}

/* Sandboxes go on without: what would leave is refused. */
static void on_given_up(void *userdata, int exit_code)
{
        (void)userdata;
        log_error("there is no relay any more: nothing leaves sandboxes: exit_code=%d", exit_code);
}

static void on_stopped(void *userdata)
{
        struct relay *relay = userdata;

        relay->config.on_stopped(relay->config.userdata);
}

DEFINE_CLEANUP(struct relay, relay_free)

int relay_new(sd_event *event, struct reaper *reaper, const struct relay_config *config,
              struct relay **ret_relay)
{
        _cleanup_(relay_freep) struct relay *relay = calloc(1, sizeof(*relay));
        const struct channel_config channel_config = {
                .peer = "hotcell-egress",
                .packet_max = PACKET_MAX,
                .queue_bytes_max = QUEUE_BYTES_MAX,
                .observer = { .on_packet = on_packet,
                              .on_disconnect = on_disconnect,
                              .on_drained = on_drained,
                              .userdata = relay },
        };
        struct service_config service = config->service;
        int r;

        if (!relay)
                return error_origin(-ENOMEM);
        relay->config = *config;
        STAILQ_INIT(&relay->tellings);
        r = channel_new(event, &channel_config, &relay->channel);
        if (r)
                return r;
        service.open_socket = open_socket;
        service.on_given_up = on_given_up;
        service.on_stopped = on_stopped;
        service.userdata = relay;
        r = service_new(event, reaper, &service, &relay->service);
        if (r)
                return r;
        *ret_relay = take(relay);
        return 0;
}

void relay_renew(struct relay *relay)
{
        service_renew(relay->service);
}

void relay_stop(struct relay *relay)
{
        service_stop(relay->service);
}

struct relay *relay_free(struct relay *relay)
{
        if (!relay)
                return NULL;
        while (!STAILQ_EMPTY(&relay->tellings))
                forget_first(relay);
        relay->service = service_free(relay->service);
        relay->channel = channel_free(relay->channel);
        free(relay);
        return NULL;
}
