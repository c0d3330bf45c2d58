/*
 * The sequence of an event is its time, or one more than that of the one before: so it rises, no
 * number is used twice whatever was kept of older events, and an event that is told again, to a
 * successor that knows what was stored, gets the number that it had.
 */
#include "server/session/egress_intake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/session_private.h"

struct egress_ended {
        uint64_t cgroup_id; /* zero: none */
        char sandbox_id[ID_BUFFER];
        char owner[OWNER_BUFFER];
        struct egress_tail tail;
        struct egress_runs runs;
};

/* Whose an event is. */
struct subject {
        const char *sandbox_id;
        const char *owner;
        struct egress_tail *tail;
        const struct egress_runs *runs; /* NULL: it lives */
};

static bool find_living(struct session *session, uint64_t cgroup_id, struct subject *ret_subject)
{
        struct map_node *node = map_find(&session->cgroups, &cgroup_id, sizeof(cgroup_id));
        struct sandbox *sandbox = MAP_ITEM(node, struct sandbox, by_cgroup);

        if (!sandbox)
                return false;
        *ret_subject = (struct subject){ sandbox->record.sandbox_id, sandbox->record.owner,
                                         &sandbox->record.egress_tail, NULL };
        return true;
}

static bool find_ended(struct egress_intake *intake, uint64_t cgroup_id,
                       struct subject *ret_subject)
{
        for (size_t i = 0; i < MIN(intake->n_ended, (size_t)EGRESS_ENDED_MAX); i++) {
                struct egress_ended *ended = &intake->ended[i];

                if (ended->cgroup_id != cgroup_id)
                        continue;
                *ret_subject = (struct subject){ ended->sandbox_id, ended->owner, &ended->tail,
                                                 &ended->runs };
                return true;
        }
        return false;
}

/* Numbers rise from one hotcell-egress to the next as far as the clock did, so of what they count
 * the time has to fit, too; another one tells of the wall's by another clock. */
static bool was_told(const struct egress_tail *tail, const struct egress_record *record)
{
        if (record->serial > tail->told[record->source].serial)
                return false;
        return record->source == EGRESS_DECIDER_WALL ||
               record->event_time_usec <= tail->told[record->source].time_usec;
}

static void note_told(struct egress_tail *tail, const struct egress_record *record)
{
        tail->sequence = record->sequence;
        tail->told[record->source].serial = record->serial;
        tail->told[record->source].time_usec = record->event_time_usec;
}

static void hand_on(struct session *session, const struct egress_event *event,
                    const struct subject *subject)
{
        struct egress_source source = { .sandbox_id = subject->sandbox_id,
                                        .cgroup_id = event->cgroup_id,
                                        .leaf_cgroup_id = event->leaf_cgroup_id,
                                        .number = event->number,
                                        .asked_time_usec = event->asked_time_usec,
                                        .owner = subject->owner,
                                        .runs = subject->runs };
        struct egress_record record = event->record;
        static struct log_quota quota;
        int r;

        record.sequence = MAX(subject->tail->sequence + 1, record.event_time_usec);
        r = session_egress_event(session, &source, &record);
        if (r)
                log_warning_of(&quota, "an egress event is lost sandbox=%s result=%d",
                               subject->sandbox_id, r);
        note_told(subject->tail, &record);
}

bool egress_intake_take(struct session *session, const struct egress_event *event)
{
        struct subject subject;

        if (find_living(session, event->cgroup_id, &subject) ||
            find_ended(&session->intake, event->cgroup_id, &subject)) {
                if (was_told(subject.tail, &event->record))
                        egress_queue_renumber(&session->egress, subject.sandbox_id, &event->record,
                                              event->number);
                else if (egress_queue_has_room(&session->egress, subject.owner))
                        hand_on(session, event, &subject);
                else
                        return false;
        }
        session->intake.last_taken = event->number;
        return true;
}

void egress_intake_count(struct session *session, uint64_t cgroup_id,
                         const struct egress_refusals *refusals)
{
        struct map_node *node = map_find(&session->cgroups, &cgroup_id, sizeof(cgroup_id));
        struct sandbox *sandbox = MAP_ITEM(node, struct sandbox, by_cgroup);

        if (sandbox)
                sandbox->record.egress_refusals = *refusals;
}

bool session_find_refusals(struct session *session, const char *sandbox_id,
                           struct egress_refusals *ret_refusals)
{
        const struct sandbox *sandbox = session_find_sandbox(session, NULL, sandbox_id);

        if (!sandbox)
                return false;
        *ret_refusals = sandbox->record.egress_refusals;
        return true;
}

/* Up to where nothing is on its way to the database any more. */
static void acknowledge(struct session *session)
{
        struct egress_intake *intake = &session->intake;
        uint64_t first = egress_queue_first(&session->egress);
        uint64_t number = first ? first - 1 : intake->last_taken;

        if (number <= intake->acknowledged)
                return;
        intake->acknowledged = number;
        egress_client_acknowledge(session->egress_client, number);
}

void egress_intake_on_told(struct session *session)
{
        acknowledge(session);
}

void egress_intake_on_stored(struct session *session)
{
        acknowledge(session);
        if (session->has_adopted)
                egress_client_resume(session->egress_client);
}

void egress_intake_on_lost(struct session *session)
{
        session->intake.last_taken = 0;
        session->intake.acknowledged = 0;
        egress_queue_forget_numbers(&session->egress);
}

void egress_intake_remember(struct session *session, struct sandbox *sandbox)
{
        struct egress_intake *intake = &session->intake;
        const struct sandbox_record *record = &sandbox->record;
        struct egress_ended *ended;

        if (record->cgroup_id == 0)
                return;
        if (!intake->ended)
                intake->ended = calloc(EGRESS_ENDED_MAX, sizeof(*intake->ended));
        if (!intake->ended)
                return;
        ended = &intake->ended[intake->n_ended++ % EGRESS_ENDED_MAX];
        egress_runs_deinit(&ended->runs);
        *ended = (struct egress_ended){ .cgroup_id = record->cgroup_id,
                                        .tail = record->egress_tail,
                                        .runs = sandbox->egress_runs };
        sandbox->egress_runs = (struct egress_runs){ 0 };
        (void)snprintf(ended->sandbox_id, sizeof(ended->sandbox_id), "%s", record->sandbox_id);
        (void)snprintf(ended->owner, sizeof(ended->owner), "%s", record->owner);
}

void egress_intake_deinit(struct egress_intake *intake)
{
        for (size_t i = 0; i < MIN(intake->n_ended, (size_t)EGRESS_ENDED_MAX); i++)
                egress_runs_deinit(&intake->ended[i].runs);
        free(intake->ended);
}
