/* A living sandbox: its machine, its timers and its contexts. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "server/session/context.h"
#include "server/session/egress_runs.h"
#include "server/session/enforcement.h"
#include "server/session/limiting.h"
#include "server/session/map.h"
#include "server/session/meters.h"
#include "server/session/pressure.h"
#include "server/session/session.h"

#include "hotcell/runtime/v1/runtime.pb-c.h"

enum { SANDBOX_CONTEXTS_MAX = 16 };

/* Somebody who wants to hear of the creation or of the end. */
struct sandbox_waiter {
        STAILQ_ENTRY(sandbox_waiter) link;
        session_on_sandbox on_done;
        void *userdata;
        bool created; /* it asked for the sandbox first */
};
STAILQ_HEAD(sandbox_waiters, sandbox_waiter);

/*
 *   CREATING --row and runtime--> RUNNING --sandbox_end--> ENDING --recorded--> ENDED
 *       `---------- refused: the runtime has nothing of it ----^
 *
 * The states are those of the record (enum sandbox_state).
 */
struct sandbox {
        struct map_node by_id;     /* in session's map, by sandbox_id */
        struct map_node by_cgroup; /* by the id of its cgroup, when it has one */
        struct map_node by_name;   /* by owner and name, when it has a name */
        char name_key[OWNER_BUFFER + ID_BUFFER];
        struct session *session;
        struct share_owner *holder; /* its owner, with what is its */
        struct sandbox_record record;
        struct request_record *request;                 /* until it is remembered; may be NULL */
        const Hotcell__Runtime__V1__Template *template; /* NULL: the runtime has it no more */
        struct context_list contexts;
        size_t n_contexts;
        size_t n_active;                 /* executions that are not recorded as ended */
        LIST_HEAD(, execution) unbilled; /* what of its meters is theirs, and in no row yet */
        size_t waiting_bytes;            /* of code and environments that were not sent yet */
        LIST_HEAD(, execution_reader) readers;
        sd_event_source *expire_timer;
        sd_event_source *idle_timer;
        bool is_idle; /* as the idle timer knows it */
        sd_event_source *bill_timer;
        struct bill *bill; /* under way; NULL: none is */
        struct sandbox_waiters create_waiters;
        struct sandbox_waiters end_waiters;
        unsigned n_pending; /* answers that will still come */
        /* While CREATING: what is still awaited, and what failed. */
        bool is_row_pending;
        bool is_runtime_pending;
        bool is_running_recorded; /* or being so */
        bool is_in_runtime;
        bool is_in_store;
        struct session_result failure; /* of the creation */
        bool was_ending;               /* a predecessor had begun its end */
        struct enforcement enforcement;
        struct limiting limiting;
        struct egress_runs egress_runs;
        struct pressures pressures;
        bool is_egress_pending;   /* an update is about its policy */
        int64_t rules_on_way;     /* of that */
        bool is_egress_recording; /* and that is not recorded yet */
        struct {
                uint64_t last; /* number of the update that came last */
                /* and of those that set these last */
                uint64_t labels, expire_time, idle_timeout, limits;
        } updates;
        int64_t last_egress_version; /* no version comes twice, also if one was not recorded */
        struct usage_now now;
        struct sandbox_usage last_read; /* as far as is known: for bills, if its runtime is lost */
        struct usage_moment asked;      /* of the last measurement that asked for it */
        /* While ENDING: */
        bool is_end_wanted;
        bool has_usage;          /* the last reading is there */
        bool is_destroyed;       /* nothing of it runs any more */
        unsigned n_readings;     /* last readings, and the record of it, before it is destroyed */
        unsigned n_end_tries;    /* of recording it */
        bool is_end_recording;   /* its last row is being written */
        bool is_ending_recorded; /* or being so: that it ends, with what it used until then */
};

/* Makes one and begins its creation; the waiters hear of it. */
int sandbox_new(struct session *session, const struct sandbox_request *request, bool is_one_shot,
                struct sandbox **ret_sandbox);

/* One that the runtime has and the database knows, after a restart of the server. */
int sandbox_adopt(struct session *session, const struct sandbox_record *record,
                  struct sandbox **ret_sandbox);
struct sandbox *sandbox_free(struct sandbox *sandbox);

/* How long one that lives had lived at @time_usec, when its meters said @metered; by the wall clock
 * if they do not say it. */
int64_t sandbox_wall_usec(const struct sandbox *sandbox, const struct usage *metered,
                          int64_t time_usec);

void sandbox_create(struct sandbox *sandbox);

/* What it holds of the shares, from its first moment to its last. -ENOMEM. */
int sandbox_take_shares(struct sandbox *sandbox);

/* What its owner is charged with for its limits is now so much. */
void sandbox_promise(struct sandbox *sandbox, const struct sandbox_limits *limits);
void sandbox_give_shares(struct sandbox *sandbox);

/* Begins the end; the first cause stays. */
void sandbox_end(struct sandbox *sandbox, enum cause cause, const char *message);

/* Between the files of a sandbox. */
void sandbox_enter(struct sandbox *sandbox, enum sandbox_state next);
void sandbox_answer(struct sandbox *sandbox, struct sandbox_waiters *waiters,
                    const struct session_result *result);
void sandbox_destroy(struct sandbox *sandbox);
void sandbox_end_with_runtime(struct sandbox *sandbox);
bool sandbox_is_idle(const struct sandbox *sandbox);
void sandbox_arm_idle(struct sandbox *sandbox);

/* A reading of all of it: the last one, unless another one comes. */
void sandbox_take_meters(struct sandbox *sandbox, const Hotcell__Runtime__V1__Usage *meters);

/* The runtime went away, and everything with it. */
void sandbox_on_runtime_lost(struct sandbox *sandbox);

/* Something of it changed that its end or its idle time may wait for. */
void sandbox_check(struct sandbox *sandbox);

/* Sets the timers to what the record says. */
void sandbox_arm_timers(struct sandbox *sandbox);

struct context *sandbox_find_context(struct sandbox *sandbox, const char *context_id);

int sandbox_wait(struct sandbox_waiters *waiters, session_on_sandbox on_done, void *userdata,
                 bool created);

/* A process of it ended. False: it is none of ours. */
bool sandbox_on_process_ended(struct sandbox *sandbox,
                              const Hotcell__Runtime__V1__ProcessEnded *ended);
