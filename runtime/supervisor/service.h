/*
 * Another daemon as the runtime's child: started as its user with nothing else, started again when
 * it fails, renewed when its program or its configuration changed, stopped with the runtime.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct reaper;
struct service;

enum {
        SERVICE_EXIT_RESTART = 75, /* sysexits.h EX_TEMPFAIL: it makes room for its successor */
        SERVICE_EXIT_CONFIG = 78,  /* sysexits.h EX_CONFIG: starting it again would not help */
};

struct service_config {
        const char *name;       /* such as `hotcelld` */
        const char *program;    /* absolute path */
        char *const *arguments; /* after argv[0]; NULL-terminated */
        uid_t uid;
        gid_t gid;
        const char *user;
        const char *home;
        /* Makes what it is given as descriptor 3 each time it is started; NULL: nothing. 0, or a
         * negative errno: it is started later. */
        int (*open_socket)(void *userdata, int *ret_fd);
        /* It will not be started again; @exit_code is its own. */
        void (*on_given_up)(void *userdata, int exit_code);
        /* It ended after service_stop(). */
        void (*on_stopped)(void *userdata);
        void *userdata;
};

/* Borrows the config's texts. Starts it. */
int service_new(sd_event *event, struct reaper *reaper, const struct service_config *config,
                struct service **ret_service);

/* Copies the program anew. If that one takes the configuration, the daemon is asked by SIGHUP to
 * make room for it; if not, it goes on as it is. */
void service_renew(struct service *service);

/* SIGTERM, and SIGKILL after ten seconds. on_stopped follows, at once if it does not run. */
void service_stop(struct service *service);

/* Must not run. Returns NULL. */
struct service *service_free(struct service *service);
