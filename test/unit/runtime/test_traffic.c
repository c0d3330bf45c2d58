/* What connections carried is told of a process while it is there and after, and is in its
 * sandbox's sum once. */

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "bpf/egress.h"
#include "runtime/base/macros.h"
#include "runtime/meters/metering.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/tables.h"
#include "runtime/supervisor/traffic.h"
#include "test/lib/suite.h"

enum { N_PLACES = 128, SANDBOX = 7000, LEAF_A = 1, LEAF_B = 2 };

static struct sandbox_host host;
static struct sandbox sandbox;
static struct process a, b;

/* Of the sandbox's device: the wall's, for which there is another one here. */
static struct egress_counts carried;
static bool is_admitted;

int __wrap_egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                                   struct egress_counts *ret_counts);

int __wrap_egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                                   struct egress_counts *ret_counts)
{
        ck_assert_ptr_eq(wall, host.egress);
        ck_assert_uint_eq(cgroup_id, SANDBOX);
        if (!is_admitted)
                return -ENOENT;
        *ret_counts = carried;
        return 0;
}

static void begin(struct process *process, const char *id, uint64_t leaf_id)
{
        *process = (struct process){ .sandbox = &sandbox, .state = PROCESS_RUNNING };
        (void)snprintf(process->id, sizeof(process->id), "%s", id);
        traffic_open(&host, leaf_id, &process->traffic);
        process_table_add(&sandbox.processes, process);
}

static void end(struct process *process)
{
        traffic_close_process(process);
        process->state = PROCESS_ENDED;
}

static void setup(void)
{
        ck_assert_int_eq(traffic_table_new(N_PLACES, &host.traffic), 0);
        is_admitted = true;
        carried = (struct egress_counts){ 0 };
        sandbox = (struct sandbox){ .host = &host, .group.id = SANDBOX };
        traffic_open(&host, SANDBOX, &sandbox.traffic);
        begin(&a, "a", LEAF_A);
        begin(&b, "b", LEAF_B);
}

static void teardown(void)
{
        HASH_CLEAR(hh, sandbox.processes);
        host.traffic = traffic_table_free(host.traffic);
}

/* By a connection of that leaf. */
static void carry(uint64_t leaf_id, uint64_t sent, uint64_t received)
{
        struct traffic_account account;

        traffic_account_open(host.traffic, leaf_id, SANDBOX, &account);
        traffic_account_add(host.traffic, &account, sent, received);
}

static void check_message(const struct usage_message *message, uint64_t sent, uint64_t received)
{
        ck_assert_uint_eq(message->usage.sent_bytes, sent);
        ck_assert_uint_eq(message->usage.received_bytes, received);
}

static void expect_process(struct process *process, uint64_t sent, uint64_t received)
{
        struct usage_message message = { 0 };

        traffic_fill_process(process, &message);
        check_message(&message, sent, received);
        ck_assert_uint_eq(message.usage.n_missing, 0);
}

static void expect_sandbox(uint64_t sent, uint64_t received)
{
        struct usage_message message = { 0 };

        traffic_fill_sandbox(&sandbox, &message);
        check_message(&message, sent, received);
        ck_assert_uint_eq(message.usage.n_missing, 0);
}

START_TEST(each_has_its_own_and_the_sandbox_all_of_it)
{
        carry(LEAF_A, 1, 2);
        carry(LEAF_B, 10, 20);
        carry(SANDBOX, 100, 200); /* of what no process took */
        carried = (struct egress_counts){ .sent_bytes = 1000, .received_bytes = 2000 };
        expect_process(&a, 1, 2);
        expect_process(&b, 10, 20);
        expect_sandbox(1111, 2222);
        expect_sandbox(1111, 2222);
}
END_TEST

START_TEST(a_process_that_is_over_counts_once)
{
        carry(LEAF_A, 1, 2);
        carry(LEAF_B, 10, 20);
        expect_sandbox(11, 22);
        end(&a);
        expect_process(&a, 1, 2);
        expect_sandbox(11, 22);
        process_table_remove(&sandbox.processes, &a);
        expect_sandbox(11, 22);
        end(&b);
        expect_sandbox(11, 22);
}
END_TEST

/* What comes between the last look and the end is in the last reading. */
START_TEST(the_last_bytes_of_a_process_are_counted)
{
        carry(LEAF_A, 1, 2);
        expect_process(&a, 1, 2);
        carry(LEAF_A, 30, 40);
        end(&a);
        expect_process(&a, 31, 42);
        expect_sandbox(31, 42);
        carry(LEAF_A, 100, 200); /* the sandbox's by now */
        expect_process(&a, 31, 42);
        expect_sandbox(131, 242);
}
END_TEST

/* The wall forgets a sandbox that is over, and another may have its group's number. */
START_TEST(the_last_reading_of_a_sandbox_stays)
{
        carry(SANDBOX, 100, 200);
        carried = (struct egress_counts){ .sent_bytes = 1000, .received_bytes = 2000 };
        end(&a);
        end(&b);
        traffic_close_sandbox(&sandbox);
        expect_sandbox(1100, 2200);
        carried = (struct egress_counts){ .sent_bytes = 5, .received_bytes = 6 };
        expect_sandbox(1100, 2200);
        is_admitted = false;
        expect_sandbox(1100, 2200);
}
END_TEST

START_TEST(what_the_wall_no_longer_knows_stays_counted)
{
        carried = (struct egress_counts){ .sent_bytes = 1000, .received_bytes = 2000 };
        expect_sandbox(1000, 2000);
        is_admitted = false;
        expect_sandbox(1000, 2000);
}
END_TEST

static void expect_missing(const struct usage_message *message)
{
        ck_assert_uint_eq(message->usage.n_missing, 1);
        ck_assert_int_eq(message->missing[0], HOTCELL__RUNTIME__V1__METER_PART__METER_PART_TRAFFIC);
}

static void fill_table(void)
{
        struct traffic_meter meter;

        for (uint64_t id = 100000; id < 200000; id++)
                (void)traffic_table_give(host.traffic, id, &meter);
}

/* What was missing before stays so. */
START_TEST(who_had_no_place_says_so)
{
        struct usage_message message = { 0 };
        struct process late;

        fill_table();
        begin(&late, "late", 3);
        traffic_fill_process(&late, &message);
        check_message(&message, 0, 0);
        expect_missing(&message);
        carry(3, 5, 6);
        expect_sandbox(5, 6); /* nothing of the sandbox is missing */
        end(&late);
        expect_sandbox(5, 6);
        message.missing[0] = HOTCELL__RUNTIME__V1__METER_PART__METER_PART_RSS_PEAK;
        traffic_fill_process(&late, &message);
        ck_assert_uint_eq(message.usage.n_missing, 2);
        ck_assert_int_eq(message.missing[0], HOTCELL__RUNTIME__V1__METER_PART__METER_PART_RSS_PEAK);
}
END_TEST

START_TEST(a_sandbox_that_had_no_place_says_so_and_has_its_processes)
{
        struct usage_message message = { 0 };

        traffic_close_sandbox(&sandbox);
        fill_table();
        traffic_open(&host, SANDBOX, &sandbox.traffic);
        carry(LEAF_A, 1, 2);
        traffic_fill_sandbox(&sandbox, &message);
        check_message(&message, 1, 2);
        expect_missing(&message);
}
END_TEST

START_TEST(sums_do_not_overflow)
{
        carry(LEAF_A, TRAFFIC_BYTES_MAX, 1);
        carry(LEAF_B, TRAFFIC_BYTES_MAX, TRAFFIC_BYTES_MAX);
        carried = (struct egress_counts){ .sent_bytes = UINT64_MAX >> 1, .received_bytes = 5 };
        expect_sandbox(TRAFFIC_BYTES_MAX, TRAFFIC_BYTES_MAX);
        end(&a);
        end(&b);
        expect_sandbox(TRAFFIC_BYTES_MAX, TRAFFIC_BYTES_MAX);
}
END_TEST

START_TEST(places_grow_with_the_sandboxes)
{
        ck_assert_uint_eq(traffic_places(1), 1024);
        ck_assert_uint_eq(traffic_places(5000), 90000);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("traffic");
        TCase *tests = tcase_create("traffic");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, each_has_its_own_and_the_sandbox_all_of_it);
        tcase_add_test(tests, a_process_that_is_over_counts_once);
        tcase_add_test(tests, the_last_bytes_of_a_process_are_counted);
        tcase_add_test(tests, the_last_reading_of_a_sandbox_stays);
        tcase_add_test(tests, what_the_wall_no_longer_knows_stays_counted);
        tcase_add_test(tests, who_had_no_place_says_so);
        tcase_add_test(tests, a_sandbox_that_had_no_place_says_so_and_has_its_processes);
        tcase_add_test(tests, sums_do_not_overflow);
        tcase_add_test(tests, places_grow_with_the_sandboxes);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
