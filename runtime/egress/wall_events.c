#include "runtime/egress/wall_events.h"

#include <stdbool.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/teller.h"

static Hotcell__Egress__V1__Reason reason_of(uint8_t verdict)
{
        switch ((enum egress_verdict)verdict) {
        case EGRESS_DENIED_ALWAYS:
        case EGRESS_DENIED_RELAY: /* no policy has a say in them */
                return EGRESS_REASON(ALWAYS_DENIED);
        case EGRESS_DENIED_RULE:
                return EGRESS_REASON(RULE);
        case EGRESS_DENIED_PROTOCOL:
        case EGRESS_DENIED_SOCKET:
        case EGRESS_DENIED_PACKET:
                return EGRESS_REASON(PROTOCOL);
        case EGRESS_DENIED_SOURCE:
        case EGRESS_DENIED_ROUTE:
                return EGRESS_REASON(FORGED);
        case EGRESS_DENIED_UNREADY:
                return EGRESS_REASON(UNAVAILABLE);
        case EGRESS_DENIED_DEFAULT:
        case EGRESS_LOCAL:
        case EGRESS_ALLOWED_RULE:
        case EGRESS_ALLOWED_NAME:
        case EGRESS_ALLOWED_DEFAULT:
        default:
                return EGRESS_REASON(DEFAULT);
        }
}

/* A refusal of its init is the proof of the wall, and no doing of a program. */
static bool take_proof(struct network *network, const struct egress_event *told)
{
        if (told->leaf_id != network->init_cgroup_id)
                return false;
        if (told->is_v6)
                network->has_proof6 = true;
        else
                network->has_proof4 = true;
        return true;
}

static struct event event_of(struct network *network, const struct egress_event *told)
{
        const uint64_t now_nsec = clock_monotonic_nsec();
        struct event event = {
                .cgroup_id = told->cgroup_id,
                .leaf_cgroup_id = told->leaf_id,
                .source = EGRESS_SOURCE(WALL),
                .time_usec = time_now_usec() - (int64_t)((now_nsec - told->time_nsec) / 1000),
                .decision = EGRESS_DECISION(DENIED),
                .reason = reason_of(told->verdict),
                .rule = told->rule,
                .policy_version = told->policy_version,
                .has_address = told->verdict != EGRESS_DENIED_SOCKET,
                .port = told->port,
                .protocol = told->protocol,
                .pid = told->pid,
                .count = 1,
        };
        const struct named_address *named;

        event.address =
                told->is_v6 ? policy_address_v6(told->address) : policy_address_v4(told->address);
        (void)memcpy(event.command, told->command, sizeof(event.command));
        event.command[sizeof(event.command) - 1] = '\0';
        named = names_find(&network->names, &event.address, now_nsec / 1000);
        if (named)
                (void)memcpy(event.name, named->entries[0].name, sizeof(event.name));
        return event;
}

/* In place of the oldest one. If nobody claimed that it is lost, also when it was the proof of a
 * sandbox that never came: which it is, only its network could say. */
static void keep_unclaimed(struct egress *egress, const struct egress_event *told)
{
        struct wall_unclaimed *unclaimed = &egress->unclaimed;
        struct egress_event *record = &unclaimed->records[unclaimed->n++ % WALL_UNCLAIMED_MAX];

        if (record->cgroup_id)
                events_lose(&egress->events, 1);
        *record = *told;
}

void wall_event_push(struct egress *egress, const struct egress_event *told)
{
        struct network *network = network_tables_find_group(&egress->networks, told->cgroup_id);
        struct event event;

        if (!network) {
                keep_unclaimed(egress, told);
                return;
        }
        if (take_proof(network, told))
                return;
        event = event_of(network, told);
        teller_push(network->teller, &event);
}

void wall_events_claim(struct egress *egress, const struct network *network)
{
        struct wall_unclaimed *unclaimed = &egress->unclaimed;
        size_t n = MIN(unclaimed->n, (size_t)WALL_UNCLAIMED_MAX);

        for (size_t i = unclaimed->n - n; i < unclaimed->n; i++) {
                struct egress_event *told = &unclaimed->records[i % WALL_UNCLAIMED_MAX];

                if (told->cgroup_id != network->cgroup_id)
                        continue;
                wall_event_push(egress, told);
                told->cgroup_id = 0;
        }
}
