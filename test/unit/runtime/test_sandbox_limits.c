/* Limits that are put in force beside the loop: one change at a time, all of it or nothing, and an
 * end that is told once. */

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/container/tmpfs.h"
#include "runtime/supervisor/open_files.h"
#include "runtime/supervisor/sandbox.h"
#include "test/lib/suite.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name

static const struct runtime_limits before = {
        .memory_bytes = MIB(512),
        .cpu_millis = 1000,
        .cpu_weight = 100,
        .processes = 64,
        .disk_bytes = MIB(64),
        .disk_inodes = 5000,
        .open_files = 256,
};

static struct cgroup_tree tree;
static struct sandbox_host host;
static struct sandbox sandbox;
static struct failure failure;

/* --- what the kernel is asked for, and says --- */

static struct {
        struct cgroup_limits group; /* in force */
        unsigned n_group_changes;
        int group_results[4]; /* of each change; then 0 */
        struct tmpfs_amount disk;
        uint64_t memory_used;
        unsigned n_children;
        uint32_t from, to; /* of the last one */
        int begin_result;
        unsigned n_watched, n_forgotten;
        unsigned n_told;
        bool is_failure;
        struct failure told;
} kernel;

int __wrap_cgroup_change_limits(const struct cgroup *group, const struct cgroup_limits *present,
                                const struct cgroup_limits *limits);
int __wrap_cgroup_memory_in_use(const struct cgroup *group, uint64_t *ret_bytes);
int __wrap_tmpfs_read_use(int fd, struct tmpfs_amount *ret_used);
int __wrap_tmpfs_resize(int fd, const struct tmpfs_amount *amount);
int __wrap_open_files_begin(const struct sandbox *of, uint32_t from, uint32_t to,
                            struct child *child);
void __wrap_reaper_watch(struct reaper *reaper, struct child *child);
void __wrap_reaper_forget(struct reaper *reaper, struct child *child);

int __wrap_cgroup_change_limits(const struct cgroup *group, const struct cgroup_limits *present,
                                const struct cgroup_limits *limits)
{
        unsigned n = kernel.n_group_changes++;
        int r = n < ARRAY_SIZE(kernel.group_results) ? kernel.group_results[n] : 0;

        ck_assert_ptr_eq(group, &sandbox.group);
        ck_assert_uint_eq(present->memory_bytes, kernel.group.memory_bytes);
        if (!r)
                kernel.group = *limits;
        return r;
}

int __wrap_cgroup_memory_in_use(const struct cgroup *group, uint64_t *ret_bytes)
{
        ck_assert_ptr_eq(group, &sandbox.group);
        *ret_bytes = kernel.memory_used;
        return 0;
}

int __wrap_tmpfs_read_use(int fd, struct tmpfs_amount *ret_used)
{
        (void)fd;
        *ret_used = (struct tmpfs_amount){ 0 };
        return 0;
}

int __wrap_tmpfs_resize(int fd, const struct tmpfs_amount *amount)
{
        (void)fd;
        kernel.disk = *amount;
        return 0;
}

int __wrap_open_files_begin(const struct sandbox *of, uint32_t from, uint32_t to,
                            struct child *child)
{
        ck_assert_ptr_eq(of, &sandbox);
        kernel.n_children++;
        kernel.from = from;
        kernel.to = to;
        if (kernel.begin_result)
                return kernel.begin_result;
        child->pid = fork();
        if (child->pid == 0)
                for (;;)
                        (void)pause();
        return 0;
}

void __wrap_reaper_watch(struct reaper *reaper, struct child *child)
{
        ck_assert_ptr_eq(reaper, host.reaper);
        ck_assert_ptr_eq(child, &sandbox.change.child);
        kernel.n_watched++;
}

void __wrap_reaper_forget(struct reaper *reaper, struct child *child)
{
        ck_assert_ptr_eq(reaper, host.reaper);
        ck_assert_ptr_eq(child, &sandbox.change.child);
        kernel.n_forgotten++;
}

static void on_limits_changed(struct sandbox *of, const struct failure *why)
{
        ck_assert_ptr_eq(of, &sandbox);
        kernel.n_told++;
        kernel.is_failure = why != NULL;
        if (why)
                kernel.told = *why;
}

/* --- steps --- */

static void set_up(void)
{
        static const struct sandbox_observer observer = { .on_limits_changed = on_limits_changed };

        host = (struct sandbox_host){ .observer = &observer, .cgroups = &tree };
        sandbox = (struct sandbox){ .id = "sbx-a",
                                    .host = &host,
                                    .state = SANDBOX_RUNNING,
                                    .limits = before,
                                    .n_processes_alive = 1,
                                    .scratch_fd = -1 };
        memset(&kernel, 0, sizeof(kernel));
        kernel.group = limits_of_group(&before, 0);
        kernel.disk =
                (struct tmpfs_amount){ .bytes = before.disk_bytes, .inodes = before.disk_inodes };
}

/* As the reaper does. */
static void end_child(int status)
{
        struct child *child = &sandbox.change.child;

        (void)kill(child->pid, SIGKILL);
        ck_assert_int_eq(waitpid(child->pid, NULL, 0), child->pid);
        child->on_exit(child, status);
}

static int update(const struct runtime_limits *limits)
{
        return limits_update(&sandbox, limits, &failure);
}

/* More memory, and fewer open files, at which a child is. */
static void begin_change(void)
{
        struct runtime_limits wanted = before;

        wanted.memory_bytes = MIB(640);
        wanted.disk_inodes = 6000;
        wanted.open_files = 100;
        ck_assert_int_eq(update(&wanted), LIMITS_E_LATER);
        ck_assert_uint_eq(kernel.n_children, 1);
        ck_assert_uint_eq(kernel.n_watched, 1);
        ck_assert_uint_eq(kernel.from, 256);
        ck_assert_uint_eq(kernel.to, 100);
        ck_assert_uint_eq(kernel.n_told, 0);
}

static void expect_busy(void)
{
        struct runtime_limits wanted = sandbox.limits;
        unsigned n_group_changes = kernel.n_group_changes;

        wanted.cpu_millis = 3000;
        ck_assert_int_eq(update(&wanted), 1);
        ck_assert_int_eq(failure.reason, REASON(EXHAUSTED));
        ck_assert_uint_eq(kernel.n_group_changes, n_group_changes);
        ck_assert_uint_ne(sandbox.limits.cpu_millis, 3000);
}

static void expect_free(void)
{
        struct runtime_limits wanted = sandbox.limits;

        wanted.cpu_millis = 3000;
        ck_assert_int_eq(update(&wanted), 0);
        ck_assert_uint_eq(kernel.group.cpu_millis, 3000);
}

static void expect_told(Hotcell__Runtime__V1__FailureReason reason)
{
        ck_assert_uint_eq(kernel.n_told, 1);
        ck_assert(kernel.is_failure);
        ck_assert_int_eq(kernel.told.reason, reason);
}

#define EXITED(code) ((code) << 8)

/* --- tests --- */

START_TEST(no_change_begins_while_another_is_under_way)
{
        begin_change();
        expect_busy();
        end_child(EXITED(0));
        ck_assert_uint_eq(kernel.n_told, 1);
        ck_assert(!kernel.is_failure);
        ck_assert_uint_eq(kernel.n_children, 1);
        ck_assert_uint_eq(sandbox.limits.open_files, 100);
        ck_assert_uint_eq(kernel.group.memory_bytes, MIB(640));
        expect_free();
}
END_TEST

START_TEST(a_change_that_failed_is_undone_before_another_begins)
{
        begin_change();
        end_child(EXITED(EAGAIN));
        ck_assert_uint_eq(kernel.n_told, 0);
        ck_assert_uint_eq(kernel.n_children, 2);
        ck_assert_uint_eq(kernel.from, 100);
        ck_assert_uint_eq(kernel.to, 256);
        ck_assert_uint_eq(kernel.group.memory_bytes, before.memory_bytes);
        ck_assert_uint_eq(kernel.disk.inodes, before.disk_inodes);
        expect_busy();
        end_child(_i ? EXITED(EAGAIN) : EXITED(0)); /* it does what it can */
        expect_told(REASON(LIMIT));
        ck_assert_uint_eq(kernel.n_children, 2);
        ck_assert_mem_eq(&sandbox.limits, &before, sizeof(before));
        expect_free();
}
END_TEST

START_TEST(what_cannot_be_undone_beside_the_loop_is_told_at_once)
{
        begin_change();
        kernel.begin_result = -ENOMEM;
        end_child(SIGALRM);
        expect_told(REASON(SYSTEM));
        ck_assert_uint_eq(kernel.group.memory_bytes, before.memory_bytes);
        expect_free();
}
END_TEST

START_TEST(a_change_without_a_child_is_put_back)
{
        struct runtime_limits wanted = before;

        wanted.memory_bytes = MIB(640);
        wanted.open_files = 100;
        kernel.begin_result = -ENOMEM;
        ck_assert_int_eq(update(&wanted), 1);
        ck_assert_uint_eq(kernel.group.memory_bytes, before.memory_bytes);
        ck_assert_mem_eq(&sandbox.limits, &before, sizeof(before));
        ck_assert_uint_eq(kernel.n_told, 0);
        expect_free();
}
END_TEST

START_TEST(without_processes_no_child_is_needed)
{
        struct runtime_limits wanted = before;

        wanted.open_files = 100;
        sandbox.n_processes_alive = 0;
        ck_assert_int_eq(update(&wanted), 0);
        ck_assert_uint_eq(kernel.n_children, 0);
        ck_assert_uint_eq(sandbox.limits.open_files, 100);
}
END_TEST

START_TEST(a_change_that_is_cancelled_is_killed_and_told_once)
{
        int status;

        begin_change();
        if (_i)
                end_child(EXITED(EAGAIN)); /* what is undone ends, too */
        limits_cancel(&sandbox);
        expect_told(REASON(SANDBOX_ENDED));
        ck_assert_uint_eq(kernel.n_forgotten, 1);
        ck_assert_int_eq(waitpid(sandbox.change.child.pid, &status, 0), sandbox.change.child.pid);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        limits_cancel(&sandbox);
        ck_assert_uint_eq(kernel.n_told, 1);
        ck_assert_uint_eq(kernel.n_forgotten, 1);
}
END_TEST

/* Its group is about to go: nothing of it is changed any more. */
START_TEST(a_sandbox_that_ends_has_nothing_undone)
{
        begin_change();
        sandbox.state = SANDBOX_ENDING;
        end_child(EXITED(ESRCH));
        expect_told(REASON(SANDBOX_ENDED));
        ck_assert_uint_eq(kernel.n_children, 1);
        ck_assert_uint_eq(kernel.n_group_changes, 1);
}
END_TEST

/* What could not be put back is what is in force, and nothing else of it. */
START_TEST(what_cannot_be_put_back_is_told_as_it_is)
{
        begin_change();
        kernel.group_results[1] = -EIO;
        end_child(EXITED(EAGAIN));
        end_child(EXITED(0));
        expect_told(REASON(LIMIT));
        ck_assert_uint_eq(sandbox.limits.memory_bytes, MIB(640));
        ck_assert_uint_eq(sandbox.limits.disk_inodes, before.disk_inodes);
        ck_assert_uint_eq(sandbox.limits.open_files, before.open_files);
}
END_TEST

START_TEST(memory_that_was_filled_meanwhile_is_kept)
{
        begin_change();
        kernel.memory_used = MIB(600);
        end_child(EXITED(EAGAIN));
        end_child(EXITED(0));
        ck_assert_uint_eq(kernel.group.memory_bytes, MIB(640));
        ck_assert_uint_eq(sandbox.limits.memory_bytes, MIB(640));
        ck_assert_uint_eq(sandbox.limits.disk_inodes, before.disk_inodes);
}
END_TEST

START_TEST(each_limit_is_approached_by_itself)
{
        struct runtime_limits wanted = before;

        wanted.io_bytes_per_second = MIB(7);
        wanted.cpu_weight = 300;
        if (_i)
                kernel.group_results[1] = CGROUP_E_ABSENT; /* of io, after the weight */
        wanted.disk_inodes = 7000;
        ck_assert_int_eq(limits_approach(&sandbox, &wanted), 0);
        ck_assert_uint_eq(kernel.group.cpu_weight, 300);
        ck_assert_uint_eq(kernel.disk.inodes, 7000);
        ck_assert_uint_eq(kernel.group.io_bytes_per_second, _i ? 0 : MIB(7));
        ck_assert_uint_eq(sandbox.limits.io_bytes_per_second, _i ? 0 : MIB(7));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("sandbox_limits");
        TCase *tests = tcase_create("sandbox_limits");

        tcase_add_checked_fixture(tests, set_up, NULL);
        tcase_add_test(tests, no_change_begins_while_another_is_under_way);
        tcase_add_loop_test(tests, a_change_that_failed_is_undone_before_another_begins, 0, 2);
        tcase_add_test(tests, what_cannot_be_undone_beside_the_loop_is_told_at_once);
        tcase_add_test(tests, a_change_without_a_child_is_put_back);
        tcase_add_test(tests, without_processes_no_child_is_needed);
        tcase_add_loop_test(tests, a_change_that_is_cancelled_is_killed_and_told_once, 0, 2);
        tcase_add_test(tests, a_sandbox_that_ends_has_nothing_undone);
        tcase_add_test(tests, what_cannot_be_put_back_is_told_as_it_is);
        tcase_add_test(tests, memory_that_was_filled_meanwhile_is_kept);
        tcase_add_loop_test(tests, each_limit_is_approached_by_itself, 0, 2);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
