/*
 * What waits is begun in turns. Small policies are made and written at once, one in each turn of
 * the loop, whatever goes on with a large one; of the large ones one is on its way at a time:
 *
 *   idle ──▶ making ──▶ writing ──▶ idle
 *              └──────────▲ (it cannot be made)
 *
 * What a policy compiles to, and its digest, take a thread of their own when it is large: neither
 * can be made piece by piece. The thread is made anew for each, so that it has the process's
 * restrictions, and touches nothing but its job.
 */
#include "runtime/egress/policy_turns.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "runtime/base/again.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/inbox.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_reader.h"
#include "runtime/egress/server_link.h"

/* Bytes of rules that are made on the loop: less than a millisecond's work. */
enum { AT_ONCE_BYTES = 4096 };

#define FAILURE(name) HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

enum state {
        STATE_IDLE,
        STATE_MAKING,  /* the job is the thread's */
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
        struct inbox_task task;
        struct policy_turns *turns;
        struct network *network; /* NULL: it is gone */
        uint64_t connection;     /* with the hotcelld that asked */
        uint64_t request;
        struct policy_head head;
        int fd;
        int result; /* 0, a negative errno, or what policy_reader_read() and policy_compile() say */
        bool is_bad; /* the positive one is the reader's */
        size_t rule; /* of which that is said */
        struct network_policy policy;
        size_t n_written; /* entries of the policy that are in the tables */
};
TAILQ_HEAD(job_list, job);

struct leaving {
        STAILQ_ENTRY(leaving) link;
        struct policy_table table;
        uint32_t number;
        size_t n_left; /* entries that are still in the tables */
};

struct policy_turns {
        struct egress *egress;
        struct inbox *inbox;
        sd_event_source *turn; /* enabled: there is something to begin, to write or to take out */
        STAILQ_HEAD(, leaving) leaving;
        struct job_list waiting; /* in the order of their coming */
        size_t n_waiting;
        bool was_oldest; /* the large one that was begun last */

        enum state state;
        struct job *current; /* the large one that is on its way; NULL when idle */
        pthread_t thread;    /* that makes it */
        bool has_thread;
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

static void take_out(const struct policy_turns *turns, struct leaving *leaving, size_t n)
{
        for (; n > 0 && leaving->n_left > 0; n--)
                tables_remove_entry(&turns->egress->tables, leaving->number,
                                    &leaving->table.entries[--leaving->n_left]);
}

/* Only the first @n_written entries of the table are there. */
static void remove_written(struct policy_turns *turns, struct policy_table *table, uint32_t number,
                           size_t n_written)
{
        struct leaving here = { .table = *table, .number = number, .n_left = n_written };
        struct leaving *leaving = n_written > POLICY_TURN_ENTRIES ? malloc(sizeof(*leaving)) : NULL;

        *table = (struct policy_table){ 0 };
        if (!leaving) {
                /* They are few, or there is no memory to do it later. */
                take_out(turns, &here, n_written);
                policy_table_deinit(&here.table);
                return;
        }
        *leaving = here;
        STAILQ_INSERT_TAIL(&turns->leaving, leaving, link);
        turn_again(turns);
}

void policy_turns_remove(struct policy_turns *turns, struct policy_table *table, uint32_t number)
{
        remove_written(turns, table, number, table->n_entries);
}

static void leaving_free(struct policy_turns *turns, struct leaving *leaving)
{
        STAILQ_REMOVE(&turns->leaving, leaving, leaving, link);
        policy_table_deinit(&leaving->table);
        free(leaving);
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

static void answer_problem(const struct job *job)
{
        char text[256];

        if (job->is_bad) {
                answer_failure(job, FAILURE(INVALID), no_policy);
                return;
        }
        (void)snprintf(text, sizeof(text), "rule %zu: %s", job->rule,
                       policy_problem_text(job->result));
        answer_failure(job, FAILURE(TOO_COMPLEX), text);
}

/* --- making -------------------------------------------------------------------------------------
 */

static int make(struct job *job)
{
        struct policy policy = { 0 };
        int r = policy_reader_read(&job->head, job->fd, &policy, &job->rule);

        job->is_bad = r > 0;
        job->policy.version = job->head.version;
        if (!r)
                r = policy_digest(&policy, job->policy.digest);
        if (!r)
                r = policy_compile(&policy, &job->policy.table, &job->rule);
        policy_deinit(&policy);
        return r;
}

static void *make_apart(void *userdata)
{
        struct job *job = userdata;

        (void)pthread_setname_np(pthread_self(), "policy");
        job->result = make(job);
        inbox_post(job->turns->inbox, &job->task);
        return NULL;
}

/* --- coming -------------------------------------------------------------------------------------
 */

/* Takes out what it wrote, if that is not in force. */
static struct job *job_free(struct job *job)
{
        remove_written(job->turns, &job->policy.table, job->policy.number, job->n_written);
        (void)close_fd(job->fd);
        free(job);
        return NULL;
}

/* It is whole in the tables. */
static void switch_over(struct job *job)
{
        size_t n_cut = 0;
        int r = network_set_policy(job->network, &job->policy, &n_cut);

        if (r) {
                answer_error(job, r);
                return;
        }
        job->policy.table = (struct policy_table){ 0 }; /* it is the network's now */
        job->n_written = 0;
        if (is_awaited(job))
                server_link_answer_enforced(job->turns->egress, job->request, &job->network->policy,
                                            n_cut);
}

/* Up to @n_max entries. 0, or why the next one cannot be written. */
static int write_entries(struct job *job, size_t n_max)
{
        const struct policy_table *table = &job->policy.table;

        for (; n_max > 0 && job->n_written < table->n_entries; n_max--) {
                int r = tables_put_entry(&job->turns->egress->tables, job->policy.number,
                                         &table->entries[job->n_written]);

                if (r)
                        return r;
                job->n_written++;
        }
        return 0;
}

static bool is_whole(const struct job *job)
{
        return job->n_written == job->policy.table.n_entries;
}

/* There is no room now, but there will be. */
static bool is_full_for_now(const struct policy_turns *turns, int r)
{
        return r == -E2BIG && !STAILQ_EMPTY(&turns->leaving);
}

/* Answers for one that was not made. */
static void answer_unmade(const struct job *job)
{
        if (job->result < 0)
                answer_error(job, job->result);
        else if (job->result > 0)
                answer_problem(job);
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
        return job->head.n_bytes <= AT_ONCE_BYTES;
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
                if (is_small(job) || (best && job->head.n_bytes >= best->head.n_bytes) ||
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
        int r;

        if (job->policy.number == 0)
                job->policy.number = tables_new_number(&job->turns->egress->tables);
        r = write_entries(job, SIZE_MAX);
        if (!r)
                switch_over(job);
        return r;
}

/* One that finds no room now waits on with what it has written. */
static void put_in_force(struct job *job)
{
        int r = 0;

        if (job->policy.number == 0)
                job->result = make(job);
        if (job->result)
                answer_unmade(job);
        else
                r = write_all(job);
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

static void on_made(struct inbox_task *task)
{
        struct job *job = CONTAINER_OF(task, struct job, task);
        struct policy_turns *turns = job->turns;

        if (turns->has_thread)
                (void)pthread_join(turns->thread, NULL);
        turns->has_thread = false;
        if (job->result || !job->network) {
                answer_unmade(job);
                finish(turns);
                return;
        }
        job->policy.number = tables_new_number(&turns->egress->tables);
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
        r = pthread_create(&turns->thread, NULL, make_apart, job);
        turns->has_thread = r == 0;
        if (r) {
                answer_error(job, -r);
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
        *job = (struct job){ .task = { .run = on_made },
                             .turns = turns,
                             .network = network,
                             .connection = channel_connection(turns->egress->server),
                             .request = request,
                             .head = head,
                             .fd = fd };
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

static void take_some_out(struct policy_turns *turns)
{
        struct leaving *leaving = STAILQ_FIRST(&turns->leaving);

        if (!leaving)
                return;
        take_out(turns, leaving, POLICY_TURN_ENTRIES);
        if (leaving->n_left == 0)
                leaving_free(turns, leaving);
        turn_again(turns);
}

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
        take_some_out(turns);
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
        STAILQ_INIT(&turns->leaving);
        TAILQ_INIT(&turns->waiting);
        r = inbox_new(egress->event, &turns->inbox);
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
        struct leaving *leaving;
        struct job *job;

        if (!turns)
                return NULL;
        if (turns->has_thread) {
                turns->current->network = NULL;
                turns->current->connection = 0;
                (void)pthread_join(turns->thread, NULL);
                turns->has_thread = false;
                inbox_drain(turns->inbox);
        }
        if (turns->current)
                turns->current = job_free(turns->current);
        while ((job = TAILQ_FIRST(&turns->waiting))) {
                TAILQ_REMOVE(&turns->waiting, job, link);
                (void)job_free(job);
        }
        while ((leaving = STAILQ_FIRST(&turns->leaving)))
                leaving_free(turns, leaving);
        turns->turn = sd_event_source_disable_unref(turns->turn);
        turns->inbox = inbox_free(turns->inbox);
        free(turns);
        return NULL;
}
