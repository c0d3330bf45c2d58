/*
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

/* A policy in the making. */
struct job {
        struct inbox_task task;
        struct inbox *inbox;
        struct policy_head head;
        int fd;
        int result; /* 0, a negative errno, or what policy_reader_read() and policy_compile() say */
        bool is_bad; /* the positive one is the reader's */
        size_t rule; /* of which that is said */
        struct network_policy policy;
};

struct leaving {
        STAILQ_ENTRY(leaving) link;
        struct policy_table table;
        uint32_t number;
        size_t n_left; /* entries that are still in the tables */
};

struct policy_turns {
        struct egress *egress;
        struct inbox *inbox;
        sd_event_source *turn; /* enabled: entries are to be written or taken out */
        STAILQ_HEAD(, leaving) leaving;

        enum state state;
        struct network *network; /* NULL: it is gone */
        uint64_t connection;     /* with the hotcelld that asked */
        uint64_t request;
        struct job job;
        pthread_t thread;
        bool has_thread;
        size_t n_written;
};

static void enter(struct policy_turns *turns, enum state next)
{
        assert(next_states[turns->state] & BIT(next));

        turns->state = next;
        channel_hold(turns->egress->server, next != STATE_IDLE);
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
static bool is_awaited(const struct policy_turns *turns)
{
        return turns->connection != 0 &&
               channel_connection(turns->egress->server) == turns->connection;
}

static void answer_failure(const struct policy_turns *turns,
                           Hotcell__Egress__V1__FailureReason reason, const char *text)
{
        if (is_awaited(turns))
                server_link_answer_failure(turns->egress, turns->request, reason, text);
}

static void answer_error(const struct policy_turns *turns, int r)
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
        answer_failure(turns, FAILURE(EXHAUSTED), text);
}

static const char no_policy[] = "the policy cannot be put in force: it is no policy";

static void answer_problem(const struct policy_turns *turns)
{
        char text[256];

        if (turns->job.is_bad) {
                answer_failure(turns, FAILURE(INVALID), no_policy);
                return;
        }
        (void)snprintf(text, sizeof(text), "rule %zu: %s", turns->job.rule,
                       policy_problem_text(turns->job.result));
        answer_failure(turns, FAILURE(TOO_COMPLEX), text);
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
        job->fd = close_fd(job->fd);
        return r;
}

static void *make_apart(void *userdata)
{
        struct job *job = userdata;

        (void)pthread_setname_np(pthread_self(), "policy");
        job->result = make(job);
        inbox_post(job->inbox, &job->task);
        return NULL;
}

/* --- coming -------------------------------------------------------------------------------------
 */

/* Nothing of it stays. */
static void give_up(struct policy_turns *turns)
{
        remove_written(turns, &turns->job.policy.table, turns->job.policy.number, turns->n_written);
        enter(turns, STATE_IDLE);
}

static void switch_over(struct policy_turns *turns)
{
        size_t n_cut = 0;
        int r = network_set_policy(turns->network, &turns->job.policy, &n_cut);

        if (r) {
                answer_error(turns, r);
                give_up(turns);
                return;
        }
        turns->job.policy.table = (struct policy_table){ 0 }; /* it is the network's now */
        if (is_awaited(turns))
                server_link_answer_enforced(turns->egress, turns->request, &turns->network->policy,
                                            n_cut);
        enter(turns, STATE_IDLE);
}

static void write_some(struct policy_turns *turns)
{
        const struct policy_table *table = &turns->job.policy.table;

        for (size_t i = 0; i < POLICY_TURN_ENTRIES && turns->n_written < table->n_entries; i++) {
                int r = tables_put_entry(&turns->egress->tables, turns->job.policy.number,
                                         &table->entries[turns->n_written]);

                /* There will be room. */
                if (r == -E2BIG && !STAILQ_EMPTY(&turns->leaving)) {
                        turn_again(turns);
                        return;
                }
                if (r) {
                        answer_error(turns, r);
                        give_up(turns);
                        return;
                }
                turns->n_written++;
        }
        if (turns->n_written == table->n_entries)
                switch_over(turns);
        else
                turn_again(turns);
}

static void go_on(struct policy_turns *turns)
{
        turns->n_written = 0;
        turns->job.policy.number = 0;
        if (turns->job.result == 0 && turns->network) {
                turns->job.policy.number = tables_new_number(&turns->egress->tables);
                enter(turns, STATE_WRITING);
                write_some(turns);
                return;
        }
        if (turns->job.result < 0)
                answer_error(turns, turns->job.result);
        else if (turns->job.result > 0)
                answer_problem(turns);
        give_up(turns);
}

static void on_made(struct inbox_task *task)
{
        struct job *job = CONTAINER_OF(task, struct job, task);
        struct policy_turns *turns = CONTAINER_OF(job, struct policy_turns, job);

        if (turns->has_thread)
                (void)pthread_join(turns->thread, NULL);
        turns->has_thread = false;
        go_on(turns);
}

void policy_turns_begin(struct policy_turns *turns, struct network *network, uint64_t request,
                        const Hotcell__Egress__V1__SetPolicy *set, int fd)
{
        struct job *job = &turns->job;
        struct policy_head head;
        int r = 0;

        if (policy_reader_head(set, &head)) {
                (void)close_fd(fd);
                server_link_answer_failure(turns->egress, request, FAILURE(INVALID), no_policy);
                return;
        }
        turns->network = network;
        turns->connection = channel_connection(turns->egress->server);
        turns->request = request;
        *job = (struct job){
                .task = { .run = on_made }, .inbox = turns->inbox, .head = head, .fd = fd
        };
        enter(turns, STATE_MAKING);
        if (head.n_bytes > AT_ONCE_BYTES) {
                r = pthread_create(&turns->thread, NULL, make_apart, job);
                turns->has_thread = r == 0;
                if (turns->has_thread)
                        return;
        }
        job->result = r ? error_origin(-r) : make(job);
        job->fd = close_fd(job->fd);
        go_on(turns);
}

void policy_turns_forget(struct policy_turns *turns, const struct network *network)
{
        if (turns->state == STATE_IDLE || turns->network != network)
                return;
        answer_failure(turns, FAILURE(NOT_FOUND), "the network is gone");
        turns->network = NULL;
        turns->connection = 0;
        if (turns->state == STATE_WRITING)
                give_up(turns);
}

/* --- its life -----------------------------------------------------------------------------------
 */

/* Some of what goes, and some of what comes: neither waits for all of the other. */
static int on_turn(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct policy_turns *turns = userdata;
        struct leaving *leaving = STAILQ_FIRST(&turns->leaving);

        (void)source;
        (void)usec;
        if (leaving) {
                take_out(turns, leaving, POLICY_TURN_ENTRIES);
                if (leaving->n_left == 0)
                        leaving_free(turns, leaving);
                turn_again(turns);
        }
        if (turns->state == STATE_WRITING)
                write_some(turns);
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
        turns->job.fd = -1;
        STAILQ_INIT(&turns->leaving);
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

        if (!turns)
                return NULL;
        turns->network = NULL;
        turns->connection = 0;
        if (turns->has_thread) {
                (void)pthread_join(turns->thread, NULL);
                turns->has_thread = false;
                inbox_drain(turns->inbox);
        }
        policy_table_deinit(&turns->job.policy.table);
        while ((leaving = STAILQ_FIRST(&turns->leaving)))
                leaving_free(turns, leaving);
        turns->turn = sd_event_source_disable_unref(turns->turn);
        turns->inbox = inbox_free(turns->inbox);
        free(turns);
        return NULL;
}
