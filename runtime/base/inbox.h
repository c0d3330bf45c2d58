/*
 * How other threads hand things to the loop: they post a task, the loop runs it. Tasks of one
 * thread run in the order of their posts.
 */
#pragma once

#include <systemd/sd-event.h>

struct inbox;

/* Embed it in what is handed over; it must stay where it is until run. */
struct inbox_task {
        void (*run)(struct inbox_task *task); /* on the loop thread; may free the task */
        struct inbox_task *next;              /* private */
};

int inbox_new(sd_event *loop, struct inbox **ret_inbox);

/* Loop thread only, when nobody posts any more and no task is left. */
struct inbox *inbox_free(struct inbox *inbox);

/* Any thread. A task may be posted again once it runs. */
void inbox_post(struct inbox *inbox, struct inbox_task *task);

/*
 * Loop thread only: runs what was posted, without waiting for the loop to come round. For owners
 * that have stopped their thread and want its last tasks before inbox_free.
 */
void inbox_drain(struct inbox *inbox);
