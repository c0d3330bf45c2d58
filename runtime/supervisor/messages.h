/* What the runtime tells hotcelld. */
#pragma once

#include <stddef.h>

#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"

struct supervisor;

/* The message's answer to @ticket; nothing when whoever asked has gone. Takes the descriptors. */
void messages_answer(struct supervisor *supervisor, struct ticket ticket,
                     Hotcell__Runtime__V1__FromRuntime *message, const int *fds, size_t n_fds);

void messages_answer_done(struct supervisor *supervisor, struct ticket ticket);
/* With those that are in force; @failure: NULL when that is what was asked for. */
void messages_answer_limits(struct supervisor *supervisor, struct ticket ticket,
                            const struct sandbox *sandbox, const struct failure *failure);
/* It has ended. */
void messages_answer_destroyed(struct supervisor *supervisor, struct ticket ticket,
                               struct sandbox *sandbox);
void messages_answer_failure(struct supervisor *supervisor, struct ticket ticket,
                             const struct failure *failure);
void messages_answer_created(struct supervisor *supervisor, const struct sandbox *sandbox);
void messages_answer_started(struct supervisor *supervisor, struct process *process);
void messages_answer_taken(struct supervisor *supervisor, struct ticket ticket,
                           const struct process *process);
void messages_answer_welcome(struct supervisor *supervisor, struct ticket ticket,
                             uint32_t protocol);
void messages_answer_walls(struct supervisor *supervisor, struct ticket ticket);
void messages_answer_list(struct supervisor *supervisor, struct ticket ticket,
                          const char *after_sandbox_id);
void messages_answer_meters(struct supervisor *supervisor, struct ticket ticket,
                            const Hotcell__Runtime__V1__ReadMeters *read);

/* Events: only for a hotcelld that has said Hello. */
void messages_process_ended(struct supervisor *supervisor, struct process *process);
void messages_pressure(struct supervisor *supervisor, const struct sandbox *sandbox,
                       const struct pressure_level *level);
void messages_sandbox_ended(struct supervisor *supervisor, struct sandbox *sandbox);

/* hotcell-egress was started, or hotcelld is a new one: it gets a socket to speak to it. */
void messages_egress_ready(struct supervisor *supervisor);

/* All events that were not acknowledged. */
void messages_repeat_ends(struct supervisor *supervisor);
