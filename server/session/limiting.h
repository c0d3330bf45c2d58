/*
 * Limits of sandboxes in force: of one whose limits are changed, and of all that live when this
 * server was started anew. The runtime has them; what it is asked for it answers in order.
 *
 * Where a limit is kept: what counts, and clients are told, in the sandbox's record; what the
 * kernel holds it to, in the runtime (its `struct runtime_limits`), of which in_force is a copy;
 * the open files that a process was started with, which are the most it can have, in the runtime's
 * process; timeout and output of an execution, from its beginning on, in its own record; ttl and
 * idle time in the sandbox's record alone.
 */
#pragma once

#include <stdbool.h>

#include <systemd/sd-event.h>

#include "server/session/runtime_client.h"
#include "server/store/records.h"

struct sandbox;
struct sandbox_update;
struct session;
struct session_result;

/* Of one sandbox. */
struct limiting {
        bool is_changing;                /* an update is about them */
        struct sandbox_limits asked;     /* by that update */
        struct sandbox_limits in_force;  /* as the runtime said last; zeros: not known */
        struct sandbox_limits promised;  /* what its owner is charged with */
        struct sandbox_limits restoring; /* what the runtime was asked for */
        bool is_restoring;
        unsigned n_tries;
        sd_event_source *retry;
};

struct sandbox_limits limits_merge(const struct sandbox_limits *present,
                                   const struct sandbox_update *update);
bool limits_are_same(const struct sandbox_limits *a, const struct sandbox_limits *b);

/* Outcome 0: @update may change the limits, as far as this server knows. */
struct session_result admit_limits(struct sandbox *sandbox, const struct sandbox_update *update);

/* Asks the runtime; with an outcome, @on_answer does not come. No other update may change limits
 * until limiting_end(). The owner is always charged with the highest that are or may be in force.
 */
struct session_result limiting_begin(struct sandbox *sandbox, const struct sandbox_limits *limits,
                                     runtime_on_answer on_answer, void *userdata);

/* What came of it. */
struct session_result limiting_on_answer(struct sandbox *sandbox,
                                         const struct sandbox_limits *limits,
                                         const Hotcell__Runtime__V1__FromRuntime *answer);

/* The record says what counts: if that is not in force it is put in force, as often as it takes. */
void limiting_end(struct sandbox *sandbox);

/* At a takeover: the runtime has it with these. Zeros: it does not tell. */
void limiting_adopt(struct sandbox *sandbox, const struct sandbox_limits *in_force);

/* It was just made, with the limits of its record. */
void limiting_made(struct sandbox *sandbox);

/* Of one that runs: sees to it that its record's limits are in force. */
void limiting_restore(struct sandbox *sandbox);

/* After a takeover. */
void session_restore_limits(struct session *session);
