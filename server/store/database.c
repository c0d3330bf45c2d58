/*
 * A file is looked at before SQLite may write to it: its header is read, then its schema's version
 * and its pages are checked through a connection that can only read. A file that fails stays as it
 * was, to the byte.
 *
 * A new database is made under another name and renamed when it is complete, so that a file called
 * hotcell.db has our header from its first moment on, in WAL mode, whatever was interrupted.
 */
#include "server/store/database.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/store/migrate.h"
#include "server/store/sqlite_error.h"
#include "server/store/store.h"

enum {
        HEADER_SIZE = 100,
        HEADER_APPLICATION_ID_OFFSET = 68, /* big-endian, sqlite.org/fileformat.html 1.3 */
        APPLICATION_ID = 0x6863656c,       /* "hcel"; migrations/0001 */

        /* Pages of 4 KiB. A checkpoint takes a few milliseconds, which whoever writes next waits
         * for: so they are made in pauses, and between writes only when there are none. */
        WAL_PAGES_WORTH = 100,
        WAL_PAGES_MAX = 1000,
};

static const char database_name[] = "hotcell.db";
static const char new_name[] = "hotcell.db.new";
static const char lock_name[] = "hotcell.lock";

__attribute__((format(printf, 2, 3))) static void say(char message[static MESSAGE_BUFFER],
                                                      const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(message, MESSAGE_BUFFER, format, arguments);
        va_end(arguments);
}

static int refuse_unwritable(const char *path, int error, char message[static MESSAGE_BUFFER])
{
        say(message, "Cannot write to %.150s: %s.", path, strerror(-error));
        return error == -EROFS || error == -EACCES || error == -EPERM ? STORE_E_READ_ONLY
                                                                      : error_origin(error);
}

static int refuse_corrupt(const char *path, const char *why, char message[static MESSAGE_BUFFER])
{
        say(message, "%.120s %.80s; it was left as it is.", path, why);
        return STORE_E_CORRUPT;
}

static int refuse_newer(const char *path, size_t version, char message[static MESSAGE_BUFFER])
{
        say(message, "%.120s has schema version %zu and this program knows up to %zu.", path,
            version, n_migrations);
        return STORE_E_NEWER;
}

/* The directory, made if only its last part is missing, and the lock of this process on it. */
static int lock_directory(struct database *database, const char *directory,
                          char message[static MESSAGE_BUFFER])
{
        if (mkdir(directory, 0700) < 0 && errno != EEXIST && errno != EROFS)
                return refuse_unwritable(directory, -errno, message);
        database->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (database->directory_fd < 0)
                return refuse_unwritable(directory, -errno, message);

        database->lock_fd = openat(database->directory_fd, lock_name,
                                   O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (database->lock_fd < 0)
                return refuse_unwritable(directory, -errno, message);
        if (flock(database->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK)
                        return error_origin(-errno);
                say(message, "Another process uses the database in %.180s.", directory);
                return STORE_E_BUSY;
        }
        return 0;
}

static bool header_is_ours(const unsigned char header[static HEADER_SIZE])
{
        const unsigned char *id = header + HEADER_APPLICATION_ID_OFFSET;
        uint32_t application_id = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 |
                                  (uint32_t)id[2] << 8 | (uint32_t)id[3];

        return memcmp(header, "SQLite format 3", 16) == 0 && application_id == APPLICATION_ID;
}

static int check_header(const struct database *database, char message[static MESSAGE_BUFFER])
{
        _cleanup_(closep) int fd = -1;
        unsigned char header[HEADER_SIZE];
        ssize_t n;

        fd = openat(database->directory_fd, database_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return error_origin(-errno);
        n = pread(fd, header, sizeof(header), 0);
        if (n < 0)
                return error_origin(-errno);
        if (n < HEADER_SIZE || !header_is_ours(header))
                return refuse_corrupt(database->path, "is no database of hotcell", message);
        return 0;
}

/* Prepared on nothing but SQLite: limits that no statement of ours comes near, and no trust in what
 * a schema might hold. */
static int harden(sqlite3 *connection)
{
        int r;

        (void)sqlite3_extended_result_codes(connection, 1);
        (void)sqlite3_limit(connection, SQLITE_LIMIT_ATTACHED, 0);
        (void)sqlite3_limit(connection, SQLITE_LIMIT_LENGTH, 16 << 20);
        (void)sqlite3_limit(connection, SQLITE_LIMIT_SQL_LENGTH, 64 << 10);
        r = sqlite3_db_config(connection, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_db_config(connection, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_db_config(connection, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_db_config(connection, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_exec(connection, "PRAGMA cell_size_check = ON", NULL, NULL, NULL);
        return r == SQLITE_OK ? 0 : error_origin(sqlite_error(connection, r));
}

static int connect_to(const char *path, int flags, sqlite3 **ret_connection)
{
        sqlite3 *connection = NULL;
        int r;

        /* One thread at a time uses it: no mutex. */
        r = sqlite3_open_v2(path, &connection, flags | SQLITE_OPEN_NOMUTEX, NULL);
        r = r == SQLITE_OK ? harden(connection) : sqlite_error(connection, r);
        if (r) {
                (void)sqlite3_close(connection);
                return error_fold(r);
        }
        *ret_connection = connection;
        return 0;
}

static void connection_closep(sqlite3 **connection)
{
        (void)sqlite3_close(*connection);
}

/* `file:` and the path, with the three bytes escaped that mean something in a URI. */
static size_t write_uri(char uri[static 3 * PATH_BUFFER], const char *path)
{
        size_t used = (size_t)sprintf(uri, "file:");

        for (; *path && used < 3 * PATH_BUFFER - 64; path++) {
                if (strchr("%?#", *path))
                        used += (size_t)sprintf(uri + used, "%%%02x", (unsigned char)*path);
                else
                        uri[used++] = *path;
        }
        uri[used] = '\0';
        return used;
}

/* Nothing of it is written, also when it closes. */
static int connect_read_only(const struct database *database, sqlite3 **ret_connection)
{
        char uri[3 * PATH_BUFFER];
        struct stat wal;
        bool has_wal;
        size_t used;
        int r;

        /* Without a log to recover from, SQLite may take the file for a constant: it then makes
         * neither a log nor an index beside it. */
        has_wal = fstatat(database->directory_fd, "hotcell.db-wal", &wal, 0) == 0 && wal.st_size;
        used = write_uri(uri, database->path);
        (void)snprintf(uri + used, sizeof(uri) - used, "?mode=ro%s", has_wal ? "" : "&immutable=1");
        r = connect_to(uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, ret_connection);
        if (r)
                return error_fold(r);
        (void)sqlite3_db_config(*ret_connection, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        return 0;
}

/* Positive: the pages are not sound. */
static int quick_check(sqlite3 *connection)
{
        sqlite3_stmt *statement = NULL;
        int r;

        r = sqlite3_prepare_v2(connection, "PRAGMA quick_check(1)", -1, &statement, NULL);
        if (r == SQLITE_OK)
                r = sqlite3_step(statement);
        if (r == SQLITE_ROW) {
                const char *verdict = (const char *)sqlite3_column_text(statement, 0);

                r = verdict && strcmp(verdict, "ok") == 0 ? 0 : STORE_E_CORRUPT;
        } else {
                r = error_origin(sqlite_error(connection, r));
        }
        (void)sqlite3_finalize(statement);
        return r == -EUCLEAN ? STORE_E_CORRUPT : r;
}

static int check_file(const struct database *database, char message[static MESSAGE_BUFFER])
{
        _cleanup_(connection_closep) sqlite3 *connection = NULL;
        size_t version = 0;
        int r;

        r = check_header(database, message);
        if (r)
                return r > 0 ? r : error_fold(r);
        if (faccessat(database->directory_fd, database_name, W_OK, AT_EACCESS) < 0)
                return refuse_unwritable(database->path, -errno, message);

        r = connect_read_only(database, &connection);
        if (r == 0)
                r = migrate_version(connection, &version);
        if (r == 0 && version > n_migrations)
                return refuse_newer(database->path, version, message);
        if (r == 0)
                r = quick_check(connection);
        if (r == -EUCLEAN || r == STORE_E_CORRUPT)
                return refuse_corrupt(database->path, "is damaged", message);
        if (r)
                say(message, "Cannot read %.150s: %s.", database->path, strerror(-r));
        return r ? error_fold(r) : 0;
}

static int remove_unfinished(const struct database *database)
{
        static const char *const names[] = { "hotcell.db.new", "hotcell.db.new-journal",
                                             "hotcell.db.new-wal", "hotcell.db.new-shm" };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (unlinkat(database->directory_fd, names[i], 0) < 0 && errno != ENOENT)
                        return error_origin(-errno);
        return 0;
}

/* Makes a complete, empty database at @path. Who finds one that is not complete throws it away, so
 * nothing needs to be undone, or on disk before the whole is. */
static int fill_new(const char *path)
{
        _cleanup_(connection_closep) sqlite3 *connection = NULL;
        int r;

        r = connect_to(path, SQLITE_OPEN_READWRITE, &connection);
        if (r)
                return error_fold(r);
        r = sqlite3_exec(connection, "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF", NULL,
                         NULL, NULL);
        if (r != SQLITE_OK)
                return error_origin(sqlite_error(connection, r));
        r = migrate_up_to(connection, n_migrations);
        if (r)
                return error_fold(r);
        r = sqlite3_exec(connection, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
        return r == SQLITE_OK ? 0 : error_origin(sqlite_error(connection, r));
}

static int create_file(const struct database *database)
{
        _cleanup_(closep) int fd = -1;
        char path[PATH_BUFFER + 8];
        int r;

        r = remove_unfinished(database);
        if (r)
                return error_fold(r);
        /* Ours before SQLite opens it, so that its log gets the same mode: only for the owner. */
        fd = openat(database->directory_fd, new_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return error_origin(-errno);
        (void)snprintf(path, sizeof(path), "%s.new", database->path);
        r = fill_new(path);
        if (r)
                return error_fold(r);

        if (fsync(fd) < 0 ||
            renameat(database->directory_fd, new_name, database->directory_fd, database_name) < 0 ||
            fsync(database->directory_fd) < 0)
                return error_origin(-errno);
        return 0;
}

static bool file_is_absent(const struct database *database)
{
        struct stat file;

        if (fstatat(database->directory_fd, database_name, &file, 0) < 0)
                return errno == ENOENT;
        return false;
}

static int set_up_connection(sqlite3 *connection)
{
        static const char *const pragmas[] = {
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL", /* see database_set_durable */
                "PRAGMA foreign_keys = ON",
                "PRAGMA temp_store = MEMORY",
                /* Above WAL_PAGES_MAX: to overwrite a log is cheaper than to grow it anew. */
                "PRAGMA journal_size_limit = 8388608",
                "PRAGMA secure_delete = ON", /* environments hold secrets */
                "CREATE TEMP TABLE wanted_labels (name TEXT NOT NULL, value TEXT NOT NULL)",
        };

        /* We are the only writer, but an operator may look at the database with a tool of theirs,
         * and only the worker waits. */
        (void)sqlite3_busy_timeout(connection, 1000);
        for (size_t i = 0; i < ARRAY_SIZE(pragmas); i++) {
                int r = sqlite3_exec(connection, pragmas[i], NULL, NULL, NULL);

                if (r != SQLITE_OK)
                        return error_origin(sqlite_error(connection, r));
        }
        return 0;
}

static int on_wal_commit(void *userdata, sqlite3 *connection, const char *name, int n_pages)
{
        struct database *database = userdata;

        (void)connection;
        (void)name;
        database->n_wal_pages = n_pages;
        if (n_pages >= WAL_PAGES_MAX)
                database_checkpoint(database);
        return SQLITE_OK;
}

/*
 * After a failed sync the kernel holds the lost pages for clean, and the next sync of the same file
 * says that all is well. So the log is copied to the database file, which makes them dirty again.
 */
static int mend_log(struct database *database)
{
        int n_log = 0, n_copied = 0;
        int r;

        r = sqlite3_wal_checkpoint_v2(database->connection, NULL, SQLITE_CHECKPOINT_PASSIVE, &n_log,
                                      &n_copied);
        if (r == SQLITE_BUSY)
                return 0; /* somebody reads: the next one tries again */
        if (r != SQLITE_OK)
                return error_origin(sqlite_error(database->connection, r));
        database->is_log_doubtful = n_copied < n_log;
        return 0;
}

int database_set_durable(struct database *database, bool is_durable)
{
        int r;

        if (is_durable && database->is_log_doubtful) {
                r = mend_log(database);
                if (r)
                        return error_fold(r);
        }
        if (database->is_relaxed == !is_durable)
                return 0;
        r = sqlite3_exec(database->connection,
                         is_durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                         NULL, NULL, NULL);
        if (r != SQLITE_OK)
                return error_origin(sqlite_error(database->connection, r));
        database->is_relaxed = !is_durable;
        return 0;
}

void database_doubt_log(struct database *database)
{
        database->is_log_doubtful = true;
}

bool database_wants_checkpoint(const struct database *database)
{
        return database->n_wal_pages >= WAL_PAGES_WORTH;
}

void database_checkpoint(struct database *database)
{
        int r;

        /* If it fails, the log stays and the next one tries again; commits say when the disk is in
         * trouble. */
        r = sqlite3_wal_checkpoint_v2(database->connection, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL,
                                      NULL);
        if (r != SQLITE_OK)
                log_debug("a checkpoint failed error=\"%s\"", sqlite3_errstr(r));
        database->n_wal_pages = 0;
}

static int open_file(struct database *database)
{
        int r;

        r = connect_to(database->path, SQLITE_OPEN_READWRITE, &database->connection);
        if (r)
                return error_fold(r);
        r = set_up_connection(database->connection);
        if (r)
                return error_fold(r);
        (void)sqlite3_wal_hook(database->connection, on_wal_commit, database);
        r = migrate_up_to(database->connection, n_migrations);
        if (r)
                return error_fold(r);
        return statements_prepare(database->connection, database->statements);
}

int database_open(struct database *database, const char *directory,
                  char ret_message[static MESSAGE_BUFFER])
{
        int n, r;

        *database = (struct database){ .directory_fd = -1, .lock_fd = -1, .spare = { .fd = -1 } };
        ret_message[0] = '\0';
        n = snprintf(database->path, sizeof(database->path), "%s/%s", directory, database_name);
        if (n < 0 || (size_t)n >= sizeof(database->path))
                return error_origin(-ENAMETOOLONG);

        r = lock_directory(database, directory, ret_message);
        if (r)
                return r > 0 ? r : error_fold(r);
        if (file_is_absent(database)) {
                r = create_file(database);
                if (r)
                        return refuse_unwritable(directory, r, ret_message);
        }
        r = check_file(database, ret_message);
        if (r)
                return r > 0 ? r : error_fold(r);
        r = open_file(database);
        if (r)
                return refuse_unwritable(database->path, r, ret_message);
        return 0;
}

void database_close(struct database *database)
{
        statements_finalize(database->statements);
        (void)sqlite3_close(database->connection);
        database->connection = NULL;
        spare_close(&database->spare);
        database->lock_fd = close_fd(database->lock_fd);
        database->directory_fd = close_fd(database->directory_fd);
}
