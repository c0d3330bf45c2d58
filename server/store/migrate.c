#include "server/store/migrate.h"

#include <stdint.h>
#include <stdio.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "server/store/sqlite_error.h"

int migrate_version(sqlite3 *connection, size_t *ret_version)
{
        sqlite3_stmt *statement = NULL;
        int r, version = 0;

        r = sqlite3_prepare_v2(connection, "PRAGMA user_version", -1, &statement, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_step(statement);
        if (r == SQLITE_ROW)
                version = sqlite3_column_int(statement, 0);
        (void)sqlite3_finalize(statement);
        if (r != SQLITE_ROW)
                return error_origin(sqlite_error(connection, r));

        /* A negative number was written by nobody we know: more than we can understand. */
        *ret_version = version < 0 ? SIZE_MAX : (size_t)version;
        return 0;
}

static int apply(sqlite3 *connection, size_t index)
{
        char set_version[64];
        int r;

        (void)snprintf(set_version, sizeof(set_version), "PRAGMA user_version = %zu", index + 1);

        r = sqlite3_exec(connection, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_exec(connection, migrations[index].sql, NULL, NULL, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_exec(connection, set_version, NULL, NULL, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_exec(connection, "COMMIT", NULL, NULL, NULL);
        if (r == SQLITE_OK)
                return 0;

        log_error("the migration of the database failed migration=%s error=\"%s\"",
                  migrations[index].name, sqlite3_errmsg(connection));
        r = sqlite_error(connection, r);
        if (!sqlite3_get_autocommit(connection))
                (void)sqlite3_exec(connection, "ROLLBACK", NULL, NULL, NULL);
        return error_origin(r);
}

int migrate_up_to(sqlite3 *connection, size_t version)
{
        size_t present = 0;
        int r;

        r = migrate_version(connection, &present);
        if (r)
                return error_fold(r);
        if (present > n_migrations)
                return MIGRATE_E_NEWER;

        for (; present < version; present++) {
                r = apply(connection, present);
                if (r)
                        return error_fold(r);
                log_info("the database was migrated migration=%s", migrations[present].name);
        }
        return 0;
}
