/* Each write and sync of the disk fails once: nothing is half done, and nothing is told that is not
 * so. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/store/migrate.h"
#include "test/lib/suite.h"
#include "test/unit/store/fault_vfs.h"
#include "test/unit/store/fixture.h"

static struct fixture fixture;

static void set_up(void)
{
        fault_vfs_install();
        /* In memory: what a real disk would do is tried elsewhere, and here it only takes time. */
        fixture = fixture_new_in("/dev/shm");
}

static void tear_down(void)
{
        fault_arm(FAULT_IO, 0);
        fixture_free(&fixture);
}

static void remove_database(void)
{
        static const char *const names[] = { "hotcell.db", "hotcell.db-wal", "hotcell.db-shm" };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                (void)unlink(fixture_path(&fixture, names[i]));
}

/* A new and empty one. To make it takes longer than all that is tried with it: it is made once. */
static void renew_database(void)
{
        const char *path = fixture_path(&fixture, "hotcell.db");
        static char *bytes;
        static size_t size;
        FILE *file;

        remove_database();
        if (!bytes) {
                fixture_open(&fixture);
                fixture_close(&fixture);
                bytes = read_file(path, &size);
        }
        file = fopen(path, "w");
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
        ck_assert_int_eq(fclose(file), 0);
        fixture_open(&fixture);
}

static bool is_disk_error(int r)
{
        return r == -ENOSPC || r == -EIO;
}

static struct sandbox_record sandbox_of(int number, enum sandbox_state state)
{
        struct sandbox_record record = make_sandbox(number, number);

        record.state = state;
        (void)pairs_add(&record.labels, "team", "blue");
        (void)pairs_add(&record.environment, "KEY", "secret");
        return record;
}

static int create(int number)
{
        struct sandbox_record record = sandbox_of(number, SANDBOX_CREATING);
        int r = insert_sandbox(&fixture, &record);

        sandbox_record_deinit(&record);
        return r;
}

static int end(int number)
{
        struct sandbox_record record = sandbox_of(number, SANDBOX_ENDED);
        int r = update_sandbox(&fixture, &record, SANDBOX_EVENT_ENDED);

        sandbox_record_deinit(&record);
        return r;
}

static int run(int number)
{
        struct sandbox_record sandbox = make_sandbox(number, number);
        struct execution_record execution = make_execution(number, sandbox.sandbox_id, "", number);

        return insert_execution(&fixture, &execution);
}

static int64_t ask(const char *sql)
{
        return ask_sql(fixture_path(&fixture, "hotcell.db"), sql);
}

/* The steps of a sandbox's life; a step that failed has not happened, so it is done again. */
static int live(int number)
{
        int (*const steps[])(int number) = { create, run, end };
        int n_failed = 0;

        for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
                int r = steps[i](number);

                if (r) {
                        ck_assert_msg(is_disk_error(r), "step %zu: %d", i, r);
                        ck_assert(!store_is_healthy(fixture.store));
                        n_failed++;
                        ck_assert_int_eq(steps[i](number), 0);
                }
                ck_assert(store_is_healthy(fixture.store));
        }
        return n_failed;
}

static void check_whole(int n_sandboxes)
{
        ck_assert_int_eq(ask("SELECT count(*) FROM sandboxes WHERE state = 4"), n_sandboxes);
        ck_assert_int_eq(ask("SELECT count(*) FROM executions"), n_sandboxes);
        ck_assert_int_eq(ask("SELECT count(*) FROM sandbox_labels"), n_sandboxes);
        ck_assert_int_eq(ask("SELECT count(*) FROM sandbox_environment"), 0);
        ck_assert_int_eq(ask("SELECT count(*) FROM sandbox_events"), 2 * n_sandboxes);
        ck_assert_int_eq(ask("SELECT count(*) FROM sandbox_events WHERE length(labels) > 0"),
                         2 * n_sandboxes);
        ck_assert_int_eq(ask("SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

START_TEST(every_write_of_a_life_may_fail)
{
        int n_faults = 0, n_failed = 0;

        for (int nth = 1;; nth++) {
                renew_database();
                ck_assert_int_eq(live(1), 0);
                fault_arm((enum fault)_i, nth);
                n_failed += live(2);
                if (!fault_has_fired())
                        break;
                n_faults++;
                ck_assert_int_eq(live(3), 0);
                fixture_close(&fixture);
                check_whole(3);
        }
        ck_assert_int_gt(n_faults, 24);
        ck_assert_int_gt(n_failed, 24);
}
END_TEST

/* Also the checkpoint of a close, and a recovery of the log by the next open. */
START_TEST(every_write_of_a_close_may_fail)
{
        int n_faults = 0;

        for (int nth = 1;; nth++) {
                renew_database();
                ck_assert_int_eq(live(1), 0);
                ck_assert_int_eq(live(2), 0);
                fault_arm((enum fault)_i, nth);
                fixture_close(&fixture);
                if (!fault_has_fired())
                        break;
                n_faults++;
                fixture_open(&fixture);
                ck_assert_int_eq(live(3), 0);
                fixture_close(&fixture);
                check_whole(3);
        }
        ck_assert_int_gt(n_faults, 3);
}
END_TEST

/* An open that fails says so. Sets whether the fault came at all. */
static int open_all_but(enum fault fault, int nth, bool *ret_has_fired)
{
        char message[MESSAGE_BUFFER];
        int r;

        fault_arm(fault, nth);
        r = store_open(fixture.loop, fixture.directory, &fixture.store, message);
        if (r) {
                ck_assert_msg(is_disk_error(r), "open: %d %s", r, message);
                ck_assert_str_ne(message, "");
        }
        fixture_close(&fixture);
        *ret_has_fired = fault_has_fired();
        fault_arm(fault, 0);
        return r;
}

/* What an open that failed left is in the way of none: each goes one write further. */
START_TEST(every_write_of_making_a_database_may_fail)
{
        int n_refused = 0;
        bool has_fired;

        remove_database();
        for (int nth = 1;; nth++) {
                n_refused += open_all_but((enum fault)_i, nth, &has_fired) != 0;
                if (access(fixture_path(&fixture, "hotcell.db"), F_OK) < 0) {
                        ck_assert(has_fired);
                        continue;
                }
                fixture_open(&fixture);
                ck_assert_int_eq(live(1), 0);
                fixture_close(&fixture);
                check_whole(1);
                if (!has_fired)
                        break;
                remove_database();
        }
        ck_assert_int_gt(n_refused, 24);
}
END_TEST

/* A migration that was made stays: the writes of the next one are tried from the first on. */
START_TEST(every_write_of_a_migration_may_fail)
{
        const char *database = fixture_path(&fixture, "hotcell.db");
        int64_t version = 1, present;
        char path[512], *sql;
        int n_refused = 0, nth = 1;
        bool has_fired = true;
        size_t size;

        (void)snprintf(path, sizeof(path), "%s/schema_0001.sql", getenv("HOTCELL_TEST_DATA"));
        sql = read_file(path, &size);
        run_sql(database, sql);
        while (has_fired) {
                n_refused += open_all_but((enum fault)_i, nth, &has_fired) != 0;
                present = ask("PRAGMA user_version");
                ck_assert_int_ge(present, version);
                nth = present == version ? nth + 1 : 1;
                version = present;
        }
        ck_assert_int_eq(version, (int64_t)n_migrations);
        fixture_open(&fixture);
        ck_assert_int_eq(live(1), 0);
        fixture_close(&fixture);
        ck_assert_int_eq(ask("SELECT count(*) FROM sandboxes"), 3);
        ck_assert_int_eq(ask("SELECT count(*) FROM executions"), 3);
        ck_assert_int_gt(n_refused, 8 * (int)n_migrations);
        free(sql);
}
END_TEST

/* The first commit of a log syncs the log's header. */
static void begin_log(void)
{
        fixture_open(&fixture);
        ck_assert_int_eq(live(1), 0);
}

START_TEST(only_the_end_of_a_sandbox_waits_for_the_disk)
{
        int n_syncs;

        begin_log();
        n_syncs = fault_n_syncs();
        ck_assert_int_eq(create(2), 0);
        ck_assert_int_eq(run(2), 0);
        ck_assert_int_eq(fault_n_syncs(), n_syncs);
        ck_assert_int_eq(end(2), 0);
        ck_assert_int_gt(fault_n_syncs(), n_syncs);
}
END_TEST

START_TEST(what_did_not_wait_is_synced_soon_and_once)
{
        int n_syncs;

        begin_log();
        n_syncs = fault_n_syncs();
        ck_assert_int_eq(create(2), 0);
        for (int i = 0; i < 30 && fault_n_syncs() == n_syncs; i++)
                (void)sd_event_run(fixture.loop, 100 * 1000);
        ck_assert_int_eq(fault_n_syncs(), n_syncs + 1);
        for (int i = 0; i < 3; i++)
                (void)sd_event_run(fixture.loop, 500 * 1000);
        ck_assert_int_eq(fault_n_syncs(), n_syncs + 1);
}
END_TEST

/* The write that did not wait for the disk may be lost, too: it is written once more. */
START_TEST(a_lost_sync_is_made_good_by_a_copy_of_the_log)
{
        begin_log();
        ck_assert_int_eq(create(2), 0);
        for (int nth = 1; !fault_has_fired() && nth < 40; nth++) {
                int n_syncs;

                fault_arm(FAULT_IO, nth);
                if (end(2) == 0) {
                        ck_assert_int_eq(fault_has_fired(), 0);
                        continue;
                }
                ck_assert(!store_is_healthy(fixture.store));
                n_syncs = fault_n_syncs();
                ck_assert_int_eq(run(2), 0);
                ck_assert_int_eq(end(2), 0);
                ck_assert(store_is_healthy(fixture.store));
                ck_assert_int_ge(fault_n_syncs() - n_syncs, 3); /* log, file, log */
        }
        ck_assert_int_eq(fault_has_fired(), 1);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                every_write_of_a_life_may_fail,
                every_write_of_a_close_may_fail,
                every_write_of_making_a_database_may_fail,
                every_write_of_a_migration_may_fail,
        };
        TCase *tcase = tcase_create("faults");
        Suite *suite = suite_create("store faults");

        tcase_set_timeout(tcase, 200);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_loop_test(tcase, tests[i], 0, _FAULT_N);
        tcase_add_test(tcase, only_the_end_of_a_sandbox_waits_for_the_disk);
        tcase_add_test(tcase, what_did_not_wait_is_synced_soon_and_once);
        tcase_add_test(tcase, a_lost_sync_is_made_good_by_a_copy_of_the_log);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
