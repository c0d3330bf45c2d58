/*
 * The spawner's own mount namespace, in which root filesystems are put together. Nothing of the
 * host's files is left in it, so nothing of them can get into a sandbox.
 */
#pragma once

#include "runtime/container/spawner.h"

#define STAGE_DEV         "/dev"         /* what sandboxes get as /dev; read-only */
#define STAGE_MASKED_FILE "/masked/file" /* what hides a file: empty, nobody may open it */
#define STAGE_MASKED_DIR  "/masked/dir"  /* what hides a directory: likewise */

/* Mount points, each used for one sandbox at a time. */
#define STAGE_LOWER   "/lower"
#define STAGE_SCRATCH "/scratch"
#define STAGE_ROOT    "/root"

/*
 * Moves the caller, which must be single-threaded, into a new mount namespace of that kind.
 * Afterwards / is the stage, with a procfs of the caller's pid namespace. *@ret_init_fd: a copy of
 * @init_fd's file that may be executed but not read.
 */
int stage_enter(int init_fd, int *ret_init_fd, struct spawn_failure *ret_failure);
