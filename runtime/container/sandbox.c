/*
 * How a sandbox's first process is made.
 *
 * Namespaces: only the user namespace is the sandbox's own property. All others belong to the
 * initial user namespace, because the child enters the user namespace last; so not even root inside
 * has any power over mounts, network or host name, whatever happens to the seccomp filter.
 *
 * Root: overlay of the template (idmapped, so that its root is the sandbox's) and a tmpfs whose
 * size is the disk limit. The overlay is never attached in the spawner; the child gets it as a
 * descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/container/egress_probe.h"
#include "runtime/container/privilege.h"
#include "runtime/container/procfs.h"
#include "runtime/container/spawn.h"
#include "runtime/container/stage.h"
#include "runtime/container/tmpfs.h"
#include "runtime/container/user_namespace.h"

#define SCRATCH_UPPER STAGE_SCRATCH "/upper"
#define SCRATCH_WORK  STAGE_SCRATCH "/work"

enum { TTY_GID = 5 }; /* of group tty, in Debian and elsewhere */

/* --- in the spawner --- */

static int make_user_namespace(struct spawn *spawn)
{
        return user_namespace_new(spawn->header->id_base, &spawn->user_namespace_fd);
}

/* Read-only all the same, although overlay never writes to a lower layer. */
static int map_template(struct spawn *spawn)
{
        struct mount_attr attributes = {
                .attr_set =
                        MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                .userns_fd = (uint64_t)spawn->user_namespace_fd,
        };
        int fd = spawn->fds[SPAWN_SLOT_PLACE];

        if (mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
                return -errno;
        return move_mount(fd, "", AT_FDCWD, STAGE_LOWER, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

static int mount_scratch(struct spawn *spawn)
{
        uint32_t id = spawn->header->id_base;
        uint64_t inodes = spawn->header->disk_inodes;
        char options[128];

        if (inodes == 0)
                inodes = tmpfs_inodes_for(spawn->header->disk_bytes);
        (void)snprintf(options, sizeof(options), "mode=0755,size=%llu,nr_inodes=%llu",
                       (unsigned long long)spawn->header->disk_bytes, (unsigned long long)inodes);
        if (mount("scratch", STAGE_SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
                return -errno;
        if (mkdir(SCRATCH_UPPER, 0755) < 0 || mkdir(SCRATCH_WORK, 0755) < 0)
                return -errno;
        /* tmpfs cannot be idmapped before Linux 6.3, so the owner is written down. */
        if (chown(SCRATCH_UPPER, id, id) < 0 || chown(SCRATCH_WORK, id, id) < 0)
                return -errno;
        /* Who has it can change the limits; nothing in the sandbox can name it. */
        spawn->scratch_fd = open(STAGE_SCRATCH, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return spawn->scratch_fd < 0 ? -errno : 0;
}

/*
 * Every option is given, because kernels are built with different defaults. redirect_dir: renaming
 * a directory of the template works as everywhere else; its marks are trusted.* attributes, which
 * no program in the sandbox can write.
 */
static int configure_root(int overlay_fd)
{
        static const struct {
                const char *key;
                const char *value;
        } options[] = {
                { "source", "hotcell" },
                { "lowerdir", STAGE_LOWER },
                { "upperdir", SCRATCH_UPPER },
                { "workdir", SCRATCH_WORK },
                { "redirect_dir", "on" },
                { "metacopy", "off" },
                { "index", "off" },
                { "nfs_export", "off" },
                { "xino", "off" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
                if (fsconfig(overlay_fd, FSCONFIG_SET_STRING, options[i].key, options[i].value, 0) <
                    0)
                        return -errno;
        }
        return fsconfig(overlay_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -errno : 0;
}

static int mount_root(struct spawn *spawn)
{
        _cleanup_(closep) int fd = fsopen("overlay", FSOPEN_CLOEXEC);
        int r;

        if (fd < 0)
                return -errno;
        r = configure_root(fd);
        if (r)
                return r;
        spawn->root_fd = fsmount(fd, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
        return spawn->root_fd < 0 ? -errno : 0;
}

/*
 * The overlay holds both layers by itself; what is not mounted because a step failed need not be
 * unmounted.
 */
static void clear_stage(struct spawn *spawn)
{
        (void)spawn;
        (void)umount2(STAGE_SCRATCH, MNT_DETACH);
        (void)umount2(STAGE_LOWER, MNT_DETACH);
}

/* --- in the child --- */

/* After it is where it belongs: a cgroup namespace's root is the cgroup of whom makes it. */
static int make_cgroup_namespace(struct spawn *spawn)
{
        (void)spawn;
        return unshare(CLONE_NEWCGROUP) < 0 ? -errno : 0;
}

static int enter_network(struct spawn *spawn)
{
        return setns(spawn->fds[SPAWN_SLOT_NETNS], CLONE_NEWNET) < 0 ? -errno : 0;
}

static int prove_egress_wall(struct spawn *spawn)
{
        (void)spawn;
        return egress_probe();
}

static int attach_root(struct spawn *spawn)
{
        return move_mount(spawn->root_fd, "", AT_FDCWD, STAGE_ROOT, MOVE_MOUNT_F_EMPTY_PATH) < 0
                       ? -errno
                       : 0;
}

/* The template must have a real directory there: a link could lead a mount elsewhere. */
static int open_mount_point(const struct spawn *spawn, const char *name)
{
        const struct open_how how = {
                .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
        };
        int fd = (int)syscall(SYS_openat2, spawn->root_fd, name, &how, sizeof(how));

        return fd < 0 ? -errno : fd;
}

/* The namespace's own copy of the stage's mount, moved. */
static int mount_dev(struct spawn *spawn)
{
        _cleanup_(closep) int fd = open_mount_point(spawn, "dev");

        if (fd < 0)
                return fd;
        return move_mount(AT_FDCWD, STAGE_DEV, fd, "", MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
}

static int mount_terminals(struct spawn *spawn)
{
        char options[96];

        /* A terminal belongs to whom opens /dev/ptmx. */
        (void)snprintf(options, sizeof(options),
                       "newinstance,ptmxmode=0666,mode=0620,gid=%u,max=%u",
                       spawn->header->id_base + TTY_GID, spawn->header->terminals);
        return mount("devpts", STAGE_ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options) < 0
                       ? -errno
                       : 0;
}

static int mount_shared_memory(struct spawn *spawn)
{
        const struct spawn_header *header = spawn->header;
        char options[160];

        (void)snprintf(options, sizeof(options), "mode=1777,size=%llu,nr_inodes=%llu,uid=%u,gid=%u",
                       (unsigned long long)header->shm_bytes,
                       (unsigned long long)tmpfs_inodes_for(header->shm_bytes), header->id_base,
                       header->id_base);
        return mount("shm", STAGE_ROOT "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                     options) < 0
                       ? -errno
                       : 0;
}

static int mount_proc(struct spawn *spawn)
{
        _cleanup_(closep) int fd = open_mount_point(spawn, "proc");

        if (fd < 0)
                return fd;
        if (mount("proc", STAGE_ROOT "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
                return -errno;
        return procfs_mask(STAGE_ROOT "/proc");
}

static int change_root(struct spawn *spawn)
{
        (void)spawn;
        return spawn_change_root(STAGE_ROOT);
}

static int set_host_name(struct spawn *spawn)
{
        const char *name = spawn->strings[1];

        return sethostname(name, strlen(name)) < 0 ? -errno : 0;
}

static int enter_user_namespace(struct spawn *spawn)
{
        return setns(spawn->user_namespace_fd, CLONE_NEWUSER) < 0 ? -errno : 0;
}

/* All that is left open ends with the exec: the init has no descriptors at all. */
static int close_at_exec(struct spawn *spawn)
{
        (void)spawn;
        return close_range(0, ~0U, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

static int drop_privilege(struct spawn *spawn)
{
        (void)spawn;
        return privilege_drop(SPAWN_INIT_UID, SPAWN_INIT_UID);
}

static int execute_init(struct spawn *spawn)
{
        char name[] = "hotcell-init";
        char *const arguments[] = { name, NULL };
        char *const environment[] = { NULL };

        (void)execveat(spawn->workshop->init_fd, "", arguments, environment, AT_EMPTY_PATH);
        return -errno;
}

static const struct spawn_step sandbox_prepare[] = {
        { .name = "make the user namespace", .run = make_user_namespace },
        { .name = "map the template's ids", .run = map_template },
        { .name = "mount the scratch space", .run = mount_scratch },
        { .name = "mount the overlay", .run = mount_root },
};

static const struct spawn_step sandbox_child[] = {
        { .name = "join the cgroups", .run = spawn_join_task_groups },
        { .name = "make the cgroup namespace", .run = make_cgroup_namespace },
        { .name = "enter the network namespace", .run = enter_network },
        { .name = "prove the egress wall", .run = prove_egress_wall, .fault = SPAWN_FAULT_EGRESS },
        { .name = "attach the root", .run = attach_root },
        { .name = "mount /dev", .run = mount_dev },
        { .name = "mount /dev/pts", .run = mount_terminals },
        { .name = "mount /dev/shm", .run = mount_shared_memory },
        { .name = "mount /proc", .run = mount_proc },
        { .name = "change the root", .run = change_root },
        { .name = "set the host name", .run = set_host_name },
        /* From here on it can do nothing to the host any more, nor to its own walls. */
        { .name = "enter the user namespace", .run = enter_user_namespace },
        { .name = "close descriptors", .run = close_at_exec },
        { .name = "drop privilege", .run = drop_privilege },
        /* Last, because the steps above need calls that it refuses. */
        { .name = "load the seccomp filter", .run = spawn_load_filter },
        { .name = "execute hotcell-init", .run = execute_init },
};

const struct spawn_plan sandbox_plan = {
        .prepare = sandbox_prepare,
        .n_prepare = ARRAY_SIZE(sandbox_prepare),
        .clean_up = clear_stage,
        .child = sandbox_child,
        .n_child = ARRAY_SIZE(sandbox_child),
        .clone_flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
};
