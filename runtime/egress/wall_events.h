/* What the BPF programs told: from their records to events. */
#pragma once

#include <stdint.h>

#include "bpf/egress_abi.h"

struct egress;

/* @now_usec and @now_nsec are the same moment, of the wall clock and of CLOCK_MONOTONIC. */
void wall_event_push(struct egress *egress, const struct egress_event *told, int64_t now_usec,
                     uint64_t now_nsec);
