/* What a sandbox may see in its /proc. */
#pragma once

/*
 * Hides everything in the freshly mounted procfs at @path that is not known to be harmless, and
 * makes /proc/sys read-only. Runs in the sandbox's mount namespace, while the stage is still there.
 */
int procfs_mask(const char *path);
