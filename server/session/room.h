/*
 * Those who were refused because of what a sandbox holds that ends already. Its shares are free
 * only when nothing of it is left, but its client may know of the end before: such a request waits
 * for that instead of being refused.
 */
#pragma once

#include <sys/queue.h>

struct session;

TAILQ_HEAD(room_waiters, room_waiter);

/* A sandbox of @owner is gone: who waits for that is told from the loop, soon. NULL: all are. */
void room_wake(struct session *session, const char *owner);
