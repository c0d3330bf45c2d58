#include "runtime/supervisor/reaper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/supervisor/tables.h"

struct reaper {
        sd_event_source *source;
        struct child *children; /* by pid */
};

static int on_sigchld(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        struct reaper *reaper = userdata;
        int status;
        pid_t pid;

        (void)source;
        (void)info;
        /* One signal may stand for several ends. */
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                struct child *child;

                child = child_table_find(reaper->children, pid);
                if (!child) {
                        log_debug("reaped a stray: pid=%d status=%#x", pid, status);
                        continue;
                }
                child_table_remove(&reaper->children, child);
                child->on_exit(child, status);
        }
        return 0;
}

int reaper_new(sd_event *event, struct reaper **ret_reaper)
{
        _cleanup_(freep) struct reaper *reaper = calloc(1, sizeof(*reaper));
        int r;

        if (!reaper)
                return error_origin(-ENOMEM);
        r = sd_event_add_signal(event, &reaper->source, SIGCHLD, on_sigchld, reaper);
        if (r < 0)
                return error_origin(r);
        *ret_reaper = take(reaper);
        return 0;
}

struct reaper *reaper_free(struct reaper *reaper)
{
        if (!reaper)
                return NULL;
        assert(!reaper->children);
        sd_event_source_disable_unref(reaper->source);
        free(reaper);
        return NULL;
}

void reaper_watch(struct reaper *reaper, struct child *child)
{
        assert(child->pid > 0);
        child_table_add(&reaper->children, child);
}

void reaper_forget(struct reaper *reaper, struct child *child)
{
        if (child_table_find(reaper->children, child->pid) == child)
                child_table_remove(&reaper->children, child);
}
