/*
 * What hotcell-egress tells, taken apart and checked: it is written by a process that takes apart
 * what strangers send. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hotcell/egress/v1/egress.pb-c.h"
#include "server/store/records.h"

enum {
        EGRESS_EVENTS_MAX = 256, /* in one packet */
        EGRESS_REASON_BUFFER = 161,
};

/* One decision. */
struct egress_event {
        uint64_t number; /* rises with each event of one hotcell-egress */
        uint64_t cgroup_id;
        uint64_t leaf_cgroup_id;     /* zero: not known */
        int64_t asked_time_usec;     /* not after the event's time */
        struct egress_record record; /* without ids and sequence */
};

/* What is in force. */
struct egress_enforced {
        uint8_t sha256[32];
        uint32_t program_ids[EGRESS_PROGRAMS_MAX];
        size_t n_program_ids;
};

/* False: it is none, or of a kind that is not known. A time that cannot be is @now_usec. */
bool egress_check_event(const Hotcell__Egress__V1__Event *message, int64_t now_usec,
                        struct egress_event *ret_event);
bool egress_check_enforced(const Hotcell__Egress__V1__Enforced *message,
                           struct egress_enforced *ret_enforced);

/* False: these are none. */
bool egress_check_count(const Hotcell__Egress__V1__Count *message,
                        struct egress_refusals *ret_refusals);

/* For people, in one line. */
void egress_check_text(const char *text, char ret_text[static EGRESS_REASON_BUFFER]);
