/*
 * What living sandboxes use beside their executions is written into the ledger, now and then. From
 * the first reading of an execution until its row is there, its part of the sandbox's meters is
 * kept out of the rows of the sandbox.
 */
#pragma once

struct execution;
struct sandbox;
struct usage;

/* From now on, until it ends. */
void billing_start(struct sandbox *sandbox);
void billing_stop(struct sandbox *sandbox);

/* It has its first reading; its row is there, or it has to be read anew. */
void billing_add(struct execution *execution);
void billing_drop(struct execution *execution);

/* Its leaf was read: what is billed if that was the last time. */
void billing_note(struct execution *execution, const struct usage *now);
