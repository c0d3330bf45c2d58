/* How threads post to the loop. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#include "runtime/base/inbox.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"

enum {
        N_THREADS = 4,
        N_TASKS = 20000, /* of each thread */
};

struct note {
        struct inbox_task task;
        unsigned thread;
        unsigned number;
};

static sd_event *loop;
static struct inbox *inbox;
static unsigned next_number[N_THREADS];
static unsigned n_run;

static void setup(void)
{
        ck_assert_int_ge(sd_event_new(&loop), 0);
        ck_assert_int_eq(inbox_new(loop, &inbox), 0);
}

static void teardown(void)
{
        (void)inbox_free(inbox);
        (void)sd_event_unref(loop);
}

static void on_note(struct inbox_task *task)
{
        struct note *note = CONTAINER_OF(task, struct note, task);

        ck_assert_uint_eq(note->number, next_number[note->thread]++);
        n_run++;
        free(note);
        if (n_run == N_THREADS * N_TASKS)
                (void)sd_event_exit(loop, 0);
}

static void *post_many(void *userdata)
{
        unsigned thread = (unsigned)(uintptr_t)userdata;

        for (unsigned i = 0; i < N_TASKS; i++) {
                struct note *note = malloc(sizeof(*note));

                *note = (struct note){ .task.run = on_note, .thread = thread, .number = i };
                inbox_post(inbox, &note->task);
        }
        return NULL;
}

START_TEST(tasks_of_each_thread_run_in_order)
{
        pthread_t threads[N_THREADS];

        for (unsigned i = 0; i < N_THREADS; i++)
                ck_assert_int_eq(pthread_create(&threads[i], NULL, post_many, (void *)(uintptr_t)i),
                                 0);
        ck_assert_int_eq(sd_event_loop(loop), 0);
        for (unsigned i = 0; i < N_THREADS; i++)
                ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_uint_eq(n_run, N_THREADS * N_TASKS);
}
END_TEST

static void on_again(struct inbox_task *task)
{
        n_run++;
        inbox_post(inbox, task);
}

START_TEST(task_that_posts_itself_lets_the_loop_turn)
{
        struct inbox_task task = { .run = on_again };

        inbox_post(inbox, &task);
        for (unsigned i = 1; i <= 3; i++) {
                ck_assert_int_gt(sd_event_run(loop, 0), 0);
                ck_assert_uint_eq(n_run, i);
        }
        task.run = NULL;
}
END_TEST

static void on_once(struct inbox_task *task)
{
        (void)task;
        n_run++;
}

START_TEST(drain_runs_what_is_left)
{
        struct inbox_task tasks[3] = { { .run = on_once }, { .run = on_once }, { .run = on_once } };

        for (size_t i = 0; i < ARRAY_SIZE(tasks); i++)
                inbox_post(inbox, &tasks[i]);
        inbox_drain(inbox);
        ck_assert_uint_eq(n_run, 3);
        (void)sd_event_run(loop, 0); /* the wake-up finds nothing */
        ck_assert_uint_eq(n_run, 3);
}
END_TEST

int main(void)
{
        Suite *all = suite_create("inbox");
        TCase *tests = tcase_create("inbox");
        TCase *endless = tcase_create("endless"); /* its inbox is never empty: no teardown */

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, tasks_of_each_thread_run_in_order);
        tcase_add_test(tests, drain_runs_what_is_left);
        suite_add_tcase(all, tests);
        tcase_add_checked_fixture(endless, setup, NULL);
        tcase_add_test(endless, task_that_posts_itself_lets_the_loop_turn);
        suite_add_tcase(all, endless);

        return suite_main(all);
}
