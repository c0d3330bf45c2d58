#include <string.h>

#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/check_egress.h"
#include "server/api/check_limits.h"
#include "server/api/convert.h"
#include "server/api/request_id.h"

/* One name that update_mask may hold. */
struct update_field {
        const char *name;
        bool (*read)(struct api_call *call, const Hotcell__V1__UpdateSandboxRequest *request,
                     struct sandbox_update *update, struct pairs *labels);
};

static bool read_labels(struct api_call *call, const Hotcell__V1__UpdateSandboxRequest *request,
                        struct sandbox_update *update, struct pairs *labels)
{
        update->set_labels = true;
        update->labels = labels;
        return check_labels(call, "labels", request->n_labels, (ProtobufCMessage **)request->labels,
                            labels);
}

static bool read_expire_time(struct api_call *call,
                             const Hotcell__V1__UpdateSandboxRequest *request,
                             struct sandbox_update *update, struct pairs *labels)
{
        (void)labels;
        update->set_expire_time = true;
        if (request->lifetime_case != HOTCELL__V1__UPDATE_SANDBOX_REQUEST__LIFETIME_EXPIRE_TIME) {
                api_call_blame(call, REASON_INVALID_FIELD, "expire_time",
                               "is in update_mask but not set");
                return false;
        }
        return check_expire_time(call, "expire_time", request->expire_time,
                                 &update->expire_time_usec);
}

static bool read_ttl(struct api_call *call, const Hotcell__V1__UpdateSandboxRequest *request,
                     struct sandbox_update *update, struct pairs *labels)
{
        (void)labels;
        update->set_expire_time = true;
        if (request->lifetime_case != HOTCELL__V1__UPDATE_SANDBOX_REQUEST__LIFETIME_TTL) {
                api_call_blame(call, REASON_INVALID_FIELD, "ttl", "is in update_mask but not set");
                return false;
        }
        return check_ttl(call, "ttl", request->ttl, &update->expire_time_usec);
}

static bool read_idle_timeout(struct api_call *call,
                              const Hotcell__V1__UpdateSandboxRequest *request,
                              struct sandbox_update *update, struct pairs *labels)
{
        const struct api_limits *limits = &call->api->limits;
        struct duration_rule rule = { limits->idle_timeout_default_usec,
                                      limits->idle_timeout_max_usec,
                                      limits->allow_no_idle_timeout };

        (void)labels;
        update->set_idle_timeout = true;
        return check_ruled_duration(call, "idle_timeout", request->idle_timeout, &rule,
                                    &update->idle_timeout_usec);
}

static bool read_egress(struct api_call *call, const Hotcell__V1__UpdateSandboxRequest *request,
                        struct sandbox_update *update, struct pairs *labels)
{
        (void)labels;
        if (!check_egress(call, "egress", request->egress))
                return false;
        update->set_egress = true;
        update->egress = call->egress;
        return true;
}

static const struct update_field update_fields[] = {
        { "labels", read_labels }, { "expire_time", read_expire_time },
        { "ttl", read_ttl },       { "idle_timeout", read_idle_timeout },
        { "egress", read_egress },
};

static void read_path(struct api_call *call, const char *path,
                      const Hotcell__V1__UpdateSandboxRequest *request,
                      struct sandbox_update *update, struct pairs *labels)
{
        for (size_t i = 0; i < ARRAY_SIZE(update_fields); i++) {
                if (strcmp(path, update_fields[i].name) != 0)
                        continue;
                (void)update_fields[i].read(call, request, update, labels);
                return;
        }
        if (check_limits_path(call, path, request->limits, update))
                return;
        api_call_blame(call, REASON_INVALID_FIELD, "update_mask",
                       "has an unknown path; known are labels, expire_time, ttl, idle_timeout, "
                       "egress, limits and what is in them, such as limits.memory_bytes");
}

static void on_done(void *userdata, const struct session_result *result,
                    const struct sandbox_record *record, bool created)
{
        struct api_call *call = userdata;
        const Hotcell__V1__UpdateSandboxRequest *request = (const void *)call->request;
        Hotcell__V1__UpdateSandboxResponse response = HOTCELL__V1__UPDATE_SANDBOX_RESPONSE__INIT;

        (void)created;
        if (!api_call_fail_result(call, result, request->sandbox_id)) {
                response.sandbox = convert_whole_sandbox(&call->arena, record);
                if (response.sandbox && !api_call_has_room(call, &response.base))
                        response.sandbox->egress = NULL;
                api_call_reply(call, &response.base);
        }
        api_call_release(call);
}

void api_update_sandbox(struct api_call *call, const void *message)
{
        const Hotcell__V1__UpdateSandboxRequest *request = message;
        struct sandbox_update update = { 0 };
        struct pairs labels = { 0 };

        (void)check_id(call, "sandbox_id", request->sandbox_id);
        if (!request->update_mask || request->update_mask->n_paths == 0)
                api_call_blame(call, REASON_UPDATE_MASK_REQUIRED, "update_mask",
                               "is required: name what to change");
        else
                for (size_t i = 0; i < request->update_mask->n_paths; i++)
                        read_path(call, request->update_mask->paths[i], request, &update, &labels);
        if (api_call_has_blame(call) || call->arena.failed) {
                api_call_fail_blamed(call);
                return;
        }
        update.etag = request->etag;
        update.request = request_id_of(call, request->sandbox_id);
        api_call_hold(call);
        session_update_sandbox(call->api->session, call->identity.owner, request->sandbox_id,
                               &update, on_done, call);
}

void api_update_sandbox_again(struct api_call *call, const void *message)
{
        const Hotcell__V1__UpdateSandboxRequest *request = message;

        api_call_hold(call);
        session_get_sandbox(call->api->session, call->identity.owner, request->sandbox_id, on_done,
                            call);
}
