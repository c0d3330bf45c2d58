/* What files say of what is short, in both dialects, and that nothing else is taken for it. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"
#include "runtime/cgroup/pressure.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"

static char folder[] = "/tmp/hotcell-pressure-XXXXXX";
static struct cgroup_tree tree;
static struct cgroup group;

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

/* A group in folders that stand for the kernel's: all in `id`, or each controller in its own. */
static void make_group(enum cgroup_dialect dialect)
{
        static const char *const names[] = { "id", "memory", "cpu", "pids" };
        size_t n = dialect == CGROUP_V2 ? 1 : ARRAY_SIZE(names);

        scratch_make(folder);
        tree = (struct cgroup_tree){ .n_parents = n };
        for (size_t i = 0; i < n; i++) {
                char path[512];

                (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
                ck_assert_int_eq(mkdir(path, 0700), 0);
                tree.parents[i].fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                ck_assert_int_eq(mkdirat(tree.parents[i].fd, "g", 0700), 0);
        }
        for (size_t c = 0; c < _CGROUP_CONTROLLER_N; c++) {
                tree.controllers[c].dialect = dialect;
                tree.controllers[c].parent = dialect == CGROUP_V2 ? 0 : c + 1;
        }
        group = (struct cgroup){ .tree = &tree,
                                 .path = "g",
                                 .parents = dialect == CGROUP_V2 ? 1 : 0xf };
}

static void teardown(void)
{
        cgroup_tree_deinit(&tree);
        scratch_remove(folder);
}

static void expect_all(void)
{
        struct cgroup_level level;
        struct cgroup_throttling throttling;
        uint64_t value;

        ck_assert_int_eq(cgroup_read_cpu_usec(&group, &value), 0);
        ck_assert_uint_eq(value, 1234);
        ck_assert_int_eq(cgroup_read_memory_level(&group, &level), 0);
        ck_assert_uint_eq(level.used, 4096);
        ck_assert_uint_eq(level.limit, 8192);
        ck_assert_int_eq(cgroup_read_reclaimable(&group, &value), 0);
        ck_assert_uint_eq(value, 30);
        ck_assert_int_eq(cgroup_read_process_level(&group, &level), 0);
        ck_assert_uint_eq(level.used, 5);
        ck_assert_uint_eq(level.limit, UINT64_MAX);
        ck_assert_int_eq(cgroup_read_throttling(&group, &throttling), 0);
        ck_assert_uint_eq(throttling.n_periods, 17);
        ck_assert_uint_eq(throttling.n_throttled, 3);
        ck_assert_int_eq(cgroup_read_stall(&group, CGROUP_STALL_MEMORY, &value), 0);
        ck_assert_uint_eq(value, 1);
        ck_assert_int_eq(cgroup_read_stall(&group, CGROUP_STALL_CPU, &value), 0);
        ck_assert_uint_eq(value, 22);
        ck_assert_int_eq(cgroup_read_stall(&group, CGROUP_STALL_IO, &value), 0);
        ck_assert_uint_eq(value, 333);
}

static void put_stalls(void)
{
        put("id/g/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
                                    "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n");
        put("id/g/cpu.pressure", "some avg10=99.00 avg60=0.00 avg300=0.00 total=22\n");
        put("id/g/io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=333\n"
                                "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n");
}

START_TEST(all_is_read_in_v1)
{
        make_group(CGROUP_V1);
        put("id/g/cpu.stat", "usage_usec 1234\nuser_usec 1000\n");
        put("memory/g/memory.usage_in_bytes", "4096\n");
        put("memory/g/memory.limit_in_bytes", "8192\n");
        put("memory/g/memory.stat", "inactive_file 1\nactive_file 2\ntotal_inactive_file 10\n"
                                    "total_active_file 20\n");
        put("pids/g/pids.current", "5\n");
        put("pids/g/pids.max", "max\n");
        put("cpu/g/cpu.stat", "nr_periods 17\nnr_throttled 3\nthrottled_time 4\n");
        put_stalls();
        expect_all();
}
END_TEST

START_TEST(all_is_read_in_v2)
{
        make_group(CGROUP_V2);
        put("id/g/cpu.stat", "usage_usec 1234\nnr_periods 17\nnr_throttled 3\nthrottled_usec 4\n");
        put("id/g/memory.current", "4096\n");
        put("id/g/memory.max", "8192\n");
        put("id/g/memory.stat", "anon 5\nfile 6\ninactive_file 10\nactive_file 20\n");
        put("id/g/pids.current", "5\n");
        put("id/g/pids.max", "max\n");
        put_stalls();
        expect_all();
}
END_TEST

/* A kernel without PSI, a controller that is absent, a group that is gone: not zero. */
START_TEST(what_is_not_counted_is_no_zero)
{
        struct cgroup_level level;
        struct cgroup_throttling throttling;
        uint64_t value;

        make_group(CGROUP_V2);
        for (unsigned stall = 0; stall < _CGROUP_STALL_N; stall++)
                ck_assert_int_eq(cgroup_read_stall(&group, (enum cgroup_stall)stall, &value),
                                 -EOPNOTSUPP);
        ck_assert_int_eq(cgroup_read_memory_level(&group, &level), -EOPNOTSUPP);
        ck_assert_int_eq(cgroup_read_cpu_usec(&group, &value), -EOPNOTSUPP);
        put("id/g/cpu.stat", "usage_usec 1234\n");
        ck_assert_int_eq(cgroup_read_throttling(&group, &throttling), -ENODATA);
        put("id/g/pids.current", "5\n");
        put("id/g/pids.max", "6\n");
        tree.controllers[CGROUP_PIDS].dialect = CGROUP_ABSENT;
        ck_assert_int_eq(cgroup_read_process_level(&group, &level), -EOPNOTSUPP);
}
END_TEST

START_TEST(stalls_are_parsed_strictly)
{
        static const char *const bad[] = {
                "",
                "\n",
                "some",
                "some \n",
                "some total=1",
                "some avg10=0.00\ntotal=1\n",
                "some avg10=0.00\nfull total=1\n",
                "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
                "some avg10=0.00 total=\n",
                "some avg10=0.00 total=-1\n",
                "some avg10=0.00 total=1 2\n",
                "some avg10=0.00 total=max\n",
                "some avg10=0.00 total=99999999999999999999\n",
                "some avg10=0.00 xtotal=1\n",
        };
        uint64_t value = 7;

        make_group(CGROUP_V2);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                ck_assert_int_eq(cgroup_parse_stall(bad[i], &value), -EBADMSG);
                put("id/g/cpu.pressure", bad[i]);
                ck_assert_int_lt(cgroup_read_stall(&group, CGROUP_STALL_CPU, &value), 0);
        }
        ck_assert_uint_eq(value, 7);
        ck_assert_int_eq(cgroup_parse_stall("some total=18446744073709551615\n", &value), 0);
        ck_assert_uint_eq(value, UINT64_MAX);
}
END_TEST

START_TEST(a_line_without_an_end_is_none)
{
        char text[2000];
        uint64_t value;

        make_group(CGROUP_V2);
        memset(text, ' ', sizeof(text));
        memcpy(text, "some ", 5);
        memcpy(text + sizeof(text) - 10, " total=1\n", 10);
        ck_assert_int_eq(cgroup_parse_stall(text, &value), -EBADMSG);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("cgroup_pressure");
        TCase *tests = tcase_create("cgroup_pressure");

        tcase_add_checked_fixture(tests, NULL, teardown);
        tcase_add_test(tests, all_is_read_in_v1);
        tcase_add_test(tests, all_is_read_in_v2);
        tcase_add_test(tests, what_is_not_counted_is_no_zero);
        tcase_add_test(tests, stalls_are_parsed_strictly);
        tcase_add_test(tests, a_line_without_an_end_is_none);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
