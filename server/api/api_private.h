/* What the files of this folder share. */
#pragma once

#include <sys/queue.h>

#include "server/api/api.h"
#include "server/api/rule_rate.h"
#include "server/api/usage_turns.h"
#include "server/rpc/rpc.h"

struct api_call;
struct event_stream;
struct sandbox_watch;
struct usage_stream;

enum {
        API_METHODS_N = 23,
        API_SERVICES_N = 3, /* our own methods, health, reflection */
};

LIST_HEAD(sandbox_watch_list, sandbox_watch);
LIST_HEAD(usage_stream_list, usage_stream);
LIST_HEAD(api_call_list, api_call);

struct api {
        sd_event *loop;
        struct session *session;
        struct store *store;
        struct auth *auth;
        struct api_limits limits;
        struct health *health;
        struct reflection *reflection;
        struct rpc_method methods[API_METHODS_N];
        struct rpc_service services[API_SERVICES_N];
        struct sandbox_watch_list watches;      /* open WatchSandboxes, to end them at a shutdown */
        struct usage_stream_list usage_streams; /* likewise, of WatchUsage */
        struct api_call_list key_calls;         /* open calls of keys, to end them with their key */
        struct rule_rate rule_rate;
        struct usage_turns usage_turns;
        bool is_shutting_down;
};

/* The methods, one file each. */
void api_create_sandbox(struct api_call *call, const void *request);
void api_get_sandbox(struct api_call *call, const void *request);
void api_list_sandboxes(struct api_call *call, const void *request);
void api_update_sandbox(struct api_call *call, const void *request);
void api_delete_sandbox(struct api_call *call, const void *request);
void api_watch_sandboxes(struct api_call *call, const void *request);
void api_create_context(struct api_call *call, const void *request);
void api_list_contexts(struct api_call *call, const void *request);
void api_restart_context(struct api_call *call, const void *request);
void api_delete_context(struct api_call *call, const void *request);
void api_execute(struct api_call *call, const void *request);
void api_attach_execution(struct api_call *call, const void *request);
void api_interrupt_execution(struct api_call *call, const void *request);
void api_get_execution(struct api_call *call, const void *request);
void api_list_executions(struct api_call *call, const void *request);
void api_list_egress_events(struct api_call *call, const void *request);
void api_get_usage(struct api_call *call, const void *request);
void api_watch_usage(struct api_call *call, const void *request);
void api_get_server_info(struct api_call *call, const void *request);
void api_create_key(struct api_call *call, const void *request);
void api_list_keys(struct api_call *call, const void *request);
void api_update_key(struct api_call *call, const void *request);
void api_revoke_key(struct api_call *call, const void *request);

/* Answers to retries of the methods that change something. */
void api_create_sandbox_again(struct api_call *call, const void *request);
void api_update_sandbox_again(struct api_call *call, const void *request);
void api_delete_sandbox_again(struct api_call *call, const void *request);
void api_create_context_again(struct api_call *call, const void *request);
void api_restart_context_again(struct api_call *call, const void *request);
void api_delete_context_again(struct api_call *call, const void *request);
void api_execute_again(struct api_call *call, const void *request);
void api_interrupt_execution_again(struct api_call *call, const void *request);

/* Ends all open watches with SHUTTING_DOWN. */
void api_end_watches(struct api *api);
void api_end_usage_streams(struct api *api);

/* Ends all open calls of a key that is over; auth_on_key_over. */
void api_end_key_calls(void *userdata, const char *key_id, int outcome);
