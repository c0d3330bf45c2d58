/*
 * What waits is begun in turns. Small policies are made and written at once, one in each turn of
 * the loop, whatever goes on with a large one; of the large ones one is on its way at a time:
 *
 *   idle ──▶ making ──▶ writing ──▶ idle
 *              └──────────▲ (it cannot be made)
 */
#include "runtime/egress/policy_turns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "runtime/base/again.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_leaving.h"
#include "runtime/egress/policy_making.h"
#include "runtime/egress/policy_reader.h"
#include "runtime/egress/server_link.h"

/* Bytes of rules that are made on the loop: less than a millisecond's work. */
enum { AT_ONCE_BYTES = 4096 };

#define FAILURE(name) HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

enum state {
        STATE_IDLE,
        STATE_MAKING,  /* what is made is the thread's */
        STATE_WRITING, /* n_written entries of the job's policy are in the tables */
        _STATE_N,
};

static const unsigned next_states[] = {
        [STATE_IDLE] = BIT(STATE_MAKING),
        [STATE_MAKING] = BIT(STATE_WRITING) | BIT(STATE_IDLE),
        [STATE_WRITING] = BIT(STATE_IDLE),
};
static_assert(ARRAY_SIZE(next_states) == _STATE_N, "every state has a row");

/* A policy that waits, or is on its way. */
struct job {
        TAILQ_ENTRY(job) link; /* while it waits */
        struct policy_turns *turns;
        struct network *network; /* NULL: it is gone */
        uint64_t connection;     /* with the hotcelld that asked */
        uint64_t request;
        struct policy_making making;
        size_t n_written; /* entries of the policy that are in the tables */
};
TAILQ_HEAD(job_list, job);

struct policy_turns {
        struct egress *egress;
        sd_event_source *turn; /* enabled: there is something to begin, to write or to take out */
        struct policy_leaving leaving;
        struct job_list waiting; /* in the order of their coming */
        size_t n_waiting;
        bool was_oldest; /* the large one that was begun last */

        enum state state;
        struct job *current; /* the large one that is on its way; NULL when idle */
        struct policy_maker maker;
};

static void enter(struct policy_turns *turns, enum state next)
{
        assert(next_states[turns->state] & BIT(next));
        assert(turns->current);

        turns->state = next;
}

static void turn_again(struct policy_turns *turns)
{
        again(turns->turn);
}

/* --- going --------------------------------------------------------------------------------------
 */

/* Only the first @n_written entries of the table are there. */
static void remove_written(struct policy_turns *turns, struct policy_table *table, uint32_t number,
                           size_t n_written)
{
        if (policy_leaving_add(&turns->leaving, table, number, n_written))
                turn_again(turns);
}

void policy_turns_remove(struct policy_turns *turns, struct policy_table *table, uint32_t number)
{
        remove_written(turns, table, number, table->n_entries);
}

/* --- answers ------------------------------------------------------------------------------------
 */

/* To nobody, if another hotcelld speaks now: it asks for all policies again. */
static bool is_awaited(const struct job *job)
{
        return job->connection != 0 &&
               channel_connection(job->turns->egress->server) == job->connection;
}

static void answer_failure(const struct job *job, Hotcell__Egress__V1__FailureReason reason,
                           const char *text)
{
        if (is_awaited(job))
                server_link_answer_failure(job->turns->egress, job->request, reason, text);
}

static void answer_error(const struct job *job, int r)
{
        char text[160];

        if (r == -E2BIG)
                (void)snprintf(text, sizeof(text),
                               "the tables of the wall are full: all policies together have more "
                               "than the %d prefixes of a family that they hold",
                               EGRESS_PREFIXES_MAX);
        else
                (void)snprintf(text, sizeof(text), "the policy cannot be put in force: %s",
                               strerrordesc_np(-r));
        answer_failure(job, FAILURE(EXHAUSTED), text);
}

static const char no_policy[] = "the policy cannot be put in force: it is no policy";

static void answer_too_complex(const struct job *job)
{
        char text[256];

        (void)snprintf(text, sizeof(text), "rule %zu: %s", job->making.rule,
                       policy_problem_text(POLICY_E_TOO_COMPLEX));
        answer_failure(job, FAILURE(TOO_COMPLEX), text);
}

/* If there is no policy. */
static void answer_unmade(const struct job *job)
{
        switch (job->making.state) {
        case MAKING_TO_DO:
        case MAKING_DONE:
                return;
        case MAKING_INVALID:
                answer_failure(job, FAILURE(INVALID), no_policy);
                return;
        case MAKING_TOO_COMPLEX:
                answer_too_complex(job);
                return;
        case MAKING_FAILED:
                answer_error(job, job->making.error);
                return;
        }
}

/* --- coming -------------------------------------------------------------------------------------
 */

/* Takes out what it wrote, if that is not in force. */
static struct job *job_free(struct job *job)
{
        struct network_policy *policy = &job->making.policy;

        remove_written(job->turns, &policy->table, policy->number, job->n_written);
        policy_making_deinit(&job->making);
        free(job);
        return NULL;
}

/* It is whole in the tables. */
static void switch_over(struct job *job)
{
        size_t n_cut = 0;
        int r = network_set_policy(job->network, &job->making.policy, &n_cut);

        if (r) {
                answer_error(job, r);
                return;
        }
        job->making.policy.table = (struct policy_table){ 0 }; /* it is the network's now */
        job->n_written = 0;
        if (is_awaited(job))
                server_link_answer_enforced(job->turns->egress, job->request, &job->network->policy,
                                            n_cut);
}

/* By which its entries are known in the tables. */
static void give_number(struct job *job)
{
        if (job->making.state == MAKING_DONE)
                job->making.policy.number = tables_new_number(&job->turns->egress->tables);
}

/* Up to @n_max entries. 0, or why the next one cannot be written. */
static int write_entries(struct job *job, size_t n_max)
{
        const struct network_policy *policy = &job->making.policy;

        for (; n_max > 0 && job->n_written < policy->table.n_entries; n_max--) {
                int r = tables_put_entry(&job->turns->egress->tables, policy->number,
                                         &policy->table.entries[job->n_written]);

                if (r)
                        return r;
                job->n_written++;
        }
        return 0;
}

static bool is_whole(const struct job *job)
{
        return job->n_written == job->making.policy.table.n_entries;
}

/* There is no room now, but there will be. */
static bool is_full_for_now(const struct policy_turns *turns, int r)
{
        return r == -E2BIG && !policy_leaving_is_empty(&turns->leaving);
}

/* --- which is next ------------------------------------------------------------------------------
 */

static void enqueue(struct job *job)
{
        struct policy_turns *turns = job->turns;

        TAILQ_INSERT_TAIL(&turns->waiting, job, link);
        turns->n_waiting++;
        channel_hold(turns->egress->server, turns->n_waiting >= POLICY_WAITING_MAX);
        turn_again(turns);
}

static void stop_waiting(struct job *job)
{
        struct policy_turns *turns = job->turns;

        TAILQ_REMOVE(&turns->waiting, job, link);
        turns->n_waiting--;
        channel_hold(turns->egress->server, turns->n_waiting >= POLICY_WAITING_MAX);
}

static bool is_small(const struct job *job)
{
        return job->making.head.n_bytes <= AT_ONCE_BYTES;
}

/* The policies of a network are put in force in their order. */
static bool is_first(const struct job *job)
{
        const struct policy_turns *turns = job->turns;
        const struct job *earlier;

        if (turns->current && turns->current->network == job->network)
                return false;
        TAILQ_FOREACH(earlier, &turns->waiting, link)
        {
                if (earlier->network == job->network)
                        break;
        }
        return earlier == job;
}

static struct job *next_small(const struct policy_turns *turns)
{
        struct job *job;

        TAILQ_FOREACH(job, &turns->waiting, link)
        {
                if (is_small(job) && is_first(job))
                        break;
        }
        return job;
}

/* By turns the one that came first and the smallest: so none waits for all that are larger, and
 * none for ever. */
static struct job *next_large(const struct policy_turns *turns)
{
        struct job *job, *best = NULL;

        TAILQ_FOREACH(job, &turns->waiting, link)
        {
                if (is_small(job) ||
                    (best && job->making.head.n_bytes >= best->making.head.n_bytes) ||
                    !is_first(job))
                        continue;
                best = job;
                if (!turns->was_oldest)
                        break;
        }
        return best;
}

/* --- small ones ---------------------------------------------------------------------------------
 */

/* 0, or why it is not whole. */
static int write_all(struct job *job)
{
        int r = write_entries(job, SIZE_MAX);

        if (!r)
                switch_over(job);
        return r;
}

/* One that finds no room now waits on with what it has written. */
static void put_in_force(struct job *job)
{
        int r = 0;

        if (job->making.state == MAKING_TO_DO) {
                policy_making_run(&job->making);
                give_number(job);
        }
        if (job->making.state == MAKING_DONE)
                r = write_all(job);
        else
                answer_unmade(job);
        if (is_full_for_now(job->turns, r))
                return;
        if (r)
                answer_error(job, r);
        stop_waiting(job);
        (void)job_free(job);
}

/* --- large ones ---------------------------------------------------------------------------------
 */

static void finish(struct policy_turns *turns)
{
        enter(turns, STATE_IDLE);
        turns->current = job_free(turns->current);
        turn_again(turns);
}

static void write_some(struct policy_turns *turns)
{
        struct job *job = turns->current;
        int r = write_entries(job, POLICY_TURN_ENTRIES);

        if (!r && is_whole(job)) {
                switch_over(job);
                finish(turns);
        } else if (!r || is_full_for_now(turns, r)) {
                turn_again(turns);
        } else {
                answer_error(job, r);
                finish(turns);
        }
}

static void on_made(struct policy_making *making)
{
        struct job *job = CONTAINER_OF(making, struct job, making);
        struct policy_turns *turns = job->turns;

        if (making->state != MAKING_DONE || !job->network) {
                answer_unmade(job);
                finish(turns);
                return;
        }
        give_number(job);
        enter(turns, STATE_WRITING);
        turn_again(turns);
}

static void begin(struct policy_turns *turns, struct job *job)
{
        int r;

        turns->was_oldest = !turns->was_oldest;
        stop_waiting(job);
        turns->current = job;
        enter(turns, STATE_MAKING);
        r = policy_maker_begin(&turns->maker, &job->making, on_made);
        if (r) {
                answer_error(job, r);
                finish(turns);
        }
}

/* --- asking -------------------------------------------------------------------------------------
 */

void policy_turns_begin(struct policy_turns *turns, struct network *network, uint64_t request,
                        const Hotcell__Egress__V1__SetPolicy *set, int fd)
{
        struct job *job = calloc(1, sizeof(*job));
        struct policy_head head;

        if (!job || policy_reader_head(set, &head)) {
                (void)close_fd(fd);
                server_link_answer_failure(turns->egress, request,
                                           job ? FAILURE(INVALID) : FAILURE(EXHAUSTED),
                                           job ? no_policy : "there is no memory for the policy");
                free(job);
                return;
        }
        *job = (struct job){ .turns = turns,
                             .network = network,
                             .connection = channel_connection(turns->egress->server),
                             .request = request };
        policy_making_init(&job->making, &head, fd);
        enqueue(job);
}

static void forget(struct job *job)
{
        answer_failure(job, FAILURE(NOT_FOUND), "the network is gone");
        job->network = NULL;
        job->connection = 0;
}

void policy_turns_forget(struct policy_turns *turns, const struct network *network)
{
        struct job *job, *following;

        for (job = TAILQ_FIRST(&turns->waiting); job; job = following) {
                following = TAILQ_NEXT(job, link);
                if (job->network != network)
                        continue;
                forget(job);
                stop_waiting(job);
                (void)job_free(job);
        }
        if (!turns->current || turns->current->network != network)
                return;
        forget(turns->current);
        if (turns->state == STATE_WRITING)
                finish(turns);
}

/* --- its life -----------------------------------------------------------------------------------
 */

/* For a hotcelld that is gone nothing is begun. */
static void drop_unawaited(struct policy_turns *turns)
{
        struct job *job, *following;

        for (job = TAILQ_FIRST(&turns->waiting); job; job = following) {
                following = TAILQ_NEXT(job, link);
                if (is_awaited(job))
                        continue;
                stop_waiting(job);
                (void)job_free(job);
        }
}

/* Some of what goes, and some of what comes: none waits for all of another. */
static int on_turn(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct policy_turns *turns = userdata;
        struct job *job;

        (void)source;
        (void)usec;
        if (policy_leaving_go_on(&turns->leaving))
                turn_again(turns);
        drop_unawaited(turns);
        job = next_small(turns);
        if (job) {
                put_in_force(job);
                turn_again(turns);
        }
        if (turns->state == STATE_WRITING)
                write_some(turns);
        job = turns->state == STATE_IDLE ? next_large(turns) : NULL;
        if (job)
                begin(turns, job);
        return 0;
}

DEFINE_CLEANUP(struct policy_turns, policy_turns_free)

int policy_turns_new(struct egress *egress, struct policy_turns **ret_turns)
{
        _cleanup_(policy_turns_freep) struct policy_turns *turns = calloc(1, sizeof(*turns));
        int r;

        if (!turns)
                return error_origin(-ENOMEM);
        turns->egress = egress;
        policy_leaving_init(&turns->leaving, &egress->tables);
        TAILQ_INIT(&turns->waiting);
        r = policy_maker_init(&turns->maker, egress->event);
        if (r)
                return r;
        r = again_new(egress->event, &turns->turn, on_turn, turns);
        if (r)
                return r;
        *ret_turns = take(turns);
        return 0;
}

struct policy_turns *policy_turns_free(struct policy_turns *turns)
{
        struct job *job;

        if (!turns)
                return NULL;
        if (turns->current) {
                turns->current->network = NULL;
                turns->current->connection = 0;
        }
        policy_maker_wait(&turns->maker);
        if (turns->current)
                turns->current = job_free(turns->current);
        while ((job = TAILQ_FIRST(&turns->waiting))) {
                TAILQ_REMOVE(&turns->waiting, job, link);
                (void)job_free(job);
        }
        policy_leaving_deinit(&turns->leaving);
        turns->turn = sd_event_source_disable_unref(turns->turn);
        policy_maker_deinit(&turns->maker);
        free(turns);
        return NULL;
}
