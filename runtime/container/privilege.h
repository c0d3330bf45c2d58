/* How a child of the spawner gives up what it could do on the host. */
#pragma once

#include <stdint.h>

/*
 * For a process that has just entered a sandbox's user namespace, where it has every capability.
 * Afterwards it has the ids, none of the five capability sets has a member, nothing that it
 * executes can get one, and it is not dumpable until it executes.
 */
int privilege_drop(uint32_t uid, uint32_t gid);
