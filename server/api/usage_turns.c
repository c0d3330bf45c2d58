#include "server/api/usage_turns.h"

#include <assert.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"

#define PAUSE_MAX_USEC (1000 * UINT64_C(1000)) /* also when a disk stood still */

enum { PAUSE_FACTOR = 4 }; /* steps have at most a fifth of the database's thread */

static void go_on(struct usage_turns *turns)
{
        if (turns->current || turns->is_resting)
                return;
        turns->current = TAILQ_FIRST(&turns->asking);
        if (turns->current)
                turns->current->on_turn(turns->current);
}

static int on_rested(sd_event_source *timer, uint64_t usec, void *userdata)
{
        struct usage_turns *turns = userdata;

        (void)timer, (void)usec;
        turns->is_resting = false;
        go_on(turns);
        return 0;
}

/* Without a timer there is no pause. */
static void rest(struct usage_turns *turns, uint64_t cost_usec)
{
        uint64_t pause_usec = MIN(cost_usec * PAUSE_FACTOR, PAUSE_MAX_USEC);

        turns->timer = sd_event_source_disable_unref(turns->timer);
        turns->is_resting = pause_usec > 0 &&
                            sd_event_add_time_relative(turns->loop, &turns->timer, CLOCK_MONOTONIC,
                                                       pause_usec, 1, on_rested, turns) >= 0;
        go_on(turns);
}

static struct usage_turn *find_of(struct usage_turn_list *list, const char *owner)
{
        struct usage_turn *turn;

        TAILQ_FOREACH(turn, list, link)
        if (strcmp(turn->owner, owner) == 0)
                break;
        return turn;
}

static size_t count_waiting(struct usage_turns *turns, const char *owner)
{
        struct usage_turn *turn;
        size_t n = 0;

        TAILQ_FOREACH(turn, &turns->waiting, link)
        n += strcmp(turn->owner, owner) == 0;
        return n;
}

void usage_turns_init(struct usage_turns *turns, sd_event *loop)
{
        *turns = (struct usage_turns){ .loop = loop };
        TAILQ_INIT(&turns->asking);
        TAILQ_INIT(&turns->waiting);
}

static void drop_all(struct usage_turns *turns, struct usage_turn_list *list)
{
        struct usage_turn *turn;

        while ((turn = TAILQ_FIRST(list))) {
                TAILQ_REMOVE(list, turn, link);
                turn->turns = NULL;
                if (turn != turns->current)
                        turn->on_turn(turn);
        }
}

void usage_turns_deinit(struct usage_turns *turns)
{
        turns->timer = sd_event_source_disable_unref(turns->timer);
        drop_all(turns, &turns->asking);
        drop_all(turns, &turns->waiting);
}

int usage_turns_ask(struct usage_turns *turns, struct usage_turn *turn)
{
        if (turns->n == USAGE_TURNS_MAX)
                return USAGE_TURNS_E_FULL;
        if (!find_of(&turns->asking, turn->owner))
                TAILQ_INSERT_TAIL(&turns->asking, turn, link);
        else if (count_waiting(turns, turn->owner) + 1 < USAGE_TURNS_OF_OWNER_MAX)
                TAILQ_INSERT_TAIL(&turns->waiting, turn, link);
        else
                return USAGE_TURNS_E_OF_OWNER;
        turn->turns = turns;
        turns->n++;
        go_on(turns);
        return 0;
}

void usage_turn_again(struct usage_turn *turn, uint64_t cost_usec)
{
        struct usage_turns *turns = turn->turns;

        assert(turns->current == turn);
        TAILQ_REMOVE(&turns->asking, turn, link);
        TAILQ_INSERT_TAIL(&turns->asking, turn, link);
        turns->current = NULL;
        rest(turns, cost_usec);
}

void usage_turn_end(struct usage_turn *turn, uint64_t cost_usec)
{
        struct usage_turns *turns = take(turn->turns);
        struct usage_turn *next;

        if (!turns)
                return;
        assert(turns->current == turn);
        TAILQ_REMOVE(&turns->asking, turn, link);
        turns->current = NULL;
        turns->n--;
        next = find_of(&turns->waiting, turn->owner);
        if (next) {
                TAILQ_REMOVE(&turns->waiting, next, link);
                TAILQ_INSERT_TAIL(&turns->asking, next, link);
        }
        rest(turns, cost_usec);
}
