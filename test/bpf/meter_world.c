#include "test/bpf/meter_world.h"

#include <check.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/dns_label.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/layout.h"
#include "runtime/cgroup/leftover.h"

enum { REMOVE_MSEC = 10000 };

static void remove_groups(const void *data)
{
        const struct cgroup_tree *tree = data;

        for (size_t h = 0; h < tree->n_parents; h++)
                (void)cgroup_remove_leftover(tree->parents[h].path, REMOVE_MSEC);
}

static void make_leaf(struct meter_world *w, size_t i)
{
        static const char *const names[METER_LEAVES] = { "first", "second" };
        int r;

        ck_assert_int_eq(cgroup_create_leaf(&w->leaves[i], &w->sandbox, names[i]), 0);
        r = meter_take_slot(w->meter, w->leaves[i].id, &w->slots[i]);
        ck_assert(r == 0 || r == METER_E_FULL);
}

void meter_world_init(struct meter_world *w, uint32_t n_slots, uint32_t n_threads)
{
        const struct cgroup_limits limits = { .memory_bytes = MIB(512),
                                              .cpu_millis = 64000,
                                              .processes = 2000 };
        const struct meter_config config = { .n_slots = n_slots, .n_threads = n_threads };
        struct cgroup_layout layout;
        char why[METER_WHY_BUFFER];
        char name[ID_BUFFER];

        *w = (struct meter_world){ 0 };
        ck_assert_int_eq(geteuid(), 0);
        ck_assert_int_eq(id_generate(CGROUP_NAME_PREFIX "test-meter", name), 0);
        ck_assert_int_eq(cgroup_layout_read(&layout), 0);
        ck_assert_int_eq(cgroup_tree_plan(&w->tree, &layout, NULL, name), 0);
        janitor_hire(&w->janitor, remove_groups, &w->tree);
        ck_assert_int_eq(cgroup_tree_create(&w->tree), 0);
        ck_assert_msg(meter_new(&config, &w->meter, why) == 0, "%s", why);
        ck_assert_str_eq(why, "");
        ck_assert_int_eq(cgroup_create(&w->sandbox, &w->tree, "sandbox", &limits), 0);
        for (size_t i = 0; i < METER_LEAVES; i++)
                make_leaf(w, i);
}

static void remove_soon(struct cgroup *group)
{
        int r = cgroup_remove(group);

        for (unsigned i = 0; r == CGROUP_E_BUSY && i < REMOVE_MSEC; i++) {
                (void)usleep(1000);
                r = cgroup_remove(group);
        }
        ck_assert_int_eq(r, 0);
}

void meter_world_deinit(struct meter_world *w)
{
        (void)cgroup_kill(&w->sandbox);
        for (size_t i = 0; i < METER_LEAVES; i++) {
                meter_release_slot(w->meter, w->slots[i]);
                remove_soon(&w->leaves[i]);
        }
        remove_soon(&w->sandbox);
        w->meter = meter_free(w->meter);
        ck_assert_int_eq(cgroup_tree_remove(&w->tree), 0);
        janitor_dismiss(&w->janitor);
}

static void join_tasks(const struct cgroup_entry *entry)
{
        for (size_t i = 0; i < entry->n_tasks; i++)
                if (write(entry->tasks_fds[i], "0", 1) != 1)
                        _exit(254);
}

pid_t leaf_start(const struct cgroup *leaf, leaf_body *body, const void *data)
{
        _cleanup_(cgroup_entry_close) struct cgroup_entry entry = { .id_fd = -1 };
        struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
        pid_t pid;

        ck_assert_int_eq(cgroup_entry_open(leaf, &entry), 0);
        args.cgroup = (uint64_t)entry.id_fd;
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                join_tasks(&entry);
                _exit(body(data));
        }
        return pid;
}

int leaf_wait(pid_t pid)
{
        int status;

        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        return status;
}

void leaf_run(const struct cgroup *leaf, leaf_body *body, const void *data)
{
        ck_assert_int_eq(leaf_wait(leaf_start(leaf, body, data)), 0);
}

static uint64_t used_nsec(void)
{
        struct timespec used;

        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
        return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

void spin(uint64_t cpu_nsec)
{
        uint64_t end_nsec = used_nsec() + cpu_nsec;

        while (used_nsec() < end_nsec)
                ;
}

int spin_alone(const void *data)
{
        spin(*(const uint64_t *)data);
        return 0;
}

int stay_on(int cpu)
{
        cpu_set_t cpus;

        CPU_ZERO(&cpus);
        CPU_SET(cpu, &cpus);
        return sched_setaffinity(0, sizeof(cpus), &cpus);
}

int spin_on_first_cpu(const void *data)
{
        return stay_on(0) || spin_alone(data);
}

int fork_children(const void *data)
{
        (void)data;
        for (int i = 0; i < METER_CHILDREN; i++) {
                pid_t pid = fork();
                int status;

                if (pid == 0)
                        _exit(0);
                if (pid < 0 || waitpid(pid, &status, 0) != pid)
                        return 1;
        }
        return 0;
}

struct meter_reading world_read(const struct meter_world *w, size_t leaf)
{
        struct meter_reading reading;

        meter_read(w->meter, w->slots[leaf], &reading);
        return reading;
}

uint64_t world_file_nsec(struct meter_world *w, size_t leaf)
{
        struct cgroup_usage usage;

        ck_assert_int_eq(cgroup_read_usage(&w->leaves[leaf], &usage), 0);
        return usage.cpu_usec * 1000;
}

void check_same_time(uint64_t ours_nsec, uint64_t theirs_nsec)
{
        uint64_t difference = MAX(ours_nsec, theirs_nsec) - MIN(ours_nsec, theirs_nsec);

        ck_assert_msg(difference <= MAX(theirs_nsec / 100, 2000000U), "%llu ns and %llu ns",
                      (unsigned long long)ours_nsec, (unsigned long long)theirs_nsec);
}

void tell(int fd)
{
        ck_assert_int_eq(write(fd, "x", 1), 1);
}

void hear(int fd)
{
        char byte;

        ck_assert_int_eq(read(fd, &byte, 1), 1);
}

void make_talk(struct talk *talk)
{
        ck_assert_int_eq(pipe(talk->to_child), 0);
        ck_assert_int_eq(pipe(talk->to_parent), 0);
}

void close_talk(const struct talk *talk)
{
        for (int i = 0; i < 2; i++) {
                (void)close(talk->to_child[i]);
                (void)close(talk->to_parent[i]);
        }
}

TCase *meter_case(const char *name, void (*set_up)(void), void (*tear_down)(void))
{
        TCase *tc = tcase_create(name);

        if (set_up)
                tcase_add_checked_fixture(tc, set_up, tear_down);
        tcase_set_timeout(tc, 120);
        return tc;
}
