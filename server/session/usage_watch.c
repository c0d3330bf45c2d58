/*
 * A measurement has a number: what was asked for and not read, as it is new or the runtime was
 * lost, has an older one and is not told as measured.
 */
#include "server/session/usage_watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/session/session_private.h"
#include "server/session/usage_measure.h"

enum { SOON_USEC = 1 };

bool usage_watch_has(const struct usage_watch *watch, const struct sandbox *sandbox)
{
        return strcmp(sandbox->record.owner, watch->owner) == 0 &&
               (!*watch->sandbox_id || strcmp(sandbox->record.sandbox_id, watch->sandbox_id) == 0);
}

static bool is_read(const struct sandbox *sandbox)
{
        return sandbox->asked.number > 0 && sandbox->now.number == sandbox->asked.number;
}

/* When the first of all that is told was read. */
static int64_t time_of(const struct usage_watch *watch)
{
        int64_t time_usec = time_now_usec();

        for (struct map_node *node = map_first(&watch->session->sandboxes); node;
             node = map_next(node)) {
                const struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                if (usage_watch_has(watch, sandbox) && is_read(sandbox))
                        time_usec = MIN(time_usec, sandbox->asked.time_usec);
        }
        return time_usec;
}

void usage_watch_tell(struct usage_watch *watch)
{
        watch->number = watch->session->measuring.last.number;
        watch->time_usec = time_of(watch);
        watch->on_measured(watch->userdata);
}

static int on_due(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        usage_measure(userdata);
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
        usage_measure_forget(watch);
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
        return watch->time_usec;
}

static void describe_execution(const struct execution *execution, uint64_t clock_usec,
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
        if (clock_usec > execution->start_monotonic_usec)
                usage->wall_usec = (int64_t)(clock_usec - execution->start_monotonic_usec);
        usage->stdout_bytes = known->stdout_bytes;
        usage->stderr_bytes = known->stderr_bytes;
        usage->rich_bytes = known->rich_bytes;
}

static void describe(const struct sandbox *sandbox, struct sandbox_now *ret_now)
{
        const struct usage_moment *asked = &sandbox->asked;
        const struct context *context;

        *ret_now = (struct sandbox_now){ .record = &sandbox->record };
        ret_now->n_pressures = sandbox_pressures(sandbox, ret_now->pressures);
        ret_now->is_measured = is_read(sandbox);
        if (!ret_now->is_measured)
                return;
        ret_now->usage = sandbox->now.usage;
        ret_now->usage.total.wall_usec =
                sandbox_wall_usec(sandbox, &ret_now->usage.total, asked->time_usec);
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                const struct execution *execution = context->current;

                if (execution && execution->phase == PHASE_RUNNING &&
                    execution->now.number == asked->number &&
                    ret_now->n_executions < USAGE_EXECUTIONS_MAX)
                        describe_execution(execution, asked->clock_usec,
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
                describe(found[i], &now);
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
        describe(sandbox, &now);
        on_sandbox(userdata, &now);
        return 0;
}
