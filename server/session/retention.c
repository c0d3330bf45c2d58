/*
 * Ended executions can be replayed for a while: bounded by time and by the memory of their rings.
 * The oldest of the owner who has most go first, those that somebody reads last.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/queue_safe.h"
#include "server/session/session_private.h"

static size_t memory_of(const struct execution *execution)
{
        return sizeof(*execution) + ring_memory(execution->ring);
}

static void forget(struct session *session, struct execution *execution)
{
        TAILQ_REMOVE(&session->retained, execution, retained_link);
        TAILQ_REMOVE(&execution->holder->retained, execution, retained_of_owner_link);
        share_owner_take(execution->holder, SESSION_SHARE_RINGS, -(int64_t)memory_of(execution));
        execution->holder = share_owner_release(execution->holder);
        map_remove(&session->executions, &execution->by_id);
        (void)execution_free(execution);
}

/* The oldest of the owner that may go; one that is read only when @also_read. */
static struct execution *find_victim(const struct share_owner *owner, bool also_read)
{
        struct execution *execution;

        TAILQ_FOREACH(execution, &owner->retained, retained_of_owner_link)
        {
                if (execution->n_pending == 0 && (also_read || execution->n_readers == 0))
                        return execution;
        }
        return NULL;
}

/* Who has most gives first: nobody's output can push out that of one who has less. */
static void keep_within_memory(struct session *session)
{
        const struct shares *shares = &session->shares;

        while (shares->used[SESSION_SHARE_RINGS] > shares->rules.total[SESSION_SHARE_RINGS]) {
                struct share_owner *owner = shares_largest(shares, SESSION_SHARE_RINGS);
                struct execution *victim = find_victim(owner, false);

                if (!victim)
                        victim = find_victim(owner, true);
                if (!victim)
                        return;
                forget(session, victim);
        }
}

static int on_retention_over(sd_event_source *source, uint64_t usec, void *userdata);

static void arm_retention(struct session *session)
{
        const struct execution *oldest = TAILQ_FIRST(&session->retained);
        int64_t left;

        if (!oldest) {
                (void)session_arm(session, &session->retention_timer, 0, on_retention_over,
                                  session);
                return;
        }
        left = oldest->record.end_time_usec + session->config.rings_retained_usec - time_now_usec();
        /* Not more often than once a second: nobody counts on the moment. */
        (void)session_arm(session, &session->retention_timer, (uint64_t)MAX(left, 1000000),
                          on_retention_over, session);
}

static int on_retention_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct session *session = userdata;
        int64_t newest = time_now_usec() - session->config.rings_retained_usec;
        struct execution *execution, *next;

        (void)source;
        (void)usec;
        TAILQ_FOREACH_SAFE(execution, &session->retained, retained_link, next)
        {
                if (execution->record.end_time_usec > newest)
                        break;
                if (execution->n_pending == 0)
                        forget(session, execution);
        }
        arm_retention(session);
        return 0;
}

void session_retain(struct session *session, struct execution *execution)
{
        bool is_first = TAILQ_EMPTY(&session->retained);

        execution->holder = shares_hold(&session->shares, execution->record.owner);
        if (!execution->holder) {
                map_remove(&session->executions, &execution->by_id);
                (void)execution_free(execution);
                return;
        }
        TAILQ_INSERT_TAIL(&session->retained, execution, retained_link);
        TAILQ_INSERT_TAIL(&execution->holder->retained, execution, retained_of_owner_link);
        share_owner_take(execution->holder, SESSION_SHARE_RINGS, (int64_t)memory_of(execution));
        keep_within_memory(session);
        if (is_first)
                arm_retention(session);
}

void session_forget_all(struct session *session)
{
        struct execution *execution, *next;

        TAILQ_FOREACH_SAFE(execution, &session->retained, retained_link, next)
        {
                execution->n_pending = 0; /* the answers will not come any more */
                forget(session, execution);
        }
}

void session_retain_kept(struct session *session, const struct execution_record *record,
                         const struct store_blob *output)
{
        const struct ring_entry last = {
                .kind = EXECUTION_EVENT_ENDED,
                .time_usec = record->end_time_usec,
        };
        struct execution *execution;

        if (map_find(&session->executions, record->execution_id, strlen(record->execution_id)))
                return;
        execution = calloc(1, sizeof(*execution));
        if (!execution)
                return;
        execution->session = session;
        execution->record = *record;
        execution->phase = PHASE_ENDED;
        LIST_INIT(&execution->readers);
        if (ring_load(output->data, output->n, &last, &execution->ring)) {
                log_warning("what an execution said cannot be read any more execution=%s",
                            record->execution_id);
                (void)execution_free(execution);
                return;
        }
        map_add(&session->executions, &execution->by_id, execution->record.execution_id,
                strlen(execution->record.execution_id));
        session_retain(session, execution);
}
