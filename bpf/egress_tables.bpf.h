/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * What all programs work with: the tables of sandboxes and of their refusals, and the ring in which
 * refusals are told.
 */
#pragma once

#include "bpf/egress_verdict.bpf.h"

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 1); /* set before loading */
        __type(key, __u64);
        __type(value, struct egress_sandbox);
} sandboxes SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 1); /* set before loading */
        __type(key, __u64);
        __type(value, struct egress_counts);
} counts SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, EGRESS_EVENT_RING_BYTES);
} events SEC(".maps");

/* A bucket that holds EGRESS_EVENT_BURST events, as the time at which it would be full again. */
static __always_inline bool take_from_bucket(struct egress_counts *count, __u64 now)
{
        __u64 next = count->next_event_nsec;
        __u64 start = next > now ? next : now;

        if (start > now + (EGRESS_EVENT_BURST - 1) * EGRESS_EVENT_INTERVAL_NSEC)
                return false;
        /* Who loses the race against another CPU is not told. */
        return __sync_val_compare_and_swap(&count->next_event_nsec, next,
                                           start + EGRESS_EVENT_INTERVAL_NSEC) == next;
}

static __always_inline struct egress_event *new_event(struct egress_counts *count)
{
        __u64 now = bpf_ktime_get_ns();
        struct egress_event *event = NULL;

        if (take_from_bucket(count, now))
                event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
        if (!event) {
                __sync_fetch_and_add(&count->n_dropped, 1);
                return NULL;
        }
        __builtin_memset(event, 0, sizeof(*event));
        event->serial = __sync_fetch_and_add(&count->n_logged, 1) + 1;
        event->time_nsec = now;
        return event;
}

static __always_inline void fill_event(struct egress_event *event, __u64 cgroup_id,
                                       const struct egress_sandbox *sandbox,
                                       const struct egress_destination *to,
                                       enum egress_verdict verdict, __u16 rule)
{
        event->cgroup_id = cgroup_id;
        event->policy_version = sandbox ? sandbox->policy_version : 0;
        event->port = to->port;
        event->rule = rule;
        event->is_v6 = to->is_v6;
        event->protocol = to->protocol;
        event->verdict = verdict;
        __builtin_memcpy(event->address, to->words, sizeof(event->address));
}
