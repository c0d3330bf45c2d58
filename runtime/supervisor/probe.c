#include "runtime/supervisor/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"
#include "runtime/container/egress_probe.h"
#include "runtime/supervisor/host_privilege.h"
#include "runtime/supervisor/netns.h"

enum {
        PROBE_IDS = 65536,
        PROBE_ID_BASE = 1 << 30,
        PROBE_TIMEOUT_MSEC = 5000,
};

/* Runs @body in a child; what it returns (0 or a negative errno) comes back as the exit code. */
static int in_child(int (*body)(const void *data), const void *data)
{
        pid_t pid = fork();
        int status;

        if (pid < 0)
                return -errno;
        if (pid == 0) {
                int r = body(data);

                _exit(r < 0 ? MIN(-r, 255) : 0);
        }
        if (waitpid(pid, &status, 0) < 0)
                return -errno;
        return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

/* A child in a new user namespace that waits until @go is closed, then becomes its root. */
static int user_namespace_child(int ready, int go)
{
        char byte = 0;

        if (unshare(CLONE_NEWUSER) < 0)
                return -errno;
        if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) < 0)
                return -errno;
        return setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 ? -errno : 0;
}

static int write_maps(pid_t pid)
{
        static const char *const names[] = { "uid_map", "gid_map" };
        char path[64];
        char map[64];

        (void)snprintf(map, sizeof(map), "0 %d %d", PROBE_ID_BASE, PROBE_IDS);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                int r;

                (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, names[i]);
                r = io_write_file(AT_FDCWD, path, map);
                if (r)
                        return r;
        }
        return 0;
}

/* Makes a mapped user namespace. Its descriptor keeps it when the child is gone. */
static int make_user_namespace(int *ret_fd)
{
        int ready[2];
        int go[2];
        char byte;
        char path[64];
        int status = 0;
        int fd = -1;
        int r = 0;
        pid_t pid;

        if (pipe2(ready, O_CLOEXEC) < 0)
                return -errno;
        if (pipe2(go, O_CLOEXEC) < 0) {
                (void)close_fd(ready[0]);
                (void)close_fd(ready[1]);
                return -errno;
        }
        pid = fork();
        if (pid == 0) {
                (void)close(go[1]);
                r = user_namespace_child(ready[1], go[0]);
                _exit(r < 0 ? MIN(-r, 255) : 0);
        }
        if (pid < 0)
                r = -errno;
        (void)close(ready[1]);
        (void)close(go[0]);
        /* End of file: the child could not make it, and its exit code says why. */
        if (!r && read(ready[0], &byte, 1) == 1) {
                r = write_maps(pid);
                (void)snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
                fd = open(path, O_RDONLY | O_CLOEXEC);
        }
        (void)close(go[1]);
        (void)close(ready[0]);
        if (pid > 0 && waitpid(pid, &status, 0) == pid && !r)
                r = WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
        if (!r && fd < 0)
                r = -EACCES;
        if (r)
                fd = close_fd(fd);
        *ret_fd = fd;
        return r;
}

int probe_user_namespace(void)
{
        _cleanup_(closep) int fd = -1;

        return make_user_namespace(&fd);
}

static int namespace_child(const void *flag)
{
        return unshare(*(const int *)flag) < 0 ? -errno : 0;
}

int probe_namespace(int flag)
{
        return in_child(namespace_child, &flag);
}

static int expect_devices(int fd, int n_wanted)
{
        struct if_nameindex *devices;
        int n = 0;

        if (setns(fd, CLONE_NEWNET) < 0)
                return -errno;
        devices = if_nameindex();
        if (!devices)
                return -errno;
        while (devices[n].if_index)
                n++;
        return n == n_wanted ? 0 : -ENOTUNIQ;
}

static int network_child(const void *fd)
{
        return expect_devices(*(const int *)fd, 1);
}

static int direct_child(const void *fd)
{
        return expect_devices(*(const int *)fd, 2);
}

static int packet_times_child(const void *fd)
{
        char text[16];
        int r;

        if (setns(*(const int *)fd, CLONE_NEWNET) < 0)
                return -errno;
        r = io_read_file(AT_FDCWD, NETNS_PACKET_TIMES, text, sizeof(text), NULL);
        return r || text[0] == '0' ? r : -EPERM;
}

/* Tries @body, which is given the descriptor of a new network namespace. */
static int in_network(int (*body)(const void *fd))
{
        _cleanup_(closep) int home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        _cleanup_(netns_close) struct netns netns = NETNS_NONE;
        int r;

        if (home_fd < 0)
                return -errno;
        r = netns_make(home_fd, false, &netns);
        return r ? r : in_child(body, &netns.fd);
}

int probe_network_namespace(void)
{
        return in_network(network_child);
}

int probe_direct(struct netns_pool *pool)
{
        _cleanup_(netns_close) struct netns netns = NETNS_NONE;
        int r = netns_pool_take(pool, &netns);

        return r ? r : in_child(direct_child, &netns.fd);
}

int probe_packet_times(void)
{
        return in_network(packet_times_child);
}

int probe_idmapped_mount(const char *directory)
{
        _cleanup_(closep) int user_fd = -1;
        _cleanup_(closep) int tree_fd = -1;
        struct mount_attr attributes = { .attr_set = MOUNT_ATTR_IDMAP };
        int r = make_user_namespace(&user_fd);

        if (r)
                return r;
        tree_fd = open_tree(AT_FDCWD, directory, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree_fd < 0)
                return -errno;
        attributes.userns_fd = (uint64_t)user_fd;
        return mount_setattr(tree_fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0
                       ? -errno
                       : 0;
}

struct overlay_places {
        const char *lower;
        const char *place;
};

static int overlay_child(const void *data)
{
        const struct overlay_places *places = data;
        char options[4096 + 64];

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return -errno;
        /* Held by the working directory where the tmpfs comes to hide it. */
        if (mount("tmpfs", places->place, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") < 0 ||
            chdir(places->place) < 0 || mkdir("up", 0755) < 0 || mkdir("work", 0755) < 0 ||
            mkdir("all", 0755) < 0)
                return -errno;
        if ((size_t)snprintf(options, sizeof(options), "lowerdir=%s,upperdir=up,workdir=work",
                             places->lower) >= sizeof(options))
                return -ENAMETOOLONG;
        if (mount("overlay", "all", "overlay", MS_NOSUID | MS_NODEV, options) < 0)
                return -errno;
        return mkdir("all/written", 0755) < 0 ? -errno : 0;
}

int probe_overlay(const char *lower, const char *place)
{
        return in_child(overlay_child, &(struct overlay_places){ .lower = lower, .place = place });
}

/* Glibc has no wrapper, and the child needs none of what fork() would do for it. */
static pid_t clone_into(int group_fd, int *ret_pidfd)
{
        struct clone_args args = {
                .flags = CLONE_INTO_CGROUP | CLONE_PIDFD,
                .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
                .exit_signal = SIGCHLD,
                .cgroup = (uint64_t)group_fd,
        };

        return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* Reaps a child that was killed by the means under trial, or at last by the usual ones. @r: what
 * these means returned. */
static int await_killed(pid_t pid, int pidfd, int r)
{
        struct pollfd end = { .fd = pidfd, .events = POLLIN };
        int status;

        if (!r && poll(&end, 1, PROBE_TIMEOUT_MSEC) != 1)
                r = -ETIMEDOUT;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
        return r;
}

static int kill_by_group(const struct cgroup *leaf)
{
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        _cleanup_(closep) int pidfd = -1;
        pid_t pid;
        int r = cgroup_entry_open(leaf, &entry);

        if (r)
                return r;
        pid = clone_into(entry.id_fd, &pidfd);
        if (pid < 0)
                return -errno;
        if (pid == 0)
                for (;;)
                        (void)pause();
        r = cgroup_kill(leaf);
        return await_killed(pid, pidfd, r);
}

/* The kernel may need a moment to see that the group is empty. */
static int remove_soon(struct cgroup *group)
{
        int r = cgroup_remove(group);

        for (unsigned i = 0; r == CGROUP_E_BUSY && i < 100; i++) {
                (void)usleep(1000);
                r = cgroup_remove(group);
        }
        return r > 0 ? -EBUSY : r;
}

/* What is done with the group of a throw-away sandbox and a leaf below it. */
typedef int group_trial(const struct cgroup *group, const struct cgroup *leaf, void *data);

static int in_group(const struct cgroup_tree *tree, const char *name, group_trial *trial,
                    void *data)
{
        const struct cgroup_limits limits = { .memory_bytes = 64 << 20,
                                              .cpu_millis = 1000,
                                              .processes = 16 };
        struct cgroup group;
        struct cgroup leaf;
        int removed;
        int r = cgroup_create(&group, tree, name, &limits);

        if (r)
                return r > 0 ? -EEXIST : r;
        r = cgroup_create_leaf(&leaf, &group, "leaf");
        if (!r) {
                r = trial(&group, &leaf, data);
                removed = remove_soon(&leaf);
                r = r ? r : removed;
        }
        removed = remove_soon(&group);
        return r ? r : removed;
}

static int try_identity(const struct cgroup *group, const struct cgroup *leaf, void *data)
{
        (void)group;
        (void)data;
        return kill_by_group(leaf);
}

int probe_cgroup_identity(const struct cgroup_tree *tree)
{
        return in_group(tree, "probe", try_identity, NULL);
}

struct egress_trial {
        struct egress_wall *wall;
        int netns_fd;
        struct egress_counts counts;
};

/* In a child that is born in the group, as a sandbox's init is. */
static int be_refused(const struct cgroup *leaf, int netns_fd)
{
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        _cleanup_(closep) int pidfd = -1;
        int status;
        pid_t pid;
        int r = cgroup_entry_open(leaf, &entry);

        if (r)
                return r;
        pid = clone_into(entry.id_fd, &pidfd);
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                r = setns(netns_fd, CLONE_NEWNET) < 0 ? -errno : egress_probe();
                _exit(r < 0 ? MIN(-r, 255) : 0);
        }
        if (waitpid(pid, &status, 0) < 0)
                return -errno;
        return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

static int try_egress(const struct cgroup *group, const struct cgroup *leaf, void *data)
{
        const struct egress_sandbox entry = { 0 };
        struct egress_trial *trial = data;
        int r = egress_wall_admit(trial->wall, group->id, &entry);

        if (!r)
                r = be_refused(leaf, trial->netns_fd);
        if (!r)
                r = egress_wall_read_counts(trial->wall, group->id, &trial->counts);
        egress_wall_forget(trial->wall, group->id);
        return r;
}

int probe_egress(const struct cgroup_tree *tree, struct egress_wall *wall, int home_fd,
                 struct egress_counts *ret_counts)
{
        _cleanup_(netns_close) struct netns netns = NETNS_NONE;
        struct egress_trial trial = { .wall = wall };
        int r = netns_make(home_fd, false, &netns);

        trial.netns_fd = netns.fd;
        if (!r)
                r = in_group(tree, "probe-egress", try_egress, &trial);
        *ret_counts = trial.counts;
        return r;
}

static int seccomp_child(const void *data)
{
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOWNERDEAD),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

        (void)data;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
                return -errno;
        return syscall(SYS_getppid) < 0 && errno == EOWNERDEAD ? 0 : -EBADE;
}

int probe_seccomp(void)
{
        return in_child(seccomp_child, NULL);
}

static int capability_child(const void *data)
{
        int r = host_privilege_give_up();

        (void)data;
        if (r)
                return r;
        for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
                if (prctl(PR_CAPBSET_READ, capability) > 0)
                        return -EPERM;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        return unshare(CLONE_NEWNS) < 0 && errno == EPERM ? 0 : -EBADE;
}

int probe_capability_drop(void)
{
        return in_child(capability_child, NULL);
}

int probe_pidfd(void)
{
        _cleanup_(closep) int pidfd = -1;
        int r = 0;
        pid_t pid = fork();

        if (pid < 0)
                return -errno;
        if (pid == 0)
                for (;;)
                        (void)pause();
        pidfd = pidfd_open(pid, 0);
        if (pidfd < 0 || pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0)
                r = -errno;
        return await_killed(pid, pidfd, r);
}
