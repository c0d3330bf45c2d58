/*
 * The connection to hotcell-egress: asks it to put policies in force, and hears what was decided.
 * hotcell-runtime hands the sockets over; without one, nothing can be asked.
 *
 * What comes is not trusted to be whole, for hotcell-egress takes apart what strangers send: what
 * makes no sense as an answer ends the connection, an event that makes no sense is dropped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/session/egress_check.h"
#include "server/store/egress.h"

struct egress_client;
struct egress_request;

enum {
        EGRESS_CLIENT_E_DISCONNECTED = 1, /* there is no hotcell-egress now */
        EGRESS_CLIENT_E_BUSY,             /* too many requests are unanswered */
};

enum {
        EGRESS_REQUESTS_MAX = 1024,    /* without an answer, also those that nobody waits for */
        EGRESS_SYNC_USEC = 200 * 1000, /* that the answer to a sync is waited for */
};

/* What came of a request. A sync is answered with EGRESS_SYNCED, or not. */
enum egress_result {
        EGRESS_ENFORCED = 0,
        EGRESS_SYNCED = EGRESS_ENFORCED,
        EGRESS_E_LOST = 1, /* the connection, and with it all that was in force, as far as known */
        EGRESS_E_SILENT,   /* there was no answer: it may still be put in force */
        EGRESS_E_TOO_COMPLEX, /* and the policy before is still in force */
        EGRESS_E_NOT_PROVEN,  /* likewise; no refusal of the wall was seen from within */
        EGRESS_E_REFUSED,     /* likewise, for another reason */
};

struct egress_answer {
        enum egress_result result;
        const char *message;             /* of a refusal, for people; valid UTF-8 */
        struct egress_enforced enforced; /* with EGRESS_ENFORCED */
};

typedef void (*egress_on_answer)(void *userdata, const struct egress_answer *answer);

struct egress_client_observer {
        /* All requests were answered with EGRESS_E_LOST. */
        void (*on_lost)(void *userdata);
        /* False: there is no room for it. It comes again, first of all, after
         * egress_client_resume(); until then nothing is heard, answers neither. */
        bool (*on_event)(void *userdata, const struct egress_event *event);
        /* What the wall refused in a sandbox. */
        void (*on_count)(void *userdata, uint64_t cgroup_id,
                         const struct egress_refusals *refusals);
        /* No more of them for the moment. */
        void (*on_events_told)(void *userdata);
};

/* A policy, with all that is said of it. */
struct egress_order {
        const char *sandbox_id;
        int64_t version;
        const struct egress *egress; /* NULL: nothing may leave */
};

/* Is disconnected, and hears nothing until egress_client_resume(). After @answer_usec nobody waits
 * for an answer any longer. */
int egress_client_new(sd_event *loop, uint64_t answer_usec,
                      const struct egress_client_observer *observer, void *userdata,
                      struct egress_client **ret_client);

/* Requests are not answered any more. */
struct egress_client *egress_client_free(struct egress_client *client);

/* Takes @fd; another one that there was is lost. */
void egress_client_connect(struct egress_client *client, int fd);
bool egress_client_is_connected(const struct egress_client *client);

/* Goes on to hear. on_event may come before it returns. */
void egress_client_resume(struct egress_client *client);

/*
 * Asks for a policy to be put in force. They are put in force in the order in which they were asked
 * for. @on_answer comes once, later. 0, an EGRESS_CLIENT_E_, or a negative errno.
 */
int egress_client_set_policy(struct egress_client *client, const struct egress_order *order,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request);

/* Asks whether it is there: EGRESS_ENFORCED is all that a good answer says. As above otherwise. */
int egress_client_ping(struct egress_client *client, egress_on_answer on_answer, void *userdata,
                       struct egress_request **ret_request);

/*
 * Asks to be told all of a sandbox so far: on_event and on_count come before @on_answer, as far as
 * there was room. That comes once, later, at the latest after EGRESS_SYNC_USEC. A hotcell-egress
 * that did not answer one in time is busy, and not asked again before it has.
 */
int egress_client_sync(struct egress_client *client, const char *sandbox_id,
                       egress_on_answer on_answer, void *userdata,
                       struct egress_request **ret_request);

/* Before its answer: that does not come any more, whatever becomes of the policy. */
struct egress_request *egress_request_free(struct egress_request *request);

/* All events up to @number are recorded. */
void egress_client_acknowledge(struct egress_client *client, uint64_t number);

DEFINE_CLEANUP(struct egress_client, egress_client_free)
