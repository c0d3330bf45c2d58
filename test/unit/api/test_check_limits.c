/* Limits of a request: what is unset, what is out of range, and what a path of a mask names. */
#include <check.h>
#include <string.h>

#include "google/protobuf/duration.pb-c.h"
#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/check_limits.h"
#include "test/lib/suite.h"

#define SIZE_MIB(n) ((int64_t)(n) << 20)

static struct api api;
static struct api_call call;
static Hotcell__V1__SandboxLimits asked;
static struct sandbox_limits limits;
static struct sandbox_update update;

static void set_up(void)
{
        api.limits.sandbox_default = (struct sandbox_limits){ .memory_bytes = SIZE_MIB(512),
                                                              .cpu_millis = 1000,
                                                              .processes = 256,
                                                              .open_files = 1024,
                                                              .disk_bytes = SIZE_MIB(128),
                                                              .disk_inodes = 5000,
                                                              .cpu_weight = 100,
                                                              .execution = { 30000000, 4096 } };
        api.limits.sandbox_max = (struct sandbox_limits){ .memory_bytes = SIZE_MIB(4096),
                                                          .cpu_millis = 4000,
                                                          .processes = 512,
                                                          .open_files = 4096,
                                                          .disk_bytes = SIZE_MIB(2048),
                                                          .disk_inodes = 100000,
                                                          .cpu_weight = 10000,
                                                          .io_bytes_per_second = 1 << 30,
                                                          .execution = { 60000000, 8192 } };
        call.api = &api;
        hotcell__v1__sandbox_limits__init(&asked);
}

static void tear_down(void)
{
        arena_deinit(&call.arena);
}

#define ASK(field, which, value)                                                                   \
        (asked.field = (value),                                                                    \
         asked._##field##_case = HOTCELL__V1__SANDBOX_LIMITS___##which##_##which)

static bool is_blamed(const char *field)
{
        for (size_t i = 0; i < call.status.n_fields; i++)
                if (strcmp(call.status.fields[i].path, field) == 0)
                        return true;
        return false;
}

/* Whether @limits could be taken; else what is wrong is told with @field. */
static bool is_good(const char *field)
{
        bool good;

        call.status.n_fields = 0;
        good = check_sandbox_limits(&call, "spec.limits", &asked, &limits);
        ck_assert(good == !is_blamed(field));
        return good;
}

START_TEST(what_is_unset_has_the_default)
{
        ck_assert(check_sandbox_limits(&call, "spec.limits", NULL, &limits));
        ck_assert_int_eq(limits.memory_bytes, SIZE_MIB(512));
        ck_assert_int_eq(limits.cpu_millis, 1000);
        ck_assert_int_eq(limits.processes, 256);
        ck_assert_int_eq(limits.open_files, 1024);
        ck_assert_int_eq(limits.disk_bytes, SIZE_MIB(128));
        ck_assert_int_eq(limits.disk_inodes, SIZE_MIB(128) / 4096);
        ck_assert_int_eq(limits.cpu_weight, 100);
        ck_assert_int_eq(limits.io_bytes_per_second, 0);
        ck_assert_int_eq(limits.execution.timeout_usec, 30000000);
        ck_assert_int_eq(limits.execution.output_bytes, 4096);
}
END_TEST

START_TEST(a_small_memory_has_a_smaller_disk)
{
        ASK(memory_bytes, MEMORY_BYTES, SIZE_MIB(128));
        ck_assert(is_good("spec.limits.disk_bytes"));
        ck_assert_int_eq(limits.disk_bytes, SIZE_MIB(32)); /* half of what is above 64 MiB */
        ck_assert_int_eq(limits.disk_inodes, SIZE_MIB(32) / 4096);
        ASK(memory_bytes, MEMORY_BYTES, SIZE_MIB(192));
        ck_assert(is_good("spec.limits.disk_bytes"));
        ck_assert_int_eq(limits.disk_bytes, SIZE_MIB(128)); /* it fits */
}
END_TEST

START_TEST(inodes_by_themselves_stay_within_bounds)
{
        ASK(disk_bytes, DISK_BYTES, SIZE_MIB(1));
        ck_assert(is_good("spec.limits.disk_inodes"));
        ck_assert_int_eq(limits.disk_inodes, 1024);
        ASK(memory_bytes, MEMORY_BYTES, SIZE_MIB(4096));
        ASK(disk_bytes, DISK_BYTES, SIZE_MIB(2048));
        ck_assert(is_good("spec.limits.disk_inodes"));
        ck_assert_int_eq(limits.disk_inodes, 100000);
}
END_TEST

START_TEST(bounds_are_those_that_are_told)
{
        ASK(processes, PROCESSES, 7);
        ck_assert(!is_good("spec.limits.processes"));
        ASK(processes, PROCESSES, 8);
        ck_assert(is_good("spec.limits.processes"));
        ASK(processes, PROCESSES, 512);
        ck_assert(is_good("spec.limits.processes"));
        ASK(processes, PROCESSES, 513);
        ck_assert(!is_good("spec.limits.processes"));
}
END_TEST

START_TEST(files_leave_64_mebibytes_of_the_memory)
{
        ASK(memory_bytes, MEMORY_BYTES, SIZE_MIB(256));
        ASK(disk_bytes, DISK_BYTES, SIZE_MIB(192));
        ck_assert(is_good("spec.limits.disk_bytes"));
        ASK(disk_bytes, DISK_BYTES, SIZE_MIB(192) + 1);
        ck_assert(!is_good("spec.limits.disk_bytes"));
        ck_assert(is_blamed("spec.limits.memory_bytes"));
}
END_TEST

START_TEST(no_bound_may_be_asked_for_where_it_is_the_default)
{
        ASK(io_bytes_per_second, IO_BYTES_PER_SECOND, 0);
        ck_assert(is_good("spec.limits.io_bytes_per_second"));
        api.limits.sandbox_default.io_bytes_per_second = 1 << 20;
        ck_assert(!is_good("spec.limits.io_bytes_per_second"));
        ASK(cpu_weight, CPU_WEIGHT, 0);
        ck_assert(!is_good("spec.limits.cpu_weight"));
}
END_TEST

static bool takes_path(const char *path)
{
        update = (struct sandbox_update){ 0 };
        call.status.n_fields = 0;
        return check_limits_path(&call, path, &asked, &update);
}

START_TEST(a_path_sets_what_it_names_and_nothing_else)
{
        Google__Protobuf__Duration timeout = GOOGLE__PROTOBUF__DURATION__INIT;
        Hotcell__V1__Limits execution = HOTCELL__V1__LIMITS__INIT;

        timeout.seconds = 2;
        execution.timeout = &timeout;
        execution.output_bytes = 77;
        execution._output_bytes_case = HOTCELL__V1__LIMITS___OUTPUT_BYTES_OUTPUT_BYTES;
        asked.execution = &execution;
        ASK(cpu_weight, CPU_WEIGHT, 50);
        ck_assert(takes_path("limits.cpu_weight"));
        ck_assert_uint_eq(update.set_limits, BIT(SANDBOX_LIMIT_WEIGHT));
        ck_assert_int_eq(update.limits.cpu_weight, 50);
        ck_assert(takes_path("limits.execution.timeout"));
        ck_assert_uint_eq(update.set_limits, BIT(SANDBOX_LIMIT_TIMEOUT));
        ck_assert_int_eq(update.limits.execution.timeout_usec, 2000000);
        ck_assert(takes_path("limits.execution.output_bytes"));
        ck_assert_uint_eq(update.set_limits, BIT(SANDBOX_LIMIT_OUTPUT));
        ck_assert_int_eq(update.limits.execution.output_bytes, 77);
        ck_assert(takes_path("limits.execution"));
        ck_assert_uint_eq(update.set_limits,
                          BIT(SANDBOX_LIMIT_TIMEOUT) | BIT(SANDBOX_LIMIT_OUTPUT));
        ck_assert(takes_path("limits"));
        ck_assert_uint_eq(update.set_limits, BIT(_SANDBOX_LIMIT_N) - 1);
        ck_assert(!api_call_has_blame(&call));
}
END_TEST

START_TEST(a_path_to_nothing_is_told)
{
        ck_assert(!takes_path("limits.nothing"));
        ck_assert(!takes_path("limits.execution.nothing"));
        ck_assert(!takes_path("labels"));
        ck_assert(!api_call_has_blame(&call));
        ck_assert(takes_path("limits.memory_bytes")); /* known, but not set */
        ck_assert(is_blamed("limits.memory_bytes"));
        ck_assert(takes_path("limits.execution.timeout"));
        ck_assert(is_blamed("limits.execution.timeout"));
        ck_assert_uint_eq(update.set_limits, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("check_limits");
        TCase *tests = tcase_create("check_limits");

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_test(tests, what_is_unset_has_the_default);
        tcase_add_test(tests, a_small_memory_has_a_smaller_disk);
        tcase_add_test(tests, inodes_by_themselves_stay_within_bounds);
        tcase_add_test(tests, bounds_are_those_that_are_told);
        tcase_add_test(tests, files_leave_64_mebibytes_of_the_memory);
        tcase_add_test(tests, no_bound_may_be_asked_for_where_it_is_the_default);
        tcase_add_test(tests, a_path_sets_what_it_names_and_nothing_else);
        tcase_add_test(tests, a_path_to_nothing_is_told);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
