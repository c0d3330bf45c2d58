/*
 * Egress policies in force: of a sandbox that is made, of one whose policy is changed, and of all
 * that live when hotcell-egress or this server was started anew.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "server/session/egress_client.h"

struct call;
struct sandbox;
struct session;
struct session_result;

/* @result NULL: it was asked for another policy instead, which happens only to what is restored. */
typedef void (*enforcement_on_done)(struct sandbox *sandbox, const struct session_result *result);

/* Of one sandbox; what is in force is in its record. */
struct enforcement {
        struct egress_request *request; /* NULL: nothing is asked for */
        enforcement_on_done on_done;
        int64_t version; /* that was asked for */
        uint8_t sha256[32];
        unsigned n_ready_before; /* restoration.n_ready when the sandbox was asked for */
        bool is_shut;            /* instead of its policy nothing was to leave */
        enum egress_result last; /* how it went */
        struct call *update;     /* that waits for it */
        TAILQ_ENTRY(sandbox) link;
        bool is_queued;
        unsigned n_tries;
        sd_event_source *retry;
};

/* Of the session. */
struct restoration {
        TAILQ_HEAD(, sandbox) queue; /* whose policies are to be put in force again */
        unsigned n_asked;            /* and were asked for */
        sd_event_source *again;      /* for those that are left to a further turn of the loop */
        bool was_ready;              /* this runtime has a hotcell-egress */
        unsigned n_ready;            /* so many of them came, of all runtimes */
        void (*on_done)(void *userdata);
        void *userdata;
        sd_event_source *patience;
};

/* Of a session. */
int enforcement_init(struct session *session);
void enforcement_deinit(struct session *session);

/* When to try again what lacks hotcell-egress; zero: this runtime has none, and will not. */
int64_t enforcement_retry_usec(const struct session *session);

/* There is somebody to ask, or somebody is needed, and its policy is not known to be in force. */
bool enforcement_is_needed(const struct sandbox *sandbox);

/* It is about to be made. */
void enforcement_expect(struct sandbox *sandbox);

/* Asks for the policy of its record. With an outcome, @on_done does not come. */
struct session_result enforcement_begin(struct sandbox *sandbox, enforcement_on_done on_done);

/* It ends: whoever waits is told that. */
void enforcement_cancel(struct sandbox *sandbox);

/* Of one that runs: in the background, as often as it takes. */
void enforcement_restore(struct sandbox *sandbox);

/* The connection is there, or gone. */
void session_on_egress_ready(struct session *session);
void session_on_egress_lost(struct session *session);

/*
 * After a takeover: restores all. @on_done comes once, later or before it returns, when each policy
 * is in force or cannot be now. It waits for hotcell-egress if a policy needs it, but as long as
 * for any answer.
 */
void session_restore_all(struct session *session, void (*on_done)(void *userdata), void *userdata);

/* True: on_done was still to come, and does not. */
bool session_restore_forget(struct session *session);
