#include "runtime/egress/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/fair.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

int events_init(struct events *events)
{
        /* Numbers rise also from one process to the next: none tells an event each microsecond. */
        uint64_t first = clock_monotonic_usec();

        *events = (struct events){ .ring = calloc(EVENTS_MAX, sizeof(*events->ring)),
                                   .n_pushed = first,
                                   .n_sent = first,
                                   .n_recorded = first };
        return events->ring ? 0 : error_origin(-ENOMEM);
}

void events_deinit(struct events *events)
{
        free(events->ring);
        events->ring = NULL;
}

bool events_push(struct events *events, struct events_share *share, const struct event *event)
{
        if (!fair_has_room(share->n_queued, events->n_pushed - events->n_recorded, EVENTS_MAX))
                return false;
        events->ring[++events->n_pushed % EVENTS_MAX] = (struct queued_event){ *event, share };
        share->n_queued++;
        return true;
}

void events_lose(struct events *events, uint32_t n)
{
        static struct log_quota quota;

        events->n_lost += n;
        log_warning_of(&quota, "events are lost: no memory to count them in: lost=%llu",
                       (unsigned long long)events->n_lost);
}

void events_acknowledge(struct events *events, uint64_t number)
{
        if (number > events->n_sent)
                return;
        while (events->n_recorded < number)
                events->ring[++events->n_recorded % EVENTS_MAX].share->n_queued--;
}

void events_rewind(struct events *events)
{
        events->n_sent = events->n_recorded;
}

static void fill(const struct event *event, uint64_t number, Hotcell__Egress__V1__Event *ret)
{
        hotcell__egress__v1__event__init(ret);
        ret->number = number;
        ret->cgroup_id = event->cgroup_id;
        ret->leaf_cgroup_id = event->leaf_cgroup_id;
        ret->serial = number;
        ret->source = event->source;
        ret->time_usec = event->time_usec;
        ret->asked_time_usec = event->asked_usec;
        ret->decision = event->decision;
        ret->reason = event->reason;
        ret->rule = event->rule;
        ret->policy_version = event->policy_version;
        if (event->has_address) {
                ret->address.data = (uint8_t *)(uintptr_t)event->address.bytes;
                ret->address.len = event->address.is_v6 ? 16 : 4;
        }
        ret->port = event->port;
        ret->protocol = event->protocol;
        ret->name = unconst(event->name);
        ret->pid = event->pid;
        ret->command = unconst(event->command);
        ret->count = event->count;
        ret->error_number = event->error_number;
        ret->sent_bytes = event->sent_bytes;
        ret->received_bytes = event->received_bytes;
        ret->duration_usec = event->duration_usec;
}

size_t events_pack(struct events *events, uint8_t *bytes, size_t size)
{
        Hotcell__Egress__V1__Event messages[EVENTS_BATCH_MAX];
        Hotcell__Egress__V1__Event *pointers[EVENTS_BATCH_MAX];
        Hotcell__Egress__V1__ToServer packet;
        Hotcell__Egress__V1__Events batch;
        uint64_t n = MIN(events->n_pushed - events->n_sent, (uint64_t)EVENTS_BATCH_MAX);
        size_t n_bytes;

        if (n == 0 || events->n_sent + n - events->n_recorded > EVENTS_IN_FLIGHT_MAX)
                return 0;
        hotcell__egress__v1__to_server__init(&packet);
        hotcell__egress__v1__events__init(&batch);
        for (size_t i = 0; i < n; i++) {
                uint64_t number = events->n_sent + 1 + i;

                fill(&events->ring[number % EVENTS_MAX].event, number, &messages[i]);
                pointers[i] = &messages[i];
        }
        batch.events = pointers;
        batch.n_events = n;
        packet.body_case = HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS;
        packet.events = &batch;
        n_bytes = hotcell__egress__v1__to_server__get_packed_size(&packet);
        assert(n_bytes <= size);
        (void)hotcell__egress__v1__to_server__pack(&packet, bytes);
        events->n_sent += n;
        return n_bytes;
}
