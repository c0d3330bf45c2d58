/* What all files of the session share: the maps, and small helpers for answers and requests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "server/session/egress.h"
#include "server/session/egress_intake.h"
#include "server/session/execution.h"
#include "server/session/map.h"
#include "server/session/room.h"
#include "server/session/runtime_client.h"
#include "server/session/sandbox.h"
#include "server/session/session.h"
#include "server/session/shares.h"
#include "server/session/usage_watch.h"
#include "server/store/store.h"

/*
 *   WAITING --connected--> RECONCILING --all compared--> SERVING
 *      ^------------ runtime lost ---------'---------------'
 */
enum session_phase {
        SESSION_WAITING,     /* no runtime */
        SESSION_RECONCILING, /* the database and the runtime are being compared */
        SESSION_SERVING,
        _SESSION_PHASE_N,
};

struct session_watch {
        LIST_ENTRY(session_watch) link;
        LIST_ENTRY(session_watch) wake_link;
        struct session *session;
        char owner[OWNER_BUFFER];
        bool is_wake_pending;
        void (*on_event)(void *userdata);
        void *userdata;
};

struct session {
        sd_event *loop;
        struct store *store;
        struct session_config config;
        struct runtime_client *runtime;
        enum session_phase phase;
        bool has_adopted;    /* the living of the last server are here */
        bool was_reconciled; /* and were dealt with */
        struct reconciliation *reconciliation;

        struct map sandboxes;  /* by id */
        struct map cgroups;    /* sandboxes by the id of their cgroup, once they have one */
        struct map names;      /* by owner and name */
        struct map executions; /* by id: those not ended, and those retained */
        struct map claims;     /* by owner, method and request_id */
        struct shares shares;
        struct room_waiters room_waiters;
        uint64_t n_refusals;           /* at limits */
        struct log_quota refusals_log; /* of owners who hold nothing */
        TAILQ_HEAD(, execution) retained;
        sd_event_source *retention_timer;
        struct ring *spare_ring; /* for the next execution; may be NULL */
        struct egress_client *egress_client;
        bool egress_is_silent; /* to the last probe, on this connection */
        struct restoration restoration;
        struct egress_intake intake;
        struct egress_queue egress;
        struct usage_measuring measuring;

        LIST_HEAD(, session_watch) watches;
        /* Who is told from the loop, soon. */
        sd_event_source *wake;
        LIST_HEAD(, execution_reader) readers_to_wake;
        LIST_HEAD(, session_watch) watches_to_wake;
        LIST_HEAD(, execution) executions_to_resume;

        unsigned n_pending; /* answers that will still come, apart from those of sandboxes */
        bool is_ready;      /* as last told */
        void (*on_ready_change)(void *userdata);
        void *ready_userdata;
        bool is_leaving; /* to a successor */
        bool is_stopping;
        bool is_stopped;
        sd_event_source *stop_check;
        void (*on_stopped)(void *userdata);
        void *stopped_userdata;

        /* For session_info and session_probe_walls. */
        Hotcell__Runtime__V1__FromRuntime *probed; /* newer walls than the welcome's, or NULL */
        struct session_wall *walls;
        size_t n_walls;
        bool has_direct_mode;
        struct session_metering metering; /* as last told */
        uint64_t metering_usec;           /* when: monotonic */
        struct session_template *templates;
        size_t n_templates;
};

/* Results. */
__attribute__((format(printf, 2, 3))) struct session_result result_of(int outcome,
                                                                      const char *format, ...);
struct session_result result_of_store(int result, const char *what);

/* The runtime: each comes back as SESSION_E_… and a sentence. @what: such as `sandbox sbx-1`. */
struct session_result result_of_runtime(const Hotcell__Runtime__V1__FromRuntime *answer,
                                        const char *what);
Hotcell__Runtime__V1__SandboxLimits limits_to_runtime(const struct sandbox_limits *limits);
struct sandbox_limits limits_from_runtime(const Hotcell__Runtime__V1__SandboxLimits *wire);
int session_request(struct session *session, Hotcell__Runtime__V1__ToRuntime *request,
                    runtime_on_answer on_answer, void *userdata);
/* What all of a sandbox, or (unless it is empty) one of its processes used so far. */
int session_read_usage(struct session *session, const char *sandbox_id, const char *process_id,
                       runtime_on_answer on_answer, void *userdata);
/* Likewise of a process; then its peaks begin anew, and what runs in it counts as earlier work. */
int session_begin_usage(struct session *session, const char *sandbox_id, const char *process_id,
                        runtime_on_answer on_answer, void *userdata);
void session_signal_process(struct session *session, const char *sandbox_id, const char *process_id,
                            int signal);
/* The runtime keeps descriptors, so that a successor can take a process over. */
bool session_can_keep(const struct session *session);
bool session_can_limit(const struct session *session);
int session_keep(struct session *session, const char *sandbox_id, const char *process_id,
                 const int *fds, size_t n_fds, runtime_on_answer on_answer, void *userdata);
int session_take_process(struct session *session, const char *sandbox_id, const char *process_id,
                         runtime_on_answer on_answer, void *userdata);
void session_acknowledge_end(struct session *session, const char *sandbox_id,
                             const char *process_id);
int session_destroy_sandbox(struct session *session, const char *sandbox_id,
                            runtime_on_answer on_answer, void *userdata);

/* Lookups. */
struct sandbox *session_find_sandbox(struct session *session, const char *owner,
                                     const char *sandbox_id);
struct execution *session_find_execution(struct session *session, const char *owner,
                                         const char *execution_id);

/* Sets a timer that is NULL or was used before; zero @usec disarms it. */
int session_arm(struct session *session, sd_event_source **timer, uint64_t usec,
                sd_event_time_handler_t handler, void *userdata);

/* Wakes watches after a commit; tells on_ready_change; ends the stop when nothing is left. */
void session_on_sandbox_event(struct session *session, const char *owner);
void session_check_ready(struct session *session);
void session_check_stopped(struct session *session);

/* Told from the loop, soon. */
void session_resume_soon(struct session *session, struct execution *execution);
void session_wake_reader_soon(struct session *session, struct execution_reader *reader);

/* Retention (retention.c). */
void session_retain(struct session *session, struct execution *execution);
void session_forget_all(struct session *session);

/* One that a predecessor had seen end, with what it said. */
void session_retain_kept(struct session *session, const struct execution_record *record,
                         const struct store_blob *output);

/* Reconciliation (reconcile.c). */
void session_reconcile(struct session *session);
void session_reconcile_cancel(struct session *session);
void session_on_reconciled(struct session *session);

/* An end that the runtime tells while they are compared. True: it will be delivered later. */
bool session_reconcile_hear_process(struct session *session,
                                    const Hotcell__Runtime__V1__ProcessEnded *ended);
bool session_reconcile_hear_sandbox(struct session *session,
                                    const Hotcell__Runtime__V1__SandboxEnded *ended);

/* A process ended; tells whose it is, or that it was nobody's. */
void session_on_process_ended(struct session *session,
                              const Hotcell__Runtime__V1__ProcessEnded *ended);

/* What the runtime is and has (info.c). */
int session_build_info(struct session *session);
void session_note_metering(struct session *session, const Hotcell__Runtime__V1__MeterState *state);
void session_drop_info(struct session *session);
bool session_walls_hold(const struct session *session, const char **ret_missing);
const Hotcell__Runtime__V1__Template *session_find_template(const struct session *session,
                                                            const char *name);
const Hotcell__Runtime__V1__Kernel *
template_find_kernel(const Hotcell__Runtime__V1__Template *template, const char *language);
