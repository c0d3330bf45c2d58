/* The public API: one method table over sessions, store and auth. Methods live in one file each. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/store/records.h"

struct api;
struct auth;
struct rpc_service;
struct session;
struct store;

/* What requests may ask for, and what they get when they do not. */
struct api_limits {
        struct sandbox_limits sandbox_default;
        struct sandbox_limits sandbox_max;
        int64_t ttl_default_usec;
        int64_t ttl_max_usec;
        bool allow_no_ttl;
        int64_t idle_timeout_default_usec; /* zero: none */
        int64_t idle_timeout_max_usec;
        bool allow_no_idle_timeout;
        bool allow_no_execution_timeout;
        int64_t queue_timeout_default_usec;
        int64_t queue_timeout_max_usec;
};

/* Borrowed: they outlive the api. */
struct api_config {
        sd_event *loop;
        struct session *session;
        struct store *store;
        struct auth *auth;
        struct api_limits limits;
};

int api_new(const struct api_config *config, struct api **ret_api);

/* When no call is left. */
struct api *api_free(struct api *api);
DEFINE_CLEANUP(struct api, api_free)

/* All services, health and reflection included, for struct rpc_server_config. Owned by the api. */
const struct rpc_service *api_services(struct api *api, size_t *ret_n);

/* What grpc.health.v1 answers for the server and its services. */
void api_set_serving(struct api *api, bool is_serving);

/* Ends open watches and health streams; from then on new calls are answered with SHUTTING_DOWN. */
void api_shut_down(struct api *api);
