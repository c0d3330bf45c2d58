/* What a sandbox may see in its /proc. */
#pragma once

#include <stdbool.h>

/*
 * Hides everything in the freshly mounted procfs at @path that is not known to be harmless, and
 * makes /proc/sys read-only. Runs in the sandbox's mount namespace, while the stage is still there.
 */
int procfs_mask(const char *path);

/* The top-level entry @name stays visible. Processes do by being numbers. */
bool procfs_is_visible(const char *name);
