/*
 * Start: database → keys → sessions → API → gRPC, whose sockets are opened last: whoever can
 * connect is served. Stop: the other way round, each step begun when the one before has said that
 * it is over.
 */
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/api/api.h"
#include "server/api/key_quotas.h"
#include "server/auth/auth.h"
#include "server/rpc/rpc.h"
#include "server/session/session.h"
#include "server/store/store.h"

/* How long calls that run may go on before a successor comes: most are over in milliseconds. */
enum { LEAVE_GRACE_USEC = 1000 * 1000, LEAVE_LOOK_USEC = 2000 };

/* A hotcell-egress that takes longer to put a policy in force counts as one that is not there. */
enum { EGRESS_ANSWER_USEC = 10 * 1000 * 1000 };

enum server_state {
        SERVER_STARTING, /* owns the store, reads the keys */
        SERVER_SERVING,  /* owns all */
        SERVER_LEAVING,  /* for a successor: open calls come to their end */
        SERVER_STOPPING, /* the sessions, then the gRPC server come to their end */
        SERVER_STOPPED,
};

struct server {
        sd_event *loop;
        struct config config;
        gid_t socket_group;
        enum server_state state;
        bool stop_is_wanted;    /* before it served */
        bool restart_is_wanted; /* the same */
        sd_event_source *leave; /* while LEAVING: may it go? */
        uint64_t leave_usec;    /* when it goes, whoever calls */
        struct store *store;
        struct auth *auth;
        struct session *session;
        struct api *api;
        struct rpc_server *rpc;
};

DEFINE_CLEANUP(struct server, server_free)

/* For start: what began is left to the end of the process. To stop the sessions would end the
 * sandboxes that the runtime may hold for another hotcelld. */
_Noreturn static void give_up(struct server *server, int exit_code)
{
        (void)store_close(server->store);
        _exit(exit_code);
}

static void update_serving(void *userdata)
{
        struct server *server = userdata;
        bool is_serving = server->state == SERVER_SERVING && session_is_ready(server->session) &&
                          store_is_healthy(server->store);

        api_set_serving(server->api, is_serving);
        (void)sd_notifyf(0, "STATUS=%s", is_serving ? "Serving" : "Not ready: see the log");
}

/* What sandboxes may be promised together. */
static int64_t memory_total(const struct config *config)
{
        int64_t machine = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
        int64_t reserve = MIN(config->memory_reserve_bytes, machine / 2);

        if (config->memory_total_bytes > 0)
                return config->memory_total_bytes;
        return (machine - reserve) / 100 * config->memory_overcommit_percent;
}

static int64_t cpu_total(const struct config *config)
{
        if (config->cpu_total_millis > 0)
                return config->cpu_total_millis;
        return sysconf(_SC_NPROCESSORS_ONLN) * 1000 / 100 * config->cpu_overcommit_percent;
}

/* Of the keys that the owner has. Before they are read nobody comes with one. */
static int64_t quota_of(void *userdata, const char *owner, enum session_share share)
{
        const struct server *server = userdata;
        const struct key_quotas *quotas = server->auth ? auth_quotas_of(server->auth, owner) : NULL;

        return quotas ? key_quota_of_share(quotas, share) : 0;
}

static struct session_share_rules share_rules(struct server *server)
{
        const struct config *config = &server->config;

        return (struct session_share_rules){
                .total = {
                        [SESSION_SHARE_SANDBOXES] = config->sandboxes_max,
                        [SESSION_SHARE_MEMORY] = memory_total(config),
                        [SESSION_SHARE_CPU] = cpu_total(config),
                        [SESSION_SHARE_CREATIONS] = config->creations_max,
                        [SESSION_SHARE_EXECUTIONS] = config->executions_max,
                        [SESSION_SHARE_QUEUED] = config->executions_queued_max,
                        [SESSION_SHARE_QUEUED_BYTES] = config->queued_bytes_total_max,
                        [SESSION_SHARE_STREAMS] = config->open_streams_max,
                        [SESSION_SHARE_RINGS] = config->rings_retained_bytes,
                        [SESSION_SHARE_EGRESS] = config->egress_rules_total_bytes,
                        [SESSION_SHARE_EGRESS_RULES] = SESSION_EGRESS_RULES_MAX,
                },
                .owner_max = { [SESSION_SHARE_SANDBOXES] = config->sandboxes_per_owner_max },
                .quota_of = quota_of,
                .userdata = server,
                .owner_percent = (int)config->owner_percent,
                .operator_percent = (int)config->operator_percent,
        };
}

static int start_session(struct server *server)
{
        const struct config *config = &server->config;
        const struct session_config session_config = {
                .runtime_socket = config->runtime_socket,
                .shares = share_rules(server),
                .updates_per_second = config->updates_per_second,
                .queue_max = (size_t)config->queue_max,
                .queued_bytes_max = (size_t)config->queued_bytes_max,
                .ring_bytes = (size_t)config->ring_bytes,
                .rings_retained_usec = config->rings_retained_usec,
                .interrupt_first_usec = config->interrupt_again_usec,
                .interrupt_second_usec = config->interrupt_kill_usec,
                .kernel_start_timeout_usec = config->kernel_start_timeout_usec,
                .egress_answer_usec = EGRESS_ANSWER_USEC,
                .ledger_period_usec = config->ledger_period_usec,
                .rich_part_max_bytes = (size_t)config->rich_part_max_bytes,
        };

        return session_new(server->loop, server->store, &session_config, &server->session);
}

static struct api_limits api_limits_of(const struct config *config)
{
        return (struct api_limits){
                .sandbox_default = {
                        .memory_bytes = config->memory_default_bytes,
                        .cpu_millis = (int32_t)config->cpu_default_millis,
                        .processes = (int32_t)config->processes_default,
                        .disk_bytes = config->disk_default_bytes,
                        .open_files = (int32_t)config->open_files_default,
                        .cpu_weight = (int32_t)config->cpu_weight_default,
                        .disk_inodes = MIN(MAX(config->disk_default_bytes / 4096, 1024),
                                           config->disk_inodes_max),
                        .io_bytes_per_second = config->io_default_bytes,
                        .execution = { .timeout_usec = config->timeout_default_usec,
                                       .output_bytes = config->output_default_bytes },
                },
                .sandbox_max = {
                        .memory_bytes = config->memory_max_bytes,
                        .cpu_millis = (int32_t)config->cpu_max_millis,
                        .processes = (int32_t)config->processes_max,
                        .disk_bytes = config->disk_max_bytes,
                        .open_files = (int32_t)config->open_files_max,
                        .cpu_weight = (int32_t)config->cpu_weight_max,
                        .disk_inodes = config->disk_inodes_max,
                        .io_bytes_per_second = config->io_max_bytes,
                        .execution = { .timeout_usec = config->timeout_max_usec,
                                       .output_bytes = config->output_max_bytes },
                },
                .ttl_default_usec = config->ttl_default_usec,
                .ttl_max_usec = config->ttl_max_usec,
                .allow_no_ttl = config->allow_no_ttl,
                .idle_timeout_default_usec = config->idle_timeout_default_usec,
                .idle_timeout_max_usec = config->idle_timeout_max_usec,
                .allow_no_idle_timeout = config->allow_no_idle_timeout,
                .allow_no_execution_timeout = config->allow_no_timeout,
                .queue_timeout_default_usec = config->queue_timeout_default_usec,
                .queue_timeout_max_usec = config->queue_timeout_max_usec,
        };
}

static int start_api(struct server *server)
{
        const struct api_config api_config = {
                .loop = server->loop,
                .session = server->session,
                .store = server->store,
                .auth = server->auth,
                .limits = api_limits_of(&server->config),
        };

        return api_new(&api_config, &server->api);
}

static unsigned connections_per_owner(const struct config *config)
{
        if (config->connections_per_owner_max > 0)
                return (unsigned)config->connections_per_owner_max;
        return (unsigned)(config->connections_max + 3) / 4;
}

static int make_rpc(struct server *server)
{
        const struct config *config = &server->config;
        struct rpc_server_config rpc_config = {
                .receive_max_bytes = (size_t)config->receive_max_bytes,
                .streams_max = (unsigned)config->streams_max,
                .connections_max = (unsigned)config->connections_max,
                .connections_per_owner_max = connections_per_owner(config),
                .calls_per_owner_max = (unsigned)config->calls_per_owner_max,
                .unread_per_owner_max_bytes = (size_t)config->unread_per_owner_max_bytes,
                .identify_timeout_usec = (uint64_t)config->identify_timeout_usec,
                .request_timeout_usec = (uint64_t)config->request_timeout_usec,
        };

        rpc_config.services = api_services(server->api, &rpc_config.n_services);
        return rpc_server_new(server->loop, &rpc_config, &server->rpc);
}

/* 0, or the exit code of what was logged. */
static int explain_listen(const char *address, int r)
{
        switch (r) {
        case 0:
                return 0;
        case RPC_E_IN_USE:
                log_error("another server listens there address=%s", address);
                return SERVER_EXIT_FAILURE;
        case RPC_E_NOT_LOOPBACK:
                log_error("only loopback addresses are served: connections are plaintext "
                          "address=%s",
                          address);
                return SERVER_EXIT_CONFIG;
        case RPC_E_BAD_ADDRESS:
                log_error("this is no address to listen on, or there is something that is no "
                          "socket address=%s",
                          address);
                return SERVER_EXIT_CONFIG;
        default:
                log_error("cannot listen address=%s error=\"%s\"", address, strerror(-r));
                return SERVER_EXIT_FAILURE;
        }
}

static int listen_all(struct server *server)
{
        const struct config *config = &server->config;
        uint16_t port = 0;
        int r;

        r = explain_listen(config->unix_path, rpc_server_listen_unix(server->rpc, config->unix_path,
                                                                     server->socket_group));
        if (r)
                return r;
        log_info("listening address=unix:%s", config->unix_path);
        if (!*config->tcp)
                return 0;
        r = explain_listen(config->tcp, rpc_server_listen_tcp(server->rpc, config->tcp, &port));
        if (r == 0)
                log_info("listening address=%s port=%u", config->tcp, port);
        return r;
}

static int start_parts(struct server *server)
{
        int r;

        r = start_session(server);
        if (r == 0)
                r = start_api(server);
        if (r == 0)
                r = make_rpc(server);
        if (r) {
                log_error("cannot start error=\"%s\"", strerror(-r));
                return SERVER_EXIT_FAILURE;
        }
        r = listen_all(server);
        if (r)
                return r;
        r = rpc_server_start(server->rpc);
        if (r) {
                log_error("cannot start the gRPC server error=\"%s\"", strerror(-r));
                return SERVER_EXIT_FAILURE;
        }
        return 0;
}

static void on_keys_loaded(void *userdata, int result)
{
        struct server *server = userdata;
        int exit_code;

        if (result) {
                log_error("cannot read the api keys error=\"%s\"", strerror(-result));
                give_up(server, SERVER_EXIT_FAILURE);
        }
        if (server->stop_is_wanted)
                give_up(server, 0);
        if (server->restart_is_wanted)
                give_up(server, SERVER_EXIT_RESTART);
        exit_code = start_parts(server);
        if (exit_code)
                give_up(server, exit_code);

        server->state = SERVER_SERVING;
        session_on_ready_change(server->session, update_serving, server);
        store_set_on_health_change(server->store, update_serving, server);
        update_serving(server);
        (void)sd_notify(0, "READY=1");
        log_info("started version=" HOTCELL_VERSION);
}

static int open_store(struct server *server)
{
        const struct config *config = &server->config;
        const struct store_retention retention = {
                .kept_usec = config->retention_usec,
                .sandboxes_max = config->retention_sandboxes,
                .executions_max = config->retention_executions,
                .events_max = config->retention_events,
                .requests_kept_usec = config->request_ids_kept_usec,
                .requests_max = config->request_ids_max,
                .outputs_kept_usec = config->rings_retained_usec,
                .outputs_max_bytes = config->rings_retained_bytes,
                .events_bytes_max = config->retention_events_bytes,
                .egress_events_max = config->retention_egress_events,
                .egress_events_bytes_max = config->retention_egress_events_bytes,
                .ledger_kept_usec = config->ledger_retention_usec,
                .ledger_rows_max = config->ledger_rows_max,
        };
        char message[MESSAGE_BUFFER];
        int r;

        r = store_open(server->loop, config->state_dir, &server->store, message);
        if (r) {
                log_error("the database cannot be opened: %s%s",
                          *message ? message : strerror(r < 0 ? -r : EIO),
                          r == STORE_E_READ_ONLY
                                  ? " Start hotcelld as the user whose folder it is, or name "
                                    "another folder with --state-dir."
                                  : "");
                return SERVER_EXIT_FAILURE;
        }
        store_keep_spare(server->store, config->state_reserve_bytes);
        return store_set_retention(server->store, &retention);
}

int server_new(sd_event *loop, const struct config *config, gid_t socket_group,
               struct server **ret_server)
{
        _cleanup_(server_freep) struct server *server = NULL;
        int r;

        server = calloc(1, sizeof(*server));
        if (!server)
                return error_origin(-ENOMEM);
        server->loop = sd_event_ref(loop);
        server->config = *config;
        server->socket_group = socket_group;

        r = open_store(server);
        if (r)
                return r;
        r = auth_new(server->loop, server->store, on_keys_loaded, server, &server->auth);
        if (r)
                return error_fold(r);

        *ret_server = take(server);
        return 0;
}

static void on_rpc_stopped(void *userdata)
{
        struct server *server = userdata;

        server->state = SERVER_STOPPED;
        log_info("stopped");
        (void)sd_event_exit(server->loop, 0);
}

/* Sent, and not read by the loop yet. */
static bool is_stop_pending(void)
{
        sigset_t pending;

        return sigpending(&pending) == 0 &&
               (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

/*
 * The gRPC server is not stopped: its stop would have calls that are on their way CANCELLED, which
 * nobody tries again. Those that still come are refused, and what is left breaks with the process,
 * so that all clients hear UNAVAILABLE.
 */
static int on_leave_looked(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct server *server = userdata;

        if (!is_stop_pending() &&
            (rpc_server_n_calls(server->rpc) == 0 || usec >= server->leave_usec)) {
                log_info("left to the successor");
                give_up(server, SERVER_EXIT_RESTART);
        }
        (void)sd_event_source_set_time_relative(source, LEAVE_LOOK_USEC);
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* What runs is in the journals, what was told is in the database. */
static void begin_restart(struct server *server)
{
        uint64_t now = 0;
        int r;

        log_info("leaving to a successor");
        server->state = SERVER_LEAVING;
        update_serving(server);
        api_shut_down(server->api);
        session_leave(server->session);
        (void)sd_event_now(server->loop, CLOCK_MONOTONIC, &now);
        server->leave_usec = now + LEAVE_GRACE_USEC;
        r = sd_event_add_time_relative(server->loop, &server->leave, CLOCK_MONOTONIC,
                                       LEAVE_LOOK_USEC, 1, on_leave_looked, server);
        if (r < 0)
                give_up(server, SERVER_EXIT_RESTART);
}

static void on_sessions_stopped(void *userdata)
{
        struct server *server = userdata;

        rpc_server_stop(server->rpc, (uint64_t)server->config.stop_grace_usec, on_rpc_stopped,
                        server);
}

static void begin_stop(struct server *server)
{
        log_info("stopping");
        (void)sd_notify(0, "STOPPING=1");
        server->state = SERVER_STOPPING;
        server->leave = sd_event_source_disable_unref(server->leave);
        update_serving(server);
        api_shut_down(server->api);
        session_stop(server->session, on_sessions_stopped, server);
}

void server_stop(struct server *server)
{
        switch (server->state) {
        case SERVER_STARTING:
                server->stop_is_wanted = true;
                break;
        case SERVER_SERVING:
        case SERVER_LEAVING:
                begin_stop(server);
                break;
        case SERVER_STOPPING:
                log_warning("ending at once: asked to stop twice");
                _exit(SERVER_EXIT_FAILURE);
        case SERVER_STOPPED:
                break;
        }
}

void server_restart(struct server *server)
{
        if (server->state == SERVER_STARTING)
                server->restart_is_wanted = true;
        else if (server->state == SERVER_SERVING)
                begin_restart(server);
}

struct server *server_free(struct server *server)
{
        if (!server)
                return NULL;
        assert(!server->rpc || server->state == SERVER_STOPPED);

        server->rpc = rpc_server_free(server->rpc);
        server->api = api_free(server->api);
        server->session = session_free(server->session);
        server->store = store_close(server->store);
        server->auth = auth_free(server->auth); /* last: the store's callbacks know it */
        (void)sd_event_unref(server->loop);
        free(server);
        return NULL;
}
