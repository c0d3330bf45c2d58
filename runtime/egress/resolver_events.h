/*
 * Events of which a sandbox can cause as many as it likes, made few: the first is reported at once,
 * what follows is counted and reported each second. The counts are exact.
 */
#pragma once

#include <systemd/sd-event.h>

#include "runtime/egress/resolver.h"

struct resolver_events;

/* What a client has not reported yet. */
struct resolver_counts {
        LIST_ENTRY(resolver_counts) link;
        bool is_listed; /* something was reported in the last second */
        const struct resolver_policy *policy;
        void *userdata;
        struct {
                uint64_t n;
                int64_t asked_usec; /* of the last one, as what follows */
                uint16_t type;
                char name[DNS_NAME_BUFFER];
        } reasons[_RESOLVER_REASON_N];
};

int resolver_events_new(sd_event *loop, struct resolver_events **ret_events);

/* When nothing is counted any more. */
struct resolver_events *resolver_events_free(struct resolver_events *events);

void resolver_counts_init(struct resolver_counts *counts, const struct resolver_policy *policy,
                          void *userdata);

/* Reports what is left. */
void resolver_counts_deinit(struct resolver_counts *counts);

void resolver_count(struct resolver_events *events, struct resolver_counts *counts,
                    enum resolver_reason reason, const struct dns_query *query);
