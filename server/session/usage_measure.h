/* What usage_watch.c and usage_measure.c share: who waits for a measurement, and is told of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/session/session.h"
#include "server/store/records.h"

struct sandbox;

struct usage_watch {
        LIST_ENTRY(usage_watch) waiting_link;
        struct session *session;
        char owner[OWNER_BUFFER];
        char sandbox_id[ID_BUFFER]; /* empty: all */
        uint64_t period_usec;
        uint64_t due_usec; /* monotonic: when the last one was due, or the one to come is */
        sd_event_source *timer;
        uint64_t number;   /* of the last measurement when it was told: none comes twice */
        int64_t time_usec; /* when what was told then was measured */
        bool is_waiting;   /* for the measurement that is under way */
        void (*on_measured)(void *userdata);
        void *userdata;
};

/* It tells of that sandbox. */
bool usage_watch_has(const struct usage_watch *watch, const struct sandbox *sandbox);

/* What was measured; it may be freed by what it hears. */
void usage_watch_tell(struct usage_watch *watch);

/* Tells the watch: at once when what was read serves it, else when it was measured. */
void usage_measure(struct usage_watch *watch);

/* It does not wait any more. */
void usage_measure_forget(struct usage_watch *watch);
