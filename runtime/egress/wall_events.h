/* What the BPF programs told: from their records to events. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bpf/egress_abi.h"

struct egress;
struct network;

enum { WALL_UNCLAIMED_MAX = 1024 };

/*
 * Records of networks that are not known yet: a sandbox's init is refused, which proves the wall,
 * before the runtime tells of its network. The oldest go first: their sandbox is refused then.
 */
struct wall_unclaimed {
        struct egress_event records[WALL_UNCLAIMED_MAX];
        size_t n; /* ever */
};

/* @now_usec and @now_nsec are the same moment, of the wall clock and of CLOCK_MONOTONIC. */
void wall_event_push(struct egress *egress, const struct egress_event *told, int64_t now_usec,
                     uint64_t now_nsec);

/* What came of a network before it was known. */
void wall_events_claim(struct egress *egress, const struct network *network);
