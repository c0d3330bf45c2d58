/* Whoever limits the open files of others does not outlive its time, whatever holds it up. */

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/supervisor/open_files.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/tables.h"
#include "test/lib/suite.h"

static struct sandbox sandbox;
static struct process processes[2];
static int result; /* of the group that is the second; the first one's goes well */

unsigned __real_alarm(unsigned seconds);
unsigned __wrap_alarm(unsigned seconds);
int __wrap_setns(int fd, int type);
int __wrap_cgroup_limit_open_files(const struct cgroup *group, uint32_t present, uint32_t wanted);

/* Nobody waits that long here. */
unsigned __wrap_alarm(unsigned seconds)
{
        return __real_alarm(seconds > 0 && seconds <= 10 ? 1 : 0);
}

int __wrap_setns(int fd, int type)
{
        (void)fd;
        (void)type;
        return 0;
}

int __wrap_cgroup_limit_open_files(const struct cgroup *group, uint32_t present, uint32_t wanted)
{
        if (group == &processes[0].leaf)
                return present == 256 && wanted == 100 ? 0 : -EBADMSG;
        while (result == -EINPROGRESS)
                (void)pause();
        return result;
}

static void set_up(void)
{
        sandbox = (struct sandbox){ .init_pidfd = -1 };
        for (size_t i = 0; i < ARRAY_SIZE(processes); i++) {
                processes[i] =
                        (struct process){ .id = { (char)('a' + i) }, .state = PROCESS_RUNNING };
                process_table_add(&sandbox.processes, &processes[i]);
        }
}

static void tear_down(void)
{
        HASH_CLEAR(hh, sandbox.processes);
}

static int run(void)
{
        struct child child = { 0 };
        int status;

        ck_assert_int_eq(open_files_begin(&sandbox, 256, 100, &child), 0);
        ck_assert_int_eq(waitpid(child.pid, &status, 0), child.pid);
        return open_files_result(status);
}

START_TEST(how_it_ended_is_its_result)
{
        const struct {
                int result, expected;
        } rows[] = { { 0, 0 }, { -EPERM, -EPERM }, { CGROUP_E_RESTLESS, -EAGAIN } };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                result = rows[i].result;
                ck_assert_int_eq(run(), rows[i].expected);
        }
}
END_TEST

/* Also when the runtime, as it does, has signals blocked. */
START_TEST(who_hangs_is_ended)
{
        sigset_t all;

        result = -EINPROGRESS;
        (void)signal(SIGALRM, SIG_DFL); /* check has its own */
        (void)sigfillset(&all);
        ck_assert_int_eq(sigprocmask(SIG_BLOCK, &all, NULL), 0);
        ck_assert_int_eq(run(), -ETIMEDOUT);
        (void)sigprocmask(SIG_UNBLOCK, &all, NULL);
}
END_TEST

START_TEST(who_is_over_is_left_alone)
{
        result = -EPERM;
        processes[1].state = PROCESS_ENDED;
        ck_assert_int_eq(run(), 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("open_files");
        TCase *tests = tcase_create("open_files");

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_test(tests, how_it_ended_is_its_result);
        tcase_add_test(tests, who_hangs_is_ended);
        tcase_add_test(tests, who_is_over_is_left_alone);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
