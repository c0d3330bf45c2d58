/*
 * Every child of the runtime, and who wants to know of its end: init of each sandbox, programs, the
 * spawner, hotcelld. One SIGCHLD handler reaps them all, strays included.
 */
#pragma once

#include <sys/resource.h>
#include <sys/types.h>
#include <systemd/sd-event.h>
#include <uthash.h>

struct reaper;

/* Embed it in what owns the child. */
struct child {
        pid_t pid;
        void (*on_exit)(struct child *child, int status); /* status as of wait(2); may free it */
        UT_hash_handle hh;
};

/* SIGCHLD must be blocked. */
int reaper_new(sd_event *event, struct reaper **ret_reaper);
struct reaper *reaper_free(struct reaper *reaper);

/* Before the loop turns again, so that no end is missed. */
void reaper_watch(struct reaper *reaper, struct child *child);

/* Its end will be reaped and dropped. */
void reaper_forget(struct reaper *reaper, struct child *child);
