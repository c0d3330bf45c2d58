#include "hotcell/v1/server_service.pb-c.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/policy/policy.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/check_egress.h"
#include "server/api/convert.h"
#include "server/session/session.h"
#include "server/store/store.h"

/* What this server can do beyond the RPCs of its services. */
static const char *const capabilities[] = {
        "execution.attach",
        "execution.combine_output",
        "execution.one_shot",
        "sandbox.get_or_create",
        "sandbox.watch",
        "egress.direct", /* the last: only where the runtime has direct mode */
};

static Hotcell__V1__Wall *convert_wall(struct arena *arena, const struct session_wall *wall)
{
        Hotcell__V1__Wall *message = arena_new(arena, Hotcell__V1__Wall);

        if (!message)
                return NULL;
        hotcell__v1__wall__init(message);
        message->name = unconst(wall->name);
        message->holds = wall->holds;
        message->required = wall->required;
        message->detail = unconst(wall->detail);
        message->fix = unconst(wall->fix);
        return message;
}

#define FIX_STATE                                                                                  \
        "make room on the disk of the state directory, and see that hotcelld may write there; it " \
        "tries again by itself"

/* Beside the walls that the runtime sees: without it no sandbox could be remembered. */
static struct session_wall state_wall(const struct store *store)
{
        struct session_wall wall = { .name = "state", .required = true, .fix = FIX_STATE };

        if (!store_is_healthy(store)) {
                wall.detail = "the database cannot be written; hotcelld's log says why";
        } else if (store_is_full(store)) {
                wall.detail = "the disk is full: what runs goes on, new work is refused";
        } else {
                wall.holds = true;
                wall.detail = "the database can be written";
                wall.fix = "";
        }
        return wall;
}

/* Not required: without it sandboxes are made from which nothing leaves. */
static struct session_wall egress_wall(enum session_egress_state state)
{
        static const struct {
                const char *detail, *fix;
        } texts[] = {
                [SESSION_EGRESS_NONE] = { "hotcell-runtime has no hotcell-egress: nothing can "
                                          "leave sandboxes, and policies that allow are refused",
                                          "start hotcell-runtime with --egress" },
                [SESSION_EGRESS_ENDED] = { "hotcell-egress has ended: nothing can leave sandboxes, "
                                           "and policies that allow are refused",
                                           "hotcell-runtime starts it again unless its log says "
                                           "that it gave up; the log says why it ended" },
                [SESSION_EGRESS_SILENT] = { "hotcell-egress is there and does not answer: "
                                            "connections may hang, and policies cannot be changed",
                                            "look what keeps the process hotcell-egress (stopped, "
                                            "or without CPU time); killed, it is started again" },
                [SESSION_EGRESS_THERE] = { "hotcell-egress is there", "" },
        };

        return (struct session_wall){ .name = "egress_relay",
                                      .holds = state == SESSION_EGRESS_THERE,
                                      .detail = texts[state].detail,
                                      .fix = texts[state].fix };
}

static Hotcell__V1__LanguageInfo *convert_language(struct arena *arena,
                                                   const struct session_language *language)
{
        Hotcell__V1__LanguageInfo *message = arena_new(arena, Hotcell__V1__LanguageInfo);

        if (!message)
                return NULL;
        hotcell__v1__language_info__init(message);
        message->language = unconst(language->language);
        message->version = unconst(language->version);
        return message;
}

static Hotcell__V1__TemplateInfo *convert_template(struct arena *arena,
                                                   const struct session_template *template)
{
        Hotcell__V1__TemplateInfo *message = arena_new(arena, Hotcell__V1__TemplateInfo);

        if (!message)
                return NULL;
        hotcell__v1__template_info__init(message);
        message->name = unconst(template->name);
        message->digest = unconst(template->digest);
        message->languages =
                arena_new_array(arena, Hotcell__V1__LanguageInfo *, template->n_languages);
        for (size_t i = 0; message->languages && i < template->n_languages; i++)
                message->languages[message->n_languages++] =
                        convert_language(arena, &template->languages[i]);
        return message;
}

static Hotcell__V1__Quota *convert_quota(struct arena *arena, enum session_share share,
                                         const struct session_quota *quota)
{
        Hotcell__V1__Quota *message = arena_new(arena, Hotcell__V1__Quota);

        if (!message)
                return NULL;
        hotcell__v1__quota__init(message);
        message->name = unconst(session_share_name(share));
        message->limit = quota->limit;
        message->used = quota->used;
        message->owner_limit = quota->owner_limit;
        message->owner_used = quota->owner_used;
        return message;
}

static Hotcell__V1__DurationRule *convert_rule(struct arena *arena, int64_t default_usec,
                                               int64_t max_usec, bool zero_allowed)
{
        Hotcell__V1__DurationRule *message = arena_new(arena, Hotcell__V1__DurationRule);

        if (!message)
                return NULL;
        hotcell__v1__duration_rule__init(message);
        message->unless_set = convert_duration(arena, default_usec);
        message->max = convert_duration(arena, max_usec);
        message->zero_allowed = zero_allowed;
        return message;
}

static void fill_durations(struct api_call *call, Hotcell__V1__GetServerInfoResponse *response)
{
        const struct api_limits *limits = &call->api->limits;
        struct arena *arena = &call->arena;

        response->ttl = convert_rule(arena, limits->ttl_default_usec, limits->ttl_max_usec,
                                     limits->allow_no_ttl);
        response->idle_timeout =
                convert_rule(arena, limits->idle_timeout_default_usec,
                             limits->idle_timeout_max_usec, limits->allow_no_idle_timeout);
        response->execution_timeout = convert_rule(
                arena, limits->sandbox_default.execution.timeout_usec,
                limits->sandbox_max.execution.timeout_usec, limits->allow_no_execution_timeout);
        response->queue_timeout = convert_rule(arena, limits->queue_timeout_default_usec,
                                               limits->queue_timeout_max_usec, true);
}

static Hotcell__V1__EgressLimits *convert_egress_limits(struct arena *arena)
{
        Hotcell__V1__EgressLimits *message = arena_new(arena, Hotcell__V1__EgressLimits);

        if (!message)
                return NULL;
        hotcell__v1__egress_limits__init(message);
        message->rules = POLICY_RULES_MAX;
        message->port_ranges = POLICY_PORTS_MAX;
        message->converted_names = EGRESS_CONVERTED_MAX;
        message->bytes = EGRESS_BYTES_MAX;
        return message;
}

/* NULL: not known. */
static Hotcell__V1__Metering *convert_metering(struct arena *arena,
                                               const struct session_metering *metering)
{
        Hotcell__V1__Metering *message =
                metering->is_known ? arena_new(arena, Hotcell__V1__Metering) : NULL;

        if (!message)
                return NULL;
        hotcell__v1__metering__init(message);
        message->programs = metering->has_programs;
        message->detail = unconst(metering->detail);
        message->missing = convert_missing(arena, metering->missing, &message->n_missing);
        message->slots = metering->slots;
        message->slots_used = metering->slots_used;
        message->slots_refused = metering->slots_refused;
        message->scheduled_time = convert_duration(arena, metering->scheduled_usec);
        message->cpu_time = convert_duration(arena, metering->cpu_usec);
        return message;
}

static void fill_walls(struct api_call *call, const struct session_info *info,
                       Hotcell__V1__GetServerInfoResponse *response)
{
        const struct session_wall state = state_wall(call->api->store);
        const struct session_wall relay = egress_wall(info->egress);
        struct arena *arena = &call->arena;

        response->walls = arena_new_array(arena, Hotcell__V1__Wall *, info->n_walls + 2);
        if (!response->walls)
                return;
        for (size_t i = 0; i < info->n_walls; i++)
                response->walls[response->n_walls++] = convert_wall(arena, &info->walls[i]);
        /* Alone and whole it would look as if no other were missing. */
        if (info->n_walls > 0)
                response->walls[response->n_walls++] = convert_wall(arena, &relay);
        if (info->n_walls > 0 || !state.holds)
                response->walls[response->n_walls++] = convert_wall(arena, &state);
}

static void fill(struct api_call *call, Hotcell__V1__GetServerInfoResponse *response)
{
        struct arena *arena = &call->arena;
        struct session_info info;

        session_info(call->api->session, call->identity.owner, &info);
        response->version = unconst(HOTCELL_VERSION);
        response->runtime_version = unconst(info.runtime_version);
        response->capabilities = (char **)(uintptr_t)capabilities;
        response->n_capabilities = ARRAY_SIZE(capabilities);
        if (!session_has_direct_mode(call->api->session))
                response->n_capabilities--;
        response->limits_max = convert_sandbox_limits(arena, &call->api->limits.sandbox_max);
        response->limits_default =
                convert_sandbox_limits(arena, &call->api->limits.sandbox_default);
        response->ready = session_is_ready(call->api->session) &&
                          store_is_healthy(call->api->store) && !store_is_full(call->api->store);
        fill_durations(call, response);
        response->egress_limits = convert_egress_limits(arena);
        response->metering = convert_metering(arena, info.metering);
        response->sandboxes_active = (int32_t)info.sandboxes_active;
        response->sandboxes_max = (int32_t)info.sandboxes_max;
        response->quotas = arena_new_array(arena, Hotcell__V1__Quota *, _SESSION_SHARE_N);
        for (enum session_share i = 0; response->quotas && i < _SESSION_SHARE_N; i++)
                response->quotas[response->n_quotas++] = convert_quota(arena, i, &info.quotas[i]);
        response->templates = arena_new_array(arena, Hotcell__V1__TemplateInfo *, info.n_templates);
        for (size_t i = 0; response->templates && i < info.n_templates; i++)
                response->templates[response->n_templates++] =
                        convert_template(arena, &info.templates[i]);
        fill_walls(call, &info, response);
}

static void reply(struct api_call *call)
{
        Hotcell__V1__GetServerInfoResponse response = HOTCELL__V1__GET_SERVER_INFO_RESPONSE__INIT;

        fill(call, &response);
        api_call_reply(call, &response.base);
}

static void on_refreshed(void *userdata)
{
        struct api_call *call = userdata;

        reply(call);
        api_call_release(call);
}

/* Without a runtime there is nothing to probe, but the rest is still true and ready says no. */
static void on_probed(void *userdata, const struct session_result *result)
{
        struct api_call *call = userdata;

        (void)result;
        session_refresh_metering(call->api->session, on_refreshed, call);
}

void api_get_server_info(struct api_call *call, const void *message)
{
        const Hotcell__V1__GetServerInfoRequest *request = message;

        if (!request->probe_walls) {
                api_call_hold(call);
                session_refresh_metering(call->api->session, on_refreshed, call);
                return;
        }
        if (!call->identity.is_operator) {
                api_call_fail(call, REASON_OPERATOR_ONLY,
                              "probe_walls is for operators: use the unix socket");
                return;
        }
        api_call_hold(call);
        session_probe_walls(call->api->session, on_probed, call);
}
