#include "runtime/egress/egress.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/channel/traffic_table.h"
#include "runtime/egress/dns_service.h"
#include "runtime/egress/flow.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/resolver.h"
#include "runtime/egress/runtime_link.h"
#include "runtime/egress/server_link.h"
#include "runtime/egress/server_sync.h"

enum {
        RUNTIME_PACKET_MAX = 4096,
        SERVER_PACKET_MAX = 128 << 10,
        QUEUE_BYTES_MAX = 4 << 20,
        ARENA_BYTES_MAX = 1 << 20,
        OTHER_DESCRIPTORS = 1024, /* of the resolver and the channels */
        OTHER_DESCRIPTORS_MIN = 4096,
};

void egress_consume(struct egress *egress)
{
        (void)ring_buffer__consume(egress->ring);
}

static int on_sending(sd_event_source *source, void *userdata)
{
        (void)source;
        server_sync_go_on(userdata);
        return 0;
}

/* --- the two others -----------------------------------------------------------------------------
 */

static void on_runtime_packet(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds,
                              size_t n_fds)
{
        runtime_link_handle(userdata, bytes, n_bytes, fds, n_fds);
}

static void on_runtime_gone(void *userdata)
{
        struct egress *egress = userdata;

        log_info("the runtime is gone: stopping");
        (void)sd_event_exit(egress->event, EXIT_SUCCESS);
}

static void on_server_packet(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds,
                             size_t n_fds)
{
        struct egress *egress = userdata;
        uint64_t connection = channel_connection(egress->server);

        /* The network that this is about was told first, but on another socket; and perhaps that
         * there is another hotcelld now. */
        channel_catch_up(egress->runtime);
        if (egress->is_started && channel_connection(egress->server) == connection)
                server_link_handle(egress, bytes, n_bytes, fds, n_fds);
}

/* The next one comes by the runtime; policies stay in force until then. */
static void on_server_gone(void *userdata)
{
        (void)userdata;
}

static int make_channels(struct egress *egress)
{
        const struct channel_config runtime = {
                .peer = "hotcell-runtime",
                .packet_max = RUNTIME_PACKET_MAX,
                .queue_bytes_max = QUEUE_BYTES_MAX,
                .observer = { .on_packet = on_runtime_packet,
                              .on_disconnect = on_runtime_gone,
                              .userdata = egress },
        };
        const struct channel_config server = {
                .peer = "hotcelld",
                .packet_max = SERVER_PACKET_MAX,
                .queue_bytes_max = QUEUE_BYTES_MAX,
                .observer = { .on_packet = on_server_packet,
                              .on_disconnect = on_server_gone,
                              .userdata = egress },
        };
        int r = channel_new(egress->event, &runtime, &egress->runtime);

        if (!r)
                r = channel_new(egress->event, &server, &egress->server);
        if (!r)
                r = channel_adopt(egress->runtime, EGRESS_RUNTIME_FD);
        return r;
}

/* --- starting -----------------------------------------------------------------------------------
 */

static int on_terminate(sd_event_source *source, const struct signalfd_siginfo *info,
                        void *userdata)
{
        struct egress *egress = userdata;

        (void)source;
        (void)info;
        return sd_event_exit(egress->event, EXIT_SUCCESS);
}

/* SIGHUP: the runtime has a newer program and asks to make room. */
static int on_renewal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        enum { EXIT_RESTART = 75 }; /* sysexits.h EX_TEMPFAIL */
        struct egress *egress = userdata;

        (void)source;
        (void)info;
        return sd_event_exit(egress->event, EXIT_RESTART);
}

static int make_loop(struct egress *egress)
{
        static const struct {
                int signal;
                sd_event_signal_handler_t handler;
        } signals[] = { { SIGTERM, on_terminate },
                        { SIGINT, on_terminate },
                        { SIGHUP, on_renewal } };
        sigset_t blocked;
        int r = sd_event_new(&egress->event);

        (void)sigemptyset(&blocked);
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                (void)sigaddset(&blocked, signals[i].signal);
        if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
                return error_origin(-errno);
        (void)signal(SIGPIPE, SIG_IGN);
        for (size_t i = 0; i < ARRAY_SIZE(signals) && r >= 0; i++)
                r = sd_event_add_signal(egress->event, NULL, signals[i].signal, signals[i].handler,
                                        egress);
        if (r >= 0)
                r = sd_event_add_defer(egress->event, &egress->sending, on_sending, egress);
        if (r >= 0)
                r = sd_event_source_set_enabled(egress->sending, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

static int make_always(struct egress *egress, const struct egress_options *options)
{
        const struct policy_prefixes opened = { options->opened, options->n_opened };
        const struct policy_prefixes none = { 0 };

        for (size_t i = 0; i < options->n_opened; i++)
                egress->opened[egress->n_opened++] = options->opened[i];
        return policy_always_init(&egress->always, &opened, &none);
}

static int make_resolver(struct egress *egress, const struct egress_options *options)
{
        struct resolver_config config;

        resolver_config_init(&config);
        config.upstream.servers = options->nameservers;
        return resolver_new(egress->event, &config, &egress->resolver);
}

void egress_count_places(struct egress *egress, uint32_t n_networks)
{
        const rlim_t of_network = _NETWORK_SOCKET_N + DNS_SERVICE_STREAMS_MAX;
        rlim_t others = OTHER_DESCRIPTORS + POLICY_WAITING_MAX + n_networks * of_network;
        struct rlimit limit = { 0 };

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        others = MIN(MAX(others, (rlim_t)OTHER_DESCRIPTORS_MIN), limit.rlim_max / 2);
        egress->n_connections_max = (size_t)((limit.rlim_max - others) / FLOW_DESCRIPTORS);
}

static bool has_v6(void)
{
        _cleanup_(closep) int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        return fd >= 0;
}

int egress_init(struct egress *egress, const struct egress_options *options)
{
        int r;

        *egress = (struct egress){ .routes = { .fd = -1 }, .has_v6 = has_v6() };
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                egress->tables.fds[i] = -1;
        r = make_loop(egress);
        if (!r)
                r = events_init(&egress->events);
        if (!r)
                r = tellers_init(&egress->tellers, egress->event, &egress->events, egress->sending);
        if (!r)
                r = wire_arena_init(&egress->arena, ARENA_BYTES_MAX);
        if (!r)
                r = routes_init(&egress->routes);
        if (!r)
                r = make_always(egress, options);
        if (!r)
                r = make_resolver(egress, options);
        if (!r)
                r = policy_turns_new(egress, &egress->turns);
        if (!r)
                r = server_sync_init(egress);
        if (!r)
                r = make_channels(egress);
        return r;
}

int egress_run(struct egress *egress)
{
        int r = sd_event_loop(egress->event);

        return r < 0 ? EXIT_FAILURE : r;
}

void egress_deinit(struct egress *egress)
{
        struct network *network;

        while ((network = egress->networks.by_id)) {
                network_tables_remove(&egress->networks, network);
                (void)network_free(network);
        }
        egress->turns = policy_turns_free(egress->turns);
        egress->server = channel_free(egress->server);
        egress->runtime = channel_free(egress->runtime);
        if (egress->resolver)
                egress->resolver = resolver_free(egress->resolver);
        egress->ring_source = sd_event_source_disable_unref(egress->ring_source);
        ring_buffer__free(egress->ring);
        tables_deinit(&egress->tables);
        egress->traffic = traffic_table_free(egress->traffic);
        policy_always_deinit(&egress->always);
        routes_deinit(&egress->routes);
        wire_arena_deinit(&egress->arena);
        tellers_deinit(&egress->tellers);
        events_deinit(&egress->events);
        server_sync_deinit(egress);
        egress->sending = sd_event_source_disable_unref(egress->sending);
        egress->event = sd_event_unref(egress->event);
}
