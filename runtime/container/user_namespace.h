/* User namespaces of sandboxes. */
#pragma once

#include <stdint.h>

/*
 * Makes one that maps 0 … SPAWN_IDS-1 to @id_base …, in which no further user namespace can be
 * made. Needs a procfs of the caller's pid namespace at /proc.
 */
int user_namespace_new(uint32_t id_base, int *ret_fd);
