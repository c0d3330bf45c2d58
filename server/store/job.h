/* One thing to do on the worker thread, and whom to tell on the loop thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "runtime/base/inbox.h"
#include "server/store/records.h"

struct database;
struct job;
struct store;

struct job_class {
        bool is_write;
        bool is_new_work; /* refused with STORE_E_FULL while the disk counts as full */
        /* Worker thread, inside a transaction. 0, a STORE_E_ outcome or a negative errno; what a
         * write changed is undone unless 0. */
        int (*work)(struct database *database, struct job *job);
        /* Loop thread: calls back with job->result. */
        void (*deliver)(struct job *job);
        void (*deinit)(struct job *job); /* may be NULL */
};

struct job {
        struct inbox_task task;
        const struct job_class *class;
        struct store *store;
        void *userdata;
        bool is_durable;    /* a write that must survive a loss of power before it is told */
        uint64_t cost_usec; /* how long its work, a read, held up others */
        int result;         /* set before the work: refused, there will be none */
        bool is_refused;    /* it was */
        bool is_disk_full;  /* as the worker saw it after a write */
        STAILQ_ENTRY(job) entry;
};

STAILQ_HEAD(job_list, job);

/* A job of zeros with its class; embed struct job first in what is allocated. Never NULL: whoever
 * asks for a change is told later, in every case. */
void *job_new(struct store *store, const struct job_class *class, size_t size, void *userdata);
void job_submit(struct job *job);
void job_free(struct job *job);

/* A filter's text, copied; one that is too long to match anything refuses the job. */
struct job_text {
        bool is_set;
        char text[OWNER_BUFFER];
};
void job_text_set(struct job *job, struct job_text *text, const char *value);

/* NULL when it is not set. */
const char *job_text_get(const struct job_text *text);
