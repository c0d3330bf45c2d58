/*
 * Policies on their way into the wall's tables and out of them. There may be thousands of entries:
 * some are written in each turn of the loop, so that nobody's traffic waits for all of them. Nor
 * does anybody's policy wait for all that came before: those of a network come in their order, but
 * networks take turns. Small policies wait for no large one; of large ones one comes at a time, by
 * turns the one that came first and the smallest.
 */
#pragma once

#include <hotcell/egress/v1/egress.pb-c.h>
#include <stdint.h>

#include "runtime/policy/compile.h"

struct egress;
struct network;
struct policy_turns;

enum {
        POLICY_TURN_ENTRIES = 128,
        /* With more of them nothing that hotcelld says is heard; each has a descriptor. */
        POLICY_WAITING_MAX = 256,
};

int policy_turns_new(struct egress *egress, struct policy_turns **ret_turns);

/* When there are no networks any more. What is still in the tables is for the next process to
 * sweep. Takes NULL, returns NULL. */
struct policy_turns *policy_turns_free(struct policy_turns *turns);

/*
 * Puts a policy in force and answers hotcelld's @request then, if that hotcelld is still there.
 * Takes @fd, which has the rules; see policy_reader.h.
 */
void policy_turns_begin(struct policy_turns *turns, struct network *network, uint64_t request,
                        const Hotcell__Egress__V1__SetPolicy *set, int fd);

/* The network is about to go, and the policies that are on their way to it with it. */
void policy_turns_forget(struct policy_turns *turns, const struct network *network);

/* Takes out what nobody has any more. Takes the table, which is empty afterwards. */
void policy_turns_remove(struct policy_turns *turns, struct policy_table *table, uint32_t number);
