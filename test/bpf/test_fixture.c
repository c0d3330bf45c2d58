/* That a test of the wall leaves no groups, however it ends. */

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/bpf/fixture.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

/* In a process of its own, which tells when all is made. */
static _Noreturn void begin_and_never_end(struct fixture *f, int told_fd)
{
        (void)signal(SIGTERM, SIG_DFL); /* Check's handler ends the whole test */
        fixture_init(f);
        if (write(told_fd, "", 1) != 1)
                _exit(EXIT_FAILURE);
        for (;;)
                (void)pause();
}

static void await_end(pid_t pid)
{
        struct pollfd ended = { .fd = pidfd_open(pid, 0), .events = POLLIN };

        if (ended.fd < 0) {
                ck_assert_int_eq(errno, ESRCH);
                return;
        }
        ck_assert_int_eq(poll(&ended, 1, 20000 * test_patience()), 1);
        (void)close(ended.fd);
}

static const int signals[] = { SIGABRT, SIGTERM, SIGKILL };

START_TEST(a_test_that_was_killed_leaves_no_groups)
{
        struct fixture *f =
                mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        int ends[2];
        char byte;
        pid_t pid;

        ck_assert_ptr_ne(f, MAP_FAILED);
        ck_assert_int_eq(pipe(ends), 0);
        pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                begin_and_never_end(f, ends[1]);
        ck_assert_int_eq(read(ends[0], &byte, 1), 1);
        for (size_t i = 0; i < f->tree.n_parents; i++)
                ck_assert_int_eq(access(f->tree.parents[i].path, F_OK), 0);
        ck_assert_int_eq(kill(pid, signals[_i]), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        await_end(f->janitor.pid);
        for (size_t i = 0; i < f->tree.n_parents; i++)
                ck_assert_int_ne(access(f->tree.parents[i].path, F_OK), 0);
        (void)munmap(f, sizeof(*f));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("fixture");
        TCase *tests = tcase_create("fixture");

        tcase_set_timeout(tests, 60);
        tcase_add_loop_test(tests, a_test_that_was_killed_leaves_no_groups, 0, ARRAY_SIZE(signals));
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
