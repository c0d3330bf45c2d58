/*
 * The kernel lets every connection have a packet or so above the limit, or it would hang for good;
 * with thousands of them that is many times the limit. No event tells of it, so it is looked at.
 */
#include "runtime/supervisor/socket_guard.h"

#include <errno.h>
#include <time.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/cgroup/group.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"

enum {
        LOOK_USEC = 500000,
        ACCURACY_USEC = 250000, /* so that all sandboxes are looked at together */
        TOLERATED = 2,          /* times the limit */
};

static struct process *find_greatest(struct sandbox *sandbox, uint64_t *ret_bytes)
{
        struct process *greatest = NULL;
        struct process *process;
        struct process *following;
        uint64_t bytes;
        uint64_t limit;

        *ret_bytes = 0;
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (!process_is_alive(process) ||
                    cgroup_read_sockets(&process->leaf, &bytes, &limit) || bytes <= *ret_bytes)
                        continue;
                greatest = process;
                *ret_bytes = bytes;
        }
        return greatest;
}

/* Sockets may have been handed on by processes that are gone: then it could be any. */
static void relieve(struct sandbox *sandbox, uint64_t held)
{
        struct process *process;
        struct process *following;
        uint64_t most;
        struct process *greatest = find_greatest(sandbox, &most);

        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (process_is_alive(process) && (most < held / 2 || process == greatest))
                        process_end_for_memory(process);
        }
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;
        uint64_t held;
        uint64_t limit;

        (void)usec;
        if (!cgroup_read_sockets(&sandbox->group, &held, &limit) && held / TOLERATED > limit)
                relieve(sandbox, held);
        (void)sd_event_source_set_time_relative(source, LOOK_USEC);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

int socket_guard_start(struct sandbox *sandbox)
{
        uint64_t held;
        uint64_t limit;
        int r = cgroup_read_sockets(&sandbox->group, &held, &limit);

        if (r)
                return r == -EOPNOTSUPP ? 0 : error_fold(r);
        r = sd_event_add_time_relative(sandbox->host->event, &sandbox->socket_guard,
                                       CLOCK_MONOTONIC, LOOK_USEC, ACCURACY_USEC, on_look, sandbox);
        return r < 0 ? error_origin(r) : 0;
}
