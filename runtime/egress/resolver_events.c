#include "runtime/egress/resolver_events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum { PAUSE_USEC = 1000000 };

struct resolver_events {
        sd_event_source *timer; /* enabled while one is listed */
        LIST_HEAD(, resolver_counts) listed;
};

/* False: there was nothing to report. */
static bool report_counts(struct resolver_counts *counts)
{
        bool is_any = false;

        for (size_t i = 0; i < _RESOLVER_REASON_N; i++) {
                const struct resolver_event event = { .reason = (enum resolver_reason)i,
                                                      .count = counts->reasons[i].n,
                                                      .name = counts->reasons[i].name,
                                                      .type = counts->reasons[i].type,
                                                      .asked_usec = counts->reasons[i].asked_usec,
                                                      .rule = -1 };

                if (event.count == 0)
                        continue;
                is_any = true;
                counts->reasons[i].n = 0;
                counts->policy->report(&event, counts->userdata);
        }
        return is_any;
}

static void unlist(struct resolver_counts *counts)
{
        LIST_REMOVE(counts, link);
        counts->is_listed = false;
}

static int arm(struct resolver_events *events)
{
        int r = sd_event_source_set_time_relative(events->timer, PAUSE_USEC);

        if (r >= 0)
                r = sd_event_source_set_enabled(events->timer, SD_EVENT_ONESHOT);
        return r < 0 ? error_origin(r) : 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct resolver_events *events = userdata;
        struct resolver_counts *counts;
        struct resolver_counts *next;

        (void)source;
        (void)usec;
        for (counts = LIST_FIRST(&events->listed); counts; counts = next) {
                next = LIST_NEXT(counts, link);
                if (!report_counts(counts))
                        unlist(counts);
        }
        return LIST_EMPTY(&events->listed) ? 0 : arm(events);
}

DEFINE_CLEANUP(struct resolver_events, resolver_events_free)

int resolver_events_new(sd_event *loop, struct resolver_events **ret_events)
{
        _cleanup_(resolver_events_freep) struct resolver_events *events =
                calloc(1, sizeof(*events));
        int r;

        if (!events)
                return error_origin(-ENOMEM);
        LIST_INIT(&events->listed);
        r = sd_event_add_time_relative(loop, &events->timer, CLOCK_MONOTONIC, 0, 0, on_timer,
                                       events);
        if (r >= 0)
                r = sd_event_source_set_enabled(events->timer, SD_EVENT_OFF);
        if (r < 0)
                return error_origin(r);
        *ret_events = take(events);
        return 0;
}

struct resolver_events *resolver_events_free(struct resolver_events *events)
{
        if (!events)
                return NULL;
        assert(LIST_EMPTY(&events->listed));
        sd_event_source_disable_unref(events->timer);
        free(events);
        return NULL;
}

void resolver_counts_init(struct resolver_counts *counts, const struct resolver_policy *policy,
                          void *userdata)
{
        *counts = (struct resolver_counts){ .policy = policy, .userdata = userdata };
}

void resolver_counts_deinit(struct resolver_counts *counts)
{
        (void)report_counts(counts);
        if (counts->is_listed)
                unlist(counts);
}

void resolver_count(struct resolver_events *events, struct resolver_counts *counts,
                    enum resolver_reason reason, const struct dns_query *query)
{
        counts->reasons[reason].n++;
        counts->reasons[reason].asked_usec = time_now_usec();
        counts->reasons[reason].type = query->type;
        memcpy(counts->reasons[reason].name, query->name, sizeof(query->name));
        if (counts->is_listed)
                return;
        (void)report_counts(counts);
        LIST_INSERT_HEAD(&events->listed, counts, link);
        counts->is_listed = true;
        if (sd_event_source_get_enabled(events->timer, NULL) == 0)
                (void)arm(events);
}
