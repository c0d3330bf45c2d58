/*
 * A list under a mutex and an eventfd. Posts made before the loop comes round cost one wake-up
 * together. A bounded number of tasks runs in one turn, and what tasks post meanwhile waits for the
 * next, so no stream of tasks can keep the loop from its other sources.
 */
#include "runtime/base/inbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum { TURN_TASKS = 128 };

struct inbox {
        pthread_mutex_t lock; /* of the list only */
        struct inbox_task *first;
        struct inbox_task **last;
        int wake_fd;
        sd_event_source *source;
};

DEFINE_CLEANUP(struct inbox, inbox_free)

static struct inbox_task *inbox_take_all(struct inbox *inbox)
{
        struct inbox_task *first;

        (void)pthread_mutex_lock(&inbox->lock);
        first = inbox->first;
        inbox->first = NULL;
        inbox->last = &inbox->first;
        (void)pthread_mutex_unlock(&inbox->lock);
        return first;
}

/* Takes the first of them; when some are left, the inbox wakes again. */
static struct inbox_task *inbox_take_some(struct inbox *inbox)
{
        const uint64_t one = 1;
        struct inbox_task *first, *last;
        size_t n = 1;

        (void)pthread_mutex_lock(&inbox->lock);
        first = last = inbox->first;
        while (last && last->next && n++ < TURN_TASKS)
                last = last->next;
        inbox->first = last ? last->next : NULL;
        if (inbox->first) {
                last->next = NULL;
                (void)!write(inbox->wake_fd, &one, sizeof(one));
        } else
                inbox->last = &inbox->first;
        (void)pthread_mutex_unlock(&inbox->lock);
        return first;
}

static void run_all(struct inbox_task *task)
{
        while (task) {
                struct inbox_task *next = task->next; /* the task may be gone after it ran */

                task->next = NULL;
                task->run(task);
                task = next;
        }
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct inbox *inbox = userdata;
        uint64_t n_wakes;

        (void)source;
        (void)events;
        /* Before the list is taken: a post after that must wake us again. */
        (void)!read(fd, &n_wakes, sizeof(n_wakes));
        run_all(inbox_take_some(inbox));
        return 0;
}

int inbox_new(sd_event *loop, struct inbox **ret_inbox)
{
        _cleanup_(inbox_freep) struct inbox *inbox = NULL;
        int r;

        inbox = calloc(1, sizeof(*inbox));
        if (!inbox)
                return error_origin(-ENOMEM);
        inbox->last = &inbox->first;
        (void)pthread_mutex_init(&inbox->lock, NULL);

        inbox->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (inbox->wake_fd < 0)
                return error_origin(-errno);

        r = sd_event_add_io(loop, &inbox->source, inbox->wake_fd, EPOLLIN, on_wake, inbox);
        if (r < 0)
                return error_origin(r);

        *ret_inbox = take(inbox);
        return 0;
}

struct inbox *inbox_free(struct inbox *inbox)
{
        if (!inbox)
                return NULL;
        assert(!inbox->first);

        (void)sd_event_source_disable_unref(inbox->source);
        (void)close_fd(inbox->wake_fd);
        (void)pthread_mutex_destroy(&inbox->lock);
        free(inbox);
        return NULL;
}

void inbox_post(struct inbox *inbox, struct inbox_task *task)
{
        const uint64_t one = 1;
        bool was_empty;

        task->next = NULL;
        (void)pthread_mutex_lock(&inbox->lock);
        was_empty = !inbox->first;
        *inbox->last = task;
        inbox->last = &task->next;
        /* Under the lock: once it is free, the loop may run the task and free the inbox. */
        if (was_empty)
                (void)!write(inbox->wake_fd, &one, sizeof(one));
        (void)pthread_mutex_unlock(&inbox->lock);
}

void inbox_drain(struct inbox *inbox)
{
        struct inbox_task *first;

        while ((first = inbox_take_all(inbox)))
                run_all(first);
}
