/* SQLite's file system, with one operation that fails: the default one for all connections made
 * after fault_vfs_install. */
#pragma once

enum fault {
        FAULT_FULL, /* a write finds no room */
        FAULT_IO,   /* a write or a sync fails */
        _FAULT_N,
};

void fault_vfs_install(void);

/* The @nth operation from now on that changes the disk fails, once. Zero: none. */
void fault_arm(enum fault fault, int nth);

/* Whether it has happened. */
int fault_has_fired(void);

/* Syncs so far, of all files. */
int fault_n_syncs(void);
