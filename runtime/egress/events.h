/*
 * What was decided, on its way to hotcelld: kept in order until it was recorded there. The queue is
 * bounded, and each network has a share of it (teller.h).
 */
#pragma once

#include <hotcell/egress/v1/egress.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/egress_abi.h"
#include "runtime/policy/policy.h"

enum {
        EVENTS_MAX = 4096,
        EVENTS_BATCH_MAX = 64, /* of one packet: some 40 KiB at most */
        EVENTS_IN_FLIGHT_MAX = 1024,
};

/* As an event's rule: different ones. */
#define EVENT_RULES_SEVERAL UINT32_MAX

#define EGRESS_SOURCE(name)   HOTCELL__EGRESS__V1__SOURCE__SOURCE_##name
#define EGRESS_DECISION(name) HOTCELL__EGRESS__V1__DECISION__DECISION_##name
#define EGRESS_REASON(name)   HOTCELL__EGRESS__V1__REASON__REASON_##name

/* A decision; see hotcell.egress.v1.Event for the meaning of each. */
struct event {
        uint64_t cgroup_id;
        uint64_t leaf_cgroup_id;
        Hotcell__Egress__V1__Source source;
        int64_t time_usec;
        int64_t asked_usec; /* zero: at the same time */
        Hotcell__Egress__V1__Decision decision;
        Hotcell__Egress__V1__Reason reason;
        uint32_t rule;
        int64_t policy_version;
        struct policy_address address;
        bool has_address;
        uint16_t port;
        uint32_t protocol;
        char name[POLICY_DOMAIN_BUFFER];
        uint32_t pid;
        char command[EGRESS_COMMAND_BYTES];
        uint32_t count;
        int error_number;
        uint64_t sent_bytes;
        uint64_t received_bytes;
        int64_t duration_usec;
};

/* What a network has of the queue. It stays where it is until all of that is recorded. */
struct events_share {
        size_t n_queued;
};

struct queued_event {
        struct event event;
        struct events_share *share;
};

struct events {
        struct queued_event *ring; /* EVENTS_MAX; the one with number n at n % EVENTS_MAX */
        uint64_t n_pushed;         /* number of the newest */
        uint64_t n_sent;           /* of the newest that this hotcelld was told */
        uint64_t n_recorded;       /* of the newest that was acknowledged */
        uint64_t n_lost;           /* for which there was no memory */
};

int events_init(struct events *events);
void events_deinit(struct events *events);

/* False: there is no room. A share has up to half of what the others leave, so that there is always
 * a part for the next. */
bool events_push(struct events *events, struct events_share *share, const struct event *event);

/* So many are told to nobody, and only counted here. */
void events_lose(struct events *events, uint32_t n);

/* All up to @number were recorded. A number that was never sent is ignored. */
void events_acknowledge(struct events *events, uint64_t number);

/* Another hotcelld: what was not recorded is sent again. */
void events_rewind(struct events *events);

/*
 * Packs the next ones into one ToServer message. Its size, or 0: there is nothing to send now. They
 * count as sent.
 */
size_t events_pack(struct events *events, uint8_t *bytes, size_t size);
