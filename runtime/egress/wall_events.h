/* What the BPF programs told: from their records to events. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bpf/egress_abi.h"

struct network;
struct network_tables;

enum { WALL_UNCLAIMED_MAX = 1024 };

/*
 * Records of networks that are not known yet: a sandbox's init is refused, which proves the wall,
 * before the runtime tells of its network. The oldest go first: their sandbox is refused then.
 */
struct wall_unclaimed {
        struct egress_event records[WALL_UNCLAIMED_MAX];
        size_t n; /* ever */
};

void wall_event_push(const struct network_tables *networks, struct wall_unclaimed *unclaimed,
                     const struct egress_event *told);

/* What came of a network before it was known. */
void wall_events_claim(const struct network_tables *networks, struct wall_unclaimed *unclaimed,
                       const struct network *network);
