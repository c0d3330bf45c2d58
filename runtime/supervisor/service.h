/*
 * hotcelld as the runtime's child: started as the server user with nothing else, started again when
 * it fails, stopped with the runtime. From a sealed copy of its program, so that the file may be
 * anywhere (in a clone that only its owner may read) and may change while it runs.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct reaper;
struct service;

enum {
        SERVICE_EXIT_CONFIG = 78, /* sysexits.h EX_CONFIG: starting it again would not help */
};

struct service_config {
        const char *program;    /* absolute path */
        char *const *arguments; /* after argv[0]; NULL-terminated */
        uid_t uid;
        gid_t gid;
        const char *user;
        const char *home;
        /* It will not be started again; @exit_code is its own. */
        void (*on_given_up)(void *userdata, int exit_code);
        /* It ended after service_stop(). */
        void (*on_stopped)(void *userdata);
        void *userdata;
};

/* Borrows the config's texts. Starts it. */
int service_new(sd_event *event, struct reaper *reaper, const struct service_config *config,
                struct service **ret_service);

/* SIGTERM, and SIGKILL after ten seconds. on_stopped follows, at once if it does not run. */
void service_stop(struct service *service);

/* Must not run. Returns NULL. */
struct service *service_free(struct service *service);
