/*
 * A measurement asks the runtime for the sandboxes that are watched by those who wait for it, 64 a
 * request, and leaves what it read with the sandboxes and executions. Where all that a watch tells
 * of was asked for a moment ago, nothing is asked.
 */
#include "server/session/usage_measure.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/session/billing.h"
#include "server/session/session_private.h"

enum {
        PROTOCOL_METERS = 4, /* first version of the runtime's protocol with ReadMeters */
        FRESH_USEC = 100 * 1000,
        IDS_MAX = 64, /* in a request: the runtime takes no more */
};

static int request_page(struct session *session);
static void begin(struct session *session);

/* All that is watched was asked for a moment ago, and was not told yet. */
static bool is_fresh(const struct usage_watch *watch)
{
        struct session *session = watch->session;
        uint64_t now = clock_monotonic_usec();

        if (session->measuring.is_under_way)
                return false;
        for (struct map_node *node = map_first(&session->sandboxes); node; node = map_next(node)) {
                const struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                if (usage_watch_has(watch, sandbox) &&
                    (sandbox->asked.number <= watch->number ||
                     now - sandbox->asked.clock_usec > FRESH_USEC))
                        return false;
        }
        return true;
}

static void stop_waiting(struct usage_watch *watch)
{
        LIST_REMOVE(watch, waiting_link);
        watch->is_waiting = false;
}

/* Of those that came late, one that what was read serves, too. */
static struct usage_watch *find_served(struct usage_measuring *measuring)
{
        struct usage_watch *watch;

        LIST_FOREACH(watch, &measuring->late, waiting_link)
        if (is_fresh(watch))
                break;
        return watch;
}

/* A watch may be freed by what it hears, and no other. */
static void finish(struct session *session)
{
        struct usage_measuring *measuring = &session->measuring;
        struct usage_watch *watch;

        measuring->is_under_way = false;
        free(take(measuring->ids));
        while ((watch = LIST_FIRST(&measuring->waiting))) {
                stop_waiting(watch);
                usage_watch_tell(watch);
        }
        while ((watch = find_served(measuring))) {
                stop_waiting(watch);
                usage_watch_tell(watch);
        }
        if (!LIST_EMPTY(&measuring->late))
                begin(session);
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
        billing_note(execution, &execution->now.usage.total);
}

/* The runtime may have been late; an older one does not say when it read. */
static struct usage_moment moment_of(const struct usage_measuring *measuring,
                                     const Hotcell__Runtime__V1__MeterList *list)
{
        struct usage_moment moment = measuring->last;

        if (list->clock_usec >= moment.clock_usec && list->clock_usec <= clock_monotonic_usec()) {
                moment.clock_usec = list->clock_usec;
                moment.time_usec = (int64_t)list->time_usec;
        }
        return moment;
}

static void take_sandbox(struct session *session, const Hotcell__Runtime__V1__SandboxMeters *meters,
                         const struct usage_moment *moment)
{
        struct sandbox *sandbox = session_find_sandbox(session, NULL, meters->sandbox_id);
        uint64_t number = moment->number;

        if (!sandbox || !meters->usage || sandbox->asked.number != number)
                return;
        sandbox->asked = *moment;
        sandbox_usage_from_meters(meters->usage, &sandbox->now.usage);
        if (sandbox->record.state == SANDBOX_RUNNING)
                sandbox->last_read = sandbox->now.usage;
        sandbox->now.number = number;
        for (size_t i = 0; i < meters->n_processes; i++)
                take_process(sandbox, meters->processes[i], number);
}

/* Those up to @last, or if @more do not follow, all that were asked for. */
static void count_answered(struct usage_measuring *measuring, const char *last, bool more)
{
        size_t end = MIN(measuring->n_asked + IDS_MAX, measuring->n_ids);

        if (!more)
                measuring->n_asked = end;
        while (measuring->n_asked < end && strcmp(measuring->ids[measuring->n_asked], last) <= 0)
                measuring->n_asked++;
}

static void on_meters(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                      struct runtime_fds *fds)
{
        struct session *session = userdata;
        struct usage_measuring *measuring = &session->measuring;
        const Hotcell__Runtime__V1__MeterList *list = NULL;
        struct usage_moment moment = measuring->last;
        const char *last = "";

        (void)fds;
        session->n_pending--;
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_METER_LIST)
                list = answer->meter_list;
        if (list)
                moment = moment_of(measuring, list);
        for (size_t i = 0; list && i < list->n_sandboxes; i++) {
                take_sandbox(session, list->sandboxes[i], &moment);
                last = list->sandboxes[i]->sandbox_id;
        }
        if (list)
                count_answered(measuring, last, list->more && *last);
        if (!list || measuring->n_asked == measuring->n_ids || session->is_stopping ||
            request_page(session) != 0)
                finish(session);
        session_check_stopped(session);
}

/* 0: its answer will come. */
static int request_page(struct session *session)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);
        struct usage_measuring *measuring = &session->measuring;
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ReadMeters read;
        char *ids[IDS_MAX];
        int r;

        if (!welcome || welcome->protocol < PROTOCOL_METERS)
                return RUNTIME_CLIENT_E_DISCONNECTED;
        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__read_meters__init(&read);
        read.sandbox_ids = ids;
        read.n_sandbox_ids = MIN(measuring->n_ids - measuring->n_asked, (size_t)IDS_MAX);
        for (size_t i = 0; i < read.n_sandbox_ids; i++)
                ids[i] = measuring->ids[measuring->n_asked + i];
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_METERS;
        request.read_meters = &read;
        r = session_request(session, &request, on_meters, session);
        if (r == 0)
                session->n_pending++;
        return r;
}

static bool is_waited_for(const struct usage_measuring *measuring, const struct sandbox *sandbox)
{
        const struct usage_watch *watch;

        LIST_FOREACH(watch, &measuring->waiting, waiting_link)
        if (usage_watch_has(watch, sandbox))
                return true;
        return false;
}

static int compare_texts(const void *a, const void *b)
{
        return strcmp(a, b);
}

/* Of those that are waited for. */
static int collect_ids(struct session *session)
{
        struct usage_measuring *measuring = &session->measuring;

        measuring->n_ids = measuring->n_asked = 0;
        measuring->ids = calloc(map_count(&session->sandboxes) + 1, sizeof(*measuring->ids));
        if (!measuring->ids)
                return error_origin(-ENOMEM);
        for (struct map_node *node = map_first(&session->sandboxes); node; node = map_next(node)) {
                struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                if (!is_waited_for(measuring, sandbox))
                        continue;
                sandbox->asked = measuring->last;
                memcpy(measuring->ids[measuring->n_ids++], sandbox->record.sandbox_id, ID_BUFFER);
        }
        qsort(measuring->ids, measuring->n_ids, sizeof(*measuring->ids), compare_texts);
        return 0;
}

static void begin(struct session *session)
{
        struct usage_measuring *measuring = &session->measuring;
        struct usage_watch *watch;

        while ((watch = LIST_FIRST(&measuring->late))) {
                LIST_REMOVE(watch, waiting_link);
                LIST_INSERT_HEAD(&measuring->waiting, watch, waiting_link);
        }
        measuring->is_under_way = true;
        measuring->last.number++;
        measuring->last.clock_usec = clock_monotonic_usec();
        measuring->last.time_usec = time_now_usec();
        if (collect_ids(session) != 0 || measuring->n_ids == 0 || request_page(session) != 0)
                finish(session);
}

void usage_measure(struct usage_watch *watch)
{
        struct session *session = watch->session;

        if (is_fresh(watch)) {
                usage_watch_tell(watch);
                return;
        }
        LIST_INSERT_HEAD(&session->measuring.late, watch, waiting_link);
        watch->is_waiting = true;
        if (!session->measuring.is_under_way)
                begin(session);
}

void usage_measure_forget(struct usage_watch *watch)
{
        if (watch->is_waiting)
                stop_waiting(watch);
}
