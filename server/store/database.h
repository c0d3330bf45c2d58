/*
 * The database file: found sound, locked, migrated, and its one connection with what was prepared
 * on it. Belongs to one thread at a time: the one that opened it, then the worker.
 */
#pragma once

#include <stdbool.h>

#include <sqlite3.h>

#include "server/store/records.h"
#include "server/store/spare.h"
#include "server/store/statements.h"

struct database {
        sqlite3 *connection;
        sqlite3_stmt *statements[_STATEMENT_N];
        int directory_fd;
        int lock_fd;
        int n_wal_pages;      /* since the last checkpoint */
        bool is_relaxed;      /* commits do not wait for the disk */
        bool is_log_doubtful; /* a sync of it failed: what it holds may not be on the disk */
        struct spare spare;
        char path[PATH_BUFFER];
};

/* STORE_E_CORRUPT, _NEWER, _READ_ONLY and _BUSY, each with a sentence in @ret_message. */
int database_open(struct database *database, const char *directory,
                  char ret_message[static MESSAGE_BUFFER]);

/*
 * Outside of a transaction, before it begins: whether its commit waits until it, and all before it,
 * is on the disk.
 */
int database_set_durable(struct database *database, bool is_durable);

/* A commit that was to wait for the disk failed. */
void database_doubt_log(struct database *database);

/* Enough has gathered in the log to be worth moving to the file while nobody waits. */
bool database_wants_checkpoint(const struct database *database);
void database_checkpoint(struct database *database);

/* Also after a failed open. */
void database_close(struct database *database);
