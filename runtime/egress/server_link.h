/* What hotcelld asks, and the events that it is told. */
#pragma once

#include <hotcell/egress/v1/egress.pb-c.h>
#include <stddef.h>
#include <stdint.h>

struct egress;
struct network_policy;

/* A packet of hotcelld's. May take descriptors. */
void server_link_handle(struct egress *egress, const uint8_t *bytes, size_t n_bytes, int *fds,
                        size_t n_fds);

/* The answers to SetPolicy. */
void server_link_answer_enforced(struct egress *egress, uint64_t request,
                                 const struct network_policy *policy, size_t n_cut);
void server_link_answer_failure(struct egress *egress, uint64_t request,
                                Hotcell__Egress__V1__FailureReason reason, const char *text);

/* Sends what may be sent of the events. */
void server_link_send_events(struct egress *egress);
