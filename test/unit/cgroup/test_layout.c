/* Where hierarchies are, as mountinfo and the cgroup file of a process say it. */

#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/cgroup/layout.h"
#include "test/lib/suite.h"

static const char hybrid_mounts[] =
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
        "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup "
        "rw,cpu,cpuacct\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 master:2 - cgroup2 cgroup2 rw\n";

static const char hybrid_self[] = "9:name=systemd:/\n8:pids:/\n4:memory:/outer/inner\n"
                                  "2:cpu,cpuacct:/slice\n0::/unit\n";

static int parse(const char *mounts, const char *self, struct cgroup_layout *layout)
{
        FILE *mountinfo = fmemopen((void *)(uintptr_t)mounts, strlen(mounts), "r");
        FILE *self_cgroup = fmemopen((void *)(uintptr_t)self, strlen(self), "r");
        int r = cgroup_layout_parse(mountinfo, self_cgroup, layout);

        (void)fclose(mountinfo);
        (void)fclose(self_cgroup);
        return r;
}

static void expect_own_path(const struct cgroup_hierarchy *hierarchy, const char *expected)
{
        char path[CGROUP_PATH_MAX];

        ck_assert_int_eq(cgroup_hierarchy_path(hierarchy, hierarchy->own, path), 0);
        ck_assert_str_eq(path, expected);
}

START_TEST(hybrid_layout_is_read)
{
        struct cgroup_layout layout;

        ck_assert_int_eq(parse(hybrid_mounts, hybrid_self, &layout), 0);
        ck_assert_uint_eq(layout.n_hierarchies, 4);
        expect_own_path(&layout.hierarchies[0], "/sys/fs/cgroup/unified/unit");
        ck_assert_uint_eq(layout.hierarchies[1].controllers, BIT(CGROUP_CPU));
        expect_own_path(&layout.hierarchies[1], "/sys/fs/cgroup/cpu,cpuacct/slice");
        ck_assert_uint_eq(layout.hierarchies[2].controllers, BIT(CGROUP_MEMORY));
        expect_own_path(&layout.hierarchies[2], "/sys/fs/cgroup/memory/outer/inner");
        expect_own_path(&layout.hierarchies[3], "/sys/fs/cgroup/pids");
}
END_TEST

START_TEST(pure_v2_layout_is_read)
{
        struct cgroup_layout layout;

        ck_assert_int_eq(parse("29 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 "
                               "rw,nsdelegate,memory_recursiveprot\n",
                               "0::/system.slice/hotcell.service\n", &layout),
                         0);
        ck_assert_uint_eq(layout.n_hierarchies, 1);
        expect_own_path(&layout.hierarchies[0], "/sys/fs/cgroup/system.slice/hotcell.service");
}
END_TEST

START_TEST(co_mounted_controllers_share_a_hierarchy)
{
        struct cgroup_layout layout;

        ck_assert_int_eq(parse("1 0 0:1 / /a rw - cgroup c rw,memory,pids\n"
                               "2 0 0:2 / /b rw - cgroup c rw,memory,pids\n"
                               "3 0 0:3 / /u rw - cgroup2 c rw\n",
                               "3:memory,pids:/\n0::/\n", &layout),
                         0);
        ck_assert_uint_eq(layout.n_hierarchies, 2);
        ck_assert_uint_eq(layout.hierarchies[1].controllers, BIT(CGROUP_MEMORY) | BIT(CGROUP_PIDS));
        ck_assert_str_eq(layout.hierarchies[1].mount, "/a");
}
END_TEST

START_TEST(mounted_subtree_is_stripped_from_names)
{
        struct cgroup_layout layout;

        ck_assert_int_eq(parse("3 0 0:3 /docker/abc /sys/fs/cgroup ro - cgroup2 c rw\n",
                               "0::/docker/abc/x\n", &layout),
                         0);
        expect_own_path(&layout.hierarchies[0], "/sys/fs/cgroup/x");
        ck_assert_int_eq(parse("3 0 0:3 /docker/abc /sys/fs/cgroup ro - cgroup2 c rw\n",
                               "0::/docker/abcd\n", &layout),
                         0);
        expect_own_path(&layout.hierarchies[0], "/sys/fs/cgroup");
}
END_TEST

START_TEST(mount_of_another_cgroup_namespace_is_refused)
{
        struct cgroup_layout layout;
        char path[CGROUP_PATH_MAX];

        ck_assert_int_eq(
                parse("3 0 0:3 /../.. /sys/fs/cgroup rw - cgroup2 c rw\n", "0::/\n", &layout), 0);
        ck_assert_int_eq(cgroup_hierarchy_path(&layout.hierarchies[0], "/", path), -EXDEV);
}
END_TEST

START_TEST(escaped_mount_points_are_unescaped)
{
        struct cgroup_layout layout;

        ck_assert_int_eq(
                parse("3 0 0:3 / /with\\040blank\\134 rw - cgroup2 c rw\n", "0::/\n", &layout), 0);
        expect_own_path(&layout.hierarchies[0], "/with blank\\");
}
END_TEST

START_TEST(host_without_cgroup2_is_told_apart)
{
        struct cgroup_layout layout;

        ck_assert_int_eq(parse("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
                               "4:memory:/\n", &layout),
                         CGROUP_LAYOUT_E_NO_CGROUP2);
        ck_assert_int_eq(parse("nonsense\n - \n1 2 3 - cgroup2\n", "x\n:\n", &layout),
                         CGROUP_LAYOUT_E_NO_CGROUP2);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("cgroup_layout");
        TCase *layout = tcase_create("layout");

        tcase_add_test(layout, hybrid_layout_is_read);
        tcase_add_test(layout, pure_v2_layout_is_read);
        tcase_add_test(layout, co_mounted_controllers_share_a_hierarchy);
        tcase_add_test(layout, mounted_subtree_is_stripped_from_names);
        tcase_add_test(layout, mount_of_another_cgroup_namespace_is_refused);
        tcase_add_test(layout, escaped_mount_points_are_unescaped);
        tcase_add_test(layout, host_without_cgroup2_is_told_apart);
        suite_add_tcase(suite, layout);
        return suite_main(suite);
}
