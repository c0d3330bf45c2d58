/*
 * Looks, on cgroup v1, whether a sandbox's sockets hold far more than their limit, and ends the
 * process that made them, as if it had run out of memory.
 */
#pragma once

struct sandbox;

/* Begins to look, until @sandbox->socket_guard is released. Nothing to do where it is not needed.
 */
int socket_guard_start(struct sandbox *sandbox);
