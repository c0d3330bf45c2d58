/*
 * What hotcell-egress is asked for, until it is answered: policies to put in force, syncs, pings.
 * The connection is the client's (egress_client.c).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "hotcell/egress/v1/egress.pb-c.h"
#include "runtime/base/log.h"
#include "server/session/egress_client.h"
#include "server/session/map.h"

TAILQ_HEAD(egress_request_list, egress_request);

struct egress_requests {
        sd_event_source *timer;             /* for the first that waits */
        struct map all;                     /* by number */
        struct egress_request_list waiting; /* for which somebody waits, by deadline */
        struct egress_request_list unsent;
        size_t n_unheard; /* syncs for which nobody waits any more */
        uint64_t last_number;
        struct log_quota log;
};

int egress_requests_init(struct egress_requests *requests, sd_event *loop);

/* None is answered any more. */
void egress_requests_deinit(struct egress_requests *requests);

/* Each to be answered within @answer_usec; a sync within EGRESS_SYNC_USEC. 0, EGRESS_CLIENT_E_BUSY,
 * or a negative errno. */
int egress_requests_add_policy(struct egress_requests *requests, const struct egress_order *order,
                               uint64_t answer_usec, egress_on_answer on_answer, void *userdata,
                               struct egress_request **ret_request);
int egress_requests_add_ping(struct egress_requests *requests, uint64_t answer_usec,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request);
int egress_requests_add_sync(struct egress_requests *requests, const char *sandbox_id,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request);

/* Those that were not sent yet, in their order. After an error the rest still is not. */
int egress_requests_send(struct egress_requests *requests, int fd);

/* False: it is no answer to anything. */
bool egress_requests_hear(struct egress_requests *requests,
                          const Hotcell__Egress__V1__ToServer *packet);

/* All are answered with EGRESS_E_LOST. */
void egress_requests_lose(struct egress_requests *requests);

/* One packet. */
int egress_message_send(int fd, const Hotcell__Egress__V1__FromServer *message, const int *fds,
                        size_t n_fds);
