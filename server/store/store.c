#include "server/store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "server/store/rows.h"
#include "server/store/sqlite_error.h"
#include "server/store/store_private.h"

enum {
        PROBE_INTERVAL_USEC = 1000000,
        PROBE_FIRST_USEC = 50000, /* after a write that failed: it may have been for a moment */
};

DEFINE_CLEANUP(struct store, store_close)

static void set_healthy(struct store *store, bool is_healthy, int error)
{
        if (store->is_healthy == is_healthy)
                return;
        store->is_healthy = is_healthy;
        if (is_healthy)
                log_info("the database can be written again");
        else
                log_error("the database cannot be written path=%s error=\"%s\"", store->path,
                          strerror(-error));

        if (store->on_health_change && !store->is_closing)
                store->on_health_change(store->health_userdata);
}

static void set_full(struct store *store, bool is_full)
{
        if (store->is_full == is_full)
                return;
        store->is_full = is_full;
        if (is_full)
                log_error("the disk is full, new work is refused path=%s", store->path);
        else
                log_info("the disk has room again, new work is taken path=%s", store->path);
        if (store->on_health_change && !store->is_closing)
                store->on_health_change(store->health_userdata);
}

/* The probe is durable: a sync for what was written before it. */
static void plan_probe(struct store *store)
{
        bool has_failed = !store->is_healthy || store->is_full;
        bool is_wanted = has_failed || store->is_unsynced;
        bool is_first = has_failed && !store->has_probed_soon;
        int enabled = SD_EVENT_OFF;

        store->has_probed_soon = has_failed;
        (void)sd_event_source_get_enabled(store->probe_timer, &enabled);
        if (is_wanted == (enabled != SD_EVENT_OFF) && !is_first)
                return;
        (void)sd_event_source_set_time_relative(store->probe_timer,
                                                is_first ? PROBE_FIRST_USEC : PROBE_INTERVAL_USEC);
        (void)sd_event_source_set_enabled(store->probe_timer,
                                          is_wanted ? SD_EVENT_ON : SD_EVENT_OFF);
}

/* What a write tells of the disk. One that did not wait for a sync says nothing of syncs. */
static void learn(struct store *store, const struct job *job)
{
        set_full(store, job->is_disk_full);
        if (job->result == 0) {
                store->is_unsynced = !job->is_durable;
                if (job->is_durable)
                        store->has_lost_sync = false;
                if (!store->has_lost_sync)
                        set_healthy(store, true, 0);
        } else if (sqlite_error_is_io(job->result)) {
                store->has_lost_sync |= job->is_durable;
                set_healthy(store, false, job->result);
        }
        if (!store->is_closing)
                plan_probe(store);
}

static void on_job_done(struct inbox_task *task)
{
        struct job *job = CONTAINER_OF(task, struct job, task);
        struct store *store = job->store;

        worker_delivered(store->worker, job);
        if (job->class->is_write)
                learn(store, job);
        if (!store->is_closing)
                job->class->deliver(job);
        job_free(job);
}

void *job_new(struct store *store, const struct job_class *class, size_t size, void *userdata)
{
        struct job *job = reserve_alloc_surely(size);

        assert(size >= sizeof(*job) && size <= RESERVE_BYTES_MAX);
        job->task.run = on_job_done;
        job->class = class;
        job->store = store;
        job->userdata = userdata;
        return job;
}

void job_submit(struct job *job)
{
        worker_submit(job->store->worker, job);
}

void job_free(struct job *job)
{
        if (job->class->deinit)
                job->class->deinit(job);
        reserve_free(job);
}

void job_text_set(struct job *job, struct job_text *text, const char *value)
{
        size_t length = value ? strlen(value) : 0;

        text->is_set = value != NULL;
        if (length >= sizeof(text->text))
                job->result = error_origin(-ENAMETOOLONG);
        else if (value)
                (void)memcpy(text->text, value, length + 1);
}

const char *job_text_get(const struct job_text *text)
{
        return text->is_set ? text->text : NULL;
}

void change_deliver(struct job *job)
{
        struct change_job *change = CONTAINER_OF(job, struct change_job, job);

        change->on_done(job->userdata, job->result);
}

static int probe_work(struct database *database, struct job *job)
{
        sqlite3_stmt *statement = database->statements[STATEMENT_PROBE];

        (void)job;
        (void)spare_make(&database->spare, database->directory_fd);
        row_bind_int64(statement, ":time", time_now_usec());
        return row_run(statement);
}

static void probe_deliver(struct job *job)
{
        (void)job; /* on_job_done has drawn the conclusion */
}

static const struct job_class probe_class = {
        .is_write = true,
        .work = probe_work,
        .deliver = probe_deliver,
};

struct spare_job {
        struct job job;
        int64_t bytes;
};

static int keep_spare_work(struct database *database, struct job *job)
{
        struct spare *spare = &database->spare;

        spare->bytes = CONTAINER_OF(job, struct spare_job, job)->bytes;
        /* A disk that has no room for it from the start is as good as full. */
        spare->is_given = spare_make(spare, database->directory_fd) != 0;
        return 0;
}

static const struct job_class keep_spare_class = {
        .is_write = true,
        .work = keep_spare_work,
        .deliver = probe_deliver,
};

void store_keep_spare(struct store *store, int64_t bytes)
{
        struct spare_job *keep = job_new(store, &keep_spare_class, sizeof(*keep), NULL);

        keep->bytes = bytes;
        job_submit(&keep->job);
}

static int on_probe_timer(sd_event_source *source, uint64_t now_usec, void *userdata)
{
        struct store *store = userdata;
        struct job *job = job_new(store, &probe_class, sizeof(*job), NULL);

        job->is_durable = true;
        job_submit(job);
        return sd_event_source_set_time(source, now_usec + PROBE_INTERVAL_USEC);
}

static int add_timers(struct store *store)
{
        int r;

        r = sd_event_add_time_relative(store->loop, &store->probe_timer, CLOCK_MONOTONIC, 0, 0,
                                       on_probe_timer, store);
        if (r < 0)
                return error_origin(r);
        r = sd_event_source_set_enabled(store->probe_timer, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

static int start(struct store *store)
{
        int r;

        r = inbox_new(store->loop, &store->inbox);
        if (r)
                return error_fold(r);
        r = add_timers(store);
        if (r)
                return error_fold(r);
        return worker_new(&store->database, store->inbox, &store->worker);
}

int store_open(sd_event *loop, const char *directory, struct store **ret_store,
               char ret_message[static MESSAGE_BUFFER])
{
        _cleanup_(store_closep) struct store *store = NULL;
        int r;

        ret_message[0] = '\0';
        store = calloc(1, sizeof(*store));
        if (!store)
                return error_origin(-ENOMEM);
        store->loop = sd_event_ref(loop);
        store->is_healthy = true;
        if (asprintf(&store->path, "%s/hotcell.db", directory) < 0) {
                store->path = NULL;
                return error_origin(-ENOMEM);
        }

        r = database_open(&store->database, directory, ret_message);
        if (r)
                return r > 0 ? r : error_fold(r);
        r = start(store);
        if (r)
                return error_fold(r);

        *ret_store = take(store);
        return 0;
}

const char *store_path(const struct store *store)
{
        return store->path;
}

struct store *store_close(struct store *store)
{
        if (!store)
                return NULL;

        store->is_closing = true;
        if (store->worker) {
                /* The queue is worked off before the thread ends, and the inbox emptied while the
                 * worker is still there to hear of it. */
                worker_stop(store->worker);
                inbox_drain(store->inbox);
                store->worker = worker_free(store->worker);
        }
        store->inbox = inbox_free(store->inbox);
        (void)sd_event_source_disable_unref(store->probe_timer);
        (void)sd_event_source_disable_unref(store->retention_timer);
        database_close(&store->database);
        (void)sd_event_unref(store->loop);
        free(store->path);
        free(store);
        return NULL;
}

bool store_is_full(const struct store *store)
{
        return store->is_full;
}

bool store_is_healthy(const struct store *store)
{
        return store->is_healthy;
}

void store_set_on_health_change(struct store *store, store_on_health_change on_change,
                                void *userdata)
{
        store->on_health_change = on_change;
        store->health_userdata = userdata;
}
