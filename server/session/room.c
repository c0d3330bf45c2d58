#include "server/session/room.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "server/session/session_private.h"

struct room_waiter {
        TAILQ_ENTRY(room_waiter) link;
        struct session *session;
        char owner[OWNER_BUFFER]; /* of what is in the way; empty: anybody */
        sd_event_source *timer;
        void (*on_room)(void *userdata);
        void *userdata;
};

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct room_waiter waiter = *(struct room_waiter *)userdata;

        (void)source;
        (void)usec;
        TAILQ_REMOVE(&waiter.session->room_waiters, (struct room_waiter *)userdata, link);
        free(userdata);
        (void)sd_event_source_disable_unref(waiter.timer);
        waiter.on_room(waiter.userdata);
        waiter.session->n_pending--;
        session_check_stopped(waiter.session);
        return 0;
}

int session_await_room(struct session *session, const struct session_result *refusal,
                       uint64_t patience_usec, void (*on_room)(void *userdata), void *userdata)
{
        struct room_waiter *waiter;

        assert(refusal->may_pass);
        waiter = calloc(1, sizeof(*waiter));
        if (!waiter || session_arm(session, &waiter->timer, patience_usec, on_time, waiter)) {
                free(waiter);
                return error_origin(-ENOMEM);
        }
        waiter->session = session;
        waiter->on_room = on_room;
        waiter->userdata = userdata;
        (void)snprintf(waiter->owner, sizeof(waiter->owner), "%s", refusal->quota);
        TAILQ_INSERT_TAIL(&session->room_waiters, waiter, link);
        session->n_pending++;
        return 0;
}

void room_wake(struct session *session, const char *owner)
{
        struct room_waiter *waiter;

        TAILQ_FOREACH(waiter, &session->room_waiters, link)
        {
                if (!owner || !waiter->owner[0] || strcmp(waiter->owner, owner) == 0)
                        (void)sd_event_source_set_time(waiter->timer, 0);
        }
}
