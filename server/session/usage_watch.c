/*
 * A measurement walks through all sandboxes that the runtime has, 64 an answer, and leaves what it
 * read with the sandboxes and executions. It has a number: what was not read in it, as it is new or
 * the walk broke off, has an older one and is not told as measured.
 */
#include "server/session/usage_watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/session_private.h"

enum {
        PROTOCOL_METERS = 4, /* first version of the runtime's protocol with ReadMeters */
        FRESH_USEC = 100 * 1000,
        SOON_USEC = 1,
};

struct usage_watch {
        LIST_ENTRY(usage_watch) waiting_link;
        struct session *session;
        char owner[OWNER_BUFFER];
        char sandbox_id[ID_BUFFER]; /* empty: all */
        uint64_t period_usec;
        uint64_t due_usec; /* monotonic: when the last one was due, or the one to come is */
        sd_event_source *timer;
        uint64_t number; /* of the measurement that was told last: none comes twice */
        bool is_waiting; /* for the measurement that is under way */
        void (*on_measured)(void *userdata);
        void *userdata;
};

static int request_page(struct session *session, const char *after_sandbox_id);

static void tell(struct usage_watch *watch)
{
        watch->number = watch->session->measuring.number;
        watch->on_measured(watch->userdata);
}

/* A watch may be freed by what it hears, and no other. */
static void finish(struct session *session)
{
        struct usage_measuring *measuring = &session->measuring;
        struct usage_watch *watch;

        measuring->is_under_way = false;
        while ((watch = LIST_FIRST(&measuring->waiting))) {
                LIST_REMOVE(watch, waiting_link);
                watch->is_waiting = false;
                tell(watch);
        }
}

static struct execution *find_running(struct sandbox *sandbox, const char *process_id)
{
        struct context *context;

        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                struct execution *execution = context->current;

                if (execution && execution->phase == PHASE_RUNNING &&
                    strcmp(execution->process_id, process_id) == 0)
                        return execution;
        }
        return NULL;
}

static void take_process(struct sandbox *sandbox, const Hotcell__Runtime__V1__ProcessMeters *meters,
                         uint64_t number)
{
        struct execution *execution = find_running(sandbox, meters->process_id);

        if (!execution || !meters->usage)
                return;
        sandbox_usage_from_meters(meters->usage, &execution->now.usage);
        execution->now.number = number;
}

static void take_sandbox(struct session *session, const Hotcell__Runtime__V1__SandboxMeters *meters)
{
        struct sandbox *sandbox = session_find_sandbox(session, NULL, meters->sandbox_id);
        uint64_t number = session->measuring.number;

        if (!sandbox || !meters->usage)
                return;
        sandbox_usage_from_meters(meters->usage, &sandbox->now.usage);
        sandbox->now.number = number;
        for (size_t i = 0; i < meters->n_processes; i++)
                take_process(sandbox, meters->processes[i], number);
}

static void on_meters(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                      struct runtime_fds *fds)
{
        struct session *session = userdata;
        const Hotcell__Runtime__V1__MeterList *list = NULL;
        const char *last = "";

        (void)fds;
        session->n_pending--;
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_METER_LIST)
                list = answer->meter_list;
        for (size_t i = 0; list && i < list->n_sandboxes; i++) {
                take_sandbox(session, list->sandboxes[i]);
                last = list->sandboxes[i]->sandbox_id;
        }
        if (!list || !list->more || !*last || session->is_stopping ||
            request_page(session, last) != 0)
                finish(session);
        session_check_stopped(session);
}

/* 0: its answer will come. */
static int request_page(struct session *session, const char *after_sandbox_id)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ReadMeters read;
        int r;

        if (!welcome || welcome->protocol < PROTOCOL_METERS)
                return RUNTIME_CLIENT_E_DISCONNECTED;
        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__read_meters__init(&read);
        read.after_sandbox_id = unconst(after_sandbox_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_METERS;
        request.read_meters = &read;
        r = session_request(session, &request, on_meters, session);
        if (r == 0)
                session->n_pending++;
        return r;
}

static void measure(struct usage_watch *watch)
{
        struct session *session = watch->session;
        struct usage_measuring *measuring = &session->measuring;
        uint64_t now = clock_monotonic_usec();

        if (!measuring->is_under_way && measuring->number > watch->number &&
            now - measuring->clock_usec <= FRESH_USEC) {
                tell(watch);
                return;
        }
        LIST_INSERT_HEAD(&measuring->waiting, watch, waiting_link);
        watch->is_waiting = true;
        if (measuring->is_under_way)
                return;
        measuring->is_under_way = true;
        measuring->number++;
        measuring->clock_usec = now;
        measuring->time_usec = time_now_usec();
        if (request_page(session, "") != 0)
                finish(session);
}

static int on_due(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        measure(userdata);
        return 0;
}

int usage_watch_new(struct session *session, const char *owner, const char *sandbox_id,
                    uint64_t period_usec, void (*on_measured)(void *userdata), void *userdata,
                    struct usage_watch **ret_watch)
{
        _cleanup_(usage_watch_freep) struct usage_watch *watch = calloc(1, sizeof(*watch));
        int r;

        if (!watch)
                return error_origin(-ENOMEM);
        watch->session = session;
        watch->period_usec = period_usec;
        watch->due_usec = clock_monotonic_usec();
        watch->on_measured = on_measured;
        watch->userdata = userdata;
        (void)snprintf(watch->owner, sizeof(watch->owner), "%s", owner);
        (void)snprintf(watch->sandbox_id, sizeof(watch->sandbox_id), "%s",
                       sandbox_id ? sandbox_id : "");
        r = session_arm(session, &watch->timer, SOON_USEC, on_due, watch);
        if (r)
                return error_fold(r);
        *ret_watch = take(watch);
        return 0;
}

struct usage_watch *usage_watch_free(struct usage_watch *watch)
{
        if (!watch)
                return NULL;
        if (watch->is_waiting)
                LIST_REMOVE(watch, waiting_link);
        (void)sd_event_source_disable_unref(watch->timer);
        free(watch);
        return NULL;
}

int usage_watch_go_on(struct usage_watch *watch)
{
        uint64_t now = clock_monotonic_usec();

        watch->due_usec = MAX(watch->due_usec + watch->period_usec, now);
        return session_arm(watch->session, &watch->timer,
                           MAX(watch->due_usec - now, (uint64_t)SOON_USEC), on_due, watch);
}

int64_t usage_watch_time_usec(const struct usage_watch *watch)
{
        return watch->session->measuring.time_usec;
}

static void describe_execution(const struct session *session, const struct execution *execution,
                               struct execution_now *ret_now)
{
        const struct usage *known = &execution->record.usage;
        struct usage *usage = &ret_now->usage;

        *ret_now = (struct execution_now){
                .execution_id = execution->record.execution_id,
                .context_id = execution->record.context_id,
                .memory_bytes = execution->now.usage.memory_bytes,
        };
        usage_since(&execution->now.usage.total, &execution->usage_before, usage);
        if (session->measuring.clock_usec > execution->start_monotonic_usec)
                usage->wall_usec =
                        (int64_t)(session->measuring.clock_usec - execution->start_monotonic_usec);
        usage->stdout_bytes = known->stdout_bytes;
        usage->stderr_bytes = known->stderr_bytes;
        usage->rich_bytes = known->rich_bytes;
}

static void describe(const struct session *session, const struct sandbox *sandbox,
                     struct sandbox_now *ret_now)
{
        const struct usage_measuring *measuring = &session->measuring;
        const struct context *context;

        *ret_now = (struct sandbox_now){ .record = &sandbox->record };
        ret_now->n_pressures = sandbox_pressures(sandbox, ret_now->pressures);
        ret_now->is_measured = sandbox->now.number == measuring->number;
        if (!ret_now->is_measured)
                return;
        ret_now->usage = sandbox->now.usage;
        ret_now->usage.total.wall_usec =
                MAX(measuring->time_usec - sandbox->record.create_time_usec, INT64_C(0));
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                const struct execution *execution = context->current;

                if (execution && execution->phase == PHASE_RUNNING &&
                    execution->now.number == measuring->number &&
                    ret_now->n_executions < USAGE_EXECUTIONS_MAX)
                        describe_execution(session, execution,
                                           &ret_now->executions[ret_now->n_executions++]);
        }
}

static int compare_ids(const void *left, const void *right)
{
        const struct sandbox *const *a = left, *const *b = right;

        return strcmp((*a)->record.sandbox_id, (*b)->record.sandbox_id);
}

static int each_of_owner(const struct usage_watch *watch,
                         void (*on_sandbox)(void *userdata, const struct sandbox_now *now),
                         void *userdata)
{
        struct session *session = watch->session;
        _cleanup_(freep) const struct sandbox **found =
                calloc(map_count(&session->sandboxes) + 1, sizeof(struct sandbox *));
        struct sandbox_now now;
        size_t n = 0;

        if (!found)
                return error_origin(-ENOMEM);
        for (struct map_node *node = map_first(&session->sandboxes); node; node = map_next(node)) {
                const struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                if (strcmp(sandbox->record.owner, watch->owner) == 0)
                        found[n++] = sandbox;
        }
        qsort(found, n, sizeof(struct sandbox *), compare_ids);
        for (size_t i = 0; i < n; i++) {
                describe(session, found[i], &now);
                on_sandbox(userdata, &now);
        }
        return 0;
}

static const struct sandbox *find_living(const struct usage_watch *watch)
{
        const struct sandbox *sandbox =
                session_find_sandbox(watch->session, watch->owner, watch->sandbox_id);

        return sandbox && sandbox->record.state != SANDBOX_ENDED ? sandbox : NULL;
}

bool usage_watch_is_over(const struct usage_watch *watch)
{
        return *watch->sandbox_id && !find_living(watch);
}

int usage_watch_each(const struct usage_watch *watch,
                     void (*on_sandbox)(void *userdata, const struct sandbox_now *now),
                     void *userdata)
{
        const struct sandbox *sandbox;
        struct sandbox_now now;

        if (!*watch->sandbox_id)
                return each_of_owner(watch, on_sandbox, userdata);
        sandbox = find_living(watch);
        if (!sandbox)
                return USAGE_WATCH_E_OVER;
        describe(watch->session, sandbox, &now);
        on_sandbox(userdata, &now);
        return 0;
}
