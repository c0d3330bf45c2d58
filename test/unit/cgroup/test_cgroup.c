/*
 * What files of groups say, in both dialects. The trees are folders of plain files that say what
 * the kernel would.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"
#include "runtime/cgroup/leftover.h"
#include "runtime/cgroup/values.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"

START_TEST(numbers_are_parsed_strictly)
{
        static const struct {
                const char *text;
                int result;
                uint64_t value;
        } rows[] = {
                { "0\n", 0, 0 },
                { "9223372036854771712\n", 0, 9223372036854771712ULL },
                { "max\n", 0, UINT64_MAX },
                { "42", 0, 42 },
                { "", -EBADMSG, 0 },
                { "\n", -EBADMSG, 0 },
                { "-1\n", -EBADMSG, 0 },
                { "12x\n", -EBADMSG, 0 },
                { "99999999999999999999999\n", -EBADMSG, 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint64_t value = 0;

                ck_assert_int_eq(cgroup_parse_number(rows[i].text, &value), rows[i].result);
                ck_assert_uint_eq(value, rows[i].value);
        }
}
END_TEST

START_TEST(keys_are_found_whole)
{
        static const char v1[] = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        static const char v2[] = "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 1\n";
        uint64_t value;

        ck_assert_int_eq(cgroup_parse_key(v1, "oom_kill", &value), 0);
        ck_assert_uint_eq(value, 3);
        ck_assert_int_eq(cgroup_parse_key(v2, "oom_kill", &value), 0);
        ck_assert_uint_eq(value, 2);
        ck_assert_int_eq(cgroup_parse_key(v2, "low", &value), 0);
        ck_assert_int_eq(cgroup_parse_key(v2, "oom_k", &value), -ENODATA);
        ck_assert_int_eq(cgroup_parse_key("", "low", &value), -ENODATA);
        ck_assert_int_eq(cgroup_parse_key("low x\n", "low", &value), -EBADMSG);
}
END_TEST

START_TEST(foreign_paths_are_never_removed)
{
        ck_assert_int_eq(cgroup_remove_leftover("/etc", 0), CGROUP_LEFTOVER_E_NOT_OURS);
        ck_assert_int_eq(cgroup_remove_leftover("relative/hotcell-x", 0),
                         CGROUP_LEFTOVER_E_NOT_OURS);
        ck_assert_int_eq(cgroup_remove_leftover("/sys/../tmp/hotcell-x", 0),
                         CGROUP_LEFTOVER_E_NOT_OURS);
        ck_assert_int_eq(cgroup_remove_leftover("/no/such/hotcell-x", 0), 0);
        /* A folder that is no cgroup. */
        ck_assert_int_eq(mkdir("/tmp/hotcell-no-group", 0700), 0);
        ck_assert_int_eq(cgroup_remove_leftover("/tmp/hotcell-no-group", 0),
                         CGROUP_LEFTOVER_E_NOT_OURS);
        ck_assert_int_eq(rmdir("/tmp/hotcell-no-group"), 0);
}
END_TEST

/* --- fake trees ------------------------------------------------------------------------------- */

static char folder[] = "/tmp/hotcell-cgroup-XXXXXX";
static struct cgroup_tree tree;

static void put(const char *path, const char *content)
{
        char whole[512];
        int fd;

        (void)snprintf(whole, sizeof(whole), "%s/%s", folder, path);
        fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(io_write_all(fd, content, strlen(content)), 0);
        (void)close(fd);
}

static void expect_file(const char *path, const char *content)
{
        char whole[512];
        char text[128];

        (void)snprintf(whole, sizeof(whole), "%s/%s", folder, path);
        ck_assert_int_eq(io_read_file(AT_FDCWD, whole, text, sizeof(text), NULL), 0);
        ck_assert_str_eq(text, content);
}

/* A parent for each hierarchy that @names lists; the groups' files are put by the tests. */
static void make_tree(const char *const names[], size_t n, enum cgroup_dialect dialect)
{
        scratch_make(folder);
        tree = (struct cgroup_tree){ .n_parents = n };
        for (size_t i = 0; i < n; i++) {
                char path[512];

                (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
                ck_assert_int_eq(mkdir(path, 0700), 0);
                tree.parents[i].fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
        for (size_t c = 0; c < _CGROUP_CONTROLLER_N; c++) {
                tree.controllers[c].dialect = dialect;
                tree.controllers[c].parent = dialect == CGROUP_V2 ? 0 : c + 1;
        }
}

static void remove_tree(void)
{
        cgroup_tree_deinit(&tree);
        scratch_remove(folder);
}

/* A group as cgroup_create() would leave it, in folders that stand for the kernel's. */
static struct cgroup a_group(unsigned parents)
{
        return (struct cgroup){ .tree = &tree,
                                .path = "g",
                                .n_sandbox = 1,
                                .parents = parents,
                                .meter_fds = { -1, -1, -1, -1 } };
}

START_TEST(meters_are_read_in_v1)
{
        static const char *const names[] = { "id", "memory", "cpu", "pids" };
        struct cgroup group = a_group(0xf);
        struct cgroup_usage usage;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V1);
        ck_assert_int_eq(mkdirat(tree.parents[0].fd, "g", 0700), 0);
        ck_assert_int_eq(mkdirat(tree.parents[1].fd, "g", 0700), 0);
        ck_assert_int_eq(mkdirat(tree.parents[3].fd, "g", 0700), 0);
        put("id/g/cpu.stat", "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n");
        put("memory/g/memory.usage_in_bytes", "4096\n");
        put("memory/g/memory.max_usage_in_bytes", "8192\n");
        put("memory/g/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        put("pids/g/pids.current", "5\n");
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_uint_eq(usage.cpu_usec, 1234);
        ck_assert_uint_eq(usage.cpu_user_usec, 1000);
        ck_assert_uint_eq(usage.cpu_system_usec, 234);
        ck_assert_uint_eq(usage.memory_bytes, 4096);
        ck_assert_uint_eq(usage.memory_peak_bytes, 8192);
        ck_assert_uint_eq(usage.oom_kills, 2);
        ck_assert_uint_eq(usage.processes, 5);
        ck_assert_int_eq(cgroup_reset_peak(&group), 0);
        /* Plain files keep what a shorter write leaves. */
        expect_file("memory/g/memory.max_usage_in_bytes", "0192\n");
        remove_tree();
}
END_TEST

START_TEST(meters_are_read_in_v2)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        struct cgroup_usage usage;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        ck_assert_int_eq(mkdirat(tree.parents[0].fd, "g", 0700), 0);
        put("id/g/cpu.stat", "usage_usec 9\nuser_usec 5\nsystem_usec 4\n");
        put("id/g/memory.current", "1\n");
        put("id/g/memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 1\n");
        put("id/g/pids.current", "1\n");
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        /* Before Linux 5.19 there is no memory.peak. */
        ck_assert_uint_eq(usage.memory_peak_bytes, 0);
        ck_assert_uint_eq(usage.oom_kills, 1);
        put("id/g/memory.peak", "77\n");
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_uint_eq(usage.memory_peak_bytes, 77);
        remove_tree();
}
END_TEST

START_TEST(throttling_is_read_in_v1)
{
        static const char *const names[] = { "id", "memory", "cpu", "pids" };
        struct cgroup group = a_group(0xf);
        struct cgroup_throttling throttling;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V1);
        ck_assert_int_eq(mkdirat(tree.parents[2].fd, "g", 0700), 0);
        put("cpu/g/cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 2000999\n");
        ck_assert_int_eq(cgroup_read_throttling(&group, &throttling), 0);
        ck_assert_uint_eq(throttling.n_throttled, 3);
        ck_assert_uint_eq(throttling.usec, 2000);
        ck_assert(cgroup_counts_peak(&tree));
        tree.controllers[CGROUP_CPU].dialect = CGROUP_ABSENT;
        ck_assert_int_eq(cgroup_read_throttling(&group, &throttling), -EOPNOTSUPP);
        remove_tree();
}
END_TEST

START_TEST(throttling_is_read_in_v2)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        struct cgroup_throttling throttling;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        ck_assert_int_eq(mkdirat(tree.parents[0].fd, "g", 0700), 0);
        put("id/g/cpu.stat", "usage_usec 9\nnr_periods 7\nnr_throttled 4\nthrottled_usec 5\n");
        ck_assert_int_eq(cgroup_read_throttling(&group, &throttling), 0);
        ck_assert_uint_eq(throttling.n_throttled, 4);
        ck_assert_uint_eq(throttling.usec, 5);
        ck_assert(!cgroup_counts_peak(&tree));
        put("id/memory.peak", "1\n");
        ck_assert(cgroup_counts_peak(&tree));
        remove_tree();
}
END_TEST

static int n_kept(const struct cgroup *group)
{
        int n = 0;

        for (size_t i = 0; i < _CGROUP_METER_N; i++)
                n += group->meter_fds[i] >= 0;
        return n;
}

static void put_v2_meters(void)
{
        ck_assert_int_eq(mkdirat(tree.parents[0].fd, "g", 0700), 0);
        put("id/g/cpu.stat", "usage_usec 9\nuser_usec 5\nsystem_usec 4\n");
        put("id/g/memory.current", "1\n");
        put("id/g/memory.peak", "77\n");
        put("id/g/memory.events", "oom_kill 0\n");
        put("id/g/pids.current", "1\n");
}

START_TEST(meters_stay_open_once_a_peak_was_reset)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        struct cgroup_usage usage;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_v2_meters();
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_int_eq(n_kept(&group), 0);
        ck_assert_int_eq(cgroup_reset_peak(&group), 0);
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_int_eq(n_kept(&group), _CGROUP_METER_N);
        /* They are read from their beginning each time. */
        put("id/g/cpu.stat", "usage_usec 10\nuser_usec 5\nsystem_usec 5\n");
        put("id/g/memory.events", "oom_kill 1\n");
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_uint_eq(usage.cpu_usec, 10);
        ck_assert_uint_eq(usage.oom_kills, 1);
        ck_assert_uint_eq(usage.memory_peak_bytes, 7); /* "07": the reset wrote over a plain file */

        for (size_t i = 0; i < _CGROUP_METER_N; i++)
                ck_assert_int_ge(fcntl(group.meter_fds[i], F_GETFD), 0);
        ck_assert_int_eq(cgroup_remove(&group), CGROUP_E_BUSY); /* closed all the same */
        ck_assert_int_eq(n_kept(&group), 0);
        remove_tree();
}
END_TEST

START_TEST(meters_leave_half_of_the_descriptors_to_others)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        struct cgroup_usage usage;
        struct rlimit limit, few;
        int fd;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_v2_meters();
        fd = dup(0); /* the next one is the first that is not to be kept */
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        few = limit;
        few.rlim_cur = 2 * ((rlim_t)fd + 1);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        ck_assert_int_eq(cgroup_reset_peak(&group), 0);
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_int_eq(n_kept(&group), 0);
        ck_assert_uint_eq(usage.cpu_usec, 9);
        (void)close(fd);
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), 0);
        ck_assert_int_eq(n_kept(&group), 1);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        ck_assert_int_eq(cgroup_remove(&group), CGROUP_E_BUSY);
        remove_tree();
}
END_TEST

START_TEST(meters_that_are_gone_are_no_zero)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        struct cgroup_usage usage;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_v2_meters();
        ck_assert_int_eq(unlinkat(tree.parents[0].fd, "g/memory.events", 0), 0);
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), -ENOENT);
        put("id/g/memory.events", "oom_kill 0\n");
        ck_assert_int_eq(unlinkat(tree.parents[0].fd, "g/cpu.stat", 0), 0);
        ck_assert_int_eq(cgroup_read_usage(&group, &usage), -ENOENT);
        remove_tree();
}
END_TEST

/* What a group has that was just made. */
static const struct cgroup_limits none;

START_TEST(limits_are_written_in_v1)
{
        static const char *const names[] = { "id", "memory", "cpu", "pids" };
        static const char *const files[] = { "memory/g/memory.limit_in_bytes",
                                             "memory/g/memory.memsw.limit_in_bytes",
                                             "cpu/g/cpu.cfs_period_us",
                                             "cpu/g/cpu.cfs_quota_us",
                                             "pids/g/pids.max",
                                             "memory/g/memory.kmem.tcp.limit_in_bytes" };
        struct cgroup_limits limits = { .memory_bytes = 1 << 28,
                                        .cpu_millis = 1500,
                                        .processes = 33 };
        struct cgroup group = a_group(0xf);

        make_tree(names, ARRAY_SIZE(names), CGROUP_V1);
        for (size_t i = 0; i < tree.n_parents; i++)
                ck_assert_int_eq(mkdirat(tree.parents[i].fd, "g", 0700), 0);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                put(files[i], "");
        ck_assert_int_eq(cgroup_change_limits(&group, &none, &limits), 0);
        expect_file(files[0], "268435456");
        expect_file(files[1], "268435456");
        expect_file(files[2], "100000");
        expect_file(files[3], "150000");
        expect_file(files[4], "33");
        expect_file(files[5], "33554432");
        limits.memory_bytes = 96 << 20;
        ck_assert_int_eq(cgroup_change_limits(&group, &none, &limits), 0);
        expect_file(files[5], "12582912");
        /* A kernel without that counter has no such file. */
        ck_assert_int_eq(unlinkat(tree.parents[1].fd, "g/memory.kmem.tcp.limit_in_bytes", 0), 0);
        ck_assert_int_eq(cgroup_change_limits(&group, &none, &limits), 0);
        remove_tree();
}
END_TEST

START_TEST(limits_are_written_in_v2)
{
        static const char *const names[] = { "id" };
        static const char *const files[] = { "id/g/memory.max", "id/g/memory.swap.max",
                                             "id/g/cpu.max", "id/g/pids.max" };
        const struct cgroup_limits limits = { .memory_bytes = 1 << 28,
                                              .cpu_millis = 500,
                                              .processes = 33 };
        struct cgroup group = a_group(0x1);

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        ck_assert_int_eq(mkdirat(tree.parents[0].fd, "g", 0700), 0);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                put(files[i], "");
        ck_assert_int_eq(cgroup_change_limits(&group, &none, &limits), 0);
        expect_file(files[0], "268435456");
        expect_file(files[1], "0");
        expect_file(files[2], "50000 100000");
        expect_file(files[3], "33");
        /* A kernel without swap has no such file, and nothing to forbid. */
        (void)unlinkat(tree.parents[0].fd, "g/memory.swap.max", 0);
        ck_assert_int_eq(cgroup_change_limits(&group, &none, &limits), 0);
        remove_tree();
}
END_TEST

static void put_all(const char *const *files, size_t n)
{
        for (size_t i = 0; i < tree.n_parents; i++)
                ck_assert_int_eq(mkdirat(tree.parents[i].fd, "g", 0700), 0);
        for (size_t i = 0; i < n; i++)
                put(files[i], "");
}

/* The kernel refuses a limit of both below that of memory: which one is written first is seen by
 * what is there when the other one cannot be. */
START_TEST(memory_and_swap_have_more_before_memory_has_in_v1)
{
        static const char *const names[] = { "id", "memory", "cpu", "pids" };
        static const char *const files[] = { "memory/g/memory.memsw.limit_in_bytes" };
        const struct cgroup_limits few = { .memory_bytes = 1 << 27 };
        const struct cgroup_limits many = { .memory_bytes = 1 << 28 };
        struct cgroup group = a_group(0xf);

        make_tree(names, ARRAY_SIZE(names), CGROUP_V1);
        put_all(files, ARRAY_SIZE(files));
        ck_assert_int_eq(cgroup_change_limits(&group, &few, &many), -ENOENT);
        expect_file(files[0], "268435456");
        put(files[0], "");
        ck_assert_int_eq(cgroup_change_limits(&group, &many, &few), -ENOENT);
        expect_file(files[0], "268435456"); /* put back, as the kernel has it */
        remove_tree();
}
END_TEST

START_TEST(sockets_have_an_eighth_within_bounds)
{
        ck_assert_uint_eq(cgroup_socket_bytes(MIB(16)), MIB(4));
        ck_assert_uint_eq(cgroup_socket_bytes(MIB(96)), MIB(12));
        ck_assert_uint_eq(cgroup_socket_bytes(MIB(1024)), MIB(32));
}
END_TEST

/* As kernel/sched/sched.h converts them: 100 is 1024, rounded to the nearest. */
START_TEST(weights_are_shares_in_v1)
{
        ck_assert_uint_eq(cgroup_shares_of_weight(1), 10);
        ck_assert_uint_eq(cgroup_shares_of_weight(99), 1014);
        ck_assert_uint_eq(cgroup_shares_of_weight(100), 1024);
        ck_assert_uint_eq(cgroup_shares_of_weight(10000), 102400);
}
END_TEST

START_TEST(a_change_writes_only_what_is_other_in_v1)
{
        static const char *const names[] = { "id", "memory", "cpu", "pids", "io" };
        static const char *const files[] = { "memory/g/memory.limit_in_bytes",
                                             "memory/g/memory.memsw.limit_in_bytes",
                                             "cpu/g/cpu.cfs_quota_us",
                                             "cpu/g/cpu.shares",
                                             "pids/g/pids.max",
                                             "io/g/blkio.throttle.read_bps_device",
                                             "io/g/blkio.throttle.write_bps_device" };
        const struct cgroup_limits before = { .memory_bytes = 1 << 28,
                                              .cpu_millis = 1500,
                                              .processes = 33 };
        struct cgroup_limits after = before;
        struct cgroup group = a_group(0x1f);

        make_tree(names, ARRAY_SIZE(names), CGROUP_V1);
        put_all(files, ARRAY_SIZE(files));
        after.cpu_weight = 200;
        after.io_bytes_per_second = 5000000;
        after.io_device = makedev(8, 16);
        ck_assert_int_eq(cgroup_change_limits(&group, &before, &after), 0);
        expect_file(files[0], "");
        expect_file(files[2], "");
        expect_file(files[3], "2048");
        expect_file(files[4], "");
        expect_file(files[5], "8:16 5000000");
        expect_file(files[6], "8:16 5000000");
        remove_tree();
}
END_TEST

START_TEST(weights_and_disks_are_limited_in_v2)
{
        static const char *const names[] = { "id" };
        static const char *const files[] = { "id/g/memory.max", "id/g/memory.swap.max",
                                             "id/g/cpu.max",    "id/g/pids.max",
                                             "id/g/cpu.weight", "id/g/io.max" };
        struct cgroup_limits limits = { .memory_bytes = 1 << 28,
                                        .cpu_millis = 500,
                                        .cpu_weight = 7,
                                        .processes = 33,
                                        .io_bytes_per_second = 4096,
                                        .io_device = makedev(254, 0) };
        struct cgroup_limits free_io = limits;
        struct cgroup group = a_group(0x1);

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_all(files, ARRAY_SIZE(files));
        ck_assert_int_eq(cgroup_change_limits(&group, &none, &limits), 0);
        expect_file(files[4], "7");
        expect_file(files[5], "254:0 rbps=4096 wbps=4096");
        free_io.io_bytes_per_second = 0;
        put(files[5], "");
        ck_assert_int_eq(cgroup_change_limits(&group, &limits, &free_io), 0);
        expect_file(files[5], "254:0 rbps=max wbps=max");
        /* Without a disk there is nothing that could be limited, and nothing is changed. */
        limits.io_device = 0;
        limits.processes = 34;
        ck_assert_int_eq(cgroup_change_limits(&group, &free_io, &limits), CGROUP_E_ABSENT);
        expect_file(files[3], "33");
        remove_tree();
}
END_TEST

START_TEST(a_change_that_fails_puts_back_what_was)
{
        static const char *const names[] = { "id" };
        static const char *const files[] = { "id/g/memory.max", "id/g/memory.swap.max",
                                             "id/g/cpu.max" }; /* pids.max is missing */
        const struct cgroup_limits before = { .memory_bytes = 1 << 28,
                                              .cpu_millis = 500,
                                              .processes = 33 };
        const struct cgroup_limits after = { .memory_bytes = 1 << 27,
                                             .cpu_millis = 700,
                                             .processes = 66 };
        struct cgroup group = a_group(0x1);

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_all(files, ARRAY_SIZE(files));
        ck_assert_int_eq(cgroup_change_limits(&group, &before, &after), -ENOENT);
        expect_file(files[0], "268435456");
        expect_file(files[2], "50000 100000");
        remove_tree();
}
END_TEST

/* A number in the list may be another's by the time that it is looked at. */
START_TEST(open_files_are_limited_of_members_only)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        struct rlimit before, after;
        char number[32];

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_all(NULL, 0);
        (void)snprintf(number, sizeof(number), "%d\n", (int)getpid());
        put("id/g/cgroup.procs", number);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
        ck_assert_int_eq(cgroup_limit_open_files(&group, (uint32_t)before.rlim_cur, 20), 0);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &after), 0);
        ck_assert_uint_eq(after.rlim_cur, before.rlim_cur);
        remove_tree();
}
END_TEST

START_TEST(pages_of_files_are_not_memory_in_use_in_v1)
{
        static const char *const names[] = { "id", "memory" };
        struct cgroup group = a_group(0x3);
        uint64_t used;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V1);
        put_all(NULL, 0);
        put("memory/g/memory.usage_in_bytes", "5000\n");
        put("memory/g/memory.stat", "active_file 1\ntotal_active_file 1000\n"
                                    "total_inactive_file 500\n");
        ck_assert_int_eq(cgroup_memory_in_use(&group, &used), 0);
        ck_assert_uint_eq(used, 3500);
        remove_tree();
}
END_TEST

START_TEST(pages_of_files_are_not_memory_in_use_in_v2)
{
        static const char *const names[] = { "id" };
        struct cgroup group = a_group(0x1);
        uint64_t used;

        make_tree(names, ARRAY_SIZE(names), CGROUP_V2);
        put_all(NULL, 0);
        put("id/g/memory.current", "5000\n");
        put("id/g/memory.stat", "anon 9\ninactive_file 5000\nactive_file 1000\n");
        ck_assert_int_eq(cgroup_memory_in_use(&group, &used), 0);
        ck_assert_uint_eq(used, 0);
        remove_tree();
}
END_TEST

static Suite *cgroup_suite(void)
{
        Suite *suite = suite_create("cgroup");
        TCase *values = tcase_create("values");
        TCase *groups = tcase_create("groups");

        tcase_add_test(values, numbers_are_parsed_strictly);
        tcase_add_test(values, keys_are_found_whole);
        tcase_add_test(groups, foreign_paths_are_never_removed);
        tcase_add_test(groups, meters_are_read_in_v1);
        tcase_add_test(groups, meters_are_read_in_v2);
        tcase_add_test(groups, throttling_is_read_in_v1);
        tcase_add_test(groups, throttling_is_read_in_v2);
        tcase_add_test(groups, meters_stay_open_once_a_peak_was_reset);
        tcase_add_test(groups, meters_leave_half_of_the_descriptors_to_others);
        tcase_add_test(groups, meters_that_are_gone_are_no_zero);
        tcase_add_test(groups, limits_are_written_in_v1);
        tcase_add_test(groups, limits_are_written_in_v2);
        tcase_add_test(groups, weights_are_shares_in_v1);
        tcase_add_test(groups, memory_and_swap_have_more_before_memory_has_in_v1);
        tcase_add_test(groups, sockets_have_an_eighth_within_bounds);
        tcase_add_test(groups, open_files_are_limited_of_members_only);
        tcase_add_test(groups, a_change_writes_only_what_is_other_in_v1);
        tcase_add_test(groups, weights_and_disks_are_limited_in_v2);
        tcase_add_test(groups, a_change_that_fails_puts_back_what_was);
        tcase_add_test(groups, pages_of_files_are_not_memory_in_use_in_v1);
        tcase_add_test(groups, pages_of_files_are_not_memory_in_use_in_v2);
        suite_add_tcase(suite, values);
        suite_add_tcase(suite, groups);
        return suite;
}

int main(void)
{
        return suite_main(cgroup_suite());
}
