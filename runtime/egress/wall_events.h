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
 * before the runtime tells of its network. The oldest go first, and are lost (events_lose()): their
 * sandbox is refused then, if it still comes. All zeros is none.
 */
struct wall_unclaimed {
        struct egress_event records[WALL_UNCLAIMED_MAX]; /* of cgroup 0: claimed, or never there */
        size_t n;                                        /* ever */
};

void wall_event_push(struct egress *egress, const struct egress_event *told);

/* What came of a network before it was known. */
void wall_events_claim(struct egress *egress, const struct network *network);
