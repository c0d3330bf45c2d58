#include "test/bpf/fixture.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/dns_label.h"
#include "runtime/cgroup/layout.h"
#include "runtime/cgroup/leftover.h"

enum { REMOVE_MSEC = 10000 };

/* cgroup2 comes first: what is killed there leaves the others, too. */
static void remove_groups(const void *data)
{
        const struct cgroup_tree *tree = data;

        for (size_t h = 0; h < tree->n_parents; h++)
                (void)cgroup_remove_leftover(tree->parents[h].path, REMOVE_MSEC);
}

static void make_box(struct fixture *f, struct box *box, const char *name)
{
        const struct cgroup_limits limits = { .memory_bytes = 64 << 20,
                                              .cpu_millis = 1000,
                                              .processes = 16 };
        const struct egress_sandbox entry = { .slot = (uint32_t)(box - f->boxes) };

        ck_assert_int_eq(cgroup_create(&box->group, &f->tree, name, &limits), 0);
        ck_assert_int_eq(cgroup_create_leaf(&box->leaf, &box->group, "leaf"), 0);
        ck_assert_int_eq(netns_make(f->home_fd, true, &box->netns), 0);
        ck_assert_int_eq(egress_wall_admit(f->wall, box->group.id, &entry), 0);
}

void fixture_init(struct fixture *f)
{
        struct egress_wall_config config = { .n_sandboxes = BOXES, .n_devices = BOXES };
        struct cgroup_layout layout;
        char why[EGRESS_WHY_BUFFER] = "";
        char name[ID_BUFFER];

        *f = (struct fixture){ .home_fd = -1 };
        ck_assert_int_eq(geteuid(), 0);
        f->home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        ck_assert_int_eq(id_generate(CGROUP_NAME_PREFIX "test-bpf", name), 0);
        ck_assert_int_eq(cgroup_layout_read(&layout), 0);
        ck_assert_int_eq(cgroup_tree_plan(&f->tree, &layout, NULL, name), 0);
        janitor_hire(&f->janitor, remove_groups, &f->tree);
        ck_assert_int_eq(cgroup_tree_create(&f->tree), 0);
        config.cgroup_fd = f->tree.parents[0].fd;
        ck_assert_int_eq(cgroup_id_of(config.cgroup_fd, &config.cgroup_id), 0);
        ck_assert_msg(egress_wall_new(&config, &f->wall, why) == 0, "%s", why);
        make_box(f, &f->boxes[0], "first");
        make_box(f, &f->boxes[1], "second");
}

static void remove_soon(struct cgroup *group)
{
        int r = cgroup_remove(group);

        for (unsigned i = 0; r == CGROUP_E_BUSY && i < 1000; i++) {
                (void)usleep(1000);
                r = cgroup_remove(group);
        }
        ck_assert_int_eq(r, 0);
}

void fixture_deinit(struct fixture *f)
{
        for (size_t i = 0; i < BOXES; i++) {
                (void)cgroup_kill(&f->boxes[i].group);
                remove_soon(&f->boxes[i].leaf);
                remove_soon(&f->boxes[i].group);
                netns_close(&f->boxes[i].netns);
        }
        f->wall = egress_wall_free(f->wall);
        ck_assert_int_eq(cgroup_tree_remove(&f->tree), 0);
        janitor_dismiss(&f->janitor);
        (void)close(f->home_fd);
}

int in_box(const struct box *box, box_body *body, const void *data)
{
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
        int status;
        pid_t pid;

        ck_assert_int_eq(cgroup_entry_open(&box->leaf, &entry), 0);
        args.cgroup = (uint64_t)entry.id_fd;
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                _exit(setns(box->netns.fd, CLONE_NEWNET) < 0 ? 255 : body(data));
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        return WEXITSTATUS(status);
}

socklen_t fill_address(const char *address, uint16_t port, bool is_mapped,
                       struct sockaddr_storage *storage)
{
        struct sockaddr_in *v4 = (struct sockaddr_in *)storage;
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)storage;
        char mapped[INET6_ADDRSTRLEN + 8];

        (void)memset(storage, 0, sizeof(*storage));
        if (!is_mapped && inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
                v4->sin_family = AF_INET;
                v4->sin_port = htons(port);
                return sizeof(*v4);
        }
        (void)snprintf(mapped, sizeof(mapped), "%s%s", is_mapped ? "::ffff:" : "", address);
        if (inet_pton(AF_INET6, mapped, &v6->sin6_addr) != 1)
                _exit(UNEXPECTED);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof(*v6);
}

struct egress_counts counts_of(const struct fixture *f, const struct box *box)
{
        struct egress_counts counts = { 0 };

        ck_assert_int_eq(egress_wall_read_counts(f->wall, box->group.id, &counts), 0);
        return counts;
}

static int take_event(void *context, void *data, size_t size)
{
        struct egress_event *event = context;

        ck_assert_uint_eq(size, sizeof(*event));
        (void)memcpy(event, data, size);
        return -EINTR; /* no more than one */
}

struct egress_event next_event(const struct fixture *f)
{
        struct egress_event event = { 0 };
        struct ring_buffer *ring = ring_buffer__new(egress_wall_map_fd(f->wall, EGRESS_MAP_EVENTS),
                                                    take_event, &event, NULL);

        ck_assert_ptr_nonnull(ring);
        ck_assert_int_eq(ring_buffer__consume(ring), -EINTR);
        ring_buffer__free(ring);
        return event;
}

static int be_refused(const void *data)
{
        const struct sockaddr_in to = { .sin_family = AF_INET,
                                        .sin_port = htons(REFUSED_PORT),
                                        .sin_addr.s_addr = htonl(0x01020304) };

        for (int i = 0; i < *(const int *)data; i++) {
                int fd = socket(AF_INET, SOCK_STREAM, 0);

                if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0 ||
                    errno != EPERM)
                        return 1;
                (void)close(fd);
        }
        return 0;
}

void refuse_in_box(const struct box *box, int n)
{
        ck_assert_int_eq(in_box(box, be_refused, &n), 0);
}
