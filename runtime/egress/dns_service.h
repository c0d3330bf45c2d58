/*
 * The resolver's sockets in a network: queries by datagram and by stream, handed to the resolver
 * with the network's policy, and their answers.
 */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

struct named_address;
struct network;
struct network_policy;

enum { DNS_SERVICE_STREAMS_MAX = 16 /* of a network, at once */ };

int dns_service_start(struct network *network);
void dns_service_stop(struct network *network);

/* For the event loop; @userdata is the network. */
int dns_service_on_datagram(sd_event_source *source, int fd, uint32_t events, void *userdata);
int dns_service_on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata);

/* Lets connect() to an address pass that stands for names which @policy allows. */
int dns_service_admit_to_wall(const struct network *network, const struct network_policy *policy,
                              const struct named_address *address);
