/* What tests of flows do with both ends of one, and expect of its end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "runtime/egress/flow.h"
#include "test/unit/egress_relay/net.h"
#include "test/unit/egress_relay/relay.h"

enum { BUFFER_BYTES = NET_BUFFER_MAX };

/* The tests that run once for each side call it @near. */
enum flow_side far_of(enum flow_side near);
bool start(struct relay *relay, int n_buffer);
void send_bytes(struct far_end *end, uint64_t n_bytes, bool ends_then);
void set_reading(struct far_end *end, bool is_reading);
void expect_told(const struct relay *relay, enum flow_how how, enum flow_side side, int error);
void expect_closed(struct relay *relay);
void expect_reset(struct relay *relay, int side);
void expect_both_broken(struct relay *relay);
