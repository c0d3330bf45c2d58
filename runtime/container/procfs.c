/*
 * An allow-list: the entries are read from the procfs itself, so what a newer kernel or a module
 * adds is hidden without anyone having heard of it. (The mount option subset=pid would hide all of
 * them for free, but programs need cpuinfo, meminfo and the like.)
 *
 * What hides is a mount of the stage's own, never a path of the template.
 */
#include "runtime/container/procfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/container/stage.h"

static const char *const visible[] = {
        /* The process's own: links into /proc/PID. */
        "self",
        "thread-self",
        "mounts",
        "net",
        /* Of the sandbox's own namespaces. */
        "sys", /* read-only, see procfs_mask() */
        "sysvipc",
        /* The machine as programs size themselves by it. */
        "cpuinfo",
        "meminfo",
        "stat",
        "vmstat",
        "loadavg",
        "uptime",
        "version",
        "filesystems",
        "cgroups",
};

static void closedirp(DIR **directory)
{
        if (*directory)
                (void)closedir(*directory);
}

/*
 * Counters of the whole host that a program can move: what one sandbox writes by opening files or
 * terminals another would read. Nothing but people look at them.
 */
static const char *const counters[] = {
        "sys/kernel/pty/nr",  "sys/fs/file-nr",      "sys/fs/inode-nr",
        "sys/fs/inode-state", "sys/fs/dentry-state", "sys/fs/aio-nr",
};

/* The top-level entry @name stays visible. Processes do by being numbers. */
static bool procfs_is_visible(const char *name)
{
        for (size_t i = 0; i < ARRAY_SIZE(visible); i++) {
                if (strcmp(name, visible[i]) == 0)
                        return true;
        }
        return false;
}

/* Whether @entry is a thing to hide. A link only leads to what is hidden or not by itself. */
static bool is_masked(const struct dirent *entry)
{
        if (entry->d_type == DT_LNK || entry->d_name[0] == '.' ||
            isdigit((unsigned char)entry->d_name[0]))
                return false;
        return !procfs_is_visible(entry->d_name);
}

static int mask(int proc_fd, const char *path, const char *source)
{
        _cleanup_(closep) int fd = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0)
                return -errno;
        return move_mount(fd, "", proc_fd, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Second to the permissions of its files, which let nobody in the sandbox write. */
static int make_sys_read_only(int proc_fd)
{
        struct mount_attr attributes = {
                .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                            MOUNT_ATTR_NOEXEC,
        };
        _cleanup_(closep) int fd = open_tree(proc_fd, "sys", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0)
                return -errno;
        if (mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
                return -errno;
        return move_mount(fd, "", proc_fd, "sys", MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Not every kernel has all of them. */
static int mask_counters(int proc_fd)
{
        for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
                int r = mask(proc_fd, counters[i], STAGE_MASKED_FILE);

                if (r && r != -ENOENT)
                        return r;
        }
        return 0;
}

int procfs_mask(const char *path)
{
        _cleanup_(closedirp) DIR *directory = opendir(path);
        const struct dirent *entry;
        int r;

        if (!directory)
                return -errno;
        while ((errno = 0, entry = readdir(directory))) {
                const char *source = entry->d_type == DT_DIR ? STAGE_MASKED_DIR : STAGE_MASKED_FILE;

                r = is_masked(entry) ? mask(dirfd(directory), entry->d_name, source) : 0;
                if (r)
                        return r;
        }
        if (errno)
                return -errno;
        r = make_sys_read_only(dirfd(directory));
        return r ? r : mask_counters(dirfd(directory));
}
