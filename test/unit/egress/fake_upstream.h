/* A name server on loopback, UDP and TCP, that says what its script says. */
#pragma once

#include <netinet/in.h>
#include <systemd/sd-event.h>

#include "test/unit/egress/packet.h"

struct fake_upstream;

/* A query that came. Good until the script returns, unless copied. */
struct asked {
        struct fake_upstream *upstream;
        bool is_tcp;
        struct sockaddr_in peer;
        unsigned id;
        char name[256]; /* as it was sent */
        unsigned type;
};

struct fake_upstream {
        void (*script)(const struct asked *asked); /* may answer never, once or more */
        char server[32];                           /* for resolver_config */
        unsigned n_udp;                            /* queries that came */
        unsigned n_tcp;
        struct asked last;
        int udp_fd;
        int listener_fd;
        int tcp_fd; /* the one connection */
        sd_event_source *sources[3];
};

void fake_upstream_init(struct fake_upstream *upstream, sd_event *loop);
void fake_upstream_deinit(struct fake_upstream *upstream);

/* Closes the TCP connection. */
void fake_upstream_hang_up(struct fake_upstream *upstream);

/* Begins an answer to the question, with @flags above those of PACKET_ANSWER. */
void answer_begin(struct packet *packet, const struct asked *asked, unsigned flags,
                  unsigned n_answers);

/* Sends it as it is. */
void answer_send(const struct packet *packet, const struct asked *asked);
