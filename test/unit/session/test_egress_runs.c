/* Whose an event is of what a sandbox ran: by leaf and time, and nobody's when that is not enough.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/session/egress_runs.h"
#include "test/lib/suite.h"

static void note_run(struct egress_runs *runs, uint64_t leaf, const char *id, int64_t start_usec,
                     int64_t end_usec)
{
        struct execution_record record = { .start_time_usec = start_usec,
                                           .end_time_usec = end_usec };

        (void)strcpy(record.execution_id, id);
        egress_runs_note(runs, leaf, &record);
}

static const char *find_run(const struct egress_runs *runs, uint64_t leaf, int64_t time_usec)
{
        struct egress_search search = { .leaf_cgroup_id = leaf, .time_usec = time_usec };
        const char *found;

        egress_search_runs(&search, runs);
        found = egress_search_found(&search);
        return found ? found : "nobody";
}

START_TEST(what_comes_late_is_of_the_only_one_that_it_can_be)
{
        struct egress_runs runs = { 0 };

        note_run(&runs, 7, "exe-7", 100, 200);
        note_run(&runs, 8, "exe-8", 150, 300);
        /* While it is not known that all was heard. */
        ck_assert_str_eq(find_run(&runs, 0, 120), "exe-7");
        ck_assert_str_eq(find_run(&runs, 0, 180), "nobody");
        ck_assert_str_eq(find_run(&runs, 0, 250), "exe-8");
        ck_assert_str_eq(find_run(&runs, 0, 500), "nobody");
        ck_assert_str_eq(find_run(&runs, 7, 500), "exe-7");
        ck_assert_str_eq(find_run(&runs, 8, 500), "exe-8");
        ck_assert_str_eq(find_run(&runs, 9, 180), "nobody");
        ck_assert_str_eq(find_run(&runs, 0, 99), "nobody");
        /* What it did until its end is its, whatever a clock says. */
        egress_runs_note_heard(&runs, "exe-7", 190);
        egress_runs_note_heard(&runs, "exe-8", 400);
        ck_assert_str_eq(find_run(&runs, 7, 195), "exe-7");
        ck_assert_str_eq(find_run(&runs, 7, 201), "nobody");
        ck_assert_str_eq(find_run(&runs, 0, 400), "exe-8");
        ck_assert_str_eq(find_run(&runs, 0, 401), "nobody");
        egress_runs_deinit(&runs);
}
END_TEST

START_TEST(the_oldest_are_forgotten)
{
        struct egress_runs runs = { 0 };

        for (int64_t i = 1; i <= EGRESS_RUNS_MAX + 1; i++) {
                struct execution_record record = { .start_time_usec = i * 100,
                                                   .end_time_usec = i * 100 + 50 };

                (void)snprintf(record.execution_id, sizeof(record.execution_id), "exe-%lld",
                               (long long)i);
                egress_runs_note(&runs, 7, &record);
                egress_runs_note_heard(&runs, record.execution_id, record.end_time_usec);
        }
        for (int64_t i = 1; i <= EGRESS_RUNS_MAX + 1; i++) {
                struct egress_search search = { .leaf_cgroup_id = 7, .time_usec = i * 100 + 50 };
                struct egress_search elsewhere = { .leaf_cgroup_id = 8, .time_usec = i * 100 };
                struct egress_search between = { .time_usec = i * 100 + 51 };

                egress_search_runs(&search, &runs);
                egress_search_runs(&elsewhere, &runs);
                egress_search_runs(&between, &runs);
                ck_assert_int_eq(egress_search_found(&search) != NULL, i > 1);
                ck_assert_ptr_null(egress_search_found(&elsewhere));
                ck_assert_ptr_null(egress_search_found(&between));
        }
        egress_runs_deinit(&runs);
        ck_assert_uint_eq(runs.n, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("egress_runs");
        TCase *tests = tcase_create("egress_runs");

        tcase_add_test(tests, what_comes_late_is_of_the_only_one_that_it_can_be);
        tcase_add_test(tests, the_oldest_are_forgotten);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
