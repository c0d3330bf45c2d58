/* The networks that hotcell-egress serves, and what it does when there is no memory for one. */

#include <check.h>
#include <errno.h>
#include <hotcell/egress/v1/egress.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/runtime_link.h"
#include "test/lib/suite.h"
#include "test/unit/egress/want.h"

/* More than a new table holds before it grows. */
enum { NETWORKS = 1000 };

static struct network_tables tables;
static struct network *networks;

static void setup(void)
{
        tables = (struct network_tables){ 0 };
        networks = calloc(NETWORKS, sizeof(*networks));
        ck_assert_ptr_nonnull(networks);
        for (size_t i = 0; i < NETWORKS; i++) {
                networks[i].cgroup_id = 1000 + i;
                (void)snprintf(networks[i].sandbox_id, sizeof(networks[i].sandbox_id), "s%zu", i);
        }
}

static void teardown(void)
{
        while (tables.by_id)
                network_tables_remove(&tables, tables.by_id);
        ck_assert_ptr_null(tables.by_group);
        free(networks);
}

static void expect_found(size_t i)
{
        ck_assert_ptr_eq(network_tables_find(&tables, networks[i].sandbox_id), &networks[i]);
        ck_assert_ptr_eq(network_tables_find_group(&tables, networks[i].cgroup_id), &networks[i]);
}

START_TEST(tables_that_cannot_grow_hold_all_the_same)
{
        ck_assert_int_eq(network_tables_add(&tables, &networks[0]), 0);
        use_reserve_up();
        begin_want(0);
        for (size_t i = 1; i < NETWORKS; i++)
                ck_assert_int_eq(network_tables_add(&tables, &networks[i]), 0);
        end_want();
        give_reserve_back();
        for (size_t i = 0; i < NETWORKS; i++)
                expect_found(i);
}
END_TEST

/* Two tables of two allocations each. */
START_TEST(a_network_is_in_both_tables_or_in_none)
{
        use_reserve_up();
        for (size_t n_good = 0; n_good < 4; n_good++) {
                begin_want(n_good);
                ck_assert_int_eq(network_tables_add(&tables, &networks[0]), -ENOMEM);
                end_want();
                ck_assert_ptr_null(tables.by_id);
                ck_assert_ptr_null(tables.by_group);
        }
        ck_assert_int_eq(network_tables_add(&tables, &networks[0]), 0);
        expect_found(0);
        give_reserve_back();
}
END_TEST

/* As the runtime tells it. */
static size_t pack_network(uint8_t *bytes, size_t size)
{
        char id[] = "s1";
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__AddNetwork add;

        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__add_network__init(&add);
        add.sandbox_id = id;
        add.cgroup_id = 7;
        message.body_case = HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_ADD_NETWORK;
        message.add_network = &add;
        ck_assert_uint_le(hotcell__egress__v1__from_runtime__get_packed_size(&message), size);
        return hotcell__egress__v1__from_runtime__pack(&message, bytes);
}

START_TEST(a_network_without_memory_is_left_out_and_the_others_go_on)
{
        struct egress egress = { .is_started = true, .tables.n_slots = 1 };
        int fds[_NETWORK_SOCKET_N], sockets[_NETWORK_SOCKET_N];
        uint8_t bytes[256];
        size_t n_bytes = pack_network(bytes, sizeof(bytes));
        int code;

        ck_assert_int_ge(sd_event_new(&egress.event), 0);
        ck_assert_int_eq(wire_arena_init(&egress.arena, 4096), 0);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                sockets[i] = fds[i] = eventfd(0, EFD_CLOEXEC);
                ck_assert_int_ge(fds[i], 0);
        }
        begin_want(0);
        runtime_link_handle(&egress, bytes, n_bytes, fds, ARRAY_SIZE(fds));
        end_want();
        ck_assert_int_eq(sd_event_get_exit_code(egress.event, &code), -ENODATA);
        ck_assert_ptr_null(network_tables_find(&egress.networks, "s1"));
        for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
                ck_assert_int_eq(close(sockets[i]), -1); /* they were taken, and closed */
        wire_arena_deinit(&egress.arena);
        (void)sd_event_unref(egress.event);
}
END_TEST

START_TEST(sockets_of_all_networks_are_left_out_of_the_places)
{
        static const struct {
                uint32_t n_networks;
                size_t n_places; /* of 10,000 descriptors */
        } rows[] = { { 1, (10000 - 4096) / 6 },
                     { 148, (10000 - 4096) / 6 },
                     { 150, (10000 - 1024 - 256 - (3 + 16) * 150) / 6 },
                     { 16384, 5000 / 6 } };
        const struct rlimit limit = { 10000, 10000 };
        struct egress egress = { 0 };

        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                egress_count_places(&egress, rows[i].n_networks);
                ck_assert_uint_eq(egress.n_connections_max, rows[i].n_places);
        }
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("networks");
        TCase *tests = tcase_create("networks");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, tables_that_cannot_grow_hold_all_the_same);
        tcase_add_test(tests, a_network_is_in_both_tables_or_in_none);
        tcase_add_test(tests, a_network_without_memory_is_left_out_and_the_others_go_on);
        tcase_add_test(tests, sockets_of_all_networks_are_left_out_of_the_places);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
