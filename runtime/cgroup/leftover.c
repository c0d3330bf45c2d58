/*
 * A lock on the cgroup2 parent lives as long as its owner. An extended attribute of it lists the
 * parents of v1, which may lie below a group that nobody else would look into.
 */
#include "runtime/cgroup/leftover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/base32.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/dns_label.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/cgroup/tree.h"

enum {
        DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
        DEPTH_MAX = 4, /* parent, sandbox, leaf, and one to spare */
        PAUSE_MSEC = 10,
};

#define PARENTS_ATTRIBUTE "trusted.hotcell.parents"

/* Between making and locking it, another instance may have taken the group for abandoned. */
static bool take_lock(int fd, const char *path)
{
        struct stat ours;
        struct stat named;

        return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &ours) == 0 &&
               stat(path, &named) == 0 && ours.st_ino == named.st_ino;
}

/* Losing it costs a later start the v1 groups of a killed instance, no more. */
static void list_parents(const struct cgroup_tree *tree)
{
        char list[CGROUP_HIERARCHIES_MAX * (CGROUP_PATH_MAX + 1)];
        size_t used = 0;

        for (size_t h = 1; h < tree->n_parents; h++)
                used += (size_t)snprintf(list + used, sizeof(list) - used, "%s\n",
                                         tree->parents[h].path);
        if (fsetxattr(tree->parents[0].fd, PARENTS_ATTRIBUTE, list, used, 0) < 0)
                log_debug("cannot list the groups: group=%s error=%s", tree->parents[0].path,
                          strerrorname_np(errno));
}

bool cgroup_take_ownership(const struct cgroup_tree *tree)
{
        if (!take_lock(tree->parents[0].fd, tree->parents[0].path))
                return false;
        list_parents(tree);
        return true;
}

static DIR *open_directory(int dir_fd, const char *name)
{
        int fd = openat(dir_fd, name, DIR_FLAGS | O_NOFOLLOW);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

        if (!dir)
                (void)close_fd(fd);
        return dir;
}

/* Depth first. Removes what it can and reports the first failure. */
static int remove_below(int dir_fd, const char *name, unsigned depth)
{
        DIR *dir = open_directory(dir_fd, name);
        int first_error = 0;

        if (!dir)
                return errno == ENOENT ? 0 : -errno;
        for (struct dirent *entry = readdir(dir); entry && depth > 0; entry = readdir(dir)) {
                int r;

                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                r = remove_below(dirfd(dir), entry->d_name, depth - 1);
                if (r && !first_error)
                        first_error = r;
        }
        (void)closedir(dir);
        if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT && !first_error)
                first_error = -errno;
        return first_error;
}

static bool is_leftover_path(const char *path)
{
        const char *name = strrchr(path, '/');

        return path[0] == '/' && name && !strstr(path, "/../") &&
               strncmp(name + 1, CGROUP_NAME_PREFIX, strlen(CGROUP_NAME_PREFIX)) == 0;
}

int cgroup_remove_leftover(const char *path, unsigned timeout_msec)
{
        const struct timespec pause = { .tv_nsec = PAUSE_MSEC * 1000000L };
        _cleanup_(closep) int fd = -1;
        struct statfs file_system;
        int r;

        if (!is_leftover_path(path))
                return CGROUP_LEFTOVER_E_NOT_OURS;
        fd = open(path, DIR_FLAGS | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (fstatfs(fd, &file_system) < 0)
                return error_origin(-errno);
        if (file_system.f_type != CGROUP_SUPER_MAGIC && file_system.f_type != CGROUP2_SUPER_MAGIC)
                return CGROUP_LEFTOVER_E_NOT_OURS;

        for (unsigned waited = 0;; waited += PAUSE_MSEC) {
                /* Every process of a sandbox is in the cgroup2 tree, so v1 needs no killing. */
                if (file_system.f_type == CGROUP2_SUPER_MAGIC)
                        (void)io_write_file(fd, "cgroup.kill", "1");
                r = remove_below(AT_FDCWD, path, DEPTH_MAX);
                if (!r || waited >= timeout_msec)
                        return r;
                (void)nanosleep(&pause, NULL);
        }
}

/* CGROUP_NAME_PREFIX and the random part of an id. */
static bool is_instance_name(const char *name)
{
        size_t n_prefix = strlen(CGROUP_NAME_PREFIX);

        return strncmp(name, CGROUP_NAME_PREFIX, n_prefix) == 0 &&
               base32_is_valid(name + n_prefix, ID_RANDOM);
}

static void remove_abandoned(const char *path, unsigned timeout_msec)
{
        int r = cgroup_remove_leftover(path, timeout_msec);

        if (r)
                log_warning("cannot remove an abandoned group: group=%s error=%d", path, r);
        else
                log_info("no abandoned group is left: group=%s", path);
}

/* Only groups of the same name: the list is not to be believed further. */
static void remove_listed(char *list, const char *name, unsigned timeout_msec)
{
        char *position = NULL;

        for (char *path = strtok_r(list, "\n", &position); path;
             path = strtok_r(NULL, "\n", &position)) {
                const char *last = strrchr(path, '/');

                if (last && strcmp(last + 1, name) == 0)
                        remove_abandoned(path, timeout_msec);
        }
}

/* An owner holds its lock for as long as it lives. */
static void remove_if_abandoned(const char *base, const char *name, unsigned timeout_msec)
{
        char list[CGROUP_HIERARCHIES_MAX * (CGROUP_PATH_MAX + 1)];
        _cleanup_(closep) int fd = -1;
        char path[CGROUP_PATH_MAX];
        ssize_t n;

        if ((size_t)snprintf(path, sizeof(path), "%s/%s", base, name) >= sizeof(path))
                return;
        fd = open(path, DIR_FLAGS | O_NOFOLLOW);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
                return;
        n = fgetxattr(fd, PARENTS_ATTRIBUTE, list, sizeof(list) - 1);
        list[n > 0 ? n : 0] = '\0';
        /* The processes first: they are all in cgroup2. */
        remove_abandoned(path, timeout_msec);
        remove_listed(list, name, timeout_msec);
}

void cgroup_remove_abandoned(const struct cgroup_tree *tree, unsigned timeout_msec)
{
        DIR *dir = opendir(tree->parents[0].base);

        if (!dir)
                return;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
                if (is_instance_name(entry->d_name))
                        remove_if_abandoned(tree->parents[0].base, entry->d_name, timeout_msec);
        (void)closedir(dir);
}
