/*
 * The database file: found sound, locked, migrated, and its one connection with what was prepared
 * on it. Belongs to one thread at a time: the one that opened it, then the worker.
 */
#pragma once

#include <stdbool.h>

#include <sqlite3.h>

#include "server/store/records.h"
#include "server/store/statements.h"

struct database {
        sqlite3 *connection;
        sqlite3_stmt *statements[_STATEMENT_N];
        int directory_fd;
        int lock_fd;
        int n_wal_pages; /* since the last checkpoint */
        char path[PATH_BUFFER];
};

/* STORE_E_CORRUPT, _NEWER, _READ_ONLY and _BUSY, each with a sentence in @ret_message. */
int database_open(struct database *database, const char *directory,
                  char ret_message[static MESSAGE_BUFFER]);

/* Enough has gathered in the log to be worth moving to the file while nobody waits. */
bool database_wants_checkpoint(const struct database *database);
void database_checkpoint(struct database *database);

/* Also after a failed open. */
void database_close(struct database *database);
