/* The thread that works with the database. */
#pragma once

#include "server/store/job.h"

struct worker;

/* @database and @inbox are the caller's; the thread has the database until worker_stop. */
int worker_new(struct database *database, struct inbox *inbox, struct worker **ret_worker);

/* Ends the thread, after what is queued: the tasks of all jobs are then posted. */
void worker_stop(struct worker *worker);

/* After worker_stop only. */
struct worker *worker_free(struct worker *worker);

/* Loop thread. Jobs are done, and posted to the inbox, in the order of submission. */
void worker_submit(struct worker *worker, struct job *job);

/* Loop thread: the job was delivered; its results need no memory any more. */
void worker_delivered(struct worker *worker, const struct job *job);
