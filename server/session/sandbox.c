/*
 * Creation asks the database and the runtime at the same time; what only one of them did is undone.
 */
#include "server/session/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/billing.h"
#include "server/session/queue_safe.h"
#include "server/session/session_private.h"

static const struct {
        const char *name;
        unsigned next;
} sandbox_states[] = {
        [0] = { "none", 0 },
        [SANDBOX_CREATING] = { "creating", BIT(SANDBOX_RUNNING) | BIT(SANDBOX_ENDING) },
        [SANDBOX_RUNNING] = { "running", BIT(SANDBOX_ENDING) },
        [SANDBOX_ENDING] = { "ending", BIT(SANDBOX_ENDED) },
        [SANDBOX_ENDED] = { "ended", 0 },
};
static_assert(ARRAY_SIZE(sandbox_states) == _SANDBOX_STATE_N, "every state has a row");

void sandbox_enter(struct sandbox *sandbox, enum sandbox_state next)
{
        assert(sandbox_states[sandbox->record.state].next & BIT(next));

        log_debug("a sandbox moves sandbox=%s from=%s to=%s", sandbox->record.sandbox_id,
                  sandbox_states[sandbox->record.state].name, sandbox_states[next].name);
        if (sandbox->record.state == SANDBOX_CREATING)
                share_owner_take(sandbox->holder, SESSION_SHARE_CREATIONS, -1);
        if (next == SANDBOX_ENDING)
                share_owner_count_ending(sandbox->holder, 1);
        sandbox->record.state = next;
}

int sandbox_wait(struct sandbox_waiters *waiters, session_on_sandbox on_done, void *userdata,
                 bool created)
{
        struct sandbox_waiter *waiter = calloc(1, sizeof(*waiter));

        if (!waiter)
                return error_origin(-ENOMEM);
        waiter->on_done = on_done;
        waiter->userdata = userdata;
        waiter->created = created;
        STAILQ_INSERT_TAIL(waiters, waiter, link);
        return 0;
}

void sandbox_answer(struct sandbox *sandbox, struct sandbox_waiters *waiters,
                    const struct session_result *result)
{
        while (!STAILQ_EMPTY(waiters)) {
                struct sandbox_waiter *waiter = STAILQ_FIRST(waiters);

                STAILQ_REMOVE_HEAD(waiters, link);
                waiter->on_done(waiter->userdata, result, result->outcome ? NULL : &sandbox->record,
                                waiter->created);
                free(waiter);
        }
}

static struct sandbox *allocate(struct session *session)
{
        struct sandbox *sandbox = calloc(1, sizeof(*sandbox));

        if (!sandbox)
                return NULL;
        sandbox->session = session;
        TAILQ_INIT(&sandbox->contexts);
        LIST_INIT(&sandbox->readers);
        LIST_INIT(&sandbox->unbilled);
        STAILQ_INIT(&sandbox->create_waiters);
        STAILQ_INIT(&sandbox->end_waiters);
        return sandbox;
}

static void add_to_maps(struct sandbox *sandbox)
{
        struct session *session = sandbox->session;
        const struct sandbox_record *record = &sandbox->record;

        map_add(&session->sandboxes, &sandbox->by_id, record->sandbox_id,
                strlen(record->sandbox_id));
        if (!record->name[0])
                return;
        (void)snprintf(sandbox->name_key, sizeof(sandbox->name_key), "%s/%s", record->owner,
                       record->name);
        map_add(&session->names, &sandbox->by_name, sandbox->name_key, strlen(sandbox->name_key));
}

static void add_cgroup(struct sandbox *sandbox, uint64_t cgroup_id)
{
        sandbox->record.cgroup_id = cgroup_id;
        if (cgroup_id > 0)
                map_add(&sandbox->session->cgroups, &sandbox->by_cgroup, &sandbox->record.cgroup_id,
                        sizeof(cgroup_id));
}

static int fill_record(struct sandbox *sandbox, const struct sandbox_request *request)
{
        struct sandbox_record *record = &sandbox->record;
        const Hotcell__Runtime__V1__Template *template = sandbox->template;

        if (id_generate("sbx", record->sandbox_id))
                return error_origin(-EIO);
        if ((request->labels && pairs_copy(request->labels, &record->labels)) ||
            (request->environment && pairs_copy(request->environment, &record->environment)) ||
            request_record_copy(request->request, &sandbox->request))
                return error_origin(-ENOMEM);
        (void)snprintf(record->owner, sizeof(record->owner), "%s", request->owner);
        (void)snprintf(record->name, sizeof(record->name), "%s", request->name);
        (void)snprintf(record->template_name, sizeof(record->template_name), "%s", template->name);
        (void)snprintf(record->template_digest, sizeof(record->template_digest), "%s",
                       template->digest);
        (void)snprintf(record->boot_id, sizeof(record->boot_id), "%s",
                       runtime_client_welcome(sandbox->session->runtime)->boot_id);
        record->state = SANDBOX_CREATING;
        record->create_time_usec = time_now_usec();
        record->expire_time_usec = request->expire_time_usec;
        record->idle_timeout_usec = request->idle_timeout_usec;
        record->limits = request->limits;
        record->egress_version = sandbox->last_egress_version = 1;
        record->egress = egress_hold(request->egress);
        return 0;
}

int sandbox_new(struct session *session, const struct sandbox_request *request, bool is_one_shot,
                struct sandbox **ret_sandbox)
{
        struct sandbox *sandbox = allocate(session);
        int r;

        if (!sandbox)
                return error_origin(-ENOMEM);
        sandbox->template = session_find_template(session, request->template_name);
        sandbox->record.is_one_shot = is_one_shot;
        r = fill_record(sandbox, request);
        if (r == 0)
                r = sandbox_take_shares(sandbox);
        if (r) {
                free(sandbox->request);
                sandbox_record_deinit(&sandbox->record);
                free(sandbox);
                return error_fold(r);
        }
        add_to_maps(sandbox);
        *ret_sandbox = sandbox;
        return 0;
}

int sandbox_adopt(struct session *session, const struct sandbox_record *record,
                  struct sandbox **ret_sandbox)
{
        struct sandbox *sandbox = allocate(session);

        if (!sandbox || sandbox_record_copy(record, &sandbox->record)) {
                free(sandbox);
                return error_origin(-ENOMEM);
        }
        if (sandbox_take_shares(sandbox)) {
                sandbox_record_deinit(&sandbox->record);
                free(sandbox);
                return error_origin(-ENOMEM);
        }
        sandbox->template = session_find_template(session, record->template_name);
        if (sandbox->template && strcmp(sandbox->template->digest, record->template_digest) != 0)
                sandbox->template = NULL; /* its root is not that template's any more */
        sandbox->last_egress_version = record->egress_version;
        sandbox->is_in_store = true;
        sandbox->is_in_runtime = true;
        sandbox->last_read = record->usage;
        sandbox->was_ending = record->state == SANDBOX_ENDING;
        sandbox->record.state = SANDBOX_RUNNING;
        add_to_maps(sandbox);
        add_cgroup(sandbox, record->cgroup_id);
        *ret_sandbox = sandbox;
        return 0;
}

int64_t sandbox_wall_usec(const struct sandbox *sandbox, const struct usage *metered,
                          int64_t time_usec)
{
        if (metered->wall_usec)
                return metered->wall_usec;
        return MAX(time_usec - sandbox->record.create_time_usec, INT64_C(0));
}

struct sandbox *sandbox_free(struct sandbox *sandbox)
{
        struct execution_reader *reader;

        if (!sandbox)
                return NULL;
        assert(sandbox->n_pending == 0 && sandbox->n_active == 0 && !sandbox->enforcement.request &&
               !sandbox->enforcement.update);

        enforcement_cancel(sandbox);
        while (!TAILQ_EMPTY(&sandbox->contexts))
                (void)context_free(TAILQ_FIRST(&sandbox->contexts));
        while ((reader = LIST_FIRST(&sandbox->readers))) {
                LIST_REMOVE(reader, sandbox_link);
                reader->sandbox = NULL;
        }
        egress_runs_deinit(&sandbox->egress_runs);
        map_remove(&sandbox->session->sandboxes, &sandbox->by_id);
        if (sandbox->record.cgroup_id > 0)
                map_remove(&sandbox->session->cgroups, &sandbox->by_cgroup);
        if (sandbox->name_key[0])
                map_remove(&sandbox->session->names, &sandbox->by_name);
        (void)sd_event_source_disable_unref(sandbox->expire_timer);
        (void)sd_event_source_disable_unref(sandbox->idle_timer);
        (void)sd_event_source_disable_unref(sandbox->limiting.retry);
        billing_stop(sandbox);
        free(sandbox->request);
        sandbox_give_shares(sandbox);
        sandbox_record_deinit(&sandbox->record);
        free(sandbox);
        return NULL;
}

struct context *sandbox_find_context(struct sandbox *sandbox, const char *context_id)
{
        struct context *context;

        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (!context->is_deleted && strcmp(context->record.context_id, context_id) == 0)
                        return context;
        }
        return NULL;
}

/* Creation. */

static void fail_creation(struct sandbox *sandbox, const struct session_result *failure)
{
        if (sandbox->failure.outcome == 0)
                sandbox->failure = *failure;
}

static void on_forgotten(void *userdata, int result)
{
        struct sandbox *sandbox = userdata;

        if (result)
                log_warning("a request that made nothing is still remembered sandbox=%s result=%d",
                            sandbox->record.sandbox_id, result);
        sandbox->n_pending--;
        sandbox_check(sandbox);
}

/* Before the failure is answered: a retry looks it up after that. */
static void forget_request(struct sandbox *sandbox)
{
        if (!sandbox->request || !sandbox->is_running_recorded)
                return;
        sandbox->n_pending++;
        store_forget_request(sandbox->session->store, sandbox->request, on_forgotten, sandbox);
}

static enum cause cause_of_failure(int outcome)
{
        if (outcome == SESSION_E_RUNTIME_UNAVAILABLE)
                return CAUSE_RUNTIME_LOST;
        return outcome == SESSION_E_EGRESS || outcome == SESSION_E_RULE_TOO_COMPLEX ? CAUSE_POLICY
                                                                                    : CAUSE_LIMIT;
}

static void creation_over(struct sandbox *sandbox)
{
        const struct session_result success = { 0 };
        struct sandbox_record *record = &sandbox->record;

        if (sandbox->failure.outcome) {
                sandbox_enter(sandbox, SANDBOX_ENDING);
                if (record->end_cause == CAUSE_NONE)
                        record->end_cause = cause_of_failure(sandbox->failure.outcome);
                (void)snprintf(record->end_message, sizeof(record->end_message), "%s",
                               sandbox->failure.message);
                sandbox->n_pending++; /* stays until all were told */
                forget_request(sandbox);
                sandbox_answer(sandbox, &sandbox->create_waiters, &sandbox->failure);
                sandbox->n_pending--;
                if (sandbox->is_in_runtime)
                        sandbox_destroy(sandbox);
                else {
                        sandbox->is_destroyed = true;
                        sandbox_check(sandbox);
                }
                return;
        }
        log_info_of(&sandbox->holder->log, "a sandbox runs sandbox=%s owner=%s template=%s",
                    record->sandbox_id, record->owner, record->template_name);
        sandbox_enter(sandbox, SANDBOX_RUNNING);
        session_on_sandbox_event(sandbox->session, record->owner);
        sandbox_arm_timers(sandbox);
        sandbox_answer(sandbox, &sandbox->create_waiters, &success);
        if (sandbox->is_end_wanted)
                sandbox_end(sandbox, record->end_cause, record->end_message);
        else
                sandbox_check(sandbox);
}

static void on_policy_in_force(struct sandbox *sandbox, const struct session_result *result);

static void put_policy_in_force(struct sandbox *sandbox)
{
        struct session_result result = enforcement_begin(sandbox, on_policy_in_force);

        if (result.outcome)
                fail_creation(sandbox, &result);
}

static bool is_step_pending(const struct sandbox *sandbox)
{
        return sandbox->is_row_pending || sandbox->is_runtime_pending || sandbox->n_pending > 0 ||
               sandbox->enforcement.request;
}

static void creation_step(struct sandbox *sandbox)
{
        if (is_step_pending(sandbox))
                return;
        /* hotcell-egress came, or was started anew, meanwhile. */
        if (sandbox->failure.outcome == 0 && enforcement_is_needed(sandbox))
                put_policy_in_force(sandbox);
        if (!is_step_pending(sandbox))
                creation_over(sandbox);
}

static void on_row_inserted(void *userdata, int result)
{
        struct sandbox *sandbox = userdata;
        struct session_result failure = result_of_store(result, "the sandbox");

        sandbox->is_row_pending = false;
        sandbox->is_in_store = result == 0;
        if (result == STORE_E_NAME_IN_USE)
                failure = result_of(SESSION_E_NAME_IN_USE, "There is a sandbox named %s already.",
                                    sandbox->record.name);
        if (result)
                fail_creation(sandbox, &failure);
        else
                session_on_sandbox_event(sandbox->session, sandbox->record.owner);
        creation_step(sandbox);
}

static void on_running_recorded(void *userdata, int result)
{
        struct sandbox *sandbox = userdata;
        struct session_result failure = result_of_store(result, "the sandbox");

        sandbox->n_pending--;
        if (result)
                fail_creation(sandbox, &failure);
        creation_step(sandbox);
}

/*
 * The row need not be there yet: the store keeps the order of its jobs. The request is remembered
 * now and not with the first row: one that is killed half made is not adopted, and a retry makes
 * another.
 */
static void record_running(struct sandbox *sandbox)
{
        struct sandbox_record record = sandbox->record;
        struct request_record *request = sandbox->request;

        if (request) {
                (void)snprintf(request->object_id, sizeof(request->object_id), "%s",
                               record.sandbox_id);
                request->created = true;
        }
        record.state = SANDBOX_RUNNING;
        sandbox->is_running_recorded = true;
        sandbox->n_pending++;
        store_update_sandbox_for(sandbox->session->store, request, &record, SANDBOX_EVENT_RUNNING,
                                 on_running_recorded, sandbox);
}

static void on_policy_in_force(struct sandbox *sandbox, const struct session_result *result)
{
        if (result->outcome)
                fail_creation(sandbox, result);
        else if (!sandbox->is_running_recorded)
                record_running(sandbox);
        creation_step(sandbox);
}

static void on_runtime_created(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                               struct runtime_fds *fds)
{
        struct sandbox *sandbox = userdata;

        (void)fds;
        sandbox->is_runtime_pending = false;
        if (answer &&
            answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_SANDBOX_CREATED) {
                sandbox->is_in_runtime = true;
                limiting_made(sandbox);
                add_cgroup(sandbox, answer->sandbox_created->cgroup_id);
                if (enforcement_is_needed(sandbox))
                        put_policy_in_force(sandbox);
                else
                        record_running(sandbox);
        } else {
                struct session_result failure =
                        result_of_runtime(answer, sandbox->record.sandbox_id);

                fail_creation(sandbox, &failure);
        }
        creation_step(sandbox);
}

static int request_creation(struct sandbox *sandbox)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__CreateSandbox create;
        Hotcell__Runtime__V1__SandboxLimits wire = limits_to_runtime(&sandbox->record.limits);

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__create_sandbox__init(&create);
        create.sandbox_id = sandbox->record.sandbox_id;
        create.template_digest = sandbox->record.template_digest;
        create.hostname = sandbox->record.sandbox_id;
        create.limits = &wire;
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_CREATE_SANDBOX;
        request.create_sandbox = &create;
        return session_request(sandbox->session, &request, on_runtime_created, sandbox);
}

void sandbox_create(struct sandbox *sandbox)
{
        struct session_result failure;
        int r;

        enforcement_expect(sandbox);
        sandbox->is_row_pending = true;
        store_insert_sandbox(sandbox->session->store, &sandbox->record, on_row_inserted, sandbox);
        r = request_creation(sandbox);
        sandbox->is_runtime_pending = r == 0;
        if (r) {
                failure = result_of(r, "The runtime is not available.");
                fail_creation(sandbox, &failure);
        }
}

/* Timers. */

static int on_expired(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        sandbox_end(userdata, CAUSE_TTL, "Its lifetime was over.");
        return 0;
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        sandbox_end(userdata, CAUSE_IDLE, "It was idle for too long.");
        return 0;
}

bool sandbox_is_idle(const struct sandbox *sandbox)
{
        return sandbox->record.state == SANDBOX_RUNNING && sandbox->n_active == 0 &&
               LIST_EMPTY(&sandbox->readers);
}

void sandbox_arm_idle(struct sandbox *sandbox)
{
        uint64_t usec = sandbox_is_idle(sandbox) ? (uint64_t)sandbox->record.idle_timeout_usec : 0;

        sandbox->is_idle = sandbox_is_idle(sandbox);
        (void)session_arm(sandbox->session, &sandbox->idle_timer, usec, on_idle, sandbox);
}

/* On the wall clock: it may be set, and `expire_time` means what it says. */
static void arm_expiry(struct sandbox *sandbox)
{
        int64_t usec = sandbox->record.expire_time_usec;

        sandbox->expire_timer = sd_event_source_disable_unref(sandbox->expire_timer);
        if (usec > 0 &&
            sd_event_add_time(sandbox->session->loop, &sandbox->expire_timer, CLOCK_REALTIME,
                              (uint64_t)usec, 1000, on_expired, sandbox) < 0)
                log_error("a sandbox has no expiry timer sandbox=%s", sandbox->record.sandbox_id);
}

void sandbox_arm_timers(struct sandbox *sandbox)
{
        if (sandbox->record.state != SANDBOX_RUNNING)
                return;
        arm_expiry(sandbox);
        sandbox_arm_idle(sandbox);
        billing_start(sandbox);
}

void sandbox_on_runtime_lost(struct sandbox *sandbox)
{
        const struct session_result failure =
                result_of(SESSION_E_RUNTIME_UNAVAILABLE, "The runtime went away.");

        if (sandbox->record.state == SANDBOX_CREATING) {
                sandbox->is_in_runtime = false;
                fail_creation(sandbox, &failure);
                enforcement_cancel(sandbox); /* may be the end of it */
        } else if (sandbox->record.state == SANDBOX_RUNNING) {
                sandbox_end_with_runtime(sandbox);
        }
}

bool sandbox_on_process_ended(struct sandbox *sandbox,
                              const Hotcell__Runtime__V1__ProcessEnded *ended)
{
        struct context *context;

        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (context->kernel.state == KERNEL_NONE ||
                    strcmp(context->kernel.process_id, ended->process_id) != 0)
                        continue;
                kernel_on_process_ended(context, ended);
                return true;
        }
        return false;
}
