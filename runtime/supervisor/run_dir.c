#include "runtime/supervisor/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/leftover.h"
#include "runtime/cgroup/tree.h"

enum { LEFTOVER_TIMEOUT_MSEC = 5000 };

#define PRIVATE_NAME "private"
#define LOCK_NAME    "lock"
#define GROUPS_NAME  "groups"

/* A lock file that its owner removed while we waited to open it is not the one to hold. */
static int lock_once(int dir_fd, int *ret_fd)
{
        _cleanup_(closep) int fd =
                openat(dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct stat ours;
        struct stat named;

        if (fd < 0)
                return error_origin(-errno);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? RUN_DIR_E_IN_USE : error_origin(-errno);
        if (fstat(fd, &ours) < 0)
                return error_origin(-errno);
        if (fstatat(dir_fd, LOCK_NAME, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
            ours.st_ino != named.st_ino)
                return -EAGAIN;
        *ret_fd = take_fd(&fd);
        return 0;
}

/* Whoever may make files beside it must not have made this one. */
static int open_private(const char *path, int *ret_fd)
{
        _cleanup_(closep) int parent_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_(closep) int fd = -1;
        struct stat status;

        if (parent_fd < 0)
                return error_origin(-errno);
        if (mkdirat(parent_fd, PRIVATE_NAME, 0700) < 0 && errno != EEXIST)
                return error_origin(-errno);
        fd = openat(parent_fd, PRIVATE_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fstat(fd, &status) < 0)
                return error_origin(-errno);
        if (status.st_uid != 0 || (status.st_mode & 077))
                return error_origin(-EPERM);
        *ret_fd = take_fd(&fd);
        return 0;
}

int run_dir_open(struct run_dir *run_dir, const char *path)
{
        int r;

        *run_dir = (struct run_dir){ .path = path, .fd = -1, .lock_fd = -1 };
        if (mkdir(path, 0755) == 0)
                run_dir->is_made = chmod(path, 0755) == 0;
        else if (errno != EEXIST)
                return error_origin(-errno);
        r = open_private(path, &run_dir->fd);
        if (r)
                return r;
        do
                r = lock_once(run_dir->fd, &run_dir->lock_fd);
        while (r == -EAGAIN);
        if (r)
                run_dir->fd = close_fd(run_dir->fd);
        return r;
}

int run_dir_share(const struct run_dir *run_dir, gid_t gid)
{
        /* Everybody may pass through: sockets have their own permissions. */
        if (chown(run_dir->path, 0, gid) < 0 || chmod(run_dir->path, 01775) < 0)
                return error_origin(-errno);
        return 0;
}

static FILE *open_groups(int dir_fd)
{
        int fd = openat(dir_fd, GROUPS_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;

        if (!file)
                (void)close_fd(fd);
        return file;
}

void run_dir_remove_leftovers(struct run_dir *run_dir)
{
        _cleanup_(fclosep) FILE *file = open_groups(run_dir->fd);
        char path[CGROUP_PATH_MAX];

        if (!file)
                return;
        /* cgroup2 is listed first: what is killed there frees the others. */
        while (fgets(path, sizeof(path), file)) {
                int r;

                path[strcspn(path, "\n")] = '\0';
                r = cgroup_remove_leftover(path, LEFTOVER_TIMEOUT_MSEC);
                if (r)
                        log_warning("cannot remove a group of an earlier instance: group=%s "
                                    "error=%s",
                                    path, r < 0 ? strerrorname_np(-r) : "not ours");
                else
                        log_info("no group of an earlier instance is left: group=%s", path);
        }
        run_dir_forget_groups(run_dir);
}

int run_dir_record_groups(struct run_dir *run_dir, const struct cgroup_tree *tree)
{
        _cleanup_(closep) int fd = openat(run_dir->fd, GROUPS_NAME ".new",
                                          O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        if (fd < 0)
                return error_origin(-errno);
        for (size_t i = 0; i < tree->n_parents; i++)
                if (dprintf(fd, "%s\n", tree->parents[i].path) < 0)
                        return error_origin(-EIO);
        if (renameat(run_dir->fd, GROUPS_NAME ".new", run_dir->fd, GROUPS_NAME) < 0)
                return error_origin(-errno);
        return 0;
}

void run_dir_forget_groups(struct run_dir *run_dir)
{
        (void)unlinkat(run_dir->fd, GROUPS_NAME, 0);
}

void run_dir_close(struct run_dir *run_dir)
{
        char path[PATH_MAX];

        if (run_dir->lock_fd < 0)
                return;
        (void)unlinkat(run_dir->fd, LOCK_NAME, 0);
        run_dir->lock_fd = close_fd(run_dir->lock_fd);
        run_dir->fd = close_fd(run_dir->fd);
        if ((size_t)snprintf(path, sizeof(path), "%s/" PRIVATE_NAME, run_dir->path) < sizeof(path))
                (void)rmdir(path);
        if (run_dir->is_made)
                (void)rmdir(run_dir->path);
}
