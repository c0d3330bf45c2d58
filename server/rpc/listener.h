/* Sockets that we accept on ourselves: with the library's own, a full table of open files ends TCP
 * for good, and a unix peer has no name. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "runtime/base/cleanup.h"
#include "server/rpc/rpc.h"

struct listener;

/* Takes @fd on success. Else there is no room for it: it is closed, and accepting rests for a
 * moment. */
typedef int (*listener_on_connection)(int fd, const struct rpc_peer *peer, void *userdata);

/* The outcomes of rpc_server_listen_unix and rpc_server_listen_tcp. */
int listener_new_unix(const char *path, gid_t gid, struct listener **ret_listener);
int listener_new_tcp(const char *address, uint16_t *ret_port, struct listener **ret_listener);

int listener_start(struct listener *listener, sd_event *loop, listener_on_connection on_connection,
                   void *userdata);

/* Accepts no more and takes the socket away; its lock stays until listener_free. */
void listener_stop(struct listener *listener);
struct listener *listener_free(struct listener *listener);
DEFINE_CLEANUP(struct listener, listener_free)
