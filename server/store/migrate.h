/* The steps by which the schema grew: migrations/NNNN_*.sql, each in its own transaction. */
#pragma once

#include <stddef.h>

#include <sqlite3.h>

struct migration {
        const char *name; /* such as `0001_initial` */
        const char *sql;
};

/* In order; the schema's version (PRAGMA user_version) is how many were applied. */
extern const struct migration migrations[];
extern const size_t n_migrations;

enum {
        MIGRATE_E_NEWER = 1, /* more migrations were applied than this program knows */
};

/* Applies what is missing up to @version. Returns a negative errno when a step failed: those before
 * it stay. */
int migrate_up_to(sqlite3 *connection, size_t version);

int migrate_version(sqlite3 *connection, size_t *ret_version);
