#include "server/api/api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hotcell/v1/egress_service.pb-c.h"
#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/key_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"
#include "hotcell/v1/server_service.pb-c.h"
#include "hotcell/v1/usage_service.pb-c.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/health.h"
#include "server/api/reflection.h"
#include "server/rpc/rpc.h"

#define SANDBOX   "/hotcell.v1.SandboxService/"
#define EXECUTION "/hotcell.v1.ExecutionService/"
#define KEY       "/hotcell.v1.KeyService/"
#define USAGE     "/hotcell.v1.UsageService/"

/* The scope says read where the method is NO_SIDE_EFFECTS, or streams what is there. */
static const struct api_method methods[] = {
        { SANDBOX "CreateSandbox", &hotcell__v1__create_sandbox_request__descriptor,
          api_create_sandbox, SCOPE_SANDBOXES_WRITE, api_create_sandbox_again, true },
        { SANDBOX "GetSandbox", &hotcell__v1__get_sandbox_request__descriptor, api_get_sandbox,
          SCOPE_SANDBOXES_READ, NULL, false },
        { SANDBOX "ListSandboxes", &hotcell__v1__list_sandboxes_request__descriptor,
          api_list_sandboxes, SCOPE_SANDBOXES_READ, NULL, false },
        { SANDBOX "UpdateSandbox", &hotcell__v1__update_sandbox_request__descriptor,
          api_update_sandbox, SCOPE_SANDBOXES_WRITE, api_update_sandbox_again, true },
        { SANDBOX "DeleteSandbox", &hotcell__v1__delete_sandbox_request__descriptor,
          api_delete_sandbox, SCOPE_SANDBOXES_WRITE, api_delete_sandbox_again, true },
        { SANDBOX "WatchSandboxes", &hotcell__v1__watch_sandboxes_request__descriptor,
          api_watch_sandboxes, SCOPE_SANDBOXES_READ, NULL, false },
        { EXECUTION "CreateContext", &hotcell__v1__create_context_request__descriptor,
          api_create_context, SCOPE_EXECUTIONS_WRITE, api_create_context_again, true },
        { EXECUTION "ListContexts", &hotcell__v1__list_contexts_request__descriptor,
          api_list_contexts, SCOPE_EXECUTIONS_READ, NULL, true },
        { EXECUTION "RestartContext", &hotcell__v1__restart_context_request__descriptor,
          api_restart_context, SCOPE_EXECUTIONS_WRITE, api_restart_context_again, true },
        { EXECUTION "DeleteContext", &hotcell__v1__delete_context_request__descriptor,
          api_delete_context, SCOPE_EXECUTIONS_WRITE, api_delete_context_again, true },
        { EXECUTION "Execute", &hotcell__v1__execute_request__descriptor, api_execute,
          SCOPE_EXECUTIONS_WRITE, api_execute_again, true },
        { EXECUTION "AttachExecution", &hotcell__v1__attach_execution_request__descriptor,
          api_attach_execution, SCOPE_EXECUTIONS_READ, NULL, true },
        { EXECUTION "InterruptExecution", &hotcell__v1__interrupt_execution_request__descriptor,
          api_interrupt_execution, SCOPE_EXECUTIONS_WRITE, api_interrupt_execution_again, true },
        { EXECUTION "GetExecution", &hotcell__v1__get_execution_request__descriptor,
          api_get_execution, SCOPE_EXECUTIONS_READ, NULL, false },
        { EXECUTION "ListExecutions", &hotcell__v1__list_executions_request__descriptor,
          api_list_executions, SCOPE_EXECUTIONS_READ, NULL, false },
        { "/hotcell.v1.EgressService/ListEgressEvents",
          &hotcell__v1__list_egress_events_request__descriptor, api_list_egress_events,
          SCOPE_EXECUTIONS_READ, NULL, false },
        { USAGE "GetUsage", &hotcell__v1__get_usage_request__descriptor, api_get_usage,
          SCOPE_USAGE_READ, NULL, false },
        { USAGE "WatchUsage", &hotcell__v1__watch_usage_request__descriptor, api_watch_usage,
          SCOPE_USAGE_READ, NULL, true },
        { "/hotcell.v1.ServerService/GetServerInfo",
          &hotcell__v1__get_server_info_request__descriptor, api_get_server_info, SCOPE_SERVER_READ,
          NULL, false },
        { KEY "CreateKey", &hotcell__v1__create_key_request__descriptor, api_create_key,
          SCOPE_OPERATOR, NULL, false },
        { KEY "ListKeys", &hotcell__v1__list_keys_request__descriptor, api_list_keys,
          SCOPE_OPERATOR, NULL, false },
        { KEY "UpdateKey", &hotcell__v1__update_key_request__descriptor, api_update_key,
          SCOPE_OPERATOR, NULL, false },
        { KEY "RevokeKey", &hotcell__v1__revoke_key_request__descriptor, api_revoke_key,
          SCOPE_OPERATOR, NULL, false },
};

static_assert(ARRAY_SIZE(methods) == API_METHODS_N, "struct api has a row for each");

/* What grpc.health.v1 knows besides the server itself. */
static const char *const service_names[] = {
        "hotcell.v1.EgressService",  "hotcell.v1.ExecutionService", "hotcell.v1.KeyService",
        "hotcell.v1.SandboxService", "hotcell.v1.ServerService",    "hotcell.v1.UsageService",
};

static const struct api_method *find_method(const char *path)
{
        for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
                if (strcmp(methods[i].path, path) == 0)
                        return &methods[i];
        return NULL;
}

static void admit(struct rpc_call *rpc, void *userdata)
{
        const struct api_method *method = find_method(rpc_call_path(rpc));

        assert(method); /* only paths of the table are registered */
        api_call_admit(userdata, rpc, method);
}

static void dispatch(struct rpc_call *rpc, const void *request, size_t n_request, void *userdata)
{
        (void)userdata;
        api_call_run(rpc, request, n_request);
}

static int make_services(struct api *api)
{
        int r;

        for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
                api->methods[i] = (struct rpc_method){ .path = methods[i].path,
                                                       .admit = admit,
                                                       .handle = dispatch };
        r = health_new(service_names, ARRAY_SIZE(service_names), &api->health);
        if (r)
                return error_fold(r);
        r = reflection_new(api_descriptors, api_descriptors_size, &api->reflection);
        if (r)
                return error_fold(r);
        api->services[0] = (struct rpc_service){ api->methods, ARRAY_SIZE(api->methods), api };
        api->services[1] = health_service(api->health);
        api->services[2] = reflection_service(api->reflection);
        return 0;
}

int api_new(const struct api_config *config, struct api **ret_api)
{
        _cleanup_(api_freep) struct api *api = calloc(1, sizeof(*api));
        int r;

        if (!api)
                return error_origin(-ENOMEM);
        *api = (struct api){
                .loop = config->loop,
                .session = config->session,
                .store = config->store,
                .auth = config->auth,
                .limits = config->limits,
        };
        LIST_INIT(&api->watches);
        LIST_INIT(&api->usage_streams);
        LIST_INIT(&api->key_calls);
        usage_turns_init(&api->usage_turns, api->loop);
        r = make_services(api);
        if (r)
                return error_fold(r);
        auth_observe(api->auth, api_end_key_calls, api);
        *ret_api = take(api);
        return 0;
}

struct api *api_free(struct api *api)
{
        if (!api)
                return NULL;
        assert(LIST_EMPTY(&api->watches) && LIST_EMPTY(&api->usage_streams) &&
               LIST_EMPTY(&api->key_calls));
        usage_turns_deinit(&api->usage_turns);
        auth_observe(api->auth, NULL, NULL);
        (void)reflection_free(api->reflection);
        (void)health_free(api->health);
        free(api);
        return NULL;
}

const struct rpc_service *api_services(struct api *api, size_t *ret_n)
{
        *ret_n = ARRAY_SIZE(api->services);
        return api->services;
}

void api_set_serving(struct api *api, bool is_serving)
{
        health_set(api->health, is_serving && !api->is_shutting_down);
}

void api_shut_down(struct api *api)
{
        api->is_shutting_down = true;
        health_close(api->health);
        api_end_watches(api);
        api_end_usage_streams(api);
}
