/*
 * Each test gives up what hotcelld gives up, in a process of its own, and then tries.
 *
 * Without privilege the kernel refuses most calls with EPERM, too. So a filter that answers ENOSYS
 * is put below ours: EPERM is then ours alone, a call that ours would let through is ENOSYS, and
 * none is ever made, whatever it would do to the machine.
 */
#include <check.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/harden/harden.h"
#include "test/lib/suite.h"

enum { X32_BIT = 0x40000000 };

static void catch_call(long number)
{
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

        ck_assert_ptr_nonnull(filter);
        /* To a tracer that is not there: ENOSYS. An errno of ours would hide the other one. */
        ck_assert_int_eq(seccomp_rule_add(filter, SCMP_ACT_TRACE(0), (int)number, 0), 0);
        ck_assert_int_eq(seccomp_load(filter), 0);
        seccomp_release(filter);
}

/* The errno of a call, 0 if it was made. */
static int try_call(long number, long a, long b, long c)
{
        errno = 0;
        return syscall(number, a, b, c, 0, 0, 0) < 0 ? errno : 0;
}

static void harden(void)
{
        ck_assert_int_eq(harden_process(HARDEN_NEEDS_NOTHING), 0);
}

/* --- calls that are refused whatever is asked --- */

static const struct {
        const char *name;
        long number;
} refused[] = {
#define CALL(name)                                                                                 \
        {                                                                                          \
#name, SYS_##name                                                                  \
        }
        CALL(execve),
        CALL(execveat),
#ifdef SYS_fork
        CALL(fork),
        CALL(vfork),
#endif
        CALL(kill),
        CALL(pidfd_getfd),
        CALL(pidfd_send_signal),
        CALL(process_madvise),
        CALL(process_vm_readv),
        CALL(process_vm_writev),
        CALL(ptrace),
        CALL(kcmp),
        CALL(chroot),
        CALL(fsconfig),
        CALL(fsmount),
        CALL(fsopen),
        CALL(fspick),
        CALL(mount),
        CALL(mount_setattr),
        CALL(move_mount),
        CALL(name_to_handle_at),
        CALL(open_by_handle_at),
        CALL(open_tree),
        CALL(pivot_root),
        CALL(setns),
        CALL(umount2),
        CALL(unshare),
        CALL(add_key),
        CALL(bpf),
        CALL(io_uring_enter),
        CALL(io_uring_register),
        CALL(io_uring_setup),
        CALL(keyctl),
        CALL(perf_event_open),
        CALL(personality),
        CALL(request_key),
        CALL(userfaultfd),
        CALL(acct),
        CALL(adjtimex),
        CALL(clock_adjtime),
        CALL(clock_settime),
        CALL(delete_module),
        CALL(finit_module),
        CALL(init_module),
#ifdef SYS_iopl
        CALL(ioperm),
        CALL(iopl),
#endif
        CALL(kexec_file_load),
        CALL(kexec_load),
        CALL(quotactl),
        CALL(reboot),
        CALL(settimeofday),
        CALL(swapoff),
        CALL(swapon),
        CALL(syslog),
#undef CALL
};

START_TEST(this_call_is_refused)
{
        catch_call(refused[_i].number);
        ck_assert_msg(try_call(refused[_i].number, 0, 0, 0) == ENOSYS, "%s is not caught",
                      refused[_i].name);
        harden();
        ck_assert_msg(try_call(refused[_i].number, 0, 0, 0) == EPERM, "%s is not refused",
                      refused[_i].name);
}
END_TEST

/* --- calls whose arguments decide --- */

START_TEST(no_process_is_made_but_threads_are)
{
        catch_call(SYS_clone);
        harden();
        ck_assert_int_eq(try_call(SYS_clone, SIGCHLD, 0, 0), EPERM);
        ck_assert_int_eq(try_call(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0), EPERM);
        ck_assert_int_eq(try_call(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0), EPERM);
        ck_assert_int_eq(try_call(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0, 0),
                         ENOSYS);
}
END_TEST

/* What it asks for is behind a pointer. EINVAL is what the kernel says to a size of 0. */
START_TEST(clone3_is_said_to_be_missing)
{
        ck_assert_int_eq(try_call(SYS_clone3, 0, 0, 0), EINVAL);
        harden();
        ck_assert_int_eq(try_call(SYS_clone3, 0, 0, 0), ENOSYS);
}
END_TEST

START_TEST(the_c_library_starts_nothing)
{
        char name[] = "true";
        char *argv[] = { name, NULL };
        pid_t pid;

        harden();
        pid = fork();
        if (pid == 0)
                _exit(0);
        ck_assert_int_eq(pid, -1);
        ck_assert_int_eq(errno, EPERM);
        ck_assert_int_eq(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL), EPERM);
        ck_assert_int_eq(execv("/bin/true", argv), -1);
        ck_assert_int_eq(errno, EPERM);
}
END_TEST

static void *return_argument(void *userdata)
{
        return userdata;
}

START_TEST(the_c_library_still_makes_threads)
{
        pthread_t thread;
        void *returned = NULL;
        int mark;

        harden();
        ck_assert_int_eq(pthread_create(&thread, NULL, return_argument, &mark), 0);
        ck_assert_int_eq(pthread_join(thread, &returned), 0);
        ck_assert_ptr_eq(returned, &mark);
}
END_TEST

START_TEST(only_unix_and_ip_sockets_are_made)
{
        /* Also what the kernel does not know, and what does not fit into 32 bits. */
        catch_call(SYS_socket);
        harden();
        for (long family = 0; family < AF_MAX + 20; family++) {
                bool is_served = family == AF_UNIX || family == AF_INET || family == AF_INET6;

                ck_assert_msg(try_call(SYS_socket, family, SOCK_STREAM, 0) ==
                                      (is_served ? ENOSYS : EPERM),
                              "family %ld", family);
        }
        ck_assert_int_eq(try_call(SYS_socket, -1, SOCK_STREAM, 0), EPERM);
}
END_TEST

START_TEST(served_sockets_are_really_made)
{
        static const int families[] = { AF_UNIX, AF_INET };

        harden();
        for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
                _cleanup_(closep) int fd = socket(families[i], SOCK_STREAM | SOCK_CLOEXEC, 0);

                ck_assert_int_ge(fd, 0);
        }
}
END_TEST

/* --- code --- */

static void *map_page(int protection)
{
        return mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), protection, MAP_PRIVATE | MAP_ANONYMOUS,
                    -1, 0);
}

#define assert_refused(call)                                                                       \
        do {                                                                                       \
                errno = 0;                                                                         \
                ck_assert_int_eq((int)(call), -1);                                                 \
                ck_assert_int_eq(errno, EPERM);                                                    \
        } while (0)

START_TEST(memory_does_not_become_code)
{
        size_t size = (size_t)sysconf(_SC_PAGESIZE);
        void *page = map_page(PROT_READ | PROT_WRITE);

        ck_assert_ptr_ne(map_page(PROT_READ | PROT_EXEC), MAP_FAILED);
        ck_assert_int_eq(mprotect(page, size, PROT_READ | PROT_EXEC), 0);
        ck_assert_int_eq(mprotect(page, size, PROT_READ | PROT_WRITE), 0);
        harden();
        ck_assert_ptr_eq(map_page(PROT_EXEC), MAP_FAILED);
        ck_assert_int_eq(errno, EPERM);
        ck_assert_ptr_eq(map_page(PROT_READ | PROT_WRITE | PROT_EXEC), MAP_FAILED);
        ck_assert_int_eq(errno, EPERM);
        assert_refused(mprotect(page, size, PROT_EXEC));
        assert_refused(mprotect(page, size, PROT_READ | PROT_EXEC));
        /* A key of -1: as mprotect. */
        assert_refused(syscall(SYS_pkey_mprotect, page, size, PROT_READ | PROT_EXEC, -1));

        ck_assert_ptr_ne(map_page(PROT_READ | PROT_WRITE), MAP_FAILED);
        ck_assert_int_eq(mprotect(page, size, PROT_READ), 0);
}
END_TEST

#ifdef __x86_64__
/* Numbers of another table would mean other calls. ENOSYS without the filter. */
START_TEST(calls_of_a_foreign_abi_end_the_process)
{
        harden();
        (void)syscall(X32_BIT | SYS_getpid);
}
END_TEST
#endif

/* --- what is given up beside --- */

static unsigned long long status_field(const char *name, int base)
{
        _cleanup_(fclosep) FILE *file = fopen("/proc/thread-self/status", "re");
        char line[256];
        size_t n_name = strlen(name);

        ck_assert_ptr_nonnull(file);
        while (fgets(line, sizeof(line), file))
                if (strncmp(line, name, n_name) == 0 && line[n_name] == ':')
                        return strtoull(line + n_name + 1, NULL, base);
        ck_abort_msg("there is no %s", name);
}

START_TEST(no_capability_is_kept_or_gained)
{
        static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapAmb" };

        harden();
        for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
                ck_assert_msg(status_field(sets[i], 16) == 0, "%s", sets[i]);
        ck_assert_uint_eq(status_field("NoNewPrivs", 10), 1);
}
END_TEST

START_TEST(the_filter_holds_for_threads_that_come_later)
{
        harden();
        ck_assert_uint_eq(status_field("Seccomp", 10), SECCOMP_MODE_FILTER);
        ck_assert_uint_eq(status_field("Seccomp_filters", 10), 1);
}
END_TEST

START_TEST(nothing_is_dumped_and_nobody_of_its_user_traces)
{
        struct rlimit limit;

        harden();
        ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 0);
        ck_assert_int_eq(getrlimit(RLIMIT_CORE, &limit), 0);
        ck_assert_uint_eq(limit.rlim_cur, 0);
        ck_assert_uint_eq(limit.rlim_max, 0);
}
END_TEST

START_TEST(it_may_open_as_many_files_as_it_may)
{
        struct rlimit limit = { .rlim_cur = 64, .rlim_max = 128 };

        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        harden();
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        ck_assert_uint_eq(limit.rlim_cur, 128);
        ck_assert_uint_eq(limit.rlim_max, 128);
}
END_TEST

int main(void)
{
        Suite *all = suite_create("harden");
        TCase *calls = tcase_create("calls");
        TCase *process = tcase_create("process");

        tcase_add_loop_test(calls, this_call_is_refused, 0, ARRAY_SIZE(refused));
        tcase_add_test(calls, no_process_is_made_but_threads_are);
        tcase_add_test(calls, clone3_is_said_to_be_missing);
        tcase_add_test(calls, the_c_library_starts_nothing);
        tcase_add_test(calls, the_c_library_still_makes_threads);
        tcase_add_test(calls, only_unix_and_ip_sockets_are_made);
        tcase_add_test(calls, served_sockets_are_really_made);
        tcase_add_test(calls, memory_does_not_become_code);
#ifdef __x86_64__
        tcase_add_test_raise_signal(calls, calls_of_a_foreign_abi_end_the_process, SIGSYS);
#endif
        suite_add_tcase(all, calls);
        tcase_add_test(process, no_capability_is_kept_or_gained);
        tcase_add_test(process, the_filter_holds_for_threads_that_come_later);
        tcase_add_test(process, nothing_is_dumped_and_nobody_of_its_user_traces);
        tcase_add_test(process, it_may_open_as_many_files_as_it_may);
        suite_add_tcase(all, process);
        return suite_main(all);
}
