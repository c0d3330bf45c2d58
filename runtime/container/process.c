/* How a process joins a sandbox that runs. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/container/privilege.h"
#include "runtime/container/spawn.h"

enum {
        N_STANDARD_STREAMS = 3,
        STATUS_FD = SPAWN_CHANNEL_FD + 2, /* closed by the exec */
        ABOVE_ALL_FDS = 256,              /* where descriptors wait while theirs is taken */
        STACK_BYTES = 8 << 20,
        LOCKED_BYTES = 64 << 10,
};

/* --- in the spawner --- */

/* hotcell-init's user is nobody else's, so that nobody can send it signals or look into it. */
static int check_user(struct spawn *spawn)
{
        const struct spawn_header *header = spawn->header;

        return header->uid < SPAWN_INIT_UID && header->gid < SPAWN_INIT_UID ? 0 : -EINVAL;
}

/* --- in the child --- */

/* Where memory runs out, the program goes before the init and before anything of the host. */
static int raise_oom_score(struct spawn *spawn)
{
        (void)spawn;
        return io_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "500");
}

/* Lower where the caller's own hard limit is lower: raising that takes a capability. */
static int set_limit(int resource, rlim_t soft, rlim_t hard)
{
        struct rlimit limit;

        if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
                return -errno;
        limit.rlim_max = MIN(limit.rlim_max, hard);
        limit.rlim_cur = MIN(limit.rlim_max, soft);
        return setrlimit((__rlimit_resource_t)resource, &limit) < 0 ? -errno : 0;
}

/*
 * Processes, memory and CPU time are the cgroups' business.
 *
 * No core dumps: of all limits only 1 also keeps the kernel from starting a helper of the host, as
 * root, that reads the dump (core_pattern with a pipe). A lower one, 0, would not, so the seccomp
 * filter refuses to set it.
 */
static int set_limits(struct spawn *spawn)
{
        const struct {
                int resource;
                rlim_t soft;
                rlim_t hard;
        } limits[] = {
                { RLIMIT_CORE, 1, 1 },
                { RLIMIT_MEMLOCK, LOCKED_BYTES, LOCKED_BYTES },
                { RLIMIT_STACK, STACK_BYTES, RLIM_INFINITY },
                { RLIMIT_NOFILE, spawn->header->open_files, spawn->header->open_files },
        };

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
                int r = set_limit(limits[i].resource, limits[i].soft, limits[i].hard);

                if (r)
                        return r;
        }
        return 0;
}

static int enter_namespaces(struct spawn *spawn)
{
        int flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

        return setns(spawn->fds[SPAWN_SLOT_PLACE], flags) < 0 ? -errno : 0;
}

/* Last, and by itself: with it goes the power to enter any other. */
static int enter_user_namespace(struct spawn *spawn)
{
        return setns(spawn->fds[SPAWN_SLOT_PLACE], CLONE_NEWUSER) < 0 ? -errno : 0;
}

static int start_session(struct spawn *spawn)
{
        (void)spawn;
        (void)umask(022);
        return setsid() < 0 ? -errno : 0;
}

static int stream_target(size_t i)
{
        return i < N_STANDARD_STREAMS ? (int)i : SPAWN_CHANNEL_FD + (int)(i - N_STANDARD_STREAMS);
}

/* Out of the way of all targets. */
static int lift(int *fd)
{
        *fd = fcntl(*fd, F_DUPFD_CLOEXEC, ABOVE_ALL_FDS);
        return *fd < 0 ? -errno : 0;
}

static int place_streams(struct spawn *spawn)
{
        int *status_fd = &spawn->fds[SPAWN_SLOT_STATUS];
        int r;

        r = lift(status_fd);
        for (size_t i = 0; r == 0 && i < spawn->header->n_streams; i++)
                r = lift(&spawn->stream_fds[i]);
        if (r)
                return r;

        for (size_t i = 0; i < spawn->header->n_streams; i++) {
                if (dup2(spawn->stream_fds[i], stream_target(i)) < 0)
                        return -errno;
        }
        if (dup3(*status_fd, STATUS_FD, O_CLOEXEC) < 0)
                return -errno;
        *status_fd = STATUS_FD;
        return 0;
}

/* Really closes: nothing of the host is open any more when the program's user is taken on. */
static int close_others(struct spawn *spawn)
{
        size_t n = spawn->header->n_streams;
        unsigned first_unused =
                SPAWN_CHANNEL_FD + (unsigned)(n > N_STANDARD_STREAMS ? n - N_STANDARD_STREAMS : 0);

        if (close_range(N_STANDARD_STREAMS, SPAWN_CHANNEL_FD - 1, 0) < 0)
                return -errno;
        if (first_unused < STATUS_FD && close_range(first_unused, STATUS_FD - 1, 0) < 0)
                return -errno;
        return close_range(STATUS_FD + 1, ~0U, 0) < 0 ? -errno : 0;
}

static int drop_privilege(struct spawn *spawn)
{
        return privilege_drop(spawn->header->uid, spawn->header->gid);
}

/*
 * As the program's user and within the sandbox's root. A magic link (/proc/self/fd/3, /proc/1/cwd)
 * could lead out of it, so none is followed, and what was reached is asked for its path.
 */
static int enter_directory(struct spawn *spawn)
{
        const struct open_how how = {
                .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                .resolve = RESOLVE_NO_MAGICLINKS,
        };
        char path[4096];
        int fd;
        int r;

        if (spawn->strings[0][0] != '/')
                return -EINVAL;
        fd = (int)syscall(SYS_openat2, AT_FDCWD, spawn->strings[0], &how, sizeof(how));
        if (fd < 0)
                return -errno;
        r = fchdir(fd) < 0 ? -errno : 0;
        (void)close(fd);
        if (r)
                return r;
        if (syscall(SYS_getcwd, path, sizeof(path)) < 0)
                return -errno;
        return path[0] == '/' ? 0 : -EXDEV;
}

static int execute_program(struct spawn *spawn)
{
        char **arguments = spawn->strings + 1;
        /* A NULL stands between the two. */
        char **environment = arguments + spawn->header->n_arguments + 1;

        (void)execve(arguments[0], arguments, environment);
        return -errno;
}

static const struct spawn_step process_prepare[] = {
        { .name = "check the user", .run = check_user },
};

static const struct spawn_step process_child[] = {
        { .name = "raise the OOM score", .run = raise_oom_score },
        { .name = "join the cgroups", .run = spawn_join_task_groups },
        { .name = "enter the namespaces", .run = enter_namespaces },
        { .name = "start a session", .run = start_session },
        { .name = "enter the user namespace", .run = enter_user_namespace },
        { .name = "place the streams", .run = place_streams },
        { .name = "close descriptors", .run = close_others },
        /* After the descriptors, whose numbers may be above the limit. */
        { .name = "set limits", .run = set_limits },
        { .name = "drop privilege", .run = drop_privilege },
        { .name = "enter the working directory",
          .run = enter_directory,
          .fault = SPAWN_FAULT_DIRECTORY },
        { .name = "load the seccomp filter", .run = spawn_load_filter },
        { .name = "execute the program", .run = execute_program, .fault = SPAWN_FAULT_PROGRAM },
};

const struct spawn_plan process_plan = {
        .prepare = process_prepare,
        .n_prepare = ARRAY_SIZE(process_prepare),
        .child = process_child,
        .n_child = ARRAY_SIZE(process_child),
        .joins_pid_namespace = true,
};
