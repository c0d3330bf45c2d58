#include "cli/top_view.h"

#include <stdlib.h>
#include <string.h>

#include "cli/memory.h"
#include "cli/message.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "runtime/base/macros.h"

static void free_rows(struct top_view *view)
{
        for (size_t i = 0; view->sandboxes && i < view->now->n_sandboxes; i++)
                free(view->sandboxes[i].executions);
        free(view->sandboxes);
        view->sandboxes = NULL;
}

void top_view_deinit(struct top_view *view)
{
        free_rows(view);
        message_free(view->coming);
        message_free(view->held);
        message_free(view->before);
        message_free(view->now);
        *view = (struct top_view){ 0 };
}

static int64_t time_of(const Hotcell__V1__WatchUsageResponse *message)
{
        const Google__Protobuf__Timestamp *time = message->time;

        return time ? time->seconds * 1000000000 + time->nanos : 0;
}

static int compare_ids(const void *left, const void *right)
{
        const Hotcell__V1__SandboxUsageNow *const *a = left, *const *b = right;

        return strcmp((*a)->sandbox_id, (*b)->sandbox_id);
}

static const Hotcell__V1__SandboxUsageNow *
find_sandbox(const Hotcell__V1__WatchUsageResponse *message, const Hotcell__V1__SandboxUsageNow *of)
{
        Hotcell__V1__SandboxUsageNow **found;

        if (!message || message->n_sandboxes == 0)
                return NULL;
        found = bsearch(&of, message->sandboxes, message->n_sandboxes, sizeof(void *), compare_ids);
        return found ? *found : NULL;
}

static const Hotcell__V1__ExecutionUsageNow *
find_execution(const Hotcell__V1__SandboxUsageNow *sandbox, const char *execution_id)
{
        for (size_t i = 0; sandbox && i < sandbox->n_executions; i++) {
                if (strcmp(sandbox->executions[i]->execution_id, execution_id) == 0)
                        return sandbox->executions[i];
        }
        return NULL;
}

static bool has_field(const Hotcell__V1__Usage *usage, const char *name)
{
        for (size_t i = 0; i < usage->n_missing; i++) {
                if (strcmp(usage->missing[i], name) == 0)
                        return false;
        }
        return true;
}

/* An amount that shrank is of something else: nothing is known of what was used. */
static double rate(double now, double before, double seconds)
{
        return now > before ? (now - before) / seconds : 0;
}

static struct top_rates rates_of(const Hotcell__V1__Usage *now, const Hotcell__V1__Usage *before,
                                 double seconds)
{
        struct top_rates rates = { 0 };

        if (!now || !before || seconds <= 0)
                return rates;
        rates.are_known = true;
        rates.cpus =
                rate(message_seconds(now->cpu_time), message_seconds(before->cpu_time), seconds);
        rates.has_waiting = has_field(now, "run_queue_wait");
        rates.waiting = rate(message_seconds(now->run_queue_wait),
                             message_seconds(before->run_queue_wait), seconds);
        rates.has_traffic = has_field(now, "sent_bytes");
        rates.sent_bytes = rate((double)now->sent_bytes, (double)before->sent_bytes, seconds);
        rates.received_bytes =
                rate((double)now->received_bytes, (double)before->received_bytes, seconds);
        return rates;
}

/* Between two readings of a sandbox itself, which may be some time after a measurement began. */
static double seconds_between(const Hotcell__V1__Usage *now, const Hotcell__V1__Usage *before,
                              double otherwise)
{
        double seconds = 0;

        if (now && before)
                seconds = message_seconds(now->wall_time) - message_seconds(before->wall_time);
        return seconds > 0 ? seconds : otherwise;
}

static void fill_sandbox(struct top_sandbox *row, const Hotcell__V1__SandboxUsageNow *now,
                         const Hotcell__V1__SandboxUsageNow *before, double seconds)
{
        const Hotcell__V1__Usage *total = now->usage ? now->usage->total : NULL;
        const Hotcell__V1__Usage *total_before =
                before && before->usage ? before->usage->total : NULL;

        if (seconds > 0)
                seconds = seconds_between(total, total_before, seconds);
        row->now = now;
        row->rates = rates_of(total, total_before, seconds);
        row->executions = allocate(now->n_executions, sizeof(*row->executions));
        for (size_t i = 0; i < now->n_executions; i++) {
                const Hotcell__V1__ExecutionUsageNow *execution = now->executions[i];
                const Hotcell__V1__ExecutionUsageNow *earlier =
                        find_execution(before, execution->execution_id);

                row->executions[i] = (struct top_execution){
                        .now = execution,
                        .rates = rates_of(execution->usage, earlier ? earlier->usage : NULL,
                                          seconds),
                };
        }
}

static void fill(struct top_view *view)
{
        double seconds =
                view->before ? (double)(time_of(view->now) - time_of(view->before)) / 1e9 : 0;

        view->has_rates = seconds > 0;
        view->sandboxes = allocate(view->now->n_sandboxes, sizeof(*view->sandboxes));
        for (size_t i = 0; i < view->now->n_sandboxes; i++) {
                const Hotcell__V1__SandboxUsageNow *now = view->now->sandboxes[i];

                fill_sandbox(&view->sandboxes[i], now, find_sandbox(view->before, now), seconds);
        }
}

/* Moves what @from has to the end of @to. */
static void append(Hotcell__V1__WatchUsageResponse *to, Hotcell__V1__WatchUsageResponse *from)
{
        to->sandboxes =
                reallocate(to->sandboxes, to->n_sandboxes + from->n_sandboxes, sizeof(void *));
        for (size_t i = 0; i < from->n_sandboxes; i++)
                to->sandboxes[to->n_sandboxes++] = from->sandboxes[i];
        from->n_sandboxes = 0;
}

static void show(struct top_view *view, Hotcell__V1__WatchUsageResponse *whole)
{
        free_rows(view);
        message_free(view->before);
        view->before = view->now;
        view->now = whole;
        /* After a pause: since what came last, not since what was shown. */
        if (view->held) {
                message_free(view->before);
                view->before = take(view->held);
        }
        fill(view);
        top_view_sort(view, view->sort);
}

bool top_view_take(struct top_view *view, Hotcell__V1__WatchUsageResponse *message)
{
        bool is_last = !message->more;

        if (view->coming && time_of(view->coming) != time_of(message))
                top_view_forget_coming(view);
        if (view->coming) {
                append(view->coming, message);
                message_free(message);
        } else {
                view->coming = message;
        }
        if (!is_last)
                return false;
        if (view->coming->n_sandboxes > 0)
                qsort(view->coming->sandboxes, view->coming->n_sandboxes, sizeof(void *),
                      compare_ids);
        if (view->is_paused) {
                message_free(view->held);
                view->held = take(view->coming);
                return false;
        }
        show(view, take(view->coming));
        return true;
}

void top_view_forget_coming(struct top_view *view)
{
        message_free(view->coming);
        view->coming = NULL;
}

static int descending(double left, double right)
{
        return (left < right) - (left > right);
}

static int by_id(const struct top_sandbox *a, const struct top_sandbox *b)
{
        return strcmp(a->now->sandbox_id, b->now->sandbox_id);
}

static int compare_cpu(const void *left, const void *right)
{
        const struct top_sandbox *a = left, *b = right;
        int order = descending(a->rates.cpus, b->rates.cpus);

        return order ? order : by_id(a, b);
}

static int64_t memory_of(const struct top_sandbox *sandbox)
{
        return sandbox->now->usage ? sandbox->now->usage->memory_bytes : 0;
}

static int compare_memory(const void *left, const void *right)
{
        const struct top_sandbox *a = left, *b = right;
        int order = descending((double)memory_of(a), (double)memory_of(b));

        return order ? order : by_id(a, b);
}

static int compare_name(const void *left, const void *right)
{
        const struct top_sandbox *a = left, *b = right;
        int order = strcmp(a->now->name, b->now->name);

        return order ? order : by_id(a, b);
}

void top_view_sort(struct top_view *view, enum top_sort sort)
{
        static int (*const orders[])(const void *, const void *) = {
                [TOP_SORT_CPU] = compare_cpu,
                [TOP_SORT_MEMORY] = compare_memory,
                [TOP_SORT_NAME] = compare_name,
        };

        view->sort = sort;
        if (view->now)
                qsort(view->sandboxes, view->now->n_sandboxes, sizeof(*view->sandboxes),
                      orders[sort]);
}
