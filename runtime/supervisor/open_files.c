/*
 * Other users' limits need CAP_SYS_RESOURCE over their user namespace. Whoever enters that has it,
 * also on hosts on which the runtime itself has not. It is a child that does so: it has no power
 * over any other namespace then, and however many programs there are, the loop does not wait.
 */
#include "runtime/supervisor/open_files.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/cgroup/group.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"

enum { SECONDS_MAX = 10 };

_Noreturn static void change_inside(const struct sandbox *sandbox, uint32_t from, uint32_t to)
{
        struct process *process;
        struct process *following;
        sigset_t none;

        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)alarm(SECONDS_MAX);
        /* The kernel forgets the signal of a parent's death when a namespace is entered. */
        if (prctl(PR_SET_DUMPABLE, 0) < 0 || setns(sandbox->init_pidfd, CLONE_NEWUSER) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                _exit(errno);
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                int r = process_is_alive(process)
                                ? cgroup_limit_open_files(&process->leaf, from, to)
                                : 0;

                if (r)
                        _exit(r == CGROUP_E_RESTLESS ? EAGAIN : -r);
        }
        _exit(0);
}

int open_files_begin(const struct sandbox *sandbox, uint32_t from, uint32_t to, struct child *child)
{
        pid_t pid = fork();

        if (pid == 0)
                change_inside(sandbox, from, to);
        if (pid < 0)
                return error_origin(-errno);
        child->pid = pid;
        return 0;
}

int open_files_result(int status)
{
        return WIFEXITED(status) ? -WEXITSTATUS(status) : -ETIMEDOUT;
}
