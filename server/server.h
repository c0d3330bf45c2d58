/* hotcelld as a whole: store, keys, sessions, API and gRPC server, started and stopped in order. */
#pragma once

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "server/config.h"

struct server;

enum {
        SERVER_EXIT_FAILURE = 1,
        SERVER_EXIT_RESTART = 75, /* EX_TEMPFAIL: to be started again at once */
        SERVER_EXIT_CONFIG = 78,  /* EX_CONFIG: starting again will not help */
};

/*
 * Opens the database and begins to start; what follows, and every failure, happens on the loop,
 * which then ends with the exit code. @socket_group (gid_t)-1: the process's. Positive: an exit
 * code; what was wrong has been logged.
 */
int server_new(sd_event *loop, const struct config *config, gid_t socket_group,
               struct server **ret_server);

/* Graceful: clients are told, sandboxes end, the loop ends with 0. Once more: the process ends at
 * once. */
void server_stop(struct server *server);

/* For an update: clients are told to come back, nothing in the sandboxes is ended, and the process
 * ends with SERVER_EXIT_RESTART. Its successor goes on where it was. */
void server_restart(struct server *server);

/* When the loop has ended. */
struct server *server_free(struct server *server);
