/* Whether a process is on its way out, by its flags. */
#include <check.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/supervisor/exiting.h"
#include "test/lib/suite.h"

START_TEST(flags_are_found_behind_any_name)
{
        ck_assert(stat_says_exiting("7 (x) Z 1 7 7 0 -1 4228108 0 0"));
        ck_assert(stat_says_exiting("7 () ) R 1 2 3 4 5 0 () S 1 7 7 0 -1 4 0"));
        ck_assert(!stat_says_exiting("7 (x) S 1 7 7 0 -1 4194304 0 0"));
        ck_assert(!stat_says_exiting("7 () ) Z 1 7 7 0 -1 4 0) S 1 7 7 0 -1 4194304 0"));
}
END_TEST

START_TEST(what_is_no_such_text_says_no)
{
        ck_assert(!stat_says_exiting(""));
        ck_assert(!stat_says_exiting("7 (x"));
        ck_assert(!stat_says_exiting("7 (x) Z 1 7 7 0 -1"));
        ck_assert(!stat_says_exiting("7 (x) Z 1 7 7 0 -1 4x 0"));
}
END_TEST

START_TEST(a_process_that_was_not_reaped_is_exiting)
{
        siginfo_t info = { 0 };
        pid_t pid = fork();

        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                _exit(0);
        ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        ck_assert(pid_is_exiting(pid));
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        ck_assert(!pid_is_exiting(pid));
        ck_assert(!pid_is_exiting(getpid()));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("exiting");
        TCase *tests = tcase_create("exiting");

        tcase_add_test(tests, flags_are_found_behind_any_name);
        tcase_add_test(tests, what_is_no_such_text_says_no);
        tcase_add_test(tests, a_process_that_was_not_reaped_is_exiting);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
