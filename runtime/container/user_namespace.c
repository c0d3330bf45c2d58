/*
 * A namespace needs a first process, so one is forked, the holder, which lives until the namespace
 * is held by a descriptor. The maps have to be written by a process outside.
 *
 * The namespace's owner is @id_base, not root: the kernel counts inotify instances, pending
 * signals, locked memory and the like of a namespace against its owner, too, and sandboxes must not
 * share those counters with one another or with root. No process on the host has that id.
 */
#include "runtime/container/user_namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/container/spawner.h"

enum { FIRST_FD = 3 };

static int holder_enter(uint32_t id_base)
{
        /* Keeps the capabilities across the change of user: hosts may forbid unprivileged user
         * namespaces. */
        if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0)
                return -errno;
        if (syscall(SYS_setresuid, -1, id_base, -1) < 0)
                return -errno;
        if (unshare(CLONE_NEWUSER) < 0)
                return -errno;
        return io_write_file(AT_FDCWD, "/proc/sys/user/max_user_namespaces", "0");
}

/* The end of the spawner's socket is how the runtime hears of its death: nobody else may hold it.
 */
static int holder_close_others(int ready_fd)
{
        if (ready_fd > FIRST_FD && close_range(FIRST_FD, (unsigned)ready_fd - 1, 0) < 0)
                return -errno;
        return close_range((unsigned)ready_fd + 1, ~0U, 0) < 0 ? -errno : 0;
}

/* Tells its errno, zero when the namespace is there, and waits to be killed. */
static _Noreturn void holder_run(uint32_t id_base, int ready_fd, pid_t spawner)
{
        int error = holder_close_others(ready_fd);

        if (!error)
                error = holder_enter(id_base);
        /* Not before: a change of credentials takes it back. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != spawner)
                _exit(1);
        (void)!write(ready_fd, &error, sizeof(error));
        for (;;)
                (void)pause();
}

static int holder_wait_ready(int ready_fd)
{
        int error;
        ssize_t n;

        do
                n = read(ready_fd, &error, sizeof(error));
        while (n < 0 && errno == EINTR);
        if (n != sizeof(error))
                return error_origin(-EIO);
        return error;
}

static int write_maps(pid_t holder, uint32_t id_base)
{
        static const char *const files[] = { "uid_map", "gid_map" };
        char map[64];
        char path[64];

        (void)snprintf(map, sizeof(map), "0 %u %u", id_base, (unsigned)SPAWN_IDS);
        for (size_t i = 0; i < 2; i++) {
                int r;

                (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)holder, files[i]);
                r = io_write_file(AT_FDCWD, path, map);
                if (r)
                        return error_origin(r);
        }
        return 0;
}

static int adopt(pid_t holder, uint32_t id_base, int ready_fd, int *ret_fd)
{
        _cleanup_(closep) int fd = -1;
        char path[64];
        int r;

        r = holder_wait_ready(ready_fd);
        if (r)
                return error_fold(r);
        r = write_maps(holder, id_base);
        if (r)
                return error_fold(r);
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)holder);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return error_origin(-errno);
        *ret_fd = take_fd(&fd);
        return 0;
}

int user_namespace_new(uint32_t id_base, int *ret_fd)
{
        _cleanup_(closep) int read_fd = -1;
        _cleanup_(closep) int write_fd = -1;
        pid_t spawner = getpid();
        int ends[2];
        pid_t holder;
        int r;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return error_origin(-errno);
        read_fd = ends[0];
        write_fd = ends[1];

        holder = fork();
        if (holder < 0)
                return error_origin(-errno);
        if (holder == 0)
                holder_run(id_base, write_fd, spawner);
        /* Or the death of the holder would not end the wait. */
        closep(&write_fd);

        r = adopt(holder, id_base, read_fd, ret_fd);
        (void)kill(holder, SIGKILL);
        return r;
}
