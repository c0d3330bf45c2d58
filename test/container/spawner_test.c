/* What the spawner promises to its caller (runtime/container/spawner.h). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/container/user_namespace.h"
#include "test/container/suite.h"
#include "test/lib/scratch.h"

enum { N_MANY = 200, N_DEATHS = 200, PATIENCE_MSEC = 10000 };

static struct outcome outcome; /* too large for the stack */

static struct spawn_process process_of(const struct box *box, const char *const *argv)
{
        struct spawn_process process = fixture_process(&fixture, box);

        process.argv = argv;
        return process;
}

static void ck_assert_failure(const struct outcome *actual, const char *step, int error,
                              enum spawn_fault fault)
{
        ck_assert_int_eq(actual->result, SPAWNER_E_STEP);
        ck_assert_str_eq(actual->failure.step, step);
        ck_assert_int_eq(actual->failure.error_number, error);
        ck_assert_int_eq(actual->failure.fault, fault);
}

static void run_program(const struct box *box, const char *path)
{
        const char *const argv[] = { path, NULL };
        struct spawn_process process = process_of(box, argv);

        process_run(&fixture, &process, &outcome);
}

static void run_in_directory(const struct box *box, const char *directory)
{
        static const char *const argv[] = { "/bin/pwd", NULL };
        struct spawn_process process = process_of(box, argv);

        process.working_directory = directory;
        process_run(&fixture, &process, &outcome);
}

START_TEST(a_program_that_cannot_be_executed_is_the_callers_mistake)
{
        struct box box;

        box_start(&fixture, &box);
        run_program(&box, "/no/such/program");
        ck_assert_failure(&outcome, "execute the program", ENOENT, SPAWN_FAULT_PROGRAM);
        ck_assert_int_eq(outcome.exit_code, 127);
        run_program(&box, "/etc/passwd");
        ck_assert_failure(&outcome, "execute the program", EACCES, SPAWN_FAULT_PROGRAM);
        run_program(&box, "/tmp");
        ck_assert_failure(&outcome, "execute the program", EACCES, SPAWN_FAULT_PROGRAM);
        box_end(&box);
}
END_TEST

START_TEST(a_working_directory_is_within_the_sandbox)
{
        static const struct {
                const char *path;
                int error;
        } wrong[] = {
                { "/no/such/directory", ENOENT },
                { "/etc/passwd", ENOTDIR },
                { "/root", EACCES },
                { "/proc/self/fd/0", ELOOP },
                { "/proc/self/fd/3", ENOENT },
                { "/proc/self/cwd", ELOOP },
                { "/proc/1/root", EACCES },
                { "tmp", EINVAL },
                { "", EINVAL },
        };
        struct box box;

        box_start(&fixture, &box);
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                run_in_directory(&box, wrong[i].path);
                ck_assert_failure(&outcome, "enter the working directory", wrong[i].error,
                                  SPAWN_FAULT_DIRECTORY);
        }
        run_in_directory(&box, "/usr/../var/./tmp");
        ck_assert_int_eq(outcome.result, 0);
        ck_assert_str_eq(outcome.output, "/var/tmp\n");
        box_end(&box);
}
END_TEST

START_TEST(the_inits_user_is_refused)
{
        static const char *const argv[] = { "/bin/true", NULL };
        struct spawn_process process;
        struct box box;

        box_start(&fixture, &box);
        process = process_of(&box, argv);
        process.uid = SPAWN_INIT_UID;
        process_run(&fixture, &process, &outcome);
        ck_assert_failure(&outcome, "check the user", EINVAL, SPAWN_FAULT_SYSTEM);
        process = process_of(&box, argv);
        process.gid = SPAWN_IDS;
        process_run(&fixture, &process, &outcome);
        ck_assert_failure(&outcome, "check the user", EINVAL, SPAWN_FAULT_SYSTEM);
        box_end(&box);
}
END_TEST

START_TEST(too_many_arguments_are_the_callers_mistake)
{
        static char long_argument[SPAWN_TEXT_MAX];
        static const char *const argv[] = { "/bin/true", long_argument, NULL };
        struct spawn_process process;
        struct box box;

        memset(long_argument, 'x', sizeof(long_argument) - 1);
        box_start(&fixture, &box);
        process = process_of(&box, argv);
        process_run(&fixture, &process, &outcome);
        ck_assert_failure(&outcome, "execute the program", E2BIG, SPAWN_FAULT_PROGRAM);

        long_argument[100000] = '\0';
        process_run(&fixture, &process, &outcome);
        ck_assert_int_eq(outcome.result, 0);
        box_end(&box);
}
END_TEST

START_TEST(a_missing_template_is_told)
{
        struct spawn_sandbox sandbox = fixture_sandbox(&fixture);
        struct spawn_failure failure;
        struct spawned spawned;

        sandbox.template_root = "/no/such/template";
        ck_assert_int_eq(spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure),
                         SPAWNER_E_STEP);
        ck_assert_str_eq(failure.step, "open the template");
        ck_assert_int_eq(failure.error_number, ENOENT);
}
END_TEST

/* A template whose /proc is a link must not lead a mount elsewhere. */
START_TEST(a_template_with_links_for_mount_points_is_refused)
{
        struct spawn_sandbox sandbox = fixture_sandbox(&fixture);
        char root[] = "/var/tmp/hotcell-test-XXXXXX";
        char path[64];
        struct spawn_failure failure;
        struct spawned spawned;

        scratch_make(root);
        (void)snprintf(path, sizeof(path), "%s/dev", root);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        (void)snprintf(path, sizeof(path), "%s/proc", root);
        ck_assert_int_eq(symlink("/dev", path), 0);

        sandbox.template_root = root;
        ck_assert_int_eq(spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure), 0);
        ck_assert_int_eq(status_wait(spawned.status_fd, &failure), SPAWNER_E_STEP);
        ck_assert_str_eq(failure.step, "mount /proc");
        ck_assert_int_eq(failure.error_number, ELOOP);
        ck_assert_int_eq(waitpid(spawned.pid, NULL, 0), spawned.pid);

        scratch_remove(root);
}
END_TEST

START_TEST(a_failed_start_leaves_the_stage_usable)
{
        struct spawn_sandbox sandbox = fixture_sandbox(&fixture);
        size_t n_mounts = count_mounts(spawner_pid(fixture.spawner));
        struct spawn_failure failure;
        struct spawned spawned;
        struct box box;

        /* No file system whose ids can be mapped. */
        sandbox.template_root = "/proc";
        ck_assert_int_eq(spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure),
                         SPAWNER_E_STEP);
        ck_assert_str_eq(failure.step, "map the template's ids");
        /* No directory. */
        sandbox.template_root = "/etc/passwd";
        ck_assert_int_eq(spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure),
                         SPAWNER_E_STEP);

        /* No cgroup. */
        sandbox.template_root = fixture.template_root;
        sandbox.cgroup.id_fd = fixture.netns_fd;
        ck_assert_int_eq(spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure),
                         SPAWNER_E_STEP);
        ck_assert_str_eq(failure.step, "clone");

        ck_assert_uint_eq(count_mounts(spawner_pid(fixture.spawner)), n_mounts);
        box_start(&fixture, &box);
        ck_assert_shell(&box, "echo alive", "alive\n");
        box_end(&box);
}
END_TEST

/* Each step that needs a descriptor fails in turn. */
START_TEST(a_want_of_descriptors_leaves_the_stage_usable)
{
        pid_t pid = spawner_pid(fixture.spawner);
        size_t n_mounts = count_mounts(pid);
        size_t n_fds = count_fds(pid);
        size_t n_failures = 0;
        struct spawned spawned;
        int r = SPAWNER_E_STEP;

        for (rlim_t limit = 6; r != 0; limit++) {
                struct spawn_sandbox sandbox = fixture_sandbox(&fixture);
                const struct rlimit few = { limit, 1024 };
                struct spawn_failure failure;

                ck_assert_int_eq(prlimit(pid, RLIMIT_NOFILE, &few, NULL), 0);
                r = spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure);
                ck_assert(r == 0 || r == SPAWNER_E_STEP);
                if (r == 0)
                        continue;
                n_failures++;
                ck_assert_int_eq(failure.error_number, EMFILE);
                ck_assert_uint_eq(count_mounts(pid), n_mounts);
                ck_assert_uint_eq(count_fds(pid), n_fds);
        }
        /* As many as on pure cgroup v2, where fewer are sent. */
        ck_assert_uint_ge(n_failures, 6);
        ck_assert_int_eq(kill(spawned.pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(spawned.pid, NULL, 0), spawned.pid);
}
END_TEST

START_TEST(only_the_programs_own_descriptors_are_open)
{
        static const char *const argv[] = {
                "/bin/bash", "-c",
                "ls /proc/$$/fd >/tmp/fds; tr '\\n' ' ' </tmp/fds; echo up >&201; cat <&200", NULL
        };
        struct spawn_process process;
        int commands[2];
        int events[2];
        char text[8] = { 0 };
        struct box box;

        box_start(&fixture, &box);
        process = process_of(&box, argv);
        ck_assert_int_eq(pipe2(commands, O_CLOEXEC), 0);
        ck_assert_int_eq(pipe2(events, O_CLOEXEC), 0);
        ck_assert_int_eq(write(commands[1], "down\n", 5), 5);
        (void)close(commands[1]);
        process.fds[3] = commands[0];
        process.fds[4] = events[1];
        process.n_fds = 5;
        process_run(&fixture, &process, &outcome);
        ck_assert_str_eq(outcome.output, "0 1 2 200 201 down\n");
        ck_assert_int_eq(read(events[0], text, sizeof(text)), 3);
        ck_assert_str_eq(text, "up\n");
        (void)close(commands[0]);
        (void)close(events[0]);
        (void)close(events[1]);

        ck_assert_shell(&box, "exec bash -c 'ls /proc/$$/fd >/tmp/fds; cat /tmp/fds'", "0\n1\n2\n");
        box_end(&box);
}
END_TEST

START_TEST(a_program_starts_from_a_clean_state)
{
        static const char *const environment[] = { "ONLY=this", NULL };
        static const char code[] =
                "umask; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; "
                "echo $ONLY $HOME; hostname; "
                "[ $(cut -d ' ' -f 6 /proc/$$/stat) = $$ ] && echo leader; "
                "grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f 2";
        static const char *const argv[] = { "/bin/bash", "--noprofile", "-c", code, NULL };
        struct spawn_process process;
        struct box box;

        (void)signal(SIGPIPE, SIG_IGN);
        fixture_deinit(&fixture);
        fixture_init(&fixture);
        box_start(&fixture, &box);
        process = process_of(&box, argv);
        process.environment = environment;
        process.open_files = 100;
        process_run(&fixture, &process, &outcome);
        ck_assert_str_eq(outcome.output, "0022\n100\n100\n0\n500\nthis\nsandbox\nleader\n"
                                         "0000000000000000\n0000000000000000\n");
        box_end(&box);
}
END_TEST

START_TEST(a_status_pipe_is_silent_until_the_child_got_somewhere)
{
        static const char *const argv[] = { "/bin/true", NULL };
        struct spawn_process process;
        struct spawn_failure failure;
        struct spawned spawned;
        struct box box;

        box_start(&fixture, &box);
        process = process_of(&box, argv);
        for (size_t i = 0; i < 3; i++)
                process.fds[i] = STDERR_FILENO;
        ck_assert_int_eq(io_write_file(fixture.cgroup.id_fd, "cgroup.freeze", "1"), 0);
        ck_assert_int_eq(spawner_start_process(fixture.spawner, &process, &spawned, &failure), 0);
        ck_assert_int_eq(spawn_status_read(spawned.status_fd, &failure), -EAGAIN);

        ck_assert_int_eq(io_write_file(fixture.cgroup.id_fd, "cgroup.freeze", "0"), 0);
        ck_assert_int_eq(status_wait(spawned.status_fd, &failure), 0);
        ck_assert_int_eq(waitpid(spawned.pid, NULL, 0), spawned.pid);
        box_end(&box);
}
END_TEST

START_TEST(the_end_of_the_init_ends_all_processes)
{
        static const char *const argv[] = { "/bin/sleep", "1000", NULL };
        struct spawn_process process;
        struct spawn_failure failure;
        struct spawned spawned;
        struct box box;
        int status;

        box_start(&fixture, &box);
        process = process_of(&box, argv);
        for (size_t i = 0; i < 3; i++)
                process.fds[i] = STDERR_FILENO;
        ck_assert_int_eq(spawner_start_process(fixture.spawner, &process, &spawned, &failure), 0);
        ck_assert_int_eq(status_wait(spawned.status_fd, &failure), 0);
        ck_assert_int_eq(kill(box.init.pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(spawned.pid, &status, 0), spawned.pid);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

        /* And nobody can join any more. */
        ck_assert_int_eq(waitpid(box.init.pid, NULL, 0), box.init.pid);
        ck_assert_int_eq(spawner_start_process(fixture.spawner, &process, &spawned, &failure),
                         SPAWNER_E_STEP);
        ck_assert_str_eq(failure.step, "clone");
        ck_assert_int_eq(failure.error_number, ESRCH);
}
END_TEST

START_TEST(the_spawner_sees_no_files_of_the_host)
{
        char path[64];
        struct stat status;

        (void)snprintf(path, sizeof(path), "/proc/%d/root/etc", (int)spawner_pid(fixture.spawner));
        ck_assert_int_ne(stat(path, &status), 0);
        ck_assert_uint_eq(count_mounts(spawner_pid(fixture.spawner)), 4);
}
END_TEST

START_TEST(many_sandboxes_leave_nothing_in_the_spawner)
{
        pid_t pid = spawner_pid(fixture.spawner);
        size_t n_mounts = count_mounts(pid);
        size_t n_fds = count_fds(pid);
        size_t n_own_fds;

        n_own_fds = count_fds(getpid());
        for (size_t i = 0; i < N_MANY; i++) {
                struct box box;

                box_start(&fixture, &box);
                run_program(&box, "/bin/true");
                ck_assert_int_eq(outcome.result, 0);
                box_end(&box);
        }
        ck_assert_uint_eq(count_mounts(pid), n_mounts);
        ck_assert_uint_eq(count_fds(pid), n_fds);
        ck_assert_uint_eq(count_fds(getpid()), n_own_fds);
}
END_TEST

START_TEST(the_death_of_the_spawner_loses_no_process)
{
        struct spawn_sandbox sandbox = fixture_sandbox(&fixture);
        struct spawn_failure failure;
        struct spawned spawned;
        struct box box;

        box_start(&fixture, &box);
        ck_assert_int_eq(kill(spawner_pid(fixture.spawner), SIGKILL), 0);
        ck_assert_int_eq(waitpid(spawner_pid(fixture.spawner), NULL, 0),
                         spawner_pid(fixture.spawner));
        ck_assert_int_eq(spawner_start_sandbox(fixture.spawner, &sandbox, &spawned, &failure),
                         SPAWNER_E_DEAD);

        /* It lives, it is our child, and a new spawner can use it. */
        ck_assert_int_eq(waitpid(box.init.pid, NULL, WNOHANG), 0);
        fixture_deinit(&fixture);
        fixture_init(&fixture);
        ck_assert_shell(&box, "echo alive", "alive\n");
        box_end(&box);
}
END_TEST

/* Holds an end of a socket as the spawner does, and does its work until it is killed. */
static _Noreturn void make_namespaces(void)
{
        for (;;) {
                int fd = -1;

                (void)user_namespace_new(1U << 30, &fd);
                (void)close_fd(fd);
                (void)waitpid(-1, NULL, WNOHANG);
        }
}

START_TEST(its_death_at_any_moment_is_heard_at_once)
{
        for (unsigned i = 0; i < N_DEATHS; i++) {
                struct pollfd near = { .events = POLLIN };
                int ends[2];
                pid_t pid;

                ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
                pid = fork();
                ck_assert_int_ge(pid, 0);
                if (pid == 0)
                        make_namespaces();
                (void)close(ends[1]);
                (void)usleep(2000 + i * 37);
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
                near.fd = ends[0];
                ck_assert_int_eq(poll(&near, 1, PATIENCE_MSEC), 1);
                (void)close(ends[0]);
        }
}
END_TEST

START_TEST(a_missing_init_is_told)
{
        struct spawner *spawner = NULL;

        ck_assert_int_eq(spawner_new("/no/such/init", &spawner), -ENOENT);
        ck_assert_ptr_null(spawner);
}
END_TEST

int main(void)
{
        static const TTest **const tests[] = {
                &a_program_that_cannot_be_executed_is_the_callers_mistake,
                &a_working_directory_is_within_the_sandbox,
                &the_inits_user_is_refused,
                &too_many_arguments_are_the_callers_mistake,
                &a_missing_template_is_told,
                &a_template_with_links_for_mount_points_is_refused,
                &a_failed_start_leaves_the_stage_usable,
                &a_want_of_descriptors_leaves_the_stage_usable,
                &only_the_programs_own_descriptors_are_open,
                &a_program_starts_from_a_clean_state,
                &a_status_pipe_is_silent_until_the_child_got_somewhere,
                &the_end_of_the_init_ends_all_processes,
                &the_spawner_sees_no_files_of_the_host,
                &many_sandboxes_leave_nothing_in_the_spawner,
                &the_death_of_the_spawner_loses_no_process,
                &its_death_at_any_moment_is_heard_at_once,
                &a_missing_init_is_told,
        };

        return suite_run("spawner", tests, ARRAY_SIZE(tests));
}
