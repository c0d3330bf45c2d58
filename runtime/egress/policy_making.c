/*
 * The thread is made anew for each policy, so that it has the process's restrictions, and touches
 * nothing but what is made.
 */
#include "runtime/egress/policy_making.h"

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

void policy_making_init(struct policy_making *making, const struct policy_head *head, int fd)
{
        *making = (struct policy_making){ .head = *head, .fd = fd };
}

void policy_making_deinit(struct policy_making *making)
{
        policy_table_deinit(&making->policy.table);
        making->fd = close_fd(making->fd);
}

/* A positive @r is an outcome, which means @refused. */
static void end(struct policy_making *making, int r, enum policy_making_state refused)
{
        if (r == 0) {
                making->state = MAKING_DONE;
        } else if (r > 0) {
                making->state = refused;
        } else {
                making->state = MAKING_FAILED;
                making->error = r;
        }
}

void policy_making_run(struct policy_making *making)
{
        struct policy policy;
        int r = policy_reader_read(&making->head, making->fd, &policy, &making->rule);

        if (r) {
                end(making, r, MAKING_INVALID);
                return;
        }
        making->policy.version = making->head.version;
        r = policy_digest(&policy, making->policy.digest);
        if (!r)
                r = policy_compile(&policy, &making->policy.table, &making->rule);
        policy_deinit(&policy);
        end(making, r, MAKING_TOO_COMPLEX);
}

/* --- in a thread --------------------------------------------------------------------------------
 */

static void *run(void *userdata)
{
        struct policy_making *making = userdata;

        (void)pthread_setname_np(pthread_self(), "policy");
        policy_making_run(making);
        inbox_post(making->maker->inbox, &making->task);
        return NULL;
}

static void join(struct policy_maker *maker)
{
        if (maker->has_thread)
                (void)pthread_join(maker->thread, NULL);
        maker->has_thread = false;
}

static void on_posted(struct inbox_task *task)
{
        struct policy_making *making = CONTAINER_OF(task, struct policy_making, task);

        join(making->maker);
        making->on_made(making);
}

int policy_maker_init(struct policy_maker *maker, sd_event *event)
{
        *maker = (struct policy_maker){ 0 };
        return inbox_new(event, &maker->inbox);
}

void policy_maker_deinit(struct policy_maker *maker)
{
        assert(!maker->has_thread);

        maker->inbox = inbox_free(maker->inbox);
}

int policy_maker_begin(struct policy_maker *maker, struct policy_making *making,
                       void (*on_made)(struct policy_making *making))
{
        int r;

        assert(!maker->has_thread);

        making->task.run = on_posted;
        making->maker = maker;
        making->on_made = on_made;
        r = pthread_create(&maker->thread, NULL, run, making);
        maker->has_thread = r == 0;
        return -r;
}

void policy_maker_wait(struct policy_maker *maker)
{
        if (!maker->has_thread)
                return;
        join(maker);
        inbox_drain(maker->inbox);
}
