/* That a test's folders go with it, however it ends. */

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/lib/patience.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"

enum { ENDS_BY_ITSELF = 0, PATH_BYTES = 64, NOBODY = 65534 };

static void make_in(const char *folder, const char *name, mode_t type)
{
        char path[2 * PATH_BYTES];

        (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
        ck_assert_int_eq(S_ISDIR(type) ? mkdir(path, 0700) : mknod(path, type | 0600, 0), 0);
}

static void make_full(char path[static PATH_BYTES])
{
        (void)strcpy(path, "/tmp/hotcell-scratch-XXXXXX");
        scratch_make(path);
        make_in(path, "file", S_IFREG);
        make_in(path, "folder", S_IFDIR);
        make_in(path, "folder/file", S_IFREG);
}

/* The folder is watched before anything ends: the other side waits until then. */
static _Noreturn void be_a_test(int told_fd, int go_on_fd)
{
        char path[PATH_BYTES] = "";
        char byte;

        make_full(path);
        if (write(told_fd, path, sizeof(path)) != PATH_BYTES || read(go_on_fd, &byte, 1) != 1)
                _exit(EXIT_FAILURE);
        if (byte == ENDS_BY_ITSELF)
                _exit(EXIT_SUCCESS);
        (void)signal(byte, SIG_DFL);
        (void)kill(getpid(), byte);
        for (;;)
                (void)pause();
}

static void await_removal(int watch_fd)
{
        struct pollfd removed = { .fd = watch_fd, .events = POLLIN };

        ck_assert_int_eq(poll(&removed, 1, 20000 * test_patience()), 1);
}

static const char ends_of_a_test[] = { ENDS_BY_ITSELF, SIGABRT, SIGTERM, SIGKILL };

START_TEST(what_a_test_leaves_is_removed)
{
        int told[2], go_on[2];
        int watch_fd = inotify_init1(IN_CLOEXEC);
        char path[PATH_BYTES];
        pid_t pid;

        ck_assert_int_eq(pipe(told), 0);
        ck_assert_int_eq(pipe(go_on), 0);
        pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                be_a_test(told[1], go_on[0]);
        ck_assert_int_eq(read(told[0], path, sizeof(path)), PATH_BYTES);
        ck_assert_int_ge(inotify_add_watch(watch_fd, path, IN_DELETE_SELF), 0);
        ck_assert_int_eq(write(go_on[1], &ends_of_a_test[_i], 1), 1);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        await_removal(watch_fd);
        ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* A pipe whose end is awaited must not be held open. */
START_TEST(nothing_of_the_test_stays_open)
{
        char path[PATH_BYTES];
        int ends[2];
        char byte;

        ck_assert_int_eq(pipe(ends), 0);
        make_full(path);
        (void)close(ends[1]);
        ck_assert_int_eq(read(ends[0], &byte, 1), 0);
        scratch_remove(path);
}
END_TEST

START_TEST(a_folder_may_go_sooner)
{
        char paths[20][PATH_BYTES];

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                make_full(paths[i]);
                scratch_remove(paths[i]);
                ck_assert_int_ne(access(paths[i], F_OK), 0);
        }
        /* No janitor is left. */
        ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

/* Otherwise the teardown of a test that gave its privileges up would wait for ever. */
START_TEST(who_has_no_privileges_any_more_may_remove_it)
{
        char path[PATH_BYTES] = "/tmp/hotcell-scratch-XXXXXX";

        scratch_make(path);
        if (geteuid() == 0) {
                ck_assert_int_eq(chown(path, NOBODY, NOBODY), 0);
                ck_assert_int_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
        }
        scratch_remove(path);
        ck_assert_int_ne(access(path, F_OK), 0);
        ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

START_TEST(what_is_gone_already_is_no_mistake)
{
        char path[PATH_BYTES];

        make_full(path);
        ck_assert_int_eq(scratch_remove_tree(path), 0);
        scratch_remove(path);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("scratch");
        TCase *tests = tcase_create("scratch");

        tcase_set_timeout(tests, 60);
        tcase_add_loop_test(tests, what_a_test_leaves_is_removed, 0, ARRAY_SIZE(ends_of_a_test));
        tcase_add_test(tests, nothing_of_the_test_stays_open);
        tcase_add_test(tests, a_folder_may_go_sooner);
        tcase_add_test(tests, who_has_no_privileges_any_more_may_remove_it);
        tcase_add_test(tests, what_is_gone_already_is_no_mistake);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
