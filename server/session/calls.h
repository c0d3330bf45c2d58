/* A call of session.h that waits for an answer: what its answer needs, copied. */
#pragma once

#include "server/session/session_private.h"

struct call {
        struct session *session;
        char owner[OWNER_BUFFER];
        char id[ID_BUFFER];         /* what it asks about */
        char sandbox_id[ID_BUFFER]; /* where, if that is not it */
        union {
                session_on_sandbox on_sandbox;
                session_on_contexts on_contexts;
                session_on_execution on_execution;
        };
        void *userdata;
        /* How a failure is told to its callback. */
        void (*fail)(struct call *call, const struct session_result *result);
        struct sandbox_record before; /* of an update: what to go back to */
        uint64_t update;              /* which of the sandbox's updates it is */
        bool sets_limits;             /* it is about limits, which the runtime was asked for: */
        struct sandbox_limits limits; /* these; meanwhile all of it is kept */
        struct sandbox_update wanted;
        struct pairs wanted_labels;
        char etag[ETAG_BUFFER];
        bool sets_egress;              /* it is about the policy, */
        bool has_new_egress;           /* and replaces it */
        struct request_record request; /* to be forgotten if it fails */
        struct session_result failure; /* of what is being taken back */
        sd_event_source *retry;
};

/* Counts among the session's pending answers until call_free. */
struct call *call_new(struct session *session, const char *owner, const char *id,
                      void (*fail)(struct call *call, const struct session_result *result));
void call_free(struct call *call);

/* Fails the call: the sandbox is not among the living, so it has ended or never was. Frees it. */
void call_fail_without_sandbox(struct call *call);

/* Fails the call now, and frees it. */
void call_fail(struct call *call, const struct session_result *result);

/* One about a sandbox; NULL: @on_done was told that there is no memory. */
struct call *sandbox_call(struct session *session, const char *owner, const char *id,
                          session_on_sandbox on_done, void *userdata);

/* Whether it is still as the client saw it; NULL or empty: it does not care. */
struct session_result admit_etag(const struct sandbox *sandbox, const char *etag);
