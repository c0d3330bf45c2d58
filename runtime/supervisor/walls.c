#include "runtime/supervisor/walls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"
#include "runtime/container/spawner.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/id_ranges.h"
#include "runtime/supervisor/netns.h"
#include "runtime/supervisor/probe.h"
#include "runtime/supervisor/spawn_args.h"

enum {
        SANDBOX_TIMEOUT_MSEC = 5000,
        FDS_PER_SANDBOX = 20,
        FDS_BESIDES = 256,
        CORE_PATTERN_MAX = 160, /* the kernel's is 128 */
};

/* True when the wall holds; says in the wall's detail what was seen. */
struct wall_row {
        const char *name;
        bool is_required;
        bool (*probe)(const struct wall_context *context, struct wall *wall);
        const char *fix;
};

__attribute__((format(printf, 2, 3))) static void say(struct wall *wall, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(wall->detail, sizeof(wall->detail), format, arguments);
        va_end(arguments);
}

/* The usual case: one try, and its errno. */
static bool judge(struct wall *wall, int r, const char *what)
{
        if (r)
                say(wall, "%s: %s", what, strerrordesc_np(-r));
        else
                say(wall, "%s: done", what);
        return r == 0;
}

static bool has_user_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_user_namespace(), "new user namespace with 65536 mapped ids");
}

static bool has_pid_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_namespace(CLONE_NEWPID), "new pid namespace");
}

static bool has_mount_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_namespace(CLONE_NEWNS), "new mount namespace");
}

static bool has_ipc_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_namespace(CLONE_NEWIPC), "new ipc namespace");
}

static bool has_uts_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_namespace(CLONE_NEWUTS), "new uts namespace");
}

static bool has_cgroup_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_namespace(CLONE_NEWCGROUP), "new cgroup namespace");
}

static bool has_network_namespace(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_network_namespace(), "new network namespace with only lo, up");
}

#define FIX_TEMPLATE "build a template: hotcell-template build python"

/* Templates are what will be mapped; before there is one, the directory above will do. */
static const char *a_lower_directory(const struct wall_context *context)
{
        return context->templates->n_templates ? context->templates->templates[0]->root
                                               : context->templates->path;
}

/* Otherwise what cannot be mapped would be blamed on its file system. */
static bool has_store(const struct wall_context *context, struct wall *wall)
{
        if (access(context->templates->path, F_OK) == 0 || errno != ENOENT)
                return true;
        say(wall, "not tried: there is no template store %s", context->templates->path);
        wall->fix = FIX_TEMPLATE;
        return false;
}

static bool has_idmapped_mount(const struct wall_context *context, struct wall *wall)
{
        if (!has_store(context, wall))
                return false;
        return judge(wall, probe_idmapped_mount(a_lower_directory(context)),
                     "id-mapped mount of the template store");
}

static bool has_overlay(const struct wall_context *context, struct wall *wall)
{
        if (!has_store(context, wall))
                return false;
        return judge(wall, probe_overlay(a_lower_directory(context), context->run_dir),
                     "overlay of the template store with a tmpfs on top");
}

static bool has_cgroup_identity(const struct wall_context *context, struct wall *wall)
{
        if (context->cgroups_missing) {
                say(wall, "%s", context->cgroups_missing);
                return false;
        }
        return judge(wall, probe_cgroup_identity(context->cgroups),
                     "process born in a cgroup2 group and killed by it");
}

static bool has_controller(const struct wall_context *context, struct wall *wall,
                           enum cgroup_controller controller)
{
        if (context->cgroups_missing) {
                say(wall, "%s", context->cgroups_missing);
                return false;
        }
        switch (context->cgroups->controllers[controller].dialect) {
        case CGROUP_V1:
                say(wall, "cgroup v1");
                return true;
        case CGROUP_V2:
                say(wall, "cgroup v2");
                return true;
        case CGROUP_ABSENT:
        default:
                say(wall, "%s", context->cgroups->controllers[controller].missing);
                return false;
        }
}

static bool has_cgroup_memory(const struct wall_context *context, struct wall *wall)
{
        bool holds = has_controller(context, wall, CGROUP_MEMORY);

        if (holds && !cgroup_limits_sockets(context->cgroups))
                say(wall, "cgroup v1, but the memory of sockets is not limited: this kernel has no "
                          "memory.kmem.tcp.limit_in_bytes");
        return holds;
}

static bool has_cgroup_cpu(const struct wall_context *context, struct wall *wall)
{
        return has_controller(context, wall, CGROUP_CPU);
}

static bool has_cgroup_pids(const struct wall_context *context, struct wall *wall)
{
        return has_controller(context, wall, CGROUP_PIDS);
}

static bool has_cgroup_io(const struct wall_context *context, struct wall *wall)
{
        _cleanup_(closep) int fd = -1;
        dev_t device;

        if (!has_controller(context, wall, CGROUP_IO))
                return false;
        if (!cgroup_limits_io(context->cgroups)) {
                say(wall, "the kernel has no throttling of block devices");
                return false;
        }
        fd = open(a_lower_directory(context), O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && cgroup_io_device_of(fd, &device) == 0)
                return true;
        say(wall, "the template store is on no block device that can be limited");
        return false;
}

static bool has_seccomp(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_seccomp(), "seccomp filter");
}

static bool has_capability_drop(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_capability_drop(), "all capabilities dropped, no_new_privs");
}

/* Two refusals, of which each was counted: so it is our programs that refused. */
static bool has_egress(const struct wall_context *context, struct wall *wall)
{
        struct egress_counts counts = { 0 };
        int r;

        if (!context->egress) {
                say(wall, "%s", context->egress_missing);
                return false;
        }
        r = probe_egress(context->cgroups, context->egress, context->netns->home_fd, &counts);
        if (r)
                return judge(wall, r, "connect() from a throw-away group");
        say(wall, "%llu of 2 refusals counted", (unsigned long long)counts.n_denied);
        return counts.n_denied == 2 && counts.n_denied == counts.n_logged + counts.n_dropped;
}

/* Only what is sent on leaves. For IPv4 each device says so, for IPv6 the host as a whole. */
static bool forwards_v6(void)
{
        char text[16] = "";
        int r = io_read_file(AT_FDCWD, "/proc/sys/net/ipv6/conf/all/forwarding", text, sizeof(text),
                             NULL);

        return !r && text[0] != '0';
}

static bool has_direct_mode(const struct wall_context *context, struct wall *wall)
{
        const struct direct *direct = context->netns->direct;
        int r;

        if (!direct) {
                say(wall, "off: TCP and DNS alone leave sandboxes");
                return true;
        }
        r = probe_direct(context->netns);
        if (r)
                return judge(wall, r, "on: network with a device of its own");
        if (direct_families(direct) & EGRESS_DIRECT6 && !forwards_v6()) {
                say(wall, "on, but this host sends no IPv6 on: net.ipv6.conf.all.forwarding");
                return false;
        }
        say(wall, "on: %u addresses, for IPv%s", direct_pool_size(direct_pool(direct)),
            direct_families(direct) == EGRESS_DIRECT4   ? "4"
            : direct_families(direct) == EGRESS_DIRECT6 ? "6"
                                                        : "4 and IPv6");
        return true;
}

static bool has_pidfd(const struct wall_context *context, struct wall *wall)
{
        (void)context;
        return judge(wall, probe_pidfd(), "child signalled and awaited by pidfd");
}

static bool has_template(const struct wall_context *context, struct wall *wall)
{
        const struct template_store *templates = context->templates;

        if (templates->missing[0])
                say(wall, "%s", templates->missing);
        else
                say(wall, "%zu in %s", templates->n_templates, templates->path);
        return templates->n_templates > 0;
}

static bool has_server_user(const struct wall_context *context, struct wall *wall)
{
        say(wall, context->has_server_user ? "user %s exists" : "there is no user %s",
            context->server_user);
        return context->has_server_user;
}

static bool has_open_files(const struct wall_context *context, struct wall *wall)
{
        uint64_t wanted = (uint64_t)context->sandboxes_max * FDS_PER_SANDBOX + FDS_BESIDES;
        struct rlimit limit = { 0 };

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        say(wall, "at most %llu, wanted for %u sandboxes: %llu", (unsigned long long)limit.rlim_max,
            context->sandboxes_max, (unsigned long long)wanted);
        return limit.rlim_max >= wanted;
}

/* What others on the host have open is not seen: it has a reserve of its own. */
static bool has_terminals(const struct wall_context *context, struct wall *wall)
{
        say(wall, "%u for each sandbox: %u for up to %u of them", context->terminals.n_sandbox,
            context->terminals.n_host, context->sandboxes_max);
        return context->terminals.is_enough;
}

/* Where a network has no setting of its own, the host's holds for all. */
static bool has_no_packet_times(const struct wall_context *context, struct wall *wall)
{
        char text[16] = "";
        int r = probe_packet_times();

        (void)context;
        if (!r) {
                say(wall, "no packet comes back to a sandbox with its time");
                return true;
        }
        if (r == -ENOENT)
                r = io_read_file(AT_FDCWD, NETNS_PACKET_TIMES, text, sizeof(text), NULL);
        if (r)
                return judge(wall, r, "reading " NETNS_PACKET_TIMES);
        say(wall, "this kernel has net.core.tstamp_allow_data for the whole host: %c", text[0]);
        return text[0] == '0';
}

/* Programs cannot make the kernel start it (see set_limits()), but it need not be there at all. */
static bool has_plain_core_pattern(const struct wall_context *context, struct wall *wall)
{
        char pattern[CORE_PATTERN_MAX];
        int r = io_read_file(AT_FDCWD, "/proc/sys/kernel/core_pattern", pattern, sizeof(pattern),
                             NULL);

        (void)context;
        if (r)
                return judge(wall, r, "reading /proc/sys/kernel/core_pattern");
        pattern[strcspn(pattern, "\n")] = '\0';
        say(wall, "%s: %s",
            pattern[0] == '|' ? "programs that crash start a helper as root" : "dumps go to files",
            pattern);
        return pattern[0] != '|';
}

/* Waits for the init of a throw-away sandbox to be executed. */
static int await_start(const struct spawned *spawned, struct spawn_failure *found)
{
        struct pollfd status = { .fd = spawned->status_fd, .events = POLLIN };

        if (poll(&status, 1, SANDBOX_TIMEOUT_MSEC) != 1)
                return -ETIMEDOUT;
        return spawn_status_read(spawned->status_fd, found);
}

static int start_sandbox(const struct wall_context *context, const struct cgroup *leaf,
                         uint32_t id_base, struct spawn_failure *found)
{
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        _cleanup_(netns_close) struct netns netns = NETNS_NONE;
        struct spawned spawned;
        int status;
        int r = netns_pool_take(context->netns, &netns);

        if (!r)
                r = cgroup_entry_open(leaf, &entry);
        if (!r)
                r = spawner_start_sandbox(
                        context->spawner,
                        &(struct spawn_sandbox){
                                .sandbox_id = "probe",
                                .template_root = context->templates->templates[0]->root,
                                .hostname = "probe",
                                .id_base = id_base,
                                .disk_bytes = 16 << 20,
                                .shm_bytes = 1 << 20,
                                .terminals = context->terminals.n_sandbox,
                                .netns_fd = netns.fd,
                                .cgroup = spawn_cgroup_from(&entry),
                        },
                        &spawned, found);
        if (r)
                return r;
        r = await_start(&spawned, found);
        (void)kill(spawned.pid, SIGKILL);
        if (waitpid(spawned.pid, &status, 0) == spawned.pid && !r &&
            !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
                r = -ECHILD;
        (void)close(spawned.status_fd);
        (void)close(spawned.pidfd);
        (void)close(spawned.scratch_fd);
        return r;
}

static void remove_probe_group(struct cgroup *group)
{
        for (unsigned i = 0; i < 200 && cgroup_remove(group) == CGROUP_E_BUSY; i++)
                (void)usleep(1000);
}

static bool sandbox_starts(const struct wall_context *context, struct wall *wall)
{
        const struct cgroup_limits limits = { .memory_bytes = 128 << 20,
                                              .cpu_millis = 1000,
                                              .processes = 16 };
        struct spawn_failure found = { 0 };
        struct cgroup group;
        struct cgroup leaf;
        uint32_t id_base;
        int r;

        if (context->cgroups_missing || !context->spawner || !context->templates->n_templates) {
                say(wall, "not tried: %s",
                    context->cgroups_missing ? "no groups can be made"
                    : !context->spawner      ? context->spawner_missing
                                             : "there is no template");
                return false;
        }
        if (id_ranges_take(context->ids, &id_base)) {
                say(wall, "not tried: all id ranges are in use, so sandboxes do start");
                return true;
        }
        r = cgroup_create(&group, context->cgroups, "probe-sandbox", &limits);
        if (r) {
                id_ranges_release(context->ids, id_base);
                return judge(wall, r > 0 ? -EEXIST : r, "group of a throw-away sandbox");
        }
        r = cgroup_create_leaf(&leaf, &group, "init");
        if (!r) {
                r = start_sandbox(context, &leaf, id_base, &found);
                remove_probe_group(&leaf);
        }
        remove_probe_group(&group);
        id_ranges_release(context->ids, id_base);
        if (r == SPAWNER_E_STEP) {
                say(wall, "throw-away sandbox: %s: %s", found.step,
                    strerrordesc_np(found.error_number));
                return false;
        }
        return judge(wall, r > 0 ? -ESRCH : r, "throw-away sandbox");
}

#define FIX_ROOT   "run hotcell-runtime as root with its capabilities (in a container: privileged)"
#define FIX_KERNEL "run a kernel of version 6.1 or later that has it built in"

static const struct wall_row rows[] = {
        { "user_namespace", true, has_user_namespace,
          "allow user namespaces (sysctl user.max_user_namespaces); " FIX_ROOT },
        { "pid_namespace", true, has_pid_namespace, FIX_ROOT },
        { "mount_namespace", true, has_mount_namespace, FIX_ROOT },
        { "ipc_namespace", true, has_ipc_namespace, FIX_ROOT },
        { "uts_namespace", true, has_uts_namespace, FIX_ROOT },
        { "cgroup_namespace", true, has_cgroup_namespace, FIX_ROOT },
        { "network_namespace", true, has_network_namespace, FIX_ROOT },
        { "idmapped_mounts", true, has_idmapped_mount,
          "put the template store on ext4, xfs or btrfs; " FIX_ROOT },
        { "overlay", true, has_overlay, "load the overlay module; " FIX_ROOT },
        { "cgroup_identity", true, has_cgroup_identity,
          "mount cgroup2 writable, also beside v1 (mount -t cgroup2 none "
          "/sys/fs/cgroup/unified)" },
        { "cgroup_memory", true, has_cgroup_memory,
          "enable the memory controller (systemd: Delegate=yes; kernel: cgroup_enable=memory), or "
          "name another group with --cgroup-parent" },
        { "cgroup_cpu", true, has_cgroup_cpu,
          "enable the cpu controller (systemd: Delegate=yes), or name another group with "
          "--cgroup-parent" },
        { "cgroup_pids", true, has_cgroup_pids,
          "enable the pids controller (systemd: Delegate=yes), or name another group with "
          "--cgroup-parent" },
        { "cgroup_io", false, has_cgroup_io,
          "sandboxes with io_bytes_per_second are refused; others need nothing of it: enable the io "
          "controller (systemd: Delegate=yes), and put the template store on a disk" },
        { "seccomp", true, has_seccomp, FIX_KERNEL },
        { WALL_EGRESS, true, has_egress,
          "run a kernel of version 6.1 or later with BPF in cgroups (CONFIG_CGROUP_BPF), and "
          "hotcell-runtime as root (in a container: privileged)" },
        { "direct_mode", false, has_direct_mode,
          "see docs/DIRECT.md for what the host needs; without --direct-pool there is no direct "
          "mode" },
        { "capability_drop", true, has_capability_drop, FIX_ROOT },
        { "pidfd", true, has_pidfd, FIX_KERNEL },
        { "template", true, has_template, FIX_TEMPLATE },
        { "server_user", true, has_server_user,
          "make it: useradd --system --no-create-home hotcell, or name another with "
          "--server-user" },
        { "open_files", false, has_open_files,
          "raise the hard limit on open files (systemd: LimitNOFILE), or lower "
          "--sandboxes-max" },
        { "terminals", false, has_terminals,
          "raise kernel.pty.max (and lower kernel.pty.reserve), or lower --sandboxes-max; then "
          "start hotcell-runtime anew" },
        { "packet_times", false, has_no_packet_times,
          "sandboxes can make the kernel keep packets beyond their limit: sysctl "
          "net.core.tstamp_allow_data=0, or a kernel that has it for each network" },
        { "core_pattern", false, has_plain_core_pattern,
          "sandboxes make no dumps; if nothing else needs the helper: sysctl "
          "kernel.core_pattern=core" },
        { "sandbox_start", true, sandbox_starts, "see the walls above, and the runtime's log" },
};
static_assert(ARRAY_SIZE(rows) <= WALLS_MAX, "all walls have a place");

void walls_probe(const struct wall_context *context, struct wall_list *ret_list)
{
        ret_list->n_walls = ARRAY_SIZE(rows);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct wall *wall = &ret_list->walls[i];

                *wall = (struct wall){ .name = rows[i].name, .is_required = rows[i].is_required };
                wall->holds = rows[i].probe(context, wall);
                if (wall->holds)
                        wall->fix = "";
                else if (!wall->fix)
                        wall->fix = rows[i].fix;
        }
}

const struct wall *walls_missing(const struct wall_list *list)
{
        for (size_t i = 0; i < list->n_walls; i++)
                if (list->walls[i].is_required && !list->walls[i].holds)
                        return &list->walls[i];
        return NULL;
}
