/*
 * Whose reading of the ledger goes on next. Pages and sums are made of steps, which take the
 * database's thread from everybody else: there is one at a time, a pause of several times as long
 * follows, and owners take turns.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

struct usage_turn;

enum {
        USAGE_TURNS_OF_OWNER_MAX = 8,
        USAGE_TURNS_MAX = 256,

        USAGE_TURNS_E_OF_OWNER = 1, /* the owner has as many as it may have */
        USAGE_TURNS_E_FULL,         /* all together are as many as may be */
};

TAILQ_HEAD(usage_turn_list, usage_turn);

struct usage_turns {
        sd_event *loop;
        sd_event_source *timer;
        struct usage_turn_list asking;  /* at most one of each owner */
        struct usage_turn_list waiting; /* behind another one of their owner, in their order */
        struct usage_turn *current;     /* of those that ask: makes its step now */
        size_t n;
        bool is_resting;
};

struct usage_turn {
        TAILQ_ENTRY(usage_turn) link;
        struct usage_turns *turns; /* NULL: has no place, or not any more */
        const char *owner;
        void (*on_turn)(struct usage_turn *turn);
};

void usage_turns_init(struct usage_turns *turns, sd_event *loop);

/* All lose their place; those that make no step now are told by on_turn, a last time. */
void usage_turns_deinit(struct usage_turns *turns);

/* Calls on_turn when it may make a step, perhaps at once; it says then, once the step is over, what
 * that cost: by _again, to be called once more, or by _end. */
int usage_turns_ask(struct usage_turns *turns, struct usage_turn *turn);
void usage_turn_again(struct usage_turn *turn, uint64_t cost_usec);

/* Nothing if it has no place. */
void usage_turn_end(struct usage_turn *turn, uint64_t cost_usec);
