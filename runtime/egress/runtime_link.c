#include "runtime/egress/runtime_link.h"

#include <errno.h>
#include <hotcell/egress/v1/egress.pb-c.h>
#include <string.h>
#include <sys/epoll.h>

#include <bpf/libbpf.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/channel/traffic_table.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/server_link.h"
#include "runtime/egress/server_sync.h"
#include "runtime/egress/wall_events.h"

#define FROM_RUNTIME(name) HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_##name

/* --- the wall -----------------------------------------------------------------------------------
 */

static int on_told(void *userdata, void *data, size_t size)
{
        struct egress *egress = userdata;

        if (size == sizeof(struct egress_event))
                wall_event_push(egress, data);
        server_sync_count_soon(egress);
        return 0;
}

static int on_ring(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        (void)source;
        (void)fd;
        (void)events;
        egress_consume(userdata);
        return 0;
}

/* Once: when all networks that were there before this process are known. What is in the ring until
 * then is of them. */
static int watch_ring(struct egress *egress)
{
        int r;

        if (egress->ring)
                return 0;
        egress->ring =
                ring_buffer__new(egress->tables.fds[EGRESS_MAP_EVENTS], on_told, egress, NULL);
        if (!egress->ring)
                return error_origin(-errno);
        r = sd_event_add_io(egress->event, &egress->ring_source,
                            ring_buffer__epoll_fd(egress->ring), EPOLLIN, on_ring, egress);
        return r < 0 ? error_origin(r) : 0;
}

static int start(struct egress *egress, const Hotcell__Egress__V1__Start *message, int *fds,
                 size_t n_fds)
{
        int maps[_EGRESS_MAP_N];
        int r;

        if (egress->is_started || n_fds < _EGRESS_MAP_N || n_fds > _EGRESS_MAP_N + 1 ||
            message->n_program_ids < EGRESS_PROGRAMS ||
            message->n_program_ids > EGRESS_PROGRAMS_DIRECT || message->n_slots == 0)
                return error_origin(-EPROTO);
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                maps[i] = take_fd(&fds[i]);
        r = tables_init(&egress->tables, maps, message->n_slots);
        if (!r && n_fds > _EGRESS_MAP_N)
                r = traffic_table_map(take_fd(&fds[_EGRESS_MAP_N]), &egress->traffic);
        if (r)
                return r;
        egress->is_started = true;
        egress_count_places(egress, message->n_slots);
        egress->n_programs = message->n_program_ids;
        for (size_t i = 0; i < egress->n_programs; i++)
                egress->program_ids[i] = message->program_ids[i];
        r = tables_sweep(&egress->tables);
        if (!r)
                r = tables_put_always(&egress->tables, &egress->always);
        return r;
}

/* --- networks -----------------------------------------------------------------------------------
 */

/* Half of what a network needs is none: what would leave it stays refused, and whoever asks for a
 * policy is told. The others go on. */
static void leave_out(const char *sandbox_id, int r)
{
        log_error("a network is not served: sandbox=%s error=%s", sandbox_id, strerrorname_np(-r));
}

static int add_network(struct egress *egress, const Hotcell__Egress__V1__AddNetwork *message,
                       int *fds, size_t n_fds)
{
        const struct network_spec spec = {
                .sandbox_id = message->sandbox_id,
                .cgroup_id = message->cgroup_id,
                .init_cgroup_id = message->init_cgroup_id,
                .slot = message->slot,
                .relay_port = (uint16_t)message->relay_port,
                .direct = (uint8_t)((message->direct4 ? EGRESS_DIRECT4 : 0) |
                                    (message->direct6 ? EGRESS_DIRECT6 : 0)),
                .is_inherited = !egress->ring,
        };
        int sockets[_NETWORK_SOCKET_N];
        struct network *network;
        int r;

        if (!egress->is_started || n_fds != _NETWORK_SOCKET_N ||
            message->slot >= egress->tables.n_slots ||
            network_tables_find(&egress->networks, message->sandbox_id) ||
            network_tables_find_group(&egress->networks, message->cgroup_id))
                return error_origin(-EPROTO);
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                sockets[i] = take_fd(&fds[i]);
        r = network_new(egress, &spec, sockets, &network);
        if (r) {
                leave_out(spec.sandbox_id, r);
                return 0;
        }
        r = network_tables_add(&egress->networks, network);
        if (r) {
                (void)network_free(network);
                leave_out(spec.sandbox_id, r);
                return 0;
        }
        wall_events_claim(egress, network);
        return 0;
}

static int remove_network(struct egress *egress, const Hotcell__Egress__V1__RemoveNetwork *message)
{
        struct network *network = network_tables_find(&egress->networks, message->sandbox_id);
        int r;

        /* It was left out. Counts are told of a cgroup, which only AddNetwork names: those of this
         * one are not told, and its sandbox was refused or has ended. */
        if (!network)
                return 0;
        r = watch_ring(egress);
        if (r)
                return r;
        egress_consume(egress);
        server_sync_tell_last(network, message->n_logged, message->n_dropped);
        policy_turns_forget(egress->turns, network);
        network_tables_remove(&egress->networks, network);
        (void)network_free(network);
        return 0;
}

static int serve_server(struct egress *egress, int *fds, size_t n_fds)
{
        int r;

        if (!egress->is_started || n_fds != 1)
                return error_origin(-EPROTO);
        r = watch_ring(egress);
        if (r)
                return r;
        events_rewind(&egress->events);
        return channel_adopt(egress->server, take_fd(&fds[0]));
}

static int dispatch(struct egress *egress, const Hotcell__Egress__V1__FromRuntime *message,
                    int *fds, size_t n_fds)
{
        int r;

        if (message->body_case == FROM_RUNTIME(START))
                return start(egress, message->start, fds, n_fds);
        if (message->body_case == FROM_RUNTIME(ADD_NETWORK))
                return add_network(egress, message->add_network, fds, n_fds);
        if (message->body_case == FROM_RUNTIME(REMOVE_NETWORK))
                return remove_network(egress, message->remove_network);
        if (message->body_case != FROM_RUNTIME(SERVE_SERVER))
                return error_origin(-EPROTO);
        r = serve_server(egress, fds, n_fds);
        if (!r) {
                server_sync_restart(egress);
                server_link_send_events(egress);
        }
        return r;
}

void runtime_link_handle(struct egress *egress, const uint8_t *bytes, size_t n_bytes, int *fds,
                         size_t n_fds)
{
        Hotcell__Egress__V1__FromRuntime *message;
        int r;

        wire_arena_reset(&egress->arena);
        message =
                hotcell__egress__v1__from_runtime__unpack(&egress->arena.allocator, n_bytes, bytes);
        r = message ? dispatch(egress, message, fds, n_fds) : error_origin(-EPROTO);
        if (!r)
                return;
        /* Half of what there is would be served: better anew. */
        log_error("cannot do what the runtime says: body=%d error=%s",
                  message ? (int)message->body_case : 0, strerrorname_np(-r));
        (void)sd_event_exit(egress->event, EXIT_FAILURE);
}
