/*
 * Few mounts are kept, because every one is copied for every sandbox (about a microsecond each):
 * the root, /proc, /dev and /masked. The host's tree is left by pivot_root and detached; templates
 * come in later as detached mounts that the runtime sends.
 *
 * hotcell-init is copied here with mode 0111: a program that its process may not read is never
 * dumpable, not even between exec and its first instruction, so pid 1 cannot be traced nor its
 * memory, environment or executable be opened from inside.
 */
#include "runtime/container/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/container/spawn.h"

#define STAGE_INIT "/init"

/* What the steps work on. */
struct stage {
        int source_init_fd;
        int init_fd;
};

static int leave_shared_mounts(struct stage *stage)
{
        (void)stage;
        if (unshare(CLONE_NEWNS) < 0)
                return -errno;
        return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : 0;
}

/* /proc serves as mount point only because every host has it. */
static int leave_host_files(struct stage *stage)
{
        (void)stage;
        if (mount("hotcell", "/proc", "tmpfs", MS_NOSUID | MS_NODEV,
                  "mode=0755,size=1m,nr_inodes=64") < 0)
                return -errno;
        return spawn_change_root("/proc");
}

static int make_directories(struct stage *stage)
{
        static const char *const directories[] = {
                "/proc", STAGE_DEV, "/masked", STAGE_LOWER, STAGE_SCRATCH, STAGE_ROOT,
        };

        (void)stage;
        for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
                if (mkdir(directories[i], 0755) < 0)
                        return -errno;
        }
        return 0;
}

static int mount_proc(struct stage *stage)
{
        (void)stage;
        return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? -errno
                                                                                          : 0;
}

static int make_device_nodes(void)
{
        static const struct {
                const char *path;
                unsigned minor;
                unsigned major;
        } nodes[] = {
                { STAGE_DEV "/null", 3, 1 },    { STAGE_DEV "/zero", 5, 1 },
                { STAGE_DEV "/full", 7, 1 },    { STAGE_DEV "/random", 8, 1 },
                { STAGE_DEV "/urandom", 9, 1 }, { STAGE_DEV "/tty", 0, 5 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
                if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) <
                    0)
                        return -errno;
        }
        return 0;
}

static int make_device_links(void)
{
        static const struct {
                const char *target;
                const char *path;
        } links[] = {
                { "/proc/self/fd", STAGE_DEV "/fd" },
                { "/proc/self/fd/0", STAGE_DEV "/stdin" },
                { "/proc/self/fd/1", STAGE_DEV "/stdout" },
                { "/proc/self/fd/2", STAGE_DEV "/stderr" },
                { "pts/ptmx", STAGE_DEV "/ptmx" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
                if (symlink(links[i].target, links[i].path) < 0)
                        return -errno;
        }
        return 0;
}

/* The nodes are real ones: the superblock belongs to the initial user namespace. */
static int make_dev(struct stage *stage)
{
        int r;

        (void)stage;
        if (mount("dev", STAGE_DEV, "tmpfs", MS_NOSUID | MS_NOEXEC,
                  "mode=0755,size=64k,nr_inodes=32") < 0)
                return -errno;
        r = make_device_nodes();
        if (r)
                return r;
        r = make_device_links();
        if (r)
                return r;
        if (mkdir(STAGE_DEV "/pts", 0755) < 0 || mkdir(STAGE_DEV "/shm", 0755) < 0)
                return -errno;
        if (mount(NULL, STAGE_DEV, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC,
                  NULL) < 0)
                return -errno;
        return 0;
}

static int make_masks(struct stage *stage)
{
        const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

        (void)stage;
        if (mount("masked", "/masked", "tmpfs", flags, "mode=0755,size=4k,nr_inodes=8") < 0)
                return -errno;
        if (mknod(STAGE_MASKED_FILE, S_IFREG, 0) < 0 || mkdir(STAGE_MASKED_DIR, 0) < 0)
                return -errno;
        if (mount(NULL, "/masked", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0)
                return -errno;
        return 0;
}

static int copy_init(struct stage *stage)
{
        _cleanup_(closep) int fd = open(STAGE_INIT, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0111);
        ssize_t n;

        if (fd < 0)
                return -errno;
        do
                n = sendfile(fd, stage->source_init_fd, NULL, MIB(1));
        while (n > 0);
        if (n < 0)
                return -errno;
        stage->init_fd = open(STAGE_INIT, O_PATH | O_CLOEXEC);
        return stage->init_fd < 0 ? -errno : 0;
}

int stage_enter(int init_fd, int *ret_init_fd, struct spawn_failure *ret_failure)
{
        static const struct {
                const char *name;
                int (*run)(struct stage *stage);
        } steps[] = {
                { "make the spawner's mounts private", leave_shared_mounts },
                { "leave the host's files", leave_host_files },
                { "make the spawner's directories", make_directories },
                { "mount the spawner's proc", mount_proc },
                { "make the devices", make_dev },
                { "make the masks", make_masks },
                { "copy hotcell-init", copy_init },
        };
        struct stage stage = { .source_init_fd = init_fd, .init_fd = -1 };

        (void)umask(0);
        for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
                int r = steps[i].run(&stage);

                if (r)
                        return spawn_step_failed(steps[i].name, SPAWN_FAULT_SYSTEM, r, ret_failure);
        }
        *ret_init_fd = stage.init_fd;
        return 0;
}
