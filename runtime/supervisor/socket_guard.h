/*
 * Looks whether the sockets of a sandbox make the host keep far more than it is charged for, and
 * ends the processes that made them, as if they had run out of memory.
 */
#pragma once

struct sandbox;

/* Begins to look, until @sandbox->socket_guard is released. */
int socket_guard_start(struct sandbox *sandbox);
