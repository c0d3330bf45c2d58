#include "test/unit/rpc/harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/inbox.h"
#include "runtime/base/macros.h"
#include "server/api/health.h"
#include "server/api/reflection.h"
#include "server/api/status.h"

enum {
        CHUNK_BYTES = 64 << 10,
        BLIND_MAX = 8,
};

struct harness_thread {
        struct harness *harness;
        sd_event *loop;
        struct inbox *inbox;
        pthread_t thread;
        bool is_stopping;
        uint64_t grace_usec;
        struct rpc_call *blind[BLIND_MAX];
        size_t n_blind;
};

struct errand {
        struct inbox_task task;
        struct harness *harness;
        void (*run)(struct harness *harness);
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool is_done;
};

static const char *const service_names[] = { "test.Test" };

static const char chunk[CHUNK_BYTES];

void harness_pause(void)
{
        const struct timespec millisecond = { .tv_nsec = 1000000 };

        (void)nanosleep(&millisecond, NULL);
}

/* --- methods --- */

static void on_echo(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        (void)userdata;
        rpc_call_reply(call, request, n_request);
}

static void on_who(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        const struct rpc_peer *peer = rpc_call_peer(call);
        const char *metadata = rpc_call_metadata(call, "x-test");
        char text[256];

        (void)request;
        (void)n_request;
        (void)userdata;
        if (peer->is_unix)
                (void)snprintf(text, sizeof(text), "unix %u %d %s", peer->uid, peer->pid,
                               metadata ? metadata : "-");
        else
                (void)snprintf(text, sizeof(text), "tcp %s", metadata ? metadata : "-");
        rpc_call_reply(call, text, strlen(text));
}

static void on_fail(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        struct status status;

        (void)request;
        (void)n_request;
        (void)userdata;
        status_init(&status, REASON_SANDBOX_LIMIT, "There are 8 of 8 sandboxes – “full”.\n100 %%");
        status_add_metadata(&status, "max", "8");
        status_add_field(&status, "spec.limits.memory_bytes", "must be at least %d", 16);
        status_add_field(&status, "spec.labels[\"ä\"]", "is too long");
        status_set_resource(&status, "sandbox", "sbx-abc");
        status_set_quota(&status, "uid:0", "sandboxes: at most 8");
        status_set_retry(&status, 1500000);
        status_send(call, &status);
}

static void on_gone(struct rpc_call *call, void *userdata)
{
        struct harness *harness = userdata;

        (void)call;
        atomic_fetch_add(&harness->n_gone, 1);
}

static const struct rpc_call_observer hold_observer = { .on_gone = on_gone };

static void on_hold(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        (void)request;
        (void)n_request;
        rpc_call_observe(call, &hold_observer, userdata);
        atomic_fetch_add(&((struct harness *)userdata)->n_held, 1);
}

static void on_blind(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        struct harness *harness = userdata;
        struct harness_thread *thread = harness->thread;

        (void)request;
        (void)n_request;
        assert(thread->n_blind < BLIND_MAX);
        thread->blind[thread->n_blind++] = call;
        atomic_fetch_add(&harness->n_blind, 1);
}

static void on_pour_writable(struct rpc_call *call, void *userdata)
{
        struct harness *harness = userdata;

        atomic_fetch_add(&harness->n_written, 1);
        rpc_call_write(call, chunk, sizeof(chunk));
}

static const struct rpc_call_observer pour_observer = {
        .on_writable = on_pour_writable,
        .on_gone = on_gone,
};

static void on_pour(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        (void)request;
        (void)n_request;
        atomic_fetch_add(&((struct harness *)userdata)->n_poured, 1);
        rpc_call_observe(call, &pour_observer, userdata);
        if (rpc_call_is_writable(call))
                rpc_call_write(call, chunk, sizeof(chunk));
}

static void on_chat(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        struct harness *harness = userdata;

        if (request) {
                if (rpc_call_is_writable(call))
                        rpc_call_write(call, request, n_request);
                return;
        }
        atomic_fetch_add(&harness->n_ended, 1);
        rpc_call_finish(call);
}

static void charge(struct rpc_call *call, void *userdata)
{
        (void)userdata;
        switch (rpc_call_charge(call, "owner", true)) {
        case 0:
                return;
        case RPC_E_CALL_LIMIT:
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "calls", NULL, 0);
                return;
        case RPC_E_CONNECTION_LIMIT:
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "connections", NULL, 0);
                return;
        default:
                rpc_call_fail(call, RPC_INTERNAL, "memory", NULL, 0);
                return;
        }
}

static const struct rpc_call_observer admitted_observer = { .on_gone = on_gone };

static void charge_and_observe(struct rpc_call *call, void *userdata)
{
        rpc_call_observe(call, &admitted_observer, userdata);
        charge(call, userdata);
}

static void refuse(struct rpc_call *call, void *userdata)
{
        (void)userdata;
        rpc_call_fail(call, RPC_UNAUTHENTICATED, "nobody gets in", NULL, 0);
}

/* As large an answer as the request says in its first four bytes, if there is room. */
static void on_large(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        uint32_t n = 0;
        void *bytes;

        (void)userdata;
        assert(n_request == sizeof(n));
        memcpy(&n, request, sizeof(n));
        if (!rpc_call_has_room(call, n)) {
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "no room", NULL, 0);
                return;
        }
        bytes = calloc(1, n);
        assert(bytes);
        rpc_call_reply(call, bytes, n);
        free(bytes);
}

static const struct rpc_method methods[] = {
        { .path = "/test.Test/Refused", .admit = refuse, .handle = on_echo },
        { .path = "/test.Test/OwnedEcho", .admit = charge, .handle = on_echo },
        { .path = "/test.Test/OwnedHold", .admit = charge_and_observe, .handle = on_hold },
        { .path = "/test.Test/OwnedPour", .admit = charge, .handle = on_pour },
        { .path = "/test.Test/OwnedLarge", .admit = charge, .handle = on_large },
        { .path = "/test.Test/Echo", .handle = on_echo },
        { .path = "/test.Test/Who", .handle = on_who },
        { .path = "/test.Test/Fail", .handle = on_fail },
        { .path = "/test.Test/Hold", .handle = on_hold },
        { .path = "/test.Test/Blind", .handle = on_blind },
        { .path = "/test.Test/Pour", .handle = on_pour },
        { .path = "/test.Test/Chat", .handle = on_chat, .streams_requests = true },
};

/* --- running --- */

void harness_init(struct harness *harness)
{
        *harness = (struct harness){
                .config = {
                        .receive_max_bytes = MIB(4),
                        .connections_max = 2048,
                        .streams_max = 64,
                },
        };
}

static void *loop_run(void *userdata)
{
        struct harness_thread *thread = userdata;
        int r = sd_event_loop(thread->loop);

        assert(r >= 0);
        return NULL;
}

static void create_server(struct harness *harness)
{
        struct rpc_service services[3];
        int r;

        r = health_new(service_names, ARRAY_SIZE(service_names), &harness->health);
        assert(r == 0);
        r = reflection_new(api_descriptors, api_descriptors_size, &harness->reflection);
        assert(r == 0);

        services[0] = (struct rpc_service){ methods, ARRAY_SIZE(methods), harness };
        services[1] = health_service(harness->health);
        services[2] = reflection_service(harness->reflection);
        harness->config.services = services;
        harness->config.n_services = ARRAY_SIZE(services);
        r = rpc_server_new(harness->thread->loop, &harness->config, &harness->server);
        assert(r == 0);
}

void harness_start(struct harness *harness, const char *unix_path, bool tcp)
{
        struct harness_thread *thread = calloc(1, sizeof(*thread));
        int r;

        assert(thread);
        harness->thread = thread;
        thread->harness = harness;
        r = sd_event_new(&thread->loop);
        assert(r >= 0);
        r = inbox_new(thread->loop, &thread->inbox);
        assert(r == 0);
        create_server(harness);
        if (unix_path) {
                r = rpc_server_listen_unix(harness->server, unix_path, (gid_t)-1);
                assert(r == 0);
        }
        if (tcp) {
                r = rpc_server_listen_tcp(harness->server, "127.0.0.1:0", &harness->port);
                assert(r == 0);
        }
        r = rpc_server_start(harness->server);
        assert(r == 0);
        r = pthread_create(&thread->thread, NULL, loop_run, thread);
        assert(r == 0);
}

static void errand_run(struct inbox_task *task)
{
        struct errand *errand = CONTAINER_OF(task, struct errand, task);

        errand->run(errand->harness);
        (void)pthread_mutex_lock(&errand->lock);
        errand->is_done = true;
        (void)pthread_cond_signal(&errand->cond);
        (void)pthread_mutex_unlock(&errand->lock);
}

void harness_run(struct harness *harness, void (*run)(struct harness *harness))
{
        struct errand errand = {
                .task.run = errand_run,
                .harness = harness,
                .run = run,
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .cond = PTHREAD_COND_INITIALIZER,
        };

        inbox_post(harness->thread->inbox, &errand.task);
        (void)pthread_mutex_lock(&errand.lock);
        while (!errand.is_done)
                (void)pthread_cond_wait(&errand.cond, &errand.lock);
        (void)pthread_mutex_unlock(&errand.lock);
}

static void answer_all(struct harness *harness)
{
        struct harness_thread *thread = harness->thread;

        for (size_t i = 0; i < thread->n_blind; i++)
                rpc_call_reply(thread->blind[i], "late", 4);
        thread->n_blind = 0;
}

void harness_answer_blind(struct harness *harness)
{
        harness_run(harness, answer_all);
}

static void observe_all(struct harness *harness)
{
        struct harness_thread *thread = harness->thread;

        for (size_t i = 0; i < thread->n_blind; i++)
                rpc_call_observe(thread->blind[i], &hold_observer, harness);
        thread->n_blind = 0;
}

void harness_observe_blind(struct harness *harness)
{
        harness_run(harness, observe_all);
}

static void on_stopped(void *userdata)
{
        struct harness *harness = userdata;

        assert(!harness->is_stopped);
        harness->server = rpc_server_free(harness->server);
        harness->is_stopped = true;
        (void)sd_event_exit(harness->thread->loop, 0);
}

static void stop_now(struct harness *harness)
{
        harness->thread->is_stopping = true;
        health_close(harness->health);
        rpc_server_stop(harness->server, harness->thread->grace_usec, on_stopped, harness);
}

void harness_begin_stop(struct harness *harness, uint64_t grace_usec)
{
        harness->thread->grace_usec = grace_usec;
        harness_run(harness, stop_now);
}

void harness_stop(struct harness *harness)
{
        struct harness_thread *thread = harness->thread;

        if (!thread->is_stopping)
                harness_begin_stop(harness, 0);
        (void)pthread_join(thread->thread, NULL);
        assert(harness->is_stopped);
        harness->health = health_free(harness->health);
        harness->reflection = reflection_free(harness->reflection);
        inbox_drain(thread->inbox);
        (void)inbox_free(thread->inbox);
        (void)sd_event_unref(thread->loop);
        free(thread);
        harness->thread = NULL;
}
