/* What hotcelld asks, and the events that it is told. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct egress;

/* A packet of hotcelld's. Takes none of the descriptors. */
void server_link_handle(struct egress *egress, const uint8_t *bytes, size_t n_bytes, const int *fds,
                        size_t n_fds);

/* Sends what may be sent of the events. */
void server_link_send_events(struct egress *egress);
