/* What the runtime is: its walls and templates, as views of what it said. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/meters.h"
#include "server/session/session_private.h"

enum {
        METERING_FRESH_USEC = 1000000,
        METERING_PATIENCE_USEC = 1000000, /* a runtime that hangs is told of elsewhere */
};

static int build_walls(struct session *session, Hotcell__Runtime__V1__Wall **walls, size_t n)
{
        struct session_wall *views = calloc(n + 1, sizeof(*views));

        if (!views)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < n; i++)
                views[i] = (struct session_wall){
                        .name = walls[i]->name,
                        .holds = walls[i]->holds,
                        .required = walls[i]->required,
                        .detail = walls[i]->detail,
                        .fix = walls[i]->fix,
                };
        free(session->walls);
        session->walls = views;
        session->n_walls = n;
        return 0;
}

static int build_template(const Hotcell__Runtime__V1__Template *template,
                          struct session_template *ret_view)
{
        struct session_language *languages = calloc(template->n_kernels + 1, sizeof(*languages));

        if (!languages)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < template->n_kernels; i++)
                languages[i] = (struct session_language){
                        .language = template->kernels[i]->language,
                        .version = template->kernels[i]->language_version,
                };
        *ret_view = (struct session_template){
                .name = template->name,
                .digest = template->digest,
                .home = template->home,
                .languages = languages,
                .n_languages = template->n_kernels,
        };
        return 0;
}

static void drop_templates(struct session *session)
{
        for (size_t i = 0; i < session->n_templates; i++)
                free((void *)(uintptr_t)session->templates[i].languages);
        free(session->templates);
        session->templates = NULL;
        session->n_templates = 0;
}

void session_note_metering(struct session *session, const Hotcell__Runtime__V1__MeterState *state)
{
        session->metering = (struct session_metering){
                .is_known = true,
                .has_programs = state->programs,
                .missing = usage_missing(state->missing, state->n_missing),
                .slots = meter_amount(state->slots),
                .slots_used = meter_amount(state->slots_used),
                .slots_refused = meter_amount(state->slots_refused),
                .scheduled_usec = meter_amount(state->scheduled_usec),
                .cpu_usec = meter_amount(state->cpu_usec),
        };
        (void)snprintf(session->metering.detail, sizeof(session->metering.detail), "%s",
                       state->detail);
        session->metering_usec = clock_monotonic_usec();
}

int session_build_info(struct session *session)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);
        int64_t *sandboxes_max = &session->shares.rules.total[SESSION_SHARE_SANDBOXES];
        int r;

        *sandboxes_max = session->config.shares.total[SESSION_SHARE_SANDBOXES];
        if (welcome->sandboxes_max > 0)
                *sandboxes_max = MIN(*sandboxes_max, (int64_t)welcome->sandboxes_max);
        session->has_direct_mode = welcome->direct_mode;
        if (welcome->meters)
                session_note_metering(session, welcome->meters);
        drop_templates(session);
        session->templates = calloc(welcome->n_templates + 1, sizeof(*session->templates));
        if (!session->templates)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < welcome->n_templates; i++) {
                r = build_template(welcome->templates[i], &session->templates[i]);
                if (r)
                        return error_fold(r);
                session->n_templates++;
        }
        return build_walls(session, welcome->walls, welcome->n_walls);
}

void session_drop_info(struct session *session)
{
        drop_templates(session);
        session->metering = (struct session_metering){ 0 };
        free(session->walls);
        session->walls = NULL;
        session->n_walls = 0;
        if (session->probed)
                hotcell__runtime__v1__from_runtime__free_unpacked(session->probed, NULL);
        session->probed = NULL;
}

bool session_walls_hold(const struct session *session, const char **ret_missing)
{
        for (size_t i = 0; i < session->n_walls; i++) {
                if (session->walls[i].holds || !session->walls[i].required)
                        continue;
                if (ret_missing)
                        *ret_missing = session->walls[i].name;
                return false;
        }
        return true;
}

const Hotcell__Runtime__V1__Template *session_find_template(const struct session *session,
                                                            const char *name)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);

        for (size_t i = 0; welcome && i < welcome->n_templates; i++)
                if (!name[0] || strcmp(welcome->templates[i]->name, name) == 0)
                        return welcome->templates[i];
        return NULL;
}

const Hotcell__Runtime__V1__Kernel *
template_find_kernel(const Hotcell__Runtime__V1__Template *template, const char *language)
{
        for (size_t i = 0; i < template->n_kernels; i++)
                if (!language[0] || strcmp(template->kernels[i]->language, language) == 0)
                        return template->kernels[i];
        return NULL;
}

static enum session_egress_state egress_state(const struct session *session)
{
        if (!egress_client_is_connected(session->egress_client))
                return session->restoration.was_ready ? SESSION_EGRESS_ENDED : SESSION_EGRESS_NONE;
        return session->egress_is_silent ? SESSION_EGRESS_SILENT : SESSION_EGRESS_THERE;
}

int64_t session_share_used(const struct session *session, const char *owner,
                           enum session_share share)
{
        const struct share_owner *holder = shares_find(&session->shares, owner);

        return holder ? holder->used[share] : 0;
}

static void fill_quotas(const struct session *session, const char *owner, struct session_info *info)
{
        const struct shares *shares = &session->shares;

        for (enum session_share i = 0; i < _SESSION_SHARE_N; i++)
                info->quotas[i] = (struct session_quota){
                        .limit = shares->rules.total[i],
                        .used = shares->used[i],
                        .owner_limit = shares_limit_of(shares, owner, i),
                        .owner_used = session_share_used(session, owner, i),
                };
}

void session_info(struct session *session, const char *owner, struct session_info *ret_info)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);

        *ret_info = (struct session_info){
                .runtime_version = welcome ? welcome->version : "",
                .walls = session->walls,
                .n_walls = session->n_walls,
                .templates = session->templates,
                .n_templates = session->n_templates,
                .sandboxes_active = map_count(&session->sandboxes),
                .sandboxes_max = (size_t)session->shares.rules.total[SESSION_SHARE_SANDBOXES],
                .egress = egress_state(session),
                .metering = &session->metering,
        };
        fill_quotas(session, owner, ret_info);
}

bool session_has_direct_mode(const struct session *session)
{
        return session->has_direct_mode;
}

/* Of the walls, and then of hotcell-egress. */
struct probe {
        struct session *session;
        struct session_result result; /* of the walls */
        struct egress_request *egress;
        void (*on_done)(void *userdata, const struct session_result *result);
        void *userdata;
};

static void end_probe(struct probe *probe)
{
        struct session *session = probe->session;

        session->n_pending--;
        probe->on_done(probe->userdata, &probe->result);
        free(probe);
        session_check_ready(session);
        session_check_stopped(session);
}

static void on_egress_asked(void *userdata, const struct egress_answer *answer)
{
        struct probe *probe = userdata;

        probe->session->egress_is_silent = answer->result == EGRESS_E_SILENT;
        end_probe(probe);
}

static void ask_egress(struct probe *probe)
{
        if (egress_client_ping(probe->session->egress_client, on_egress_asked, probe,
                               &probe->egress))
                end_probe(probe); /* it is not there, or has not answered 1,024 others yet */
}

/* Keeps a copy of the answer: the views point into it. */
static int keep_walls(struct session *session, const Hotcell__Runtime__V1__FromRuntime *answer)
{
        size_t n = hotcell__runtime__v1__from_runtime__get_packed_size(answer);
        uint8_t *bytes = malloc(n + 1);
        Hotcell__Runtime__V1__FromRuntime *copy;
        int r;

        if (!bytes)
                return error_origin(-ENOMEM);
        (void)hotcell__runtime__v1__from_runtime__pack(answer, bytes);
        copy = hotcell__runtime__v1__from_runtime__unpack(NULL, n, bytes);
        free(bytes);
        if (!copy)
                return error_origin(-ENOMEM);
        r = build_walls(session, copy->wall_list->walls, copy->wall_list->n_walls);
        if (r) {
                hotcell__runtime__v1__from_runtime__free_unpacked(copy, NULL);
                return error_fold(r);
        }
        if (session->probed)
                hotcell__runtime__v1__from_runtime__free_unpacked(session->probed, NULL);
        session->probed = copy;
        return 0;
}

static void on_probed(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                      struct runtime_fds *fds)
{
        struct probe *probe = userdata;
        struct session *session = probe->session;

        (void)fds;
        if (!answer || answer->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_WALL_LIST)
                probe->result = result_of_runtime(answer, "a probe of its walls");
        else if (keep_walls(session, answer))
                probe->result = result_of(-ENOMEM, "There is no memory for the walls.");
        ask_egress(probe);
}

void session_probe_walls(struct session *session,
                         void (*on_done)(void *userdata, const struct session_result *result),
                         void *userdata)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ProbeWalls body;
        struct session_result failure = result_of(-ENOMEM, "There is no memory for a probe.");
        struct probe *probe = calloc(1, sizeof(*probe));
        int r = -ENOMEM;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__probe_walls__init(&body);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_PROBE_WALLS;
        request.probe_walls = &body;
        if (probe) {
                *probe = (struct probe){ .session = session,
                                         .on_done = on_done,
                                         .userdata = userdata };
                r = session_request(session, &request, on_probed, probe);
        }
        if (r == 0) {
                session->n_pending++;
                return;
        }
        if (r > 0)
                failure = result_of(r, "The runtime is not available.");
        free(probe);
        on_done(userdata, &failure);
}

/* --- how it measures -------------------------------------------------------------------------- */

struct metering_question {
        struct session *session;
        sd_event_source *timer;
        void (*on_done)(void *userdata); /* NULL: it was called */
        void *userdata;
};

static void end_question(struct metering_question *question)
{
        void (*on_done)(void *userdata) = question->on_done;

        question->timer = sd_event_source_disable_unref(question->timer);
        question->on_done = NULL;
        if (on_done)
                on_done(question->userdata);
}

static int on_impatient(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        end_question(userdata);
        return 0;
}

/* What it says was noted when it came. */
static void on_metering(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                        struct runtime_fds *fds)
{
        struct metering_question *question = userdata;
        struct session *session = question->session;

        (void)answer;
        (void)fds;
        session->n_pending--;
        end_question(question);
        free(question);
        session_check_stopped(session);
}

static int ask_metering(struct metering_question *question)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ReadMeters read;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__read_meters__init(&read);
        read.after_sandbox_id = unconst("z"); /* of no sandbox: their ids begin with sbx */
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_METERS;
        request.read_meters = &read;
        return session_request(question->session, &request, on_metering, question);
}

void session_refresh_metering(struct session *session, void (*on_done)(void *userdata),
                              void *userdata)
{
        bool is_old = session->metering.is_known &&
                      clock_monotonic_usec() - session->metering_usec >= METERING_FRESH_USEC;
        struct metering_question *question = is_old ? calloc(1, sizeof(*question)) : NULL;

        if (question) {
                *question = (struct metering_question){ .session = session,
                                                        .on_done = on_done,
                                                        .userdata = userdata };
                if (session_arm(session, &question->timer, METERING_PATIENCE_USEC, on_impatient,
                                question) == 0 &&
                    ask_metering(question) == 0) {
                        session->n_pending++;
                        return;
                }
                (void)sd_event_source_disable_unref(question->timer);
                free(question);
        }
        on_done(userdata);
}
