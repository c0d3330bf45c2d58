#include "runtime/supervisor/sweeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "runtime/supervisor/id_ranges.h"

enum {
        PAUSE_MIN_USEC = 1000,
        PAUSE_MAX_USEC = 250000,
        ATTEMPTS_BEFORE_WARNING = 40, /* some 10 s */
};

struct doomed {
        STAILQ_ENTRY(doomed) link;
        struct cgroup group;
        bool has_ids;
        uint32_t id_base;
        unsigned n_attempts;
};

struct sweeper {
        struct id_ranges *ids;
        sd_event_source *timer; /* enabled while something is left */
        STAILQ_HEAD(, doomed) doomed;
        uint64_t pause_usec;
};

/* False: try again. */
static bool remove_doomed(struct sweeper *sweeper, struct doomed *doomed)
{
        static struct log_quota quota;
        int r = cgroup_remove(&doomed->group);

        if (r) {
                /* What is in it may be nobody's: a spawner that died had cloned it. */
                (void)cgroup_kill(&doomed->group);
                if (++doomed->n_attempts == ATTEMPTS_BEFORE_WARNING)
                        log_warning_of(&quota, "a group cannot be removed: group=%s error=%s",
                                       doomed->group.path,
                                       r == CGROUP_E_BUSY ? "not empty" : strerrorname_np(-r));
                return false;
        }
        if (doomed->has_ids)
                id_ranges_release(sweeper->ids, doomed->id_base);
        return true;
}

static void sweep(struct sweeper *sweeper)
{
        STAILQ_HEAD(, doomed) left = STAILQ_HEAD_INITIALIZER(left);

        while (!STAILQ_EMPTY(&sweeper->doomed)) {
                struct doomed *doomed = STAILQ_FIRST(&sweeper->doomed);

                STAILQ_REMOVE_HEAD(&sweeper->doomed, link);
                if (remove_doomed(sweeper, doomed))
                        reserve_free(doomed);
                else
                        STAILQ_INSERT_TAIL(&left, doomed, link);
        }
        STAILQ_CONCAT(&sweeper->doomed, &left);
}

static int schedule(struct sweeper *sweeper)
{
        int r = sd_event_source_set_time_relative(sweeper->timer, sweeper->pause_usec);

        if (r < 0)
                return error_origin(r);
        return sd_event_source_set_enabled(sweeper->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sweeper *sweeper = userdata;

        (void)source;
        (void)usec;
        sweep(sweeper);
        sweeper->pause_usec = MIN(sweeper->pause_usec * 2, PAUSE_MAX_USEC);
        if (!sweeper_is_idle(sweeper))
                (void)schedule(sweeper);
        return 0;
}

int sweeper_new(sd_event *event, struct id_ranges *ids, struct sweeper **ret_sweeper)
{
        _cleanup_(freep) struct sweeper *sweeper = calloc(1, sizeof(*sweeper));
        int r;

        if (!sweeper)
                return error_origin(-ENOMEM);
        sweeper->ids = ids;
        STAILQ_INIT(&sweeper->doomed);
        r = sd_event_add_time_relative(event, &sweeper->timer, CLOCK_MONOTONIC, 0, 1, on_timer,
                                       sweeper);
        if (r >= 0)
                r = sd_event_source_set_enabled(sweeper->timer, SD_EVENT_OFF);
        if (r < 0) {
                sd_event_source_disable_unref(sweeper->timer);
                return error_origin(r);
        }
        *ret_sweeper = take(sweeper);
        return 0;
}

struct sweeper *sweeper_free(struct sweeper *sweeper)
{
        if (!sweeper)
                return NULL;
        sweep(sweeper);
        while (!STAILQ_EMPTY(&sweeper->doomed)) {
                struct doomed *doomed = STAILQ_FIRST(&sweeper->doomed);

                log_warning("left a group behind: group=%s", doomed->group.path);
                STAILQ_REMOVE_HEAD(&sweeper->doomed, link);
                reserve_free(doomed);
        }
        sd_event_source_disable_unref(sweeper->timer);
        free(sweeper);
        return NULL;
}

static void add(struct sweeper *sweeper, struct doomed doomed)
{
        struct doomed *kept;

        if (remove_doomed(sweeper, &doomed))
                return;
        kept = reserve_alloc_surely(sizeof(*kept));
        *kept = doomed;
        STAILQ_INSERT_TAIL(&sweeper->doomed, kept, link);
        sweeper->pause_usec = PAUSE_MIN_USEC;
        (void)schedule(sweeper);
}

void sweeper_add_leaf(struct sweeper *sweeper, const struct cgroup *group)
{
        add(sweeper, (struct doomed){ .group = *group });
}

void sweeper_add_sandbox(struct sweeper *sweeper, const struct cgroup *group, uint32_t id_base)
{
        add(sweeper, (struct doomed){ .group = *group, .has_ids = true, .id_base = id_base });
}

bool sweeper_is_idle(const struct sweeper *sweeper)
{
        return STAILQ_EMPTY(&sweeper->doomed);
}
