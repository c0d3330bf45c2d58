/*
 * What was decided, on its way to hotcelld: kept in order until it was recorded there. The queue is
 * bounded: what is too much is counted, and refusals of the BPF programs, which wait in the kernel,
 * are left there.
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

struct events {
        struct event *ring;  /* EVENTS_MAX; the one with number n at n % EVENTS_MAX */
        uint64_t n_pushed;   /* number of the newest */
        uint64_t n_sent;     /* of the newest that the hotcelld that is connected was told */
        uint64_t n_recorded; /* of the newest that was acknowledged */
        uint64_t n_lost;     /* for which there was no place */
};

int events_init(struct events *events);
void events_deinit(struct events *events);

bool events_are_full(const struct events *events);

void events_push(struct events *events, const struct event *event);

/* All up to @number were recorded. A number that was never sent is ignored. */
void events_acknowledge(struct events *events, uint64_t number);

/* Another hotcelld: what was not recorded is sent again. */
void events_rewind(struct events *events);

/*
 * Packs the next ones into one ToServer message. Its size, or 0: there is nothing to send now. They
 * count as sent.
 */
size_t events_pack(struct events *events, uint8_t *bytes, size_t size);
