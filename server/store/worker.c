/*
 * Jobs are taken in batches: a run of writes, or a run of reads. The writes of a batch share one
 * transaction, with a savepoint each, and, if one of them is durable, one fsync: then none is told
 * before all are on the disk. If the transaction fails, all of its jobs fail alike: what one of
 * them saw of another is void.
 *
 * A batch of reads is one transaction, too: a job that asks several statements sees one state.
 */
#include "server/store/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/store/database.h"
#include "server/store/rows.h"
#include "server/store/store.h"

enum {
        QUEUED_MAX = 8192,            /* jobs beyond are refused */
        WRITES_BATCH_MAX = 256,       /* of one transaction */
        READS_UNREAD_MAX = 16,        /* results, up to a megabyte each, that wait for the loop */
        IDLE_NSEC = 50 * 1000 * 1000, /* a pause long enough that another one may follow */
};

struct worker {
        struct database *database;
        struct inbox *inbox;
        pthread_t thread;
        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t changed;
        struct job_list queue;
        size_t n_queued;
        size_t n_unread;
        bool is_stopping;
};

static bool may_start(const struct worker *worker)
{
        const struct job *first = STAILQ_FIRST(&worker->queue);

        if (!first)
                return worker->is_stopping;
        /* When stopping, nobody reads results: waiting for it would never end. */
        return first->class->is_write || worker->n_unread < READS_UNREAD_MAX || worker->is_stopping;
}

/* The lock is held. */
static size_t batch_max(const struct worker *worker, bool is_write)
{
        if (is_write)
                return WRITES_BATCH_MAX;
        return worker->is_stopping ? 1 : READS_UNREAD_MAX - worker->n_unread;
}

static void move_run(struct worker *worker, struct job_list *batch)
{
        struct job *job = STAILQ_FIRST(&worker->queue);
        bool is_write = job && job->class->is_write;
        size_t max = batch_max(worker, is_write);

        for (size_t n = 0; n < max && job && job->class->is_write == is_write; n++) {
                STAILQ_REMOVE_HEAD(&worker->queue, entry);
                STAILQ_INSERT_TAIL(batch, job, entry);
                worker->n_queued--;
                if (!is_write)
                        worker->n_unread++;
                job = STAILQ_FIRST(&worker->queue);
        }
}

/* The lock is held, and let go for the checkpoint. */
static void wait_or_checkpoint(struct worker *worker)
{
        struct timespec until;
        int r;

        if (!database_wants_checkpoint(worker->database)) {
                (void)pthread_cond_wait(&worker->changed, &worker->lock);
                return;
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += IDLE_NSEC;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        r = pthread_cond_timedwait(&worker->changed, &worker->lock, &until);
        if (r != ETIMEDOUT)
                return;
        (void)pthread_mutex_unlock(&worker->lock);
        database_checkpoint(worker->database);
        (void)pthread_mutex_lock(&worker->lock);
}

/* Waits for a batch; an empty one means stop. */
static void take_batch(struct worker *worker, struct job_list *batch)
{
        STAILQ_INIT(batch);
        (void)pthread_mutex_lock(&worker->lock);
        while (!may_start(worker))
                wait_or_checkpoint(worker);
        move_run(worker, batch);
        (void)pthread_mutex_unlock(&worker->lock);
}

static int run_statement(struct database *database, enum statement_id id)
{
        return row_run(database->statements[id]);
}

/* Negative: the transaction is lost, not only this job. */
static int run_write(struct database *database, struct job *job)
{
        int r;

        r = run_statement(database, STATEMENT_JOB_BEGIN);
        if (r)
                return r;
        job->result = job->class->work(database, job);
        /* Some failures (a full disk, no memory) make SQLite give up the whole transaction. */
        if (sqlite3_get_autocommit(database->connection))
                return job->result < 0 ? job->result : error_origin(-EIO);
        if (job->result) {
                r = run_statement(database, STATEMENT_JOB_UNDO);
                if (r)
                        return r;
        }
        return run_statement(database, STATEMENT_JOB_KEEP);
}

static void run_read(struct database *database, struct job *job)
{
        uint64_t start_usec = clock_monotonic_usec();

        job->result = job->class->work(database, job);
        job->cost_usec = clock_monotonic_usec() - start_usec;
}

static int run_jobs(struct database *database, struct job_list *batch, bool is_write)
{
        struct job *job;

        STAILQ_FOREACH(job, batch, entry)
        {
                int r = 0;

                if (job->result)
                        continue;
                if (is_write)
                        r = run_write(database, job);
                else
                        run_read(database, job);
                if (r)
                        return error_fold(r);
        }
        return 0;
}

static void fail_all(struct job_list *batch, int error)
{
        struct job *job;

        STAILQ_FOREACH(job, batch, entry)
        job->result = error;
}

static bool batch_is_durable(const struct job_list *batch)
{
        const struct job *job;

        STAILQ_FOREACH(job, batch, entry)
        {
                if (job->is_durable)
                        return true;
        }
        return false;
}

static int try_batch(struct database *database, struct job_list *batch)
{
        bool is_write = STAILQ_FIRST(batch)->class->is_write;
        bool is_durable = is_write && batch_is_durable(batch);
        int r = 0;

        if (is_write)
                r = database_set_durable(database, is_durable);
        if (r == 0)
                r = run_statement(database,
                                  is_write ? STATEMENT_BEGIN_WRITES : STATEMENT_BEGIN_READS);
        if (r == 0)
                r = run_jobs(database, batch, is_write);
        if (r == 0)
                r = run_statement(database, STATEMENT_COMMIT);
        if (r == 0)
                return 0;

        if (!sqlite3_get_autocommit(database->connection))
                (void)run_statement(database, STATEMENT_ROLLBACK);
        if (is_durable)
                database_doubt_log(database);
        return r < 0 ? r : error_origin(-EIO);
}

static void note_refused(struct job_list *batch)
{
        struct job *job;

        STAILQ_FOREACH(job, batch, entry)
        job->is_refused = job->result != 0;
}

/* Nothing of it was done: as before the first try, but for new work on a full disk. */
static void prepare_batch(const struct database *database, struct job_list *batch)
{
        bool is_full = database->spare.is_given;
        struct job *job;

        STAILQ_FOREACH(job, batch, entry)
        {
                if (!job->is_refused)
                        job->result = is_full && job->class->is_new_work ? STORE_E_FULL : 0;
        }
}

static void note_disk(const struct database *database, struct job_list *batch)
{
        struct job *job;

        STAILQ_FOREACH(job, batch, entry)
        job->is_disk_full = database->spare.is_given;
}

static bool is_want_of_room(int r)
{
        return r == -ENOSPC || r == -EDQUOT;
}

static void run_batch(struct database *database, struct job_list *batch)
{
        int r;

        note_refused(batch);
        prepare_batch(database, batch);
        r = try_batch(database, batch);
        if (is_want_of_room(r) && spare_give(&database->spare)) {
                prepare_batch(database, batch);
                r = try_batch(database, batch);
        }
        if (r)
                fail_all(batch, r);
        note_disk(database, batch);
}

static void post_batch(struct worker *worker, struct job_list *batch)
{
        struct job *job;

        while ((job = STAILQ_FIRST(batch))) {
                STAILQ_REMOVE_HEAD(batch, entry);
                /* From here on it is the loop's. */
                inbox_post(worker->inbox, &job->task);
        }
}

static void *worker_main(void *userdata)
{
        struct worker *worker = userdata;
        struct job_list batch;

        (void)pthread_setname_np(pthread_self(), "store");
        for (;;) {
                take_batch(worker, &batch);
                if (STAILQ_EMPTY(&batch))
                        return NULL;
                run_batch(worker->database, &batch);
                post_batch(worker, &batch);
        }
}

/* Signals are the loop's: the thread starts with all of them blocked. */
static int start_thread(struct worker *worker)
{
        sigset_t all, before;
        int r;

        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&worker->thread, NULL, worker_main, worker);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        return r ? error_origin(-r) : 0;
}

/* Pauses are measured by the monotonic clock. */
static void init_lock(struct worker *worker)
{
        pthread_condattr_t attributes;

        (void)pthread_mutex_init(&worker->lock, NULL);
        (void)pthread_condattr_init(&attributes);
        (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&worker->changed, &attributes);
        (void)pthread_condattr_destroy(&attributes);
}

int worker_new(struct database *database, struct inbox *inbox, struct worker **ret_worker)
{
        _cleanup_(freep) struct worker *worker = NULL;
        int r;

        worker = calloc(1, sizeof(*worker));
        if (!worker)
                return error_origin(-ENOMEM);
        worker->database = database;
        worker->inbox = inbox;
        STAILQ_INIT(&worker->queue);
        init_lock(worker);

        r = start_thread(worker);
        if (r)
                return error_fold(r);
        *ret_worker = take(worker);
        return 0;
}

void worker_stop(struct worker *worker)
{
        (void)pthread_mutex_lock(&worker->lock);
        worker->is_stopping = true;
        (void)pthread_cond_signal(&worker->changed);
        (void)pthread_mutex_unlock(&worker->lock);
        (void)pthread_join(worker->thread, NULL);
}

struct worker *worker_free(struct worker *worker)
{
        if (!worker)
                return NULL;

        assert(STAILQ_EMPTY(&worker->queue));
        (void)pthread_cond_destroy(&worker->changed);
        (void)pthread_mutex_destroy(&worker->lock);
        free(worker);
        return NULL;
}

void worker_submit(struct worker *worker, struct job *job)
{
        (void)pthread_mutex_lock(&worker->lock);
        /* Refused ones go through the queue, too: callbacks come in the order of the calls. */
        if (worker->n_queued >= QUEUED_MAX)
                job->result = error_origin(-EAGAIN);
        STAILQ_INSERT_TAIL(&worker->queue, job, entry);
        worker->n_queued++;
        (void)pthread_mutex_unlock(&worker->lock);
        /* Not under the lock, which the thread would wake up to wait for. */
        (void)pthread_cond_signal(&worker->changed);
}

void worker_delivered(struct worker *worker, const struct job *job)
{
        if (job->class->is_write)
                return;
        (void)pthread_mutex_lock(&worker->lock);
        worker->n_unread--;
        (void)pthread_cond_signal(&worker->changed);
        (void)pthread_mutex_unlock(&worker->lock);
}
