/* Which files are opened, made, migrated, refused, and what is left of them. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/store/migrate.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

enum { LOG_MAX_BYTES = 8 << 20 }; /* journal_size_limit */

static struct fixture fixture;

static void set_up(void)
{
        fixture = fixture_new();
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

static const char *database(void)
{
        return fixture_path(&fixture, "hotcell.db");
}

static void write_file(const char *path, const void *bytes, size_t n)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
        (void)close(fd);
}

static bool exists(const char *name)
{
        return access(fixture_path(&fixture, name), F_OK) == 0;
}

/* The open is refused with @outcome, and not a byte has changed. */
static void expect_untouched(int outcome)
{
        size_t n_before, n_after;
        char *before = read_file(database(), &n_before), *after;

        fixture_open_expecting(&fixture, outcome);
        after = read_file(database(), &n_after);
        ck_assert_uint_eq(n_after, n_before);
        ck_assert_mem_eq(after, before, n_before);
        ck_assert(!exists("hotcell.db-wal"));
        ck_assert(!exists("hotcell.db-shm"));
        ck_assert(!exists("hotcell.db-journal"));
        free(before);
        free(after);
}

/* A database with some hundred rows, closed. */
static void fill(void)
{
        struct answer answer = { 0 };

        fixture_open(&fixture);
        for (int i = 1; i <= 300; i++) {
                struct sandbox_record record = make_sandbox(i, i);

                store_insert_sandbox(fixture.store, &record, on_answer, &answer);
        }
        wait_for(&fixture, &answer.n_calls, 300);
        fixture_close(&fixture);
}

/* SQL that makes the schema as new as ours, or newer by @more. */
static const char *set_version(size_t more)
{
        static char sql[64];

        (void)snprintf(sql, sizeof(sql), "PRAGMA user_version = %zu", n_migrations + more);
        return sql;
}

START_TEST(a_new_database_is_private_and_complete)
{
        struct stat status;

        fixture_open(&fixture);
        fixture_close(&fixture);
        ck_assert_int_eq(stat(database(), &status), 0);
        ck_assert_int_eq(status.st_mode & 0777, 0600);
        ck_assert_int_eq(ask_sql(database(), "PRAGMA application_id"), 0x6863656c);
        ck_assert_int_eq(ask_sql(database(), "PRAGMA user_version"), (int64_t)n_migrations);
        ck_assert(!exists("hotcell.db.new"));
}
END_TEST

START_TEST(its_log_is_private_too)
{
        struct sandbox_record record = make_sandbox(1, 1);
        struct stat status;

        fixture_open(&fixture);
        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        ck_assert_int_eq(stat(fixture_path(&fixture, "hotcell.db-wal"), &status), 0);
        ck_assert_int_eq(status.st_mode & 0777, 0600);
}
END_TEST

static off_t log_size(void)
{
        struct stat status;

        ck_assert_int_eq(stat(fixture_path(&fixture, "hotcell.db-wal"), &status), 0);
        return status.st_size;
}

/* Writes and reads without a pause; returns how large the log became. */
static off_t write_much(int first_number)
{
        off_t largest = 0;

        for (int i = 0; i < 1500; i++) {
                struct sandbox_record record = make_sandbox(first_number + i, 1 + i);

                ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
                (void)list_sandboxes(&fixture, &(struct sandbox_query){ .limit = 1 });
                largest = log_size() > largest ? log_size() : largest;
        }
        return largest;
}

START_TEST(its_log_is_bounded_while_there_is_no_pause)
{
        fixture_open(&fixture);
        ck_assert_int_le(write_much(1), LOG_MAX_BYTES);
}
END_TEST

START_TEST(its_log_grows_for_a_foreign_reader_and_shrinks_when_that_has_gone)
{
        sqlite3_stmt *read = NULL;
        sqlite3 *reader = NULL;

        fixture_open(&fixture);
        ck_assert_int_eq(sqlite3_open(database(), &reader), SQLITE_OK);
        ck_assert_int_eq(sqlite3_exec(reader, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
        ck_assert_int_eq(
                sqlite3_prepare_v2(reader, "SELECT count(*) FROM sandboxes", -1, &read, NULL),
                SQLITE_OK);
        ck_assert_int_eq(sqlite3_step(read), SQLITE_ROW);
        ck_assert_int_gt(write_much(1), LOG_MAX_BYTES);
        (void)sqlite3_finalize(read);
        ck_assert_int_eq(sqlite3_close(reader), SQLITE_OK);
        (void)write_much(3001);
        ck_assert_int_le(log_size(), LOG_MAX_BYTES);
}
END_TEST

START_TEST(the_last_folder_is_made_and_strange_names_are_none)
{
        struct store *store = NULL;
        char message[MESSAGE_BUFFER];
        char *odd = strdup(fixture_path(&fixture, "a?mode=memory#b%41 c"));

        ck_assert_int_eq(store_open(fixture.loop, odd, &store, message), 0);
        store = store_close(store);
        ck_assert(exists("a?mode=memory#b%41 c/hotcell.db"));
        ck_assert_int_eq(store_open(fixture.loop, odd, &store, message), 0);
        store = store_close(store);
        free(odd);

        ck_assert_int_eq(
                store_open(fixture.loop, fixture_path(&fixture, "no/such"), &store, message),
                -ENOENT);
        ck_assert_ptr_nonnull(strstr(message, "No such file"));
}
END_TEST

START_TEST(a_making_that_was_interrupted_is_begun_anew)
{
        write_file(fixture_path(&fixture, "hotcell.db.new"), "half", 4);
        write_file(fixture_path(&fixture, "hotcell.db.new-journal"), "half", 4);
        fixture_open(&fixture);
        ck_assert(!exists("hotcell.db.new"));
        ck_assert(!exists("hotcell.db.new-journal"));
}
END_TEST

START_TEST(a_second_process_is_refused)
{
        struct store *second = NULL;
        char message[MESSAGE_BUFFER];

        fixture_open(&fixture);
        ck_assert_int_eq(store_open(fixture.loop, fixture.directory, &second, message),
                         STORE_E_BUSY);
        ck_assert_ptr_nonnull(strstr(message, "Another process"));
        fixture_close(&fixture);
        fixture_open(&fixture); /* the lock goes with its holder */
}
END_TEST

START_TEST(what_is_no_database_of_ours_is_left_alone)
{
        static const char text[200] = "Dear diary, today I did not write a database.";

        write_file(database(), text, sizeof(text));
        expect_untouched(STORE_E_CORRUPT);
        write_file(database(), text, 5);
        expect_untouched(STORE_E_CORRUPT);
        write_file(database(), "", 0);
        expect_untouched(STORE_E_CORRUPT);
        ck_assert_int_eq(unlink(database()), 0);
        run_sql(database(), "CREATE TABLE diary (entry); INSERT INTO diary VALUES ('dear');");
        expect_untouched(STORE_E_CORRUPT);
}
END_TEST

/* One page after the other is overwritten, from the second on. */
START_TEST(a_damaged_database_is_left_alone)
{
        size_t size, n_refused = 0;
        char *good, *bad;

        fill();
        good = read_file(database(), &size);
        bad = malloc(size);
        for (size_t page = 1; page < size / 4096; page += 3) {
                memcpy(bad, good, size);
                memset(bad + page * 4096, 0x5a, 4096);
                write_file(database(), bad, size);
                expect_untouched(STORE_E_CORRUPT);
                n_refused++;
        }
        ck_assert_uint_gt(n_refused, 10);

        write_file(database(), good, size / 2); /* cut off */
        expect_untouched(STORE_E_CORRUPT);
        memcpy(bad, good, size);
        memset(bad + 100, 0x5a, 200); /* the schema's own page */
        write_file(database(), bad, size);
        expect_untouched(STORE_E_CORRUPT);

        write_file(database(), good, size);
        fixture_open(&fixture);
        ck_assert_uint_eq(list_sandboxes(&fixture, &(struct sandbox_query){ .limit = 1000 })->n,
                          300);
        free(good);
        free(bad);
}
END_TEST

START_TEST(a_newer_schema_is_left_alone)
{
        fill();
        run_sql(database(), set_version(1));
        expect_untouched(STORE_E_NEWER);
        run_sql(database(), "PRAGMA user_version = -1");
        expect_untouched(STORE_E_NEWER);
        run_sql(database(), set_version(0));
        fixture_open(&fixture);
}
END_TEST

static void copy_file(const char *from, const char *to)
{
        size_t size;
        char *bytes = read_file(from, &size);

        write_file(to, bytes, size);
        free(bytes);
}

/* As after a crash: the newer version stands in the log only. */
START_TEST(a_newer_schema_in_the_log_is_seen)
{
        sqlite3 *connection = NULL;
        size_t n_before, n_after;
        char *before, *after;

        fill();
        ck_assert_int_eq(sqlite3_open(database(), &connection), SQLITE_OK);
        ck_assert_int_eq(sqlite3_exec(connection, set_version(1), NULL, NULL, NULL), SQLITE_OK);
        copy_file(database(), fixture_path(&fixture, "copy"));
        copy_file(fixture_path(&fixture, "hotcell.db-wal"), fixture_path(&fixture, "copy-wal"));
        (void)sqlite3_close(connection);
        ck_assert_int_eq(rename(fixture_path(&fixture, "copy"), database()), 0);
        ck_assert_int_eq(rename(fixture_path(&fixture, "copy-wal"),
                                fixture_path(&fixture, "hotcell.db-wal")),
                         0);

        before = read_file(database(), &n_before);
        fixture_open_expecting(&fixture, STORE_E_NEWER);
        after = read_file(database(), &n_after);
        ck_assert_uint_eq(n_after, n_before);
        ck_assert_mem_eq(after, before, n_before);
        ck_assert(exists("hotcell.db-wal"));
        ck_assert_int_eq(ask_sql(database(), "PRAGMA user_version"), (int64_t)n_migrations + 1);
        free(before);
        free(after);
}
END_TEST

static void load_old_schema(void)
{
        char path[512];
        size_t size;
        char *sql;

        (void)snprintf(path, sizeof(path), "%s/schema_0001.sql", getenv("HOTCELL_TEST_DATA"));
        sql = read_file(path, &size);
        run_sql(database(), sql);
        run_sql(database(), "PRAGMA journal_mode = WAL");
        free(sql);
}

static void on_old_living(void *userdata, int result, const struct living *living)
{
        int *n_calls = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_eq(living->n_sandboxes, 1);
        ck_assert_uint_eq(living->n_contexts, 1);
        ck_assert_int_eq(living->contexts[0].generation, 3);
        ck_assert_uint_eq(living->n_executions, 1);
        ck_assert_str_eq(living->executions[0].execution_id, "exe-old2");
        (*n_calls)++;
}

static void on_old_keys(void *userdata, int result, const struct key_record *records, size_t n)
{
        int *n_calls = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_eq(n, 1);
        ck_assert_str_eq(records[0].name, "ci");
        ck_assert_uint_eq(records[0].secret_sha256[31], 0x1f);
        ck_assert_str_eq(records[0].owner, records[0].key_id);
        ck_assert_int_eq(records[0].scopes, 63);
        ck_assert_int_eq(records[0].expire_time_usec, 0);
        (*n_calls)++;
}

START_TEST(an_old_schema_is_migrated_with_its_data)
{
        struct sandbox_record sandbox;
        struct execution_record execution;
        int n_calls = 0;

        load_old_schema();
        fixture_open(&fixture);

        ck_assert_int_eq(get_sandbox(&fixture, "uid:1000", "sbx-old1", &sandbox), 0);
        ck_assert_str_eq(sandbox.name, "work");
        ck_assert(sandbox.cgroup_id == UINT64_MAX - 1);
        ck_assert_str_eq(sandbox.labels.items[0].value, "blue");
        ck_assert_str_eq(sandbox.environment.items[0].value, "secret");
        ck_assert_ptr_null(sandbox.egress); /* nothing could leave it, and nothing may */
        ck_assert_int_eq(sandbox.egress_version, 1);
        ck_assert_int_eq(get_execution(&fixture, "uid:1000", "exe-old1", &execution), 0);
        ck_assert_int_eq(execution.outcome, OUTCOME_RAISED);
        ck_assert_int_eq(execution.last_sequence, 18);
        store_load_living(fixture.store, on_old_living, &n_calls);
        store_list_keys(fixture.store, on_old_keys, &n_calls);
        wait_for(&fixture, &n_calls, 2);

        /* What the new schema is for works on the old row. */
        sandbox.egress = egress_new(8);
        sandbox.egress_version = 2;
        ck_assert_int_eq(update_sandbox(&fixture, &sandbox, 0), 0);
        sandbox_record_deinit(&sandbox);
        ck_assert_int_eq(get_sandbox(&fixture, "uid:1000", "sbx-old1", &sandbox), 0);
        ck_assert_uint_eq(sandbox.egress->n_bytes, 8);
        sandbox.state = SANDBOX_ENDED;
        ck_assert_int_eq(update_sandbox(&fixture, &sandbox, SANDBOX_EVENT_ENDED), 0);
        ck_assert_uint_eq(list_events(&fixture, &(struct sandbox_event_query){ .limit = 9 })->n, 1);
        sandbox_record_deinit(&sandbox);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(database(), "PRAGMA user_version"), (int64_t)n_migrations);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandboxes"), 2);
        /* What was there before counts, too. */
        ck_assert_int_eq(ask_sql(database(), "SELECT sum(n_ended_sandboxes) FROM owner_totals"),
                         ask_sql(database(), "SELECT count(*) FROM sandboxes WHERE state = 4"));
        ck_assert_int_eq(ask_sql(database(), "SELECT sum(n_ended_executions) FROM owner_totals"),
                         ask_sql(database(), "SELECT count(*) FROM executions WHERE state = 3"));
}
END_TEST

START_TEST(old_keys_may_read_usage_if_they_could_do_all)
{
        sqlite3 *connection = NULL;

        load_old_schema();
        ck_assert_int_eq(sqlite3_open(database(), &connection), SQLITE_OK);
        ck_assert_int_eq(migrate_up_to(connection, 12), 0);
        run_sql(database(), "INSERT INTO api_keys SELECT 'key-few', 'few', randomblob(32), 9, 0, "
                            "'key-few', 15, 0, 0 FROM api_keys");
        ck_assert_int_eq(migrate_up_to(connection, n_migrations), 0);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
        ck_assert_int_eq(ask_sql(database(), "SELECT scopes FROM api_keys WHERE name = 'ci'"), 63);
        ck_assert_int_eq(ask_sql(database(), "SELECT scopes FROM api_keys WHERE name = 'few'"), 15);
}
END_TEST

/* @n rows of one owner that all came at @time_usec. */
static void insert_old_usage(int first, int n, const char *owner, int64_t time_usec)
{
        char sql[1024];

        (void)snprintf(
                sql, sizeof(sql),
                "WITH n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                "INSERT INTO usage_records SELECT NULL, %lld, 'sbx-' || i, 1, 3, NULL, NULL, '%s', "
                "1, 1, 0, 7, 1, 1, 0,0,0,5,0,0,0,0,0,0,0,0,0,0,0,0,0,0,190 FROM n",
                first, first + n - 1, (long long)time_usec, owner);
        run_sql(database(), sql);
}

START_TEST(old_rows_of_the_ledger_are_counted_and_come_at_times_of_their_own)
{
        sqlite3 *connection = NULL;

        load_old_schema();
        ck_assert_int_eq(sqlite3_open(database(), &connection), SQLITE_OK);
        ck_assert_int_eq(migrate_up_to(connection, 14), 0);
        insert_old_usage(1, 3, "uid:1", 1000);
        insert_old_usage(4, 2, "uid:2", 1001);
        insert_old_usage(6, 1, "uid:1", 5000);
        run_sql(database(), "INSERT INTO usage_sandboxes (sandbox_id, owner, billed_time_usec) "
                            "SELECT sandbox_id, owner, 1 FROM usage_records");
        ck_assert_int_eq(migrate_up_to(connection, n_migrations), 0);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
        ck_assert_int_eq(ask_sql(database(), "SELECT n_usage_records FROM owner_totals "
                                             "WHERE owner = 'uid:1'"),
                         4);
        ck_assert_int_eq(ask_sql(database(), "SELECT sum(record_time_usec = 999 + record_id) "
                                             "FROM usage_records"),
                         5);
        ck_assert_int_eq(ask_sql(database(), "SELECT max(record_time_usec) FROM usage_records"),
                         5000);
        /* 190: all but throttling; the peak and the waiting are parts of others. */
        ck_assert_int_eq(ask_sql(database(),
                                 "SELECT sum(n_without_memory = 1 "
                                 "AND n_without_memory_peak = 0 "
                                 "AND n_without_scheduled = 1 AND n_without_rss_peak = 1 "
                                 "AND n_without_traffic = 1 AND n_without_throttled = 0 "
                                 "AND n_without_wait = 0 AND n_incomplete = 1) "
                                 "FROM usage_sandboxes"),
                         6);
}
END_TEST

START_TEST(labels_of_old_events_move_into_their_rows)
{
        const struct page *events;
        sqlite3 *connection = NULL;

        load_old_schema();
        ck_assert_int_eq(sqlite3_open(database(), &connection), SQLITE_OK);
        ck_assert_int_eq(migrate_up_to(connection, 6), 0);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
        for (int i = 0; i < 2; i++)
                run_sql(database(),
                        "INSERT INTO sandbox_events SELECT NULL, 9, 1, sandbox_id, owner, name, "
                        "state, template_name, template_digest, create_time_usec, "
                        "expire_time_usec, idle_timeout_usec, end_time_usec, end_cause, "
                        "end_message, limit_memory_bytes, limit_cpu_millis, limit_processes, "
                        "limit_disk_bytes, limit_open_files, limit_timeout_usec, "
                        "limit_output_bytes, used_cpu_usec, used_memory_bytes, "
                        "used_memory_peak_bytes, used_disk_bytes, used_processes, cgroup_id, "
                        "boot_id, is_one_shot, 700 FROM sandboxes WHERE sandbox_id = 'sbx-old1'");
        run_sql(database(), "INSERT INTO sandbox_event_labels VALUES "
                            "(2, 'b', '', 'uid:1000'), (2, 'a', 'ä', 'uid:1000')");
        fixture_open(&fixture);
        events = list_events(&fixture, &(struct sandbox_event_query){ .limit = 9 });
        ck_assert_int_eq(events->result, 0);
        ck_assert_uint_eq(events->n, 2);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(database(), "SELECT labels = CAST('a' || char(0) || 'ä' || char(0)"
                                             " || 'b' || char(0, 0) AS BLOB) FROM sandbox_events "
                                             "WHERE sequence = 2"),
                         1);
        ck_assert_int_eq(ask_sql(database(), "SELECT size_bytes FROM sandbox_events "
                                             "WHERE sequence = 2"),
                         512 + 8);
        ck_assert_int_eq(ask_sql(database(), "SELECT event_bytes FROM owner_totals "
                                             "WHERE owner = 'uid:1000'"),
                         2 * 512 + 8);
}
END_TEST

START_TEST(a_migration_that_fails_changes_nothing)
{
        char message[MESSAGE_BUFFER];
        int r;

        load_old_schema();
        run_sql(database(), "CREATE TABLE sandbox_event_labels (in_the_way)");
        r = store_open(fixture.loop, fixture.directory, &fixture.store, message);
        ck_assert_int_lt(r, 0);
        ck_assert_int_eq(ask_sql(database(), "PRAGMA user_version"), 1);
        ck_assert_int_eq(
                ask_sql(database(),
                        "SELECT count(*) FROM sqlite_master WHERE name = 'sandbox_events'"),
                0);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM executions"), 2);
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_refused)
{
        if (geteuid() == 0) {
                ck_assert_int_eq(chown(fixture.directory, 65534, 65534), 0);
                ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
        }
        ck_assert_int_eq(chmod(fixture.directory, 0500), 0);
        fixture_open_expecting(&fixture, STORE_E_READ_ONLY);
        ck_assert_int_eq(chmod(fixture.directory, 0700), 0);
        fixture_open(&fixture);
        fixture_close(&fixture);
        ck_assert_int_eq(chmod(database(), 0400), 0);
        fixture_open_expecting(&fixture, STORE_E_READ_ONLY);
}
END_TEST

/* In a mount namespace of this test's process. Skips without root. */
static bool mount_own(const char *options, unsigned long flags)
{
        if (geteuid() != 0) {
                (void)fprintf(stderr, "# skipped: mounting needs root\n");
                return false;
        }
        ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
        ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        ck_assert_int_eq(mount("tmpfs", fixture.directory, "tmpfs", flags, options), 0);
        return true;
}

START_TEST(a_read_only_file_system_is_refused)
{
        if (!mount_own("size=16m", 0))
                return;
        fill();
        ck_assert_int_eq(mount(NULL, fixture.directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
        fixture_open_expecting(&fixture, STORE_E_READ_ONLY);
        ck_assert_int_eq(mount(NULL, fixture.directory, NULL, MS_REMOUNT, NULL), 0);
        fixture_open(&fixture);
        fixture_close(&fixture);
        ck_assert_int_eq(umount(fixture.directory), 0);
        ck_assert_int_eq(mount("tmpfs", fixture.directory, "tmpfs", MS_RDONLY, NULL), 0);
        fixture_open_expecting(&fixture, STORE_E_READ_ONLY); /* nothing there yet */
        ck_assert_int_eq(umount(fixture.directory), 0);
}
END_TEST

START_TEST(a_disk_too_small_for_a_new_database_leaves_none)
{
        char message[MESSAGE_BUFFER];

        if (!mount_own("size=64k", 0))
                return;
        ck_assert_int_eq(store_open(fixture.loop, fixture.directory, &fixture.store, message),
                         -ENOSPC);
        ck_assert_ptr_nonnull(strstr(message, "No space left"));
        ck_assert(!exists("hotcell.db"));
        ck_assert_int_eq(mount(NULL, fixture.directory, NULL, MS_REMOUNT, "size=16m"), 0);
        fixture_open(&fixture);
        fixture_close(&fixture);
        ck_assert_int_eq(umount(fixture.directory), 0);
}
END_TEST

struct writer {
        int pipe_fd;
        int number;
};

static void on_written(void *userdata, int result)
{
        struct writer *writer = userdata;

        if (result)
                _exit(1);
        /* Told in the order of the calls: the count is the number. */
        writer->number++;
        (void)!write(writer->pipe_fd, &writer->number, sizeof(writer->number));
}

/* Inserts, and ends every other one, until killed. */
_Noreturn static void write_until_killed(int first, int pipe_fd)
{
        struct writer writer = { .pipe_fd = pipe_fd };

        fixture.loop = NULL; /* sd-event refuses one that was made before the fork */
        (void)sd_event_new(&fixture.loop);
        fixture_open(&fixture);
        for (int i = first;; i++) {
                struct sandbox_record record = make_sandbox(i, i);

                (void)pairs_add(&record.environment, "KEY", "secret");
                (void)pairs_add(&record.labels, "number", "some");
                store_insert_sandbox(fixture.store, &record, on_written, &writer);
                record.state = SANDBOX_ENDED;
                store_update_sandbox(fixture.store, &record, SANDBOX_EVENT_ENDED, on_written,
                                     &writer);
                sandbox_record_deinit(&record);
                while (writer.number < 2 * (i - first) - 40)
                        (void)sd_event_run(fixture.loop, UINT64_MAX);
        }
}

static int read_last_number(int pipe_fd, int last)
{
        int number;

        while (read(pipe_fd, &number, sizeof(number)) == sizeof(number))
                last = number;
        return last;
}

/* What was told is there; what is there is whole. */
START_TEST(a_kill_in_the_middle_loses_nothing_that_was_told)
{
        int first = 1, n_total = 0;

        for (int round = 0; round < 12; round++) {
                int pipe_fds[2], status, n_told, n_rows;
                pid_t child;

                ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
                child = fork();
                if (child == 0)
                        write_until_killed(first, pipe_fds[1]);
                (void)close(pipe_fds[1]);
                /* It writes; when it dies does not matter. */
                ck_assert_int_eq(read(pipe_fds[0], &n_told, sizeof(n_told)), sizeof(n_told));
                (void)usleep((useconds_t)(round * 2719));
                ck_assert_int_eq(kill(child, SIGKILL), 0);
                ck_assert_int_eq(waitpid(child, &status, 0), child);
                ck_assert(WIFSIGNALED(status));
                n_told = read_last_number(pipe_fds[0], n_told);
                (void)close(pipe_fds[0]);

                fixture_open(&fixture); /* checks the pages, too */
                fixture_close(&fixture);
                n_rows = (int)ask_sql(database(), "SELECT count(*) FROM sandbox_events");
                ck_assert_int_ge(n_rows, n_total + n_told);
                n_total = n_rows;
                /* A change and its event are one. */
                ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandboxes"),
                                 ask_sql(database(), "SELECT count(*) FROM sandbox_events "
                                                     "WHERE event = 1"));
                ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandboxes "
                                                     "WHERE state = 4"),
                                 ask_sql(database(), "SELECT count(*) FROM sandbox_events "
                                                     "WHERE event = 4"));
                ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandboxes "
                                                     "WHERE state <> 4"),
                                 ask_sql(database(), "SELECT count(*) FROM sandbox_environment"));
                first = (int)ask_sql(database(), "SELECT count(*) FROM sandboxes") + 1;
        }
        ck_assert_int_ge(n_total, 12);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_new_database_is_private_and_complete,
                its_log_is_private_too,
                its_log_is_bounded_while_there_is_no_pause,
                its_log_grows_for_a_foreign_reader_and_shrinks_when_that_has_gone,
                the_last_folder_is_made_and_strange_names_are_none,
                a_making_that_was_interrupted_is_begun_anew,
                a_second_process_is_refused,
                what_is_no_database_of_ours_is_left_alone,
                a_damaged_database_is_left_alone,
                a_newer_schema_is_left_alone,
                a_newer_schema_in_the_log_is_seen,
                an_old_schema_is_migrated_with_its_data,
                labels_of_old_events_move_into_their_rows,
                old_keys_may_read_usage_if_they_could_do_all,
                old_rows_of_the_ledger_are_counted_and_come_at_times_of_their_own,
                a_migration_that_fails_changes_nothing,
                a_folder_that_cannot_be_written_is_refused,
                a_read_only_file_system_is_refused,
                a_disk_too_small_for_a_new_database_leaves_none,
                a_kill_in_the_middle_loses_nothing_that_was_told,
        };
        TCase *tcase = tcase_create("files");
        Suite *suite = suite_create("store files");

        tcase_set_timeout(tcase, 120);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
