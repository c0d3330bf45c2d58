/*
 * The program of a service: a sealed copy of its file, so that this may be anywhere (in a clone
 * that only its owner may read) and may change while it runs; and how a child becomes it.
 */
#pragma once

#include <sys/types.h>

struct service_config;

int program_copy(const char *name, const char *path, int *ret_fd);

/* In a child of @runtime: becomes the service's user with nothing else but @socket_fd (or -1), as
 * descriptor 3, and executes the copy. */
_Noreturn void program_run(const struct service_config *config, int fd, int socket_fd,
                           pid_t runtime, char *argv[]);
