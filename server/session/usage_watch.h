/*
 * What living sandboxes and what runs in them use now. A measurement is one of the sandboxes that
 * somebody waits for and of no others, and one is under way at a time. What it read serves all
 * watches of the next 100 ms: many watches of a sandbox cost no more than one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/session/meters.h"
#include "server/session/pressure.h"
#include "server/session/session.h"
#include "server/store/records.h"

struct usage_watch;

/* The session's part: what all watches share. Zeroed is the start. */
struct usage_measuring {
        LIST_HEAD(, usage_watch) waiting; /* for the one under way */
        LIST_HEAD(, usage_watch) late;    /* came meanwhile: for the next one */
        struct usage_moment last;         /* or the one under way */
        bool is_under_way;
        char (*ids)[ID_BUFFER]; /* that it asks for, in order */
        size_t n_ids, n_asked;  /* of these, so many are answered */
};

enum {
        USAGE_WATCH_E_OVER = 1, /* usage_watch_is_over */
};

/*
 * @sandbox_id NULL: all sandboxes of @owner. @on_measured comes at once (later than this returns),
 * and then every @period_usec, but not before usage_watch_go_on: who is slow misses measurements.
 * Without an answer of the runtime it comes, too: nothing is measured then.
 */
int usage_watch_new(struct session *session, const char *owner, const char *sandbox_id,
                    uint64_t period_usec, void (*on_measured)(void *userdata), void *userdata,
                    struct usage_watch **ret_watch);
struct usage_watch *usage_watch_free(struct usage_watch *watch);

DEFINE_CLEANUP(struct usage_watch, usage_watch_free)

/* Not 0: it cannot. */
int usage_watch_go_on(struct usage_watch *watch);

/* Its one sandbox does not live any more. */
bool usage_watch_is_over(const struct usage_watch *watch);

/* When what it was told last was measured. */
int64_t usage_watch_time_usec(const struct usage_watch *watch);

/* What runs in a sandbox: amounts since it started. */
struct execution_now {
        const char *execution_id;
        const char *context_id;
        int64_t memory_bytes; /* of its context */
        struct usage usage;
};

/* At most one execution runs in each context. */
enum { USAGE_EXECUTIONS_MAX = 16 };

struct sandbox_now {
        const struct sandbox_record *record;
        bool is_measured;
        struct sandbox_usage usage;
        struct execution_now executions[USAGE_EXECUTIONS_MAX];
        size_t n_executions;
        struct sandbox_pressure pressures[_PRESSURE_KIND_N]; /* also when it was not measured */
        size_t n_pressures;
};

/* Tells @on_sandbox of each sandbox that is watched, by id, as last measured. Text is good until
 * control returns to the loop. 0 or USAGE_WATCH_E_OVER. */
int usage_watch_each(const struct usage_watch *watch,
                     void (*on_sandbox)(void *userdata, const struct sandbox_now *now),
                     void *userdata);
