#include "runtime/container/spawn.h"

#include <assert.h>
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/macros.h"

int spawn_step_failed(const char *step, enum spawn_fault fault, int r,
                      struct spawn_failure *ret_failure)
{
        struct spawn_failure failure = { .error_number = -r, .fault = fault };

        (void)snprintf(failure.step, sizeof(failure.step), "%s", step);
        *ret_failure = failure;
        return SPAWNER_E_STEP;
}

int spawn_change_root(const char *path)
{
        if (chdir(path) < 0)
                return -errno;
        if (syscall(SYS_pivot_root, ".", ".") < 0)
                return -errno;
        /* The old root lies on top of the new one now. */
        if (umount2(".", MNT_DETACH) < 0)
                return -errno;
        return chdir("/") < 0 ? -errno : 0;
}

/* Runs steps until one fails. */
static int run_steps(struct spawn *spawn, const struct spawn_step *steps, size_t n_steps,
                     struct spawn_failure *ret_failure)
{
        for (size_t i = 0; i < n_steps; i++) {
                int r = steps[i].run(spawn);

                if (r)
                        return spawn_step_failed(steps[i].name, steps[i].fault, r, ret_failure);
        }
        return 0;
}

/* The child's whole life under this program. */
static _Noreturn void run_child(struct spawn *spawn, const struct spawn_plan *plan)
{
        struct spawn_failure failure;

        (void)run_steps(spawn, plan->child, plan->n_child, &failure);
        /* The last step executes the program; here, something failed. Nobody to tell if this does.
         */
        (void)!write(spawn->fds[SPAWN_SLOT_STATUS], &failure, sizeof(failure));
        _exit(127);
}

/* Like fork(2), but born in its cgroup and, by CLONE_PARENT, a child of the runtime. */
static int clone_child(const struct spawn *spawn, uint64_t flags, int *ret_pidfd)
{
        int pidfd = -1;
        struct clone_args arguments = {
                .flags = CLONE_PARENT | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP |
                         flags,
                .pidfd = (uint64_t)(uintptr_t)&pidfd,
                .cgroup = (uint64_t)spawn->fds[SPAWN_SLOT_CGROUP],
        };
        long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));

        if (pid < 0)
                return -errno;
        *ret_pidfd = pidfd;
        return (int)pid;
}

/*
 * Only children get the new pid namespace; the spawner itself stays where it is. It cannot go on if
 * the way back fails: its next sandbox would be born in this one.
 */
static int clone_into_pid_namespace(const struct spawn *spawn, uint64_t flags, int *ret_pidfd)
{
        int pid;

        if (setns(spawn->fds[SPAWN_SLOT_PLACE], CLONE_NEWPID) < 0)
                return -errno;
        pid = clone_child(spawn, flags, ret_pidfd);
        if (pid != 0 && setns(spawn->workshop->pid_namespace_fd, CLONE_NEWPID) < 0)
                abort();
        return pid;
}

int spawn_run(struct spawn *spawn, const struct spawn_plan *plan, int *ret_pid, int *ret_pidfd,
              struct spawn_failure *ret_failure)
{
        int pid;
        int r;

        r = run_steps(spawn, plan->prepare, plan->n_prepare, ret_failure);
        if (plan->clean_up)
                plan->clean_up(spawn);
        if (r)
                return r;

        pid = plan->joins_pid_namespace
                      ? clone_into_pid_namespace(spawn, plan->clone_flags, ret_pidfd)
                      : clone_child(spawn, plan->clone_flags, ret_pidfd);
        if (pid == 0)
                run_child(spawn, plan);
        if (pid < 0) {
                *ret_failure = (struct spawn_failure){ .error_number = -pid, .step = "clone" };
                return SPAWNER_E_STEP;
        }
        *ret_pid = pid;
        return 0;
}

/*
 * v1 hierarchies, by the child itself: a single thread that moves itself does not wait for RCU, as
 * writing another's pid to cgroup.procs does (8 ms).
 */
int spawn_join_task_groups(struct spawn *spawn)
{
        for (size_t i = 0; i < spawn->header->n_tasks; i++) {
                if (write(spawn->tasks_fds[i], "0", 1) != 1)
                        return -errno;
        }
        return 0;
}

int spawn_load_filter(struct spawn *spawn)
{
        return seccomp_filter_load(&spawn->workshop->filter);
}
