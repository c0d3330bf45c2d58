/* The worker: order, batches, the end, a full disk; what is pruned; how queries find their rows. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/store/database.h"
#include "server/store/owner_bounds.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

static struct fixture fixture;

static void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

static const char *database(void)
{
        return fixture_path(&fixture, "hotcell.db");
}

/* Callbacks note when they came. */
static int sequence[20000];
static int n_noted;

struct note {
        int number;
        int result;
};
static struct note notes[20000];

static void note(void *userdata, int result)
{
        struct note *at = userdata;

        sequence[n_noted++] = at->number;
        at->result = result;
}

static void note_sandbox(void *userdata, int result, const struct sandbox_record *record)
{
        (void)record;
        note(userdata, result);
}

static void note_list(void *userdata, int result, const struct sandbox_list *list)
{
        (void)list;
        note(userdata, result);
}

static struct note *next_note(int i)
{
        notes[i].number = i;
        return &notes[i];
}

START_TEST(callbacks_come_in_the_order_of_the_calls)
{
        enum {
                N = 2000,
        };
        struct sandbox_query query = { .limit = 5 };
        struct sandbox_record record = { 0 };

        for (int i = 0; i < N; i++) {
                switch (i % 7) {
                case 0:
                case 1:
                case 2:
                        record = make_sandbox(i, 1 + i);
                        store_insert_sandbox(fixture.store, &record, note, next_note(i));
                        break;
                case 3:
                        /* Sees the row of the call before. */
                        store_get_sandbox(fixture.store, NULL, record.sandbox_id, note_sandbox,
                                          next_note(i));
                        break;
                case 4:
                        store_insert_sandbox(fixture.store, &record, note, next_note(i));
                        break;
                case 5:
                        store_list_sandboxes(fixture.store, &query, note_list, next_note(i));
                        break;
                default:
                        store_get_sandbox(fixture.store, NULL, "sbx-none", note_sandbox,
                                          next_note(i));
                        break;
                }
        }
        wait_for(&fixture, &n_noted, N);
        for (int i = 0; i < N; i++) {
                static const int results[] = { 0, 0, 0, 0, -EEXIST, 0, STORE_E_NOT_FOUND };

                ck_assert_int_eq(sequence[i], i);
                ck_assert_int_eq(notes[i].result, results[i % 7]);
        }
}
END_TEST

START_TEST(a_failed_job_leaves_its_batch_alone)
{
        struct sandbox_record good = make_sandbox(1, 1), bad = make_sandbox(2, 2);
        struct answer answers[3] = { 0 };

        (void)strcpy(good.name, "same");
        (void)strcpy(bad.name, "same");
        (void)pairs_add(&bad.labels, "left", "behind");
        store_insert_sandbox(fixture.store, &good, on_answer, &answers[0]);
        store_insert_sandbox(fixture.store, &bad, on_answer, &answers[1]);
        (void)strcpy(bad.name, "other");
        store_insert_sandbox(fixture.store, &bad, on_answer, &answers[2]);
        wait_for(&fixture, &answers[2].n_calls, 1);
        ck_assert_int_eq(answers[0].result, 0);
        ck_assert_int_eq(answers[1].result, STORE_E_NAME_IN_USE);
        ck_assert_int_eq(answers[2].result, 0);
        sandbox_record_deinit(&bad);
}
END_TEST

/* Labels that repeat a name violate the key after the row was inserted. */
START_TEST(a_job_that_fails_halfway_leaves_nothing)
{
        struct sandbox_record record = make_sandbox(1, 1), out;

        (void)pairs_add(&record.labels, "twice", "1");
        (void)pairs_add(&record.labels, "twice", "2");
        ck_assert_int_eq(insert_sandbox(&fixture, &record), -EEXIST);
        ck_assert_int_eq(get_sandbox(&fixture, NULL, record.sandbox_id, &out), STORE_E_NOT_FOUND);
        ck_assert_uint_eq(list_events(&fixture, &(struct sandbox_event_query){ .limit = 9 })->n, 0);
        sandbox_record_deinit(&record);
}
END_TEST

START_TEST(jobs_beyond_the_queue_are_refused_in_order)
{
        enum {
                N = 20000,
        };
        int n_refused = 0;

        for (int i = 0; i < N; i++)
                store_get_sandbox(fixture.store, NULL, "sbx-none", note_sandbox, next_note(i));
        wait_for(&fixture, &n_noted, N);
        for (int i = 0; i < N; i++) {
                ck_assert_int_eq(sequence[i], i);
                n_refused += notes[i].result == -EAGAIN;
        }
        ck_assert_int_gt(n_refused, 0);
        ck_assert_int_lt(n_refused, N);
        ck_assert(store_is_healthy(fixture.store));
}
END_TEST

START_TEST(close_works_the_queue_off_without_callbacks)
{
        struct answer answer = { 0 };
        struct sandbox_query query = { .limit = 1000 };

        for (int i = 1; i <= 1000; i++) {
                struct sandbox_record record = make_sandbox(i, i);

                store_insert_sandbox(fixture.store, &record, on_answer, &answer);
                if (i % 10 == 0) /* more unread results than the worker hands over at a time */
                        store_list_sandboxes(fixture.store, &query, note_list, next_note(i));
        }
        fixture_close(&fixture);
        ck_assert_int_eq(answer.n_calls, 0);
        ck_assert_int_eq(n_noted, 0);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandboxes"), 1000);
}
END_TEST

static int n_health_changes;

static void on_health_change(void *userdata)
{
        (void)userdata;
        n_health_changes++;
}

static void write_filler(const char *path)
{
        static const char zeros[4096];
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        while (write(fd, zeros, sizeof(zeros)) > 0)
                ;
        (void)close(fd);
}

START_TEST(a_full_disk_is_told_and_survived)
{
        struct sandbox_record record;
        const char *filler;
        int r = 0, number = 1, n_good;

        if (geteuid() != 0) {
                (void)fprintf(stderr, "# skipped: mounting needs root\n");
                return;
        }
        fixture_close(&fixture);
        ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
        ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        ck_assert_int_eq(mount("tmpfs", fixture.directory, "tmpfs", 0, "size=1m"), 0);
        fixture_open(&fixture);
        store_set_on_health_change(fixture.store, on_health_change, NULL);
        record = make_sandbox(number++, 1);
        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        filler = strdup(fixture_path(&fixture, "filler"));
        write_filler(filler);

        for (; number < 2000 && r == 0; number++) {
                record = make_sandbox(number, number);
                r = insert_sandbox(&fixture, &record);
        }
        ck_assert_int_eq(r, -ENOSPC);
        ck_assert(!store_is_healthy(fixture.store));
        ck_assert_int_eq(n_health_changes, 1);
        n_good = number - 2;
        /* Reads go on. */
        ck_assert_uint_eq(list_sandboxes(&fixture, &(struct sandbox_query){ .limit = 1000 })->n,
                          (size_t)n_good);
        ck_assert_int_eq(insert_sandbox(&fixture, &record), -ENOSPC);

        /* It finds out by itself when there is room again. */
        ck_assert_int_eq(unlink(filler), 0);
        wait_for(&fixture, &n_health_changes, 2);
        ck_assert(store_is_healthy(fixture.store));
        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandboxes"), n_good + 1);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandbox_events"), n_good + 1);
        ck_assert_int_eq(umount(fixture.directory), 0);
        free((void *)(uintptr_t)filler);
}
END_TEST

static int prune(const struct store_retention *retention, int64_t now_usec)
{
        struct answer answer = { 0 };
        int n_steps = 0;

        do {
                store_prune(fixture.store, retention, now_usec, on_answer, &answer);
                wait_for(&fixture, &answer.n_calls, ++n_steps);
        } while (answer.result == STORE_E_MORE);
        ck_assert_int_eq(answer.result, 0);
        return n_steps;
}

/* Sandboxes @first … @last that ended at their number's time, each with a context and an execution.
 */
static void insert_ended_from(int first, int last)
{
        struct answer answer = { 0 };

        for (int i = first; i <= last; i++) {
                struct sandbox_record sandbox = make_sandbox(i, i);
                struct context_record context = make_context(i, sandbox.sandbox_id);
                struct execution_record execution =
                        make_execution(i, sandbox.sandbox_id, context.context_id, i);

                (void)pairs_add(&sandbox.labels, "a", "b");
                store_insert_sandbox(fixture.store, &sandbox, on_answer, &answer);
                store_insert_context(fixture.store, &context, on_answer, &answer);
                execution.state = EXECUTION_ENDED;
                execution.end_time_usec = i;
                store_insert_execution(fixture.store, &execution, on_answer, &answer);
                sandbox.state = SANDBOX_ENDED;
                sandbox.end_time_usec = i;
                store_update_sandbox(fixture.store, &sandbox, SANDBOX_EVENT_ENDED, on_answer,
                                     &answer);
                sandbox_record_deinit(&sandbox);
        }
        wait_for(&fixture, &answer.n_calls, 4 * (last - first + 1));
}

static void insert_ended(int n)
{
        insert_ended_from(1, n);
}

START_TEST(what_is_over_is_pruned_by_age_in_steps)
{
        const struct store_retention retention = { .kept_usec = 1000 };
        struct sandbox_record living = make_sandbox(9999, 1), out;

        insert_ended(700);
        ck_assert_int_eq(insert_sandbox(&fixture, &living), 0);
        ck_assert_int_gt(prune(&retention, 1601), 2); /* ended before 601 */

        ck_assert_uint_eq(
                list_sandboxes(&fixture, &(struct sandbox_query){ .states = ~0U, .limit = 1000 })
                        ->n,
                101);
        ck_assert_uint_eq(list_executions(&fixture, &(struct execution_query){ .limit = 1000 })->n,
                          100);
        ck_assert_int_eq(get_sandbox(&fixture, NULL, living.sandbox_id, &out), 0);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandbox_labels"), 100);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM contexts"), 100);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}
END_TEST

START_TEST(what_is_over_is_pruned_by_number)
{
        const struct store_retention retention = {
                .sandboxes_max = 20,
                .executions_max = 10,
                .events_max = 30,
        };

        insert_ended(100);
        (void)prune(&retention, time_now_usec());
        ck_assert_uint_eq(
                list_sandboxes(&fixture, &(struct sandbox_query){ .states = ~0U, .limit = 1000 })
                        ->n,
                20);
        ck_assert_uint_eq(list_executions(&fixture, &(struct execution_query){ .limit = 1000 })->n,
                          10);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM sandbox_events"), 30);
}
END_TEST

/* What the database counts is what is there. */
static void check_totals(void)
{
        static const char *const pairs[][2] = {
                { "n_events", "count(*) FROM sandbox_events" },
                { "event_bytes", "sum(size_bytes) FROM sandbox_events" },
                { "n_ended_executions", "count(*) FROM executions WHERE state = 3" },
                { "n_ended_sandboxes", "count(*) FROM sandboxes WHERE state = 4" },
                { "n_outputs", "count(*) FROM execution_outputs" },
                { "output_bytes", "coalesce(sum(size_bytes), 0) FROM execution_outputs" },
        };
        char sql[256];

        for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
                int64_t counted;

                (void)snprintf(sql, sizeof(sql), "SELECT sum(%s) FROM owner_totals", pairs[i][0]);
                counted = ask_sql(database(), sql);
                (void)snprintf(sql, sizeof(sql), "SELECT %s", pairs[i][1]);
                ck_assert_msg(ask_sql(database(), sql) == counted, "%s: %lld", pairs[i][0],
                              (long long)counted);
        }
}

static void insert_ended_of(const char *owner, int first, int n)
{
        struct answer answer = { 0 };

        for (int i = first; i < first + n; i++) {
                struct sandbox_record sandbox = make_sandbox(i, i);
                struct context_record context = make_context(i, sandbox.sandbox_id);
                struct execution_record execution =
                        make_execution(i, sandbox.sandbox_id, context.context_id, i);

                (void)strcpy(sandbox.owner, owner);
                (void)strcpy(context.owner, owner);
                (void)strcpy(execution.owner, owner);
                store_insert_sandbox(fixture.store, &sandbox, on_answer, &answer);
                store_insert_context(fixture.store, &context, on_answer, &answer);
                store_insert_execution(fixture.store, &execution, on_answer, &answer);
                execution.state = EXECUTION_ENDED;
                execution.end_time_usec = i;
                store_update_execution(fixture.store, &execution, on_answer, &answer);
                store_update_execution(fixture.store, &execution, on_answer, &answer);
                sandbox.state = SANDBOX_ENDED;
                sandbox.end_time_usec = i;
                store_update_sandbox(fixture.store, &sandbox, SANDBOX_EVENT_ENDED, on_answer,
                                     &answer);
        }
        wait_for(&fixture, &answer.n_calls, 6 * n);
}

static size_t n_sandboxes_of(const char *owner)
{
        return list_sandboxes(
                       &fixture,
                       &(struct sandbox_query){ .owner = owner, .states = ~0U, .limit = 1000 })
                ->n;
}

static size_t n_executions_of(const char *owner)
{
        return list_executions(&fixture, &(struct execution_query){ .owner = owner, .limit = 1000 })
                ->n;
}

START_TEST(who_has_most_makes_room_first)
{
        const struct store_retention retention = {
                .sandboxes_max = 100,
                .executions_max = 90,
                .events_max = 120,
        };
        struct sandbox_event_query query = { .owner = "key-b", .after_sequence = 0, .limit = 900 };
        const struct page *page;

        insert_ended_of("key-b", 1, 10); /* the oldest of all */
        insert_ended_of("key-a", 1001, 600);
        insert_ended_of("key-c", 5001, 45);
        (void)prune(&retention, time_now_usec());
        ck_assert_uint_eq(n_executions_of("key-b"), 10);
        ck_assert_uint_eq(n_executions_of("key-a"), 40);
        ck_assert_uint_eq(n_executions_of("key-c"), 40);
        ck_assert_uint_eq(n_sandboxes_of("key-b"), 10);
        ck_assert_uint_eq(n_sandboxes_of("key-a"), 45);
        ck_assert_uint_eq(n_sandboxes_of("key-c"), 45);

        /* All of b's events are there, and its token from before is good; those of a are the
         * newest, and its token is not. */
        page = list_events(&fixture, &query);
        ck_assert_int_eq(page->result, 0);
        ck_assert_uint_eq(page->n, 20);
        query.owner = "key-a";
        ck_assert_int_eq(list_events(&fixture, &query)->result, STORE_E_TOKEN_EXPIRED);
        query.after_sequence = 20 + 1200 - 50;
        page = list_events(&fixture, &query);
        ck_assert_int_eq(page->result, 0);
        ck_assert_uint_eq(page->n, 50);
        query.owner = NULL;
        ck_assert_int_eq(list_events(&fixture, &query)->result, STORE_E_TOKEN_EXPIRED);
        fixture_close(&fixture);
        check_totals();
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}
END_TEST

/* Sandboxes go also when their executions are within a bound of their own. */
START_TEST(sandboxes_beyond_their_bound_take_their_executions_along)
{
        const struct store_retention retention = { .sandboxes_max = 10 };

        insert_ended_of("key-a", 1, 400);
        (void)prune(&retention, time_now_usec());
        ck_assert_uint_eq(n_sandboxes_of("key-a"), 10);
        ck_assert_uint_eq(n_executions_of("key-a"), 10);
        fixture_close(&fixture);
        check_totals();
}
END_TEST

static void end_with_output(const char *owner, int number, size_t n_bytes)
{
        struct sandbox_record sandbox = make_sandbox(number, number);
        struct context_record context = make_context(number, sandbox.sandbox_id);
        struct execution_record execution =
                make_execution(number, sandbox.sandbox_id, context.context_id, number);
        struct store_blob output = { calloc(1, n_bytes), n_bytes };
        struct answer answer = { 0 };

        (void)strcpy(sandbox.owner, owner);
        (void)strcpy(context.owner, owner);
        (void)strcpy(execution.owner, owner);
        store_insert_sandbox(fixture.store, &sandbox, on_answer, &answer);
        store_insert_context(fixture.store, &context, on_answer, &answer);
        store_insert_execution(fixture.store, &execution, on_answer, &answer);
        execution.state = EXECUTION_ENDED;
        execution.end_time_usec = number;
        store_end_execution(fixture.store, &execution, &output, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 4);
        ck_assert_int_eq(answer.result, 0);
        free((void *)(uintptr_t)output.data);
}

START_TEST(kept_output_of_one_owner_does_not_push_out_anothers)
{
        const struct store_retention retention = { .outputs_max_bytes = 1 << 20 };

        end_with_output("key-b", 1, 1000); /* the oldest of all */
        for (int i = 0; i < 30; i++)
                end_with_output("key-a", 100 + i, 100 * 1000);
        (void)prune(&retention, time_now_usec());
        fixture_close(&fixture);
        check_totals();
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM execution_outputs "
                                             "WHERE owner = 'key-b'"),
                         1);
        ck_assert_int_eq(ask_sql(database(), "SELECT min(end_time_usec) FROM execution_outputs "
                                             "WHERE owner = 'key-a'"),
                         120); /* ten of them fit */
}
END_TEST

static void update_with_labels(const char *owner, int number, int n)
{
        struct sandbox_record sandbox = make_sandbox(number, 1);
        char value[1000];

        (void)strcpy(sandbox.owner, owner);
        memset(value, 'x', sizeof(value) - 1);
        value[sizeof(value) - 1] = '\0';
        ck_assert_int_eq(insert_sandbox(&fixture, &sandbox), 0);
        for (int i = 0; i < 64; i++) {
                char name[16];

                (void)snprintf(name, sizeof(name), "label-%d", i);
                ck_assert_int_eq(pairs_add(&sandbox.labels, name, value), 0);
        }
        for (int i = 0; i < n; i++)
                ck_assert_int_eq(update_sandbox(&fixture, &sandbox, SANDBOX_EVENT_UPDATED), 0);
        sandbox_record_deinit(&sandbox);
}

START_TEST(events_are_bounded_by_their_bytes)
{
        const struct store_retention retention = { .events_bytes_max = 1 << 20 };
        int64_t of_a, of_b;

        update_with_labels("key-a", 1, 100); /* 7 MB */
        update_with_labels("key-b", 2, 1);
        (void)prune(&retention, time_now_usec());
        fixture_close(&fixture);
        check_totals();
        of_a = ask_sql(database(), "SELECT event_bytes FROM owner_totals WHERE owner = 'key-a'");
        of_b = ask_sql(database(), "SELECT n_events FROM owner_totals WHERE owner = 'key-b'");
        ck_assert_int_le(of_a, 1 << 20);
        ck_assert_int_gt(of_a, 500 * 1000);
        ck_assert_int_eq(of_b, 2);
}
END_TEST

/* Nobody waits for minutes while the disk fills. */
START_TEST(growth_is_pruned_at_once)
{
        const struct store_retention retention = { .events_bytes_max = 1 << 20 };
        const char *sql = "SELECT sum(event_bytes) FROM owner_totals";
        struct answer answer = { 0 };

        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        update_with_labels("key-a", 1, 300); /* 20 MB; one at a time */
        /* At no time there is much more than the bound. */
        ck_assert_int_lt(ask_sql(database(), sql), 3 << 20);
        store_prune(fixture.store, &retention, time_now_usec(), on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        fixture_close(&fixture);
        ck_assert_int_lt(ask_sql(database(), "SELECT page_count * page_size FROM "
                                             "pragma_page_count, pragma_page_size"),
                         6 << 20);
}
END_TEST

START_TEST(owners_that_have_nothing_any_more_are_forgotten)
{
        const struct store_retention retention = { .kept_usec = 1, .ledger_kept_usec = 1 };
        struct sandbox_event_query query = { .owner = "key-7", .limit = 9 };

        for (int i = 0; i < 50; i++) {
                char owner[16];

                (void)snprintf(owner, sizeof(owner), "key-%d", i);
                insert_ended_of(owner, 10 * i + 1, 1);
        }
        (void)prune(&retention, time_now_usec() + 1000000);
        /* Its token is old all the same. */
        ck_assert_int_eq(list_events(&fixture, &query)->result, STORE_E_TOKEN_EXPIRED);
        query.after_sequence = 100;
        ck_assert_int_eq(list_events(&fixture, &query)->result, 0);
        insert_ended_of("key-7", 9000, 1);
        ck_assert_uint_eq(list_events(&fixture, &query)->n, 2);
        query.after_sequence = 99;
        ck_assert_int_eq(list_events(&fixture, &query)->result, STORE_E_TOKEN_EXPIRED);
        fixture_close(&fixture);
        ck_assert_int_eq(ask_sql(database(), "SELECT count(*) FROM owner_totals"), 2);
        check_totals();
}
END_TEST

static const struct {
        int64_t amounts[5];
        int64_t bound, level;
} levels[] = {
        { { 1, 2, 3, 4, 5 }, 15, INT64_MAX },   { { 1, 2, 3, 4, 5 }, 14, 4 },
        { { 100, 0, 0, 0, 0 }, 30, 30 },        { { 100, 100, 100, 100, 100 }, 99, 19 },
        { { 10, 1000, 10, 10, 500 }, 130, 50 }, { { 7, 0, 0, 0, 7 }, 0, 0 },
};

START_TEST(the_level_cuts_only_those_above_it)
{
        for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
                int64_t amounts[5], sum = 0, level;

                memcpy(amounts, levels[i].amounts, sizeof(amounts));
                level = owner_bounds_level(amounts, ARRAY_SIZE(amounts), levels[i].bound);
                ck_assert_int_eq(level, levels[i].level);
                for (size_t k = 0; k < ARRAY_SIZE(amounts); k++)
                        sum += MIN(amounts[k], level);
                ck_assert_int_le(sum, levels[i].bound);
        }
}
END_TEST

START_TEST(no_bound_prunes_nothing)
{
        const struct store_retention retention = { 0 };

        insert_ended(20);
        (void)prune(&retention, INT64_MAX / 2);
        ck_assert_uint_eq(
                list_sandboxes(&fixture, &(struct sandbox_query){ .states = ~0U, .limit = 1000 })
                        ->n,
                20);
        ck_assert_uint_eq(list_events(&fixture, &(struct sandbox_event_query){ .limit = 1000 })->n,
                          40);
}
END_TEST

START_TEST(a_token_from_before_the_pruning_is_expired)
{
        struct store_retention retention = { .events_max = 4 };
        struct sandbox_event_query query = { .after_sequence = 15, .limit = 9 };

        insert_ended(10); /* 20 events */
        (void)prune(&retention, time_now_usec());
        ck_assert_int_eq(list_events(&fixture, &query)->result, STORE_E_TOKEN_EXPIRED);
        query.after_sequence = 16;
        ck_assert_uint_eq(list_events(&fixture, &query)->n, 4);

        /* Also when none is left, and after a restart. */
        retention = (struct store_retention){ .kept_usec = 1 };
        (void)prune(&retention, time_now_usec() + 1000000);
        fixture_close(&fixture);
        fixture_open(&fixture);
        query.after_sequence = 19;
        ck_assert_int_eq(list_events(&fixture, &query)->result, STORE_E_TOKEN_EXPIRED);
        query.after_sequence = 20;
        ck_assert_int_eq(list_events(&fixture, &query)->result, 0);
        ck_assert_int_eq(list_events(&fixture, &query)->sequence, 20);
}
END_TEST

/* Not only every few minutes: what is added within them would be without a bound. */
START_TEST(much_that_is_added_is_pruned_soon)
{
        const struct store_retention retention = { .sandboxes_max = 20, .executions_max = 10 };
        struct sandbox_query query = { .states = ~0U, .limit = 1000 };

        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        insert_ended(10);
        for (int i = 0; i < 10; i++) /* what comes at the start is over */
                (void)sd_event_run(fixture.loop, 100000);
        insert_ended_from(11, STORE_ROWS_WORTH_PRUNING / 2 + 10);
        while (list_sandboxes(&fixture, &query)->n > 40)
                (void)sd_event_run(fixture.loop, 1000000);
}
END_TEST

START_TEST(retention_works_by_itself)
{
        const struct store_retention retention = { .kept_usec = 1000 };
        struct sandbox_query query = { .states = ~0U, .limit = 1000 };

        insert_ended(300);
        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        while (list_sandboxes(&fixture, &query)->n > 0)
                (void)sd_event_run(fixture.loop, 1000000);
}
END_TEST

/* No statement walks through a table that grows. */
START_TEST(queries_find_their_rows_by_index)
{
        static const char *const may_scan[] = { "wanted",          "api_keys",     "probe",
                                                "sqlite_sequence", "owner_totals", "CONSTANT ROW",
                                                "usage_retention" };
        struct database opened;
        char message[MESSAGE_BUFFER];
        int n_seen = 0;

        fixture_close(&fixture);
        ck_assert_int_eq(database_open(&opened, fixture.directory, message), 0);
        for (size_t i = 0; i < _STATEMENT_N; i++) {
                const char *sql = sqlite3_sql(opened.statements[i]);
                sqlite3_stmt *plan = NULL;
                char explain[4096];

                (void)snprintf(explain, sizeof(explain), "EXPLAIN QUERY PLAN %s", sql);
                if (sqlite3_prepare_v2(opened.connection, explain, -1, &plan, NULL) != SQLITE_OK)
                        continue;
                while (sqlite3_step(plan) == SQLITE_ROW) {
                        const char *step = (const char *)sqlite3_column_text(plan, 3);
                        bool is_good = strncmp(step, "SCAN ", 5) != 0 ||
                                       strstr(step, " USING INDEX ") ||
                                       strstr(step, " USING COVERING INDEX ");

                        for (size_t k = 0; k < ARRAY_SIZE(may_scan); k++)
                                is_good |= strstr(step, may_scan[k]) != NULL;
                        is_good |= strstr(sql, "FROM sandbox_events") != NULL; /* by its rowid */
                        ck_assert_msg(is_good, "%s: %s", sql, step);
                        ck_assert_msg(!strstr(step, "TEMP B-TREE") || strstr(sql, "api_keys") ||
                                              strstr(sql, "FROM contexts") ||
                                              strstr(sql, "sum(sent_bytes)"), /* of a sandbox */
                                      "%s: %s", sql, step);
                        n_seen++;
                }
                (void)sqlite3_finalize(plan);
        }
        ck_assert_int_gt(n_seen, 40);
        database_close(&opened);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                callbacks_come_in_the_order_of_the_calls,
                a_failed_job_leaves_its_batch_alone,
                a_job_that_fails_halfway_leaves_nothing,
                jobs_beyond_the_queue_are_refused_in_order,
                close_works_the_queue_off_without_callbacks,
                a_full_disk_is_told_and_survived,
                what_is_over_is_pruned_by_age_in_steps,
                what_is_over_is_pruned_by_number,
                who_has_most_makes_room_first,
                sandboxes_beyond_their_bound_take_their_executions_along,
                kept_output_of_one_owner_does_not_push_out_anothers,
                events_are_bounded_by_their_bytes,
                growth_is_pruned_at_once,
                owners_that_have_nothing_any_more_are_forgotten,
                the_level_cuts_only_those_above_it,
                no_bound_prunes_nothing,
                a_token_from_before_the_pruning_is_expired,
                retention_works_by_itself,
                much_that_is_added_is_pruned_soon,
                queries_find_their_rows_by_index,
        };
        TCase *tcase = tcase_create("work");
        Suite *suite = suite_create("store work");

        tcase_set_timeout(tcase, 120);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
