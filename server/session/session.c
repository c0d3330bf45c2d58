/*
 * The session as a whole: its connection to the runtime, who is told what from the loop, and the
 * stop.
 */
#include "server/session/session.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/again.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/journal.h"
#include "server/session/pressure.h"
#include "server/session/session_private.h"

static void session_freep(struct session **session)
{
        (void)session_free(*session);
}

static const struct {
        const char *name;
        unsigned next;
} session_phases[] = {
        [SESSION_WAITING] = { "waiting", BIT(SESSION_RECONCILING) },
        [SESSION_RECONCILING] = { "reconciling", BIT(SESSION_SERVING) | BIT(SESSION_WAITING) },
        [SESSION_SERVING] = { "serving", BIT(SESSION_WAITING) },
};
static_assert(ARRAY_SIZE(session_phases) == _SESSION_PHASE_N, "every phase has a row");

static void session_enter(struct session *session, enum session_phase next)
{
        assert(session_phases[session->phase].next & BIT(next));

        log_debug("the session moves from=%s to=%s", session_phases[session->phase].name,
                  session_phases[next].name);
        session->phase = next;
        session_check_ready(session);
}

struct session_result result_of(int outcome, const char *format, ...)
{
        struct session_result result = { .outcome = outcome };
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(result.message, sizeof(result.message), format, arguments);
        va_end(arguments);
        return result;
}

struct session_result result_of_store(int result, const char *what)
{
        if (result == 0)
                return (struct session_result){ 0 };
        if (result == STORE_E_FULL || result == -ENOSPC || result == -EDQUOT)
                return result_of(SESSION_E_STATE_FULL,
                                 "The disk of the server's state is full, so %s was not taken.",
                                 what);
        return result_of(SESSION_E_STORE_UNAVAILABLE,
                         "The database could not be written, so %s was not taken.", what);
}

/* Readiness. */

bool session_is_ready(const struct session *session)
{
        return session->phase == SESSION_SERVING && !session->is_stopping &&
               session_walls_hold(session, NULL) && session->n_templates > 0;
}

void session_on_ready_change(struct session *session, void (*on_change)(void *userdata),
                             void *userdata)
{
        session->on_ready_change = on_change;
        session->ready_userdata = userdata;
}

void session_check_ready(struct session *session)
{
        bool is_ready = session_is_ready(session);

        if (is_ready == session->is_ready)
                return;
        session->is_ready = is_ready;
        log_info("the session is %s", is_ready ? "ready" : "not ready");
        if (session->on_ready_change)
                session->on_ready_change(session->ready_userdata);
}

/* The runtime. */

static void on_connected(void *userdata, const Hotcell__Runtime__V1__Welcome *welcome)
{
        struct session *session = userdata;
        int r;

        (void)welcome;
        if (session->is_stopping)
                return;
        r = session_build_info(session);
        if (r)
                log_error("what the runtime said cannot be kept error=\"%s\"", strerror(-r));
        session_enter(session, SESSION_RECONCILING);
        session_reconcile(session);
}

void session_on_reconciled(struct session *session)
{
        session_enter(session, SESSION_SERVING);
        session_check_stopped(session);
}

bool session_is_settled(const struct session *session)
{
        return session->was_reconciled;
}

static void on_lost(void *userdata)
{
        struct session *session = userdata;
        struct map_node *node, *next;

        session_reconcile_cancel(session);
        session->restoration.was_ready = false;
        if (session->phase != SESSION_WAITING)
                session_enter(session, SESSION_WAITING);
        for (node = map_first(&session->sandboxes); node; node = next) {
                next = map_next(node);
                sandbox_on_runtime_lost(CONTAINER_OF(node, struct sandbox, by_id));
        }
        /* Its templates were part of the welcome. */
        for (node = map_first(&session->sandboxes); node; node = map_next(node))
                CONTAINER_OF(node, struct sandbox, by_id)->template = NULL;
        session_drop_info(session);
        session_check_ready(session);
}

void session_on_process_ended(struct session *session,
                              const Hotcell__Runtime__V1__ProcessEnded *ended)
{
        struct sandbox *sandbox = session_find_sandbox(session, NULL, ended->sandbox_id);

        if (sandbox && sandbox_on_process_ended(sandbox, ended))
                return;
        if (!journal_on_process_ended(session, ended->sandbox_id, ended->process_id))
                session_acknowledge_end(session, ended->sandbox_id, ended->process_id);
}

static void on_process_ended(void *userdata, const Hotcell__Runtime__V1__ProcessEnded *ended)
{
        if (!session_reconcile_hear_process(userdata, ended))
                session_on_process_ended(userdata, ended);
}

static void on_sandbox_ended(void *userdata, const Hotcell__Runtime__V1__SandboxEnded *ended)
{
        struct session *session = userdata;
        struct sandbox *sandbox = session_find_sandbox(session, NULL, ended->sandbox_id);
        const struct sandbox_end_row *row =
                outcome_of_sandbox(ended->oom ? SANDBOX_END_OOM : SANDBOX_END_INIT);
        static struct log_quota strangers;

        log_warning_of(sandbox ? &sandbox->holder->log : &strangers,
                       "a sandbox ended by itself sandbox=%s oom=%d detail=\"%s\"",
                       ended->sandbox_id, ended->oom, ended->detail);
        if (session_reconcile_hear_sandbox(session, ended))
                return;
        if (sandbox && ended->usage)
                sandbox_take_meters(sandbox, ended->usage);
        if (sandbox)
                sandbox_end(sandbox, row->cause, row->sentence);
        else if (session->phase == SESSION_SERVING)
                (void)session_destroy_sandbox(session, ended->sandbox_id, NULL, NULL);
}

static void on_egress_ready(void *userdata, int fd)
{
        struct session *session = userdata;

        egress_client_connect(session->egress_client, fd);
        session->egress_is_silent = false;
        session_on_egress_ready(session);
}

static void on_pressure(void *userdata, const Hotcell__Runtime__V1__Pressure *pressure)
{
        session_on_pressure(userdata, pressure);
}

static void on_meter_state(void *userdata, const Hotcell__Runtime__V1__MeterState *state)
{
        session_note_metering(userdata, state);
}

static const struct runtime_client_observer runtime_observer = {
        .on_connected = on_connected,
        .on_lost = on_lost,
        .on_process_ended = on_process_ended,
        .on_sandbox_ended = on_sandbox_ended,
        .on_egress_ready = on_egress_ready,
        .on_pressure = on_pressure,
        .on_meter_state = on_meter_state,
};

/* hotcell-egress. */

static void on_egress_lost(void *userdata)
{
        egress_intake_on_lost(userdata);
        session_on_egress_lost(userdata);
}

static bool on_egress_event(void *userdata, const struct egress_event *event)
{
        return egress_intake_take(userdata, event);
}

static void on_egress_count(void *userdata, uint64_t cgroup_id,
                            const struct egress_refusals *refusals)
{
        egress_intake_count(userdata, cgroup_id, refusals);
}

static void on_egress_events_told(void *userdata)
{
        egress_intake_on_told(userdata);
}

static const struct egress_client_observer egress_observer = {
        .on_lost = on_egress_lost,
        .on_event = on_egress_event,
        .on_count = on_egress_count,
        .on_events_told = on_egress_events_told,
};

/* Who is told soon: never from within a call, so that nobody is surprised in the middle of one. */

static void wake_all(struct session *session)
{
        struct execution_reader *reader;
        struct session_watch *watch;
        struct execution *execution;

        while ((execution = LIST_FIRST(&session->executions_to_resume))) {
                LIST_REMOVE(execution, wake_link);
                execution->is_wake_pending = false;
                execution_resume(execution);
        }
        while ((reader = LIST_FIRST(&session->readers_to_wake))) {
                LIST_REMOVE(reader, wake_link);
                reader->is_wake_pending = false;
                reader->on_readable(reader->userdata);
        }
        while ((watch = LIST_FIRST(&session->watches_to_wake))) {
                LIST_REMOVE(watch, wake_link);
                watch->is_wake_pending = false;
                watch->on_event(watch->userdata);
        }
}

static int on_wake(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        wake_all(userdata);
        return 0;
}

static void wake_soon(struct session *session)
{
        again(session->wake);
}

void session_resume_soon(struct session *session, struct execution *execution)
{
        if (execution->is_wake_pending || execution_is_over(execution))
                return;
        execution->is_wake_pending = true;
        LIST_INSERT_HEAD(&session->executions_to_resume, execution, wake_link);
        wake_soon(session);
}

void session_wake_reader_soon(struct session *session, struct execution_reader *reader)
{
        if (reader->is_wake_pending)
                return;
        reader->is_wake_pending = true;
        LIST_INSERT_HEAD(&session->readers_to_wake, reader, wake_link);
        wake_soon(session);
}

void session_on_sandbox_event(struct session *session, const char *owner)
{
        struct session_watch *watch;

        LIST_FOREACH(watch, &session->watches, link)
        {
                if (watch->is_wake_pending || strcmp(watch->owner, owner) != 0)
                        continue;
                watch->is_wake_pending = true;
                LIST_INSERT_HEAD(&session->watches_to_wake, watch, wake_link);
                wake_soon(session);
        }
}

int session_watch_new(struct session *session, const char *owner, void (*on_event)(void *userdata),
                      void *userdata, struct session_watch **ret_watch)
{
        struct session_watch *watch = calloc(1, sizeof(*watch));

        if (!watch)
                return error_origin(-ENOMEM);
        watch->session = session;
        (void)snprintf(watch->owner, sizeof(watch->owner), "%s", owner);
        watch->on_event = on_event;
        watch->userdata = userdata;
        LIST_INSERT_HEAD(&session->watches, watch, link);
        *ret_watch = watch;
        return 0;
}

struct session_watch *session_watch_free(struct session_watch *watch)
{
        if (!watch)
                return NULL;

        LIST_REMOVE(watch, link);
        if (watch->is_wake_pending)
                LIST_REMOVE(watch, wake_link);
        free(watch);
        return NULL;
}

int session_arm(struct session *session, sd_event_source **timer, uint64_t usec,
                sd_event_time_handler_t handler, void *userdata)
{
        int r;

        *timer = sd_event_source_disable_unref(*timer);
        if (usec == 0)
                return 0;
        /* From now, not from when this turn of the loop began: nothing may come early. */
        r = sd_event_add_time(session->loop, timer, CLOCK_MONOTONIC, clock_monotonic_usec() + usec,
                              1000, handler, userdata);
        if (r < 0) {
                log_error("a timer could not be set error=\"%s\"", strerror(-r));
                return error_origin(r);
        }
        return 0;
}

/* Life. */

int session_new(sd_event *loop, struct store *store, const struct session_config *config,
                struct session **ret_session)
{
        _cleanup_(session_freep) struct session *session = NULL;
        int r;

        session = calloc(1, sizeof(*session));
        if (!session)
                return error_origin(-ENOMEM);
        session->loop = sd_event_ref(loop);
        session->store = store;
        session->config = *config;
        shares_init(&session->shares, &config->shares);
        LIST_INIT(&session->watches);
        TAILQ_INIT(&session->retained);
        TAILQ_INIT(&session->room_waiters);
        session->is_stopped = true; /* until it works: session_free may be called */

        r = enforcement_init(session);
        if (!r)
                r = again_new(loop, &session->wake, on_wake, session);
        if (r)
                return error_fold(r);

        /* A kernel may be gone when we write to it: that is an error of the write, not of ours. */
        (void)signal(SIGPIPE, SIG_IGN);
        r = egress_client_new(loop, (uint64_t)config->egress_answer_usec, &egress_observer, session,
                              &session->egress_client);
        if (r)
                return error_fold(r);
        r = runtime_client_new(loop, config->runtime_socket, &runtime_observer, session,
                               &session->runtime);
        if (r)
                return error_fold(r);
        session->is_stopped = false;
        *ret_session = take(session);
        return 0;
}

struct session *session_free(struct session *session)
{
        if (!session)
                return NULL;
        assert(session->is_stopped && map_count(&session->sandboxes) == 0 &&
               map_count(&session->claims) == 0 && LIST_EMPTY(&session->watches) &&
               TAILQ_EMPTY(&session->room_waiters));

        session_forget_all(session);
        assert(map_count(&session->shares.owners) == 0);
        session_reconcile_cancel(session);
        (void)runtime_client_free(session->runtime);
        (void)egress_client_free(session->egress_client);
        (void)session_restore_forget(session);
        enforcement_deinit(session);
        session_drop_info(session);
        (void)sd_event_source_disable_unref(session->retention_timer);
        (void)ring_free(session->spare_ring);
        egress_intake_deinit(&session->intake);
        egress_queue_deinit(&session->egress);
        (void)sd_event_source_disable_unref(session->wake);
        (void)sd_event_unref(session->loop);
        free(session);
        return NULL;
}

static void end_readers(struct session *session)
{
        struct map_node *node;

        for (node = map_first(&session->executions); node; node = map_next(node)) {
                struct execution *execution = CONTAINER_OF(node, struct execution, by_id);

                while (!LIST_EMPTY(&execution->readers))
                        execution_reader_orphan(LIST_FIRST(&execution->readers));
        }
}

void session_leave(struct session *session)
{
        session->is_leaving = true;
        room_wake(session, NULL);
        end_readers(session);
}

static int on_stop_checked(sd_event_source *source, void *userdata)
{
        struct session *session = userdata;

        (void)source;
        session->stop_check = sd_event_source_disable_unref(session->stop_check);
        wake_all(session); /* readers see `ended` first */
        end_readers(session);
        session->on_stopped(session->stopped_userdata);
        return 0;
}

void session_check_stopped(struct session *session)
{
        if (!session->is_stopping || session->is_stopped || map_count(&session->sandboxes) > 0 ||
            session->n_pending > 0 || session->reconciliation)
                return;
        session->is_stopped = true;
        if (sd_event_add_defer(session->loop, &session->stop_check, on_stop_checked, session) < 0)
                session->on_stopped(session->stopped_userdata);
}

void session_stop(struct session *session, void (*on_stopped)(void *userdata), void *userdata)
{
        struct map_node *node, *next;

        assert(!session->is_stopping);
        /* A supervisor that dies has its child stopped: that is no stop of the service. */
        runtime_client_look(session->runtime);
        session->is_stopping = true;
        session->on_stopped = on_stopped;
        session->stopped_userdata = userdata;
        session_check_ready(session);
        room_wake(session, NULL);
        egress_queue_flush(session);
        if (session->phase != SESSION_SERVING)
                session_reconcile_cancel(session);
        for (node = map_first(&session->sandboxes); node; node = next) {
                next = map_next(node);
                sandbox_end(CONTAINER_OF(node, struct sandbox, by_id), CAUSE_SHUTDOWN,
                            "The service was stopped.");
        }
        session_check_stopped(session);
}
