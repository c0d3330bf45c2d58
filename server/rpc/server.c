/*
 * One completion queue, one pump thread that carries its events to the loop, and a few slots for
 * each method in which gRPC puts new calls. All state belongs to the loop thread.
 *
 * The end comes in a fixed order, or gRPC crashes: no new connections, notice of shutdown, after
 * the grace time all calls cancelled, every completion that is owed has come, queue shut, pump
 * joined, queue and server destroyed.
 */
#include "server/rpc/server.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/inbox.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/rpc/accounts.h"
#include "server/rpc/call.h"
#include "server/rpc/core_log.h"
#include "server/rpc/listener.h"
#include "server/rpc/peers.h"

enum {
        SLOTS_PER_METHOD = 4, /* calls that wait in them need one turn of the loop together */
        LISTENERS_MAX = 8,
        READINGS_MAX = 16, /* requests of one owner on their way in; further ones wait */
        TEND_USEC = 1000000,
        /* What a stream may send before it is read. gRPC asks for more when it reads a message. */
        LOOKAHEAD_BYTES = 16 << 10,
};

/* Calls that show no owner, such as health checks, of connections that have none. */
static const char *const stranger_names[] = { "strangers over TCP", "strangers over unix sockets" };

/* Where gRPC puts a new call. */
struct rpc_slot {
        struct rpc_op op;
        const struct rpc_binding *binding; /* NULL: of any method that is not registered */
        void *registration;
        struct call_arrival arrival;
        gpr_timespec deadline;
        grpc_call_details details;
};

/*
 *      new ──▶ serving ──▶ stopping ──▶ stopped
 *        └──────────────────────────────▲ (stopped before it was started)
 */
enum stage {
        STAGE_NEW,      /* listens at most; gRPC's server was not started, there is no pump */
        STAGE_SERVING,  /* slots are posted again whenever they fire */
        STAGE_STOPPING, /* nothing new; waits for `n_due` and `n_calls` */
        STAGE_STOPPED,  /* gRPC owes nothing; only rpc_server_free is left */
};

TAILQ_HEAD(rpc_deadline_list, rpc_deadline);

struct rpc_server {
        enum stage stage;
        sd_event *loop;
        struct inbox *inbox;
        pthread_t pump;
        size_t receive_max_bytes;

        grpc_server *server;
        grpc_completion_queue *queue;
        grpc_server_credentials *credentials;
        struct rpc_binding *bindings;
        size_t n_bindings;
        struct rpc_slot *slots;
        size_t n_slots;

        struct peers *peers;
        struct accounts *accounts;
        uint64_t request_timeout_msec;
        struct rpc_deadline_list deadlines; /* the next one first */
        sd_event_source *tend;
        struct listener *listeners[LISTENERS_MAX];
        size_t n_listeners;

        unsigned n_due;   /* completions that gRPC owes us */
        unsigned n_calls; /* not yet freed */

        struct rpc_op shutdown;
        sd_event_source *grace;
        sd_event_source *stopped; /* apart from what found the end: it may free the server */
        void (*on_stopped)(void *userdata);
        void *stopped_userdata;
};

DEFINE_CLEANUP(struct rpc_server, rpc_server_free)

/* --- completions --- */

static void server_check_stopped(struct rpc_server *server)
{
        if (server->stage != STAGE_STOPPING || server->n_due > 0 || server->n_calls > 0)
                return;
        server->stage = STAGE_STOPPED;
        (void)sd_event_source_set_enabled(server->grace, SD_EVENT_OFF);
        (void)sd_event_source_set_enabled(server->stopped, SD_EVENT_ONESHOT);
}

static void op_run(struct inbox_task *task)
{
        struct rpc_op *op = CONTAINER_OF(task, struct rpc_op, task);
        struct rpc_server *server = op->server;

        op->on_done(op); /* may free it */
        server->n_due--;
        server_check_stopped(server);
}

void *rpc_server_expect(struct rpc_server *server, struct rpc_op *op,
                        void (*on_done)(struct rpc_op *op))
{
        op->task.run = op_run;
        op->server = server;
        op->on_done = on_done;
        server->n_due++;
        return op;
}

void rpc_server_defer(struct rpc_server *server, struct rpc_op *op,
                      void (*on_done)(struct rpc_op *op))
{
        (void)rpc_server_expect(server, op, on_done);
        op->ok = true;
        inbox_post(server->inbox, &op->task);
}

/* The only code that runs off the loop thread: it carries completions to it. */
static void *pump_run(void *userdata)
{
        struct rpc_server *server = userdata;

        (void)pthread_setname_np(pthread_self(), "rpc-pump");
        for (;;) {
                grpc_event event = grpc_completion_queue_next(
                        server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
                struct rpc_op *op = event.tag;

                if (event.type == GRPC_QUEUE_SHUTDOWN)
                        return NULL;
                if (event.type != GRPC_OP_COMPLETE)
                        continue;
                op->ok = event.success;
                inbox_post(server->inbox, &op->task);
        }
}

size_t rpc_server_receive_max(const struct rpc_server *server)
{
        return server->receive_max_bytes;
}

void rpc_server_call_begun(struct rpc_server *server)
{
        server->n_calls++;
}

void rpc_server_call_over(struct rpc_server *server)
{
        server->n_calls--;
        server_check_stopped(server);
}

/* --- owners --- */

struct account *rpc_server_default_account(struct rpc_server *server, const struct seat *seat)
{
        struct account *account = seat_account(seat);

        if (account)
                return account_hold_again(account);
        return account_hold(server->accounts, stranger_names[seat_peer(seat)->is_unix], true);
}

/* The places of connections that are gone are found when they are missed. */
static bool begin_connection(struct rpc_server *server, struct account *account)
{
        if (account_begin_connection(account))
                return true;
        peers_check(server->peers);
        return account_begin_connection(account);
}

int rpc_server_account(struct rpc_server *server, struct seat *seat, const char *owner,
                       bool is_bounded, struct account **ret_account)
{
        struct account *account = account_hold(server->accounts, owner, is_bounded);

        if (!account)
                return error_origin(-ENOMEM);
        if (!seat_account(seat)) {
                if (!begin_connection(server, account)) {
                        account_release(account);
                        return RPC_E_CONNECTION_LIMIT;
                }
                seat_set_account(server->peers, seat, account);
        }
        *ret_account = account;
        return 0;
}

/* --- what is late --- */

static void server_tend_later(struct rpc_server *server)
{
        int enabled = SD_EVENT_OFF;

        (void)sd_event_source_get_enabled(server->tend, &enabled);
        if (enabled != SD_EVENT_OFF)
                return;
        (void)sd_event_source_set_time_relative(server->tend, TEND_USEC);
        (void)sd_event_source_set_enabled(server->tend, SD_EVENT_ONESHOT);
}

static int on_tend(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct rpc_server *server = userdata;
        uint64_t now_msec = clock_monotonic_msec();
        struct rpc_deadline *first;

        (void)source;
        (void)usec;
        while ((first = TAILQ_FIRST(&server->deadlines)) && first->at_msec <= now_msec) {
                rpc_server_forget_deadline(server, first);
                first->on_late(first);
        }
        if (peers_tend(server->peers) || !TAILQ_EMPTY(&server->deadlines))
                server_tend_later(server);
        return 0;
}

void rpc_server_expect_soon(struct rpc_server *server, struct rpc_deadline *deadline)
{
        if (!server->request_timeout_msec || deadline->at_msec)
                return;
        deadline->at_msec = clock_monotonic_msec() + server->request_timeout_msec;
        TAILQ_INSERT_TAIL(&server->deadlines, deadline, deadlines);
        server_tend_later(server);
}

void rpc_server_forget_deadline(struct rpc_server *server, struct rpc_deadline *deadline)
{
        if (deadline->at_msec)
                TAILQ_REMOVE(&server->deadlines, deadline, deadlines);
        deadline->at_msec = 0;
}

/* --- new calls --- */

static struct seat *seat_of_call(struct rpc_server *server, grpc_call *call)
{
        char *name = grpc_call_get_peer(call);
        uint64_t fd = 0;
        bool is_known =
                name && strncmp(name, "fd:", 3) == 0 && text_to_uint64(name + 3, INT_MAX, &fd);

        /* So it is called in every version seen; should that change, nobody gets in. */
        if (!is_known)
                log_error("gRPC names a connection in a way that is not known name=%s",
                          name ? name : "(null)");
        gpr_free(name);
        return is_known ? peers_find(server->peers, (int)fd) : NULL;
}

static void on_slot(struct rpc_op *op);

static void slot_post(struct rpc_server *server, struct rpc_slot *slot)
{
        void *tag = rpc_server_expect(server, &slot->op, on_slot);
        grpc_call_error error;

        if (slot->binding)
                error = grpc_server_request_registered_call(
                        server->server, slot->registration, &slot->arrival.call, &slot->deadline,
                        &slot->arrival.metadata, NULL, server->queue, server->queue, tag);
        else
                error = grpc_server_request_call(server->server, &slot->arrival.call,
                                                 &slot->details, &slot->arrival.metadata,
                                                 server->queue, server->queue, tag);
        if (error != GRPC_CALL_OK) {
                log_error("a slot was refused, which is our mistake error=%d", (int)error);
                abort();
        }
}

static void on_slot(struct rpc_op *op)
{
        struct rpc_slot *slot = CONTAINER_OF(op, struct rpc_slot, op);
        struct rpc_server *server = op->server;
        _cleanup_(call_arrival_deinit) struct call_arrival arrival = slot->arrival;

        slot->arrival = (struct call_arrival){ 0 };
        if (!op->ok)
                return; /* the server shuts down */

        grpc_slice_unref(slot->details.method);
        grpc_slice_unref(slot->details.host);
        grpc_call_details_init(&slot->details);
        /* First of all, so that the next call does not wait for this one's handler. */
        if (server->stage == STAGE_SERVING)
                slot_post(server, slot);

        if (slot->binding)
                call_begin(server, slot->binding, &arrival, seat_of_call(server, arrival.call));
        else
                call_refuse_unknown(server, &arrival);
}

/* --- new connections --- */

static int on_connection(int fd, const struct rpc_peer *peer, void *userdata)
{
        struct rpc_server *server = userdata;
        int number;
        int r;

        r = peers_admit(server->peers, fd, peer, &number);
        if (r == PEERS_E_FULL) {
                (void)close_fd(fd);
                return 0;
        }
        if (r)
                return r;
        server_tend_later(server);
        grpc_server_add_channel_from_fd(server->server, number, server->credentials);
        return 0;
}

static int server_add_listener(struct rpc_server *server, struct listener *listener)
{
        if (server->n_listeners == LISTENERS_MAX) {
                (void)listener_free(listener);
                return error_origin(-E2BIG);
        }
        server->listeners[server->n_listeners++] = listener;
        return 0;
}

int rpc_server_listen_unix(struct rpc_server *server, const char *path, gid_t gid)
{
        struct listener *listener;
        int r;

        assert(server->stage == STAGE_NEW);
        r = listener_new_unix(path, gid, &listener);
        return r ? r : server_add_listener(server, listener);
}

int rpc_server_listen_tcp(struct rpc_server *server, const char *address, uint16_t *ret_port)
{
        struct listener *listener;
        int r;

        assert(server->stage == STAGE_NEW);
        r = listener_new_tcp(address, ret_port, &listener);
        return r ? r : server_add_listener(server, listener);
}

/* --- life --- */

static grpc_arg arg_integer(const char *key, int value)
{
        return (grpc_arg){
                .type = GRPC_ARG_INTEGER,
                .key = unconst(key),
                .value.integer = value,
        };
}

static grpc_server *create_core(const struct rpc_server_config *config)
{
        grpc_arg args[] = {
                arg_integer(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)config->streams_max),
                arg_integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                            (int)MIN(config->receive_max_bytes, (size_t)INT_MAX)),
                arg_integer(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1),
                arg_integer(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10),
                /* Else a fast client's window grows to megabytes for each of its streams. */
                arg_integer(GRPC_ARG_HTTP2_BDP_PROBE, 0),
                arg_integer(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, LOOKAHEAD_BYTES),
                /* See payload.c. */
                arg_integer(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
                /* Clients may ping twice a second, also without calls; gRPC's default hangs up. */
                arg_integer(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 200),
                arg_integer(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
                /* We ping too: that a peer is gone without a word shows within 80 s. */
                arg_integer(GRPC_ARG_KEEPALIVE_TIME_MS, 60000),
                arg_integer(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000),
                arg_integer(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
                arg_integer(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 2000),
                /* Silent connections give their place back; clients reconnect by themselves. */
                arg_integer(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 300000),
                arg_integer(GRPC_ARG_ALLOW_REUSEPORT, 0),
                arg_integer(GRPC_ARG_ENABLE_CHANNELZ, 0),
                arg_integer(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
        };
        grpc_channel_args all = { .num_args = ARRAY_SIZE(args), .args = args };

        return grpc_server_create(&all, NULL);
}

static int create_bindings(struct rpc_server *server, const struct rpc_server_config *config)
{
        struct rpc_binding *binding;

        for (size_t i = 0; i < config->n_services; i++)
                server->n_bindings += config->services[i].n_methods;
        server->bindings = calloc(server->n_bindings + 1, sizeof(*server->bindings));
        if (!server->bindings)
                return error_origin(-ENOMEM);

        binding = server->bindings;
        for (size_t i = 0; i < config->n_services; i++)
                for (size_t j = 0; j < config->services[i].n_methods; j++)
                        *binding++ = (struct rpc_binding){
                                .method = config->services[i].methods[j],
                                .userdata = config->services[i].userdata,
                        };
        return 0;
}

static int create_bounds(struct rpc_server *server, const struct rpc_server_config *config)
{
        const struct account_limits account_limits = {
                .connections_max = config->connections_per_owner_max,
                .calls_max = config->calls_per_owner_max,
                .readings_max = READINGS_MAX,
                .unread_max_bytes = config->unread_per_owner_max_bytes,
        };
        const struct peers_limits peers_limits = {
                .connections_max = config->connections_max,
                .identify_timeout_msec = config->identify_timeout_usec / 1000,
                /* What is a little too large is read, so that it can be told; beyond that, nothing
                 * is kept of it. */
                .http2 = { .message_max_bytes = config->receive_max_bytes * 2,
                           .streams_max = config->streams_max },
        };
        int r;

        server->request_timeout_msec = config->request_timeout_usec / 1000;
        r = accounts_new(&account_limits, &server->accounts);
        if (r)
                return error_fold(r);
        return peers_new(server->loop, &peers_limits, &server->peers);
}

static int create_slots(struct rpc_server *server)
{
        struct rpc_slot *slot;

        server->n_slots = (server->n_bindings + 1) * SLOTS_PER_METHOD;
        server->slots = calloc(server->n_slots, sizeof(*server->slots));
        if (!server->slots)
                return error_origin(-ENOMEM);

        slot = server->slots;
        for (size_t i = 0; i < server->n_bindings; i++) {
                const struct rpc_binding *binding = &server->bindings[i];
                void *registration = grpc_server_register_method(
                        server->server, binding->method.path, NULL, GRPC_SRM_PAYLOAD_NONE, 0);

                if (!registration)
                        return error_origin(-EEXIST); /* two rows with one path */
                for (unsigned j = 0; j < SLOTS_PER_METHOD; j++, slot++) {
                        slot->binding = binding;
                        slot->registration = registration;
                }
        }
        for (size_t i = 0; i < server->n_slots; i++)
                grpc_call_details_init(&server->slots[i].details);
        return 0;
}

static int on_grace_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct rpc_server *server = userdata;

        (void)source;
        (void)usec;
        grpc_server_cancel_all_calls(server->server);
        return 0;
}

static int on_all_over(sd_event_source *source, void *userdata)
{
        struct rpc_server *server = userdata;

        (void)source;
        server->on_stopped(server->stopped_userdata); /* may free the server */
        return 0;
}

static int create_sources(struct rpc_server *server)
{
        int r;

        r = inbox_new(server->loop, &server->inbox);
        if (r)
                return error_fold(r);
        r = sd_event_add_time_relative(server->loop, &server->grace, CLOCK_MONOTONIC, 0, 0,
                                       on_grace_over, server);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_enabled(server->grace, SD_EVENT_OFF);
        r = sd_event_add_time_relative(server->loop, &server->tend, CLOCK_MONOTONIC, 0, 0, on_tend,
                                       server);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_enabled(server->tend, SD_EVENT_OFF);
        r = sd_event_add_defer(server->loop, &server->stopped, on_all_over, server);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_enabled(server->stopped, SD_EVENT_OFF);
        return 0;
}

int rpc_server_new(sd_event *loop, const struct rpc_server_config *config,
                   struct rpc_server **ret_server)
{
        _cleanup_(rpc_server_freep) struct rpc_server *server = NULL;
        int r;

        server = calloc(1, sizeof(*server));
        if (!server)
                return error_origin(-ENOMEM);
        core_log_route();
        grpc_init();
        server->loop = sd_event_ref(loop);
        TAILQ_INIT(&server->deadlines);
        server->receive_max_bytes = config->receive_max_bytes;
        server->queue = grpc_completion_queue_create_for_next(NULL);
        server->server = create_core(config);
        server->credentials = grpc_insecure_server_credentials_create();
        grpc_server_register_completion_queue(server->server, server->queue, NULL);

        r = create_bindings(server, config);
        if (r)
                return error_fold(r);
        r = create_slots(server);
        if (r)
                return error_fold(r);
        r = create_sources(server);
        if (r)
                return error_fold(r);
        r = create_bounds(server, config);
        if (r)
                return error_fold(r);

        *ret_server = take(server);
        return 0;
}

int rpc_server_start(struct rpc_server *server)
{
        int r;

        assert(server->stage == STAGE_NEW);
        for (size_t i = 0; i < server->n_listeners; i++) {
                r = listener_start(server->listeners[i], server->loop, on_connection, server);
                if (r)
                        return error_fold(r);
        }
        r = pthread_create(&server->pump, NULL, pump_run, server);
        if (r)
                return error_origin(-r);

        grpc_server_start(server->server);
        server->stage = STAGE_SERVING;
        for (size_t i = 0; i < server->n_slots; i++)
                slot_post(server, &server->slots[i]);
        return 0;
}

static void on_shutdown(struct rpc_op *op)
{
        (void)op; /* its completion was counted, and that is all */
}

size_t rpc_server_n_calls(const struct rpc_server *server)
{
        return server->n_calls;
}

void rpc_server_stop(struct rpc_server *server, uint64_t grace_usec,
                     void (*on_stopped)(void *userdata), void *userdata)
{
        bool was_serving = server->stage == STAGE_SERVING;

        assert(server->stage == STAGE_NEW || was_serving);
        server->on_stopped = on_stopped;
        server->stopped_userdata = userdata;
        for (size_t i = 0; i < server->n_listeners; i++)
                listener_stop(server->listeners[i]);

        if (!was_serving) {
                (void)sd_event_source_set_enabled(server->stopped, SD_EVENT_ONESHOT);
                return;
        }
        server->stage = STAGE_STOPPING;
        grpc_server_shutdown_and_notify(server->server, server->queue,
                                        rpc_server_expect(server, &server->shutdown, on_shutdown));
        (void)sd_event_source_set_time_relative(server->grace, grace_usec);
        (void)sd_event_source_set_enabled(server->grace, SD_EVENT_ONESHOT);
}

/* One that was never started has no pump to wait for its shutdown. */
static void shut_unstarted(struct rpc_server *server)
{
        gpr_timespec never = gpr_inf_future(GPR_CLOCK_REALTIME);

        grpc_server_shutdown_and_notify(server->server, server->queue, server);
        (void)grpc_completion_queue_next(server->queue, never, NULL);
        grpc_completion_queue_shutdown(server->queue);
        (void)grpc_completion_queue_next(server->queue, never, NULL);
}

static void free_core(struct rpc_server *server)
{
        if (server->stage == STAGE_NEW) {
                shut_unstarted(server);
        } else {
                grpc_completion_queue_shutdown(server->queue);
                (void)pthread_join(server->pump, NULL);
        }
        grpc_completion_queue_destroy(server->queue);
        grpc_server_destroy(server->server);
        grpc_server_credentials_release(server->credentials);
        for (size_t i = 0; i < server->n_slots; i++)
                grpc_call_details_destroy(&server->slots[i].details);
        grpc_shutdown();
}

struct rpc_server *rpc_server_free(struct rpc_server *server)
{
        if (!server)
                return NULL;
        assert(server->stage == STAGE_NEW || server->stage == STAGE_STOPPED);
        assert(server->n_due == 0 && server->n_calls == 0);

        free_core(server);
        for (size_t i = 0; i < server->n_listeners; i++)
                (void)listener_free(server->listeners[i]);
        (void)peers_free(server->peers);
        (void)accounts_free(server->accounts);
        (void)sd_event_source_disable_unref(server->tend);
        (void)sd_event_source_disable_unref(server->stopped);
        (void)sd_event_source_disable_unref(server->grace);
        (void)inbox_free(server->inbox);
        (void)sd_event_unref(server->loop);
        free(server->slots);
        free(server->bindings);
        free(server);
        return NULL;
}
