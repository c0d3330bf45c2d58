/*
 * A watcher keeps only what it sent last: a change while a message is in flight is sent after it,
 * and changes in between are left out.
 */
#include "server/api/health.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "grpc/health/v1/health.pb-c.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/api/decode.h"
#include "server/api/status.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

#define STATUS_UNKNOWN     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__UNKNOWN
#define STATUS_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define STATUS_NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define STATUS_SERVICE_UNKNOWN                                                                     \
        GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct watcher {
        LIST_ENTRY(watcher) link;
        struct health *health;
        struct rpc_call *call;
        bool is_known; /* the service that it asked for */
        serving_status sent;
};

struct health {
        const char *const *services;
        size_t n_services;
        bool is_serving;
        bool is_closed;
        LIST_HEAD(, watcher) watchers;
};

int health_new(const char *const *services, size_t n_services, struct health **ret_health)
{
        struct health *health = calloc(1, sizeof(*health));

        if (!health)
                return error_origin(-ENOMEM);
        health->services = services;
        health->n_services = n_services;
        LIST_INIT(&health->watchers);
        *ret_health = health;
        return 0;
}

struct health *health_free(struct health *health)
{
        if (!health)
                return NULL;
        assert(LIST_EMPTY(&health->watchers));
        free(health);
        return NULL;
}

static bool is_known(const struct health *health, const char *service)
{
        if (!service[0])
                return true;
        for (size_t i = 0; i < health->n_services; i++)
                if (strcmp(health->services[i], service) == 0)
                        return true;
        return false;
}

static serving_status status_now(const struct health *health)
{
        return health->is_serving ? STATUS_SERVING : STATUS_NOT_SERVING;
}

static size_t pack_response(serving_status status, uint8_t bytes[static 16])
{
        Grpc__Health__V1__HealthCheckResponse response =
                GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

        response.status = status;
        assert(grpc__health__v1__health_check_response__get_packed_size(&response) <= 16);
        return grpc__health__v1__health_check_response__pack(&response, bytes);
}

/* --- Check --- */

static void refuse_unknown(struct rpc_call *call, const char *service)
{
        struct status status;

        status_init(&status, REASON_SERVICE_NOT_FOUND, NULL);
        status_set_resource(&status, "service", service);
        status_send(call, &status);
}

static void on_check(struct rpc_call *call, const void *bytes, size_t n_bytes, void *userdata)
{
        struct health *health = userdata;
        Grpc__Health__V1__HealthCheckRequest *request;
        uint8_t response[16];

        request = decode_request(call, &grpc__health__v1__health_check_request__descriptor, bytes,
                                 n_bytes);
        if (!request)
                return;
        if (is_known(health, request->service))
                rpc_call_reply(call, response, pack_response(status_now(health), response));
        else
                refuse_unknown(call, request->service);
        grpc__health__v1__health_check_request__free_unpacked(request, NULL);
}

/* --- Watch --- */

static void watcher_free(struct watcher *watcher)
{
        LIST_REMOVE(watcher, link);
        free(watcher);
}

/* Says what has changed, and good-bye when the server closes. May free the watcher. */
static void watcher_update(struct watcher *watcher)
{
        serving_status wanted =
                watcher->is_known ? status_now(watcher->health) : STATUS_SERVICE_UNKNOWN;
        uint8_t response[16];
        struct status status;

        if (!rpc_call_is_writable(watcher->call))
                return; /* once it is: on_writable */
        if (wanted != watcher->sent) {
                watcher->sent = wanted;
                rpc_call_write(watcher->call, response, pack_response(wanted, response));
        }
        if (!watcher->health->is_closed)
                return;
        status_init(&status, REASON_SHUTTING_DOWN, NULL);
        status_send(watcher->call, &status);
        watcher_free(watcher);
}

static void on_writable(struct rpc_call *call, void *userdata)
{
        (void)call;
        watcher_update(userdata);
}

static void on_gone(struct rpc_call *call, void *userdata)
{
        (void)call;
        watcher_free(userdata);
}

static const struct rpc_call_observer watcher_observer = {
        .on_writable = on_writable,
        .on_gone = on_gone,
};

static void watcher_add(struct health *health, struct rpc_call *call, const char *service)
{
        struct watcher *watcher;
        struct status status;

        watcher = health->is_closed ? NULL : calloc(1, sizeof(*watcher));
        if (!watcher) {
                status_init(&status,
                            health->is_closed ? REASON_SHUTTING_DOWN : REASON_HOST_EXHAUSTED, NULL);
                status_send(call, &status);
                return;
        }
        watcher->health = health;
        watcher->call = call;
        watcher->is_known = is_known(health, service);
        watcher->sent = STATUS_UNKNOWN; /* never wanted, so the first status goes out at once */
        LIST_INSERT_HEAD(&health->watchers, watcher, link);
        rpc_call_observe(call, &watcher_observer, watcher);
        watcher_update(watcher);
}

static void on_watch(struct rpc_call *call, const void *bytes, size_t n_bytes, void *userdata)
{
        Grpc__Health__V1__HealthCheckRequest *request;

        request = decode_request(call, &grpc__health__v1__health_check_request__descriptor, bytes,
                                 n_bytes);
        if (!request)
                return;
        watcher_add(userdata, call, request->service);
        grpc__health__v1__health_check_request__free_unpacked(request, NULL);
}

/* --- for the server --- */

static const struct rpc_method methods[] = {
        { .path = "/grpc.health.v1.Health/Check", .handle = on_check },
        { .path = "/grpc.health.v1.Health/Watch", .handle = on_watch },
};

struct rpc_service health_service(struct health *health)
{
        return (struct rpc_service){
                .methods = methods,
                .n_methods = ARRAY_SIZE(methods),
                .userdata = health,
        };
}

static void update_all(struct health *health)
{
        struct watcher *next;

        for (struct watcher *watcher = LIST_FIRST(&health->watchers); watcher; watcher = next) {
                next = LIST_NEXT(watcher, link);
                watcher_update(watcher);
        }
}

void health_set(struct health *health, bool is_serving)
{
        health->is_serving = is_serving && !health->is_closed;
        update_all(health);
}

void health_close(struct health *health)
{
        health->is_closed = true;
        health->is_serving = false;
        update_all(health);
}
