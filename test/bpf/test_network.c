/* What a network leaves in the wall's tables, of its policies and names, and how its events are. */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/dns_service.h"
#include "test/bpf/asking.h"
#include "test/lib/suite.h"
#include "test/unit/egress/fake_upstream.h"

#define ADDRESS   "93.184.216.34"
#define HOUR_USEC UINT64_C(3600000000)

enum { GRACE_SEC = 30 /* that an address is good for longer than its record */ };

/* --- what is left ------------------------------------------------------------------------------
 */

static void expect_entries(size_t n_prefixes4, size_t n_prefixes6, size_t n_names)
{
        ck_assert_uint_eq(count_entries(EGRESS_MAP_PREFIXES4), n_prefixes4);
        ck_assert_uint_eq(count_entries(EGRESS_MAP_PREFIXES6), n_prefixes6);
        ck_assert_uint_eq(count_entries(EGRESS_MAP_NAMES), n_names);
}

START_TEST(an_update_leaves_nothing_of_the_policy_before)
{
        const struct wanted other = { .n_rules4 = 1, .n_rules6 = 4, .domain = "other.test" };

        enforce(1, &wild);
        expect_entries(3, 2, 0);
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        expect_entries(3, 2, 1);
        enforce(2, &wild);
        expect_entries(3, 2, 1);
        enforce(3, &other);
        expect_entries(1, 4, 0);
        /* What was asked for is still known. */
        enforce(4, &wild);
        expect_entries(3, 2, 1);
        enforce(5, &(struct wanted){ 0 });
        expect_entries(0, 0, 0);
}
END_TEST

START_TEST(an_update_that_fails_leaves_nothing_of_itself)
{
        enforce(1, &wild);
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        /* As if the runtime had removed it meanwhile. */
        egress_wall_forget(f.wall, f.boxes[0].group.id);
        count_refusals(2, 2);
        ask_for(2, &wild);
        expect_answer(2, TO_SERVER_FAILURE);
        ck_assert_int_eq(network->policy.version, 1);
        expect_entries(3, 2, 1);
}
END_TEST

START_TEST(a_network_that_is_removed_leaves_nothing)
{
        enforce(1, &wild);
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        ck_assert_uint_eq(ask_name("b.wild.test"), 0); /* at the same address */
        expect_entries(3, 2, 1);
        remove_network();
        expect_entries(0, 0, 0);
        make_network();
}
END_TEST

/* As many as one network may have. */
static void fill_names(bool are_over)
{
        const uint64_t now_usec = clock_monotonic_usec();
        struct name_entry entry = { .name = "old.wild.test", .expire_usec = now_usec + HOUR_USEC };

        for (size_t i = 0; i < NAMES_ADDRESSES_MAX; i++) {
                const uint8_t bytes[4] = { 9, 9, (uint8_t)(i >> 8), (uint8_t)i };
                const struct policy_address address = policy_address_v4(bytes);
                struct named_address *named;

                ck_assert_int_eq(
                        names_admit(&network->names, &address, &entry, now_usec, NULL, NULL), 0);
                named = (struct named_address *)(uintptr_t)names_find(&network->names, &address,
                                                                      now_usec);
                ck_assert_int_eq(dns_service_admit_to_wall(network, &network->policy, named), 0);
                if (are_over)
                        named->entries[0].expire_usec = now_usec;
        }
}

START_TEST(names_whose_time_is_over_make_room_in_the_wall_too)
{
        enforce(1, &wild);
        fill_names(true);
        expect_entries(3, 2, NAMES_ADDRESSES_MAX);
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        expect_entries(3, 2, 1);
}
END_TEST

START_TEST(names_whose_time_is_over_are_not_carried_over)
{
        enforce(1, &wild);
        fill_names(true);
        enforce(2, &wild);
        expect_entries(3, 2, 0);
}
END_TEST

/* --- before there is a policy ------------------------------------------------------------------
 */

START_TEST(what_is_refused_without_a_policy_is_unavailable)
{
        const uint8_t bytes[4] = { 93, 184, 216, 34 };
        const struct policy_address address = policy_address_v4(bytes);
        struct network_ruling ruling;

        network_judge(network, &address, 443, &ruling);
        ck_assert(!ruling.is_allowed);
        ck_assert_int_eq((int)ruling.reason, EGRESS_REASON(UNAVAILABLE));
        ck_assert_uint_eq(ask_name("a.wild.test"), REFUSED);
        expect_answer(0, HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS);
        ck_assert_int_eq((int)answer->events->events[0]->reason, EGRESS_REASON(UNAVAILABLE));
        ck_assert_str_eq(answer->events->events[0]->name, "a.wild.test");
        enforce(1, &(struct wanted){ 0 });
        ck_assert_uint_eq(ask_name("b.wild.test"), REFUSED);
        expect_answer(0, HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS);
        ck_assert_int_eq((int)answer->events->events[0]->reason, EGRESS_REASON(DEFAULT));
}
END_TEST

/* What a program does next, such as to end, comes after it. */
START_TEST(a_refusal_is_told_before_it_is_answered)
{
        enforce(1, &wild);
        ck_assert_uint_eq(ask_name("other.test"), REFUSED);
        ck_assert(hear());
        ck_assert_int_eq((int)answer->body_case, HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS);
        ck_assert_str_eq(answer->events->events[0]->name, "other.test");
}
END_TEST

/* What the wall would not let through is not given out. */
START_TEST(a_name_for_which_there_is_no_room_fails_and_is_told)
{
        const int64_t before_usec = time_now_usec();

        enforce(1, &wild);
        fill_names(false);
        ck_assert_uint_eq(ask_name("a.wild.test"), SERVFAIL);
        expect_entries(3, 2, NAMES_ADDRESSES_MAX);
        ck_assert_int_eq(last_event()->decision, EGRESS_DECISION(FAILED));
        ck_assert_int_eq(last_event()->source, EGRESS_SOURCE(RESOLVER));
        ck_assert_int_eq(last_event()->error_number, ENOSPC);
        ck_assert_str_eq(last_event()->name, "a.wild.test");
        ck_assert_uint_eq(last_event()->port, 53);
        ck_assert_int_ge(last_event()->asked_usec, before_usec);
        ck_assert_int_le(last_event()->asked_usec, last_event()->time_usec);
}
END_TEST

START_TEST(a_type_that_is_refused_is_told_with_its_name)
{
        static const struct {
                unsigned type;
                const char *told;
        } types[] = { { DNS_TXT, "a.wild.test TXT" }, { 65280, "a.wild.test TYPE65280" } };

        enforce(1, &wild);
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                ck_assert_uint_eq(ask_type("a.wild.test", types[i].type), REFUSED);
                ck_assert_int_eq(last_event()->decision, EGRESS_DECISION(DENIED));
                ck_assert_int_eq(last_event()->reason, EGRESS_REASON(RECORD_TYPE));
                ck_assert_str_eq(last_event()->name, types[i].told);
        }
}
END_TEST

START_TEST(a_type_that_is_allowed_allows_no_other)
{
        enforce(1, &(struct wanted){ .domain = "*.wild.test", .dns_type = DNS_MX });
        ck_assert_uint_ne(ask_type("a.wild.test", DNS_MX), REFUSED);
        ck_assert_uint_eq(ask_type("a.wild.test", DNS_TXT), REFUSED);
        ck_assert_str_eq(last_event()->name, "a.wild.test TXT");
}
END_TEST

START_TEST(what_the_wall_refuses_has_the_name_of_its_address)
{
        const uint32_t address = inet_addr(ADDRESS);
        struct egress_event record = { .cgroup_id = f.boxes[0].group.id,
                                       .leaf_id = 9,
                                       .time_nsec = clock_monotonic_nsec(),
                                       .verdict = EGRESS_DENIED_DEFAULT,
                                       .port = 80,
                                       .protocol = IPPROTO_TCP };

        enforce(1, &wild);
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        (void)memcpy(record.address, &address, sizeof(address));
        wall_event_push(&egress, &record);
        ck_assert_str_eq(last_event()->name, "a.wild.test");
        record.address[3]++;
        wall_event_push(&egress, &record);
        ck_assert_str_eq(last_event()->name, "");
}
END_TEST

/* Of what the default allows, once it is known as the address of a name that is denied. */
START_TEST(the_address_of_a_name_that_is_denied_is_not_let_through)
{
        const uint32_t bytes = inet_addr(ADDRESS);
        const struct policy_address address = policy_address_v4(&bytes);
        struct network_ruling ruling;

        enforce(1, &(struct wanted){ .is_public = true });
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        network_judge(network, &address, 443, &ruling);
        ck_assert(ruling.is_allowed && !ruling.is_by_name);
        enforce(2, &(struct wanted){ .is_public = true, .denied = "a.wild.test" });
        network_judge(network, &address, 443, &ruling);
        ck_assert(!ruling.is_allowed);
        ck_assert_int_eq((int)ruling.reason, EGRESS_REASON(RULE));
        ck_assert_str_eq(ruling.name, "a.wild.test");
}
END_TEST

/* --- how long, and on which ports ---------------------------------------------------------------
 */

static struct egress_name name_in_wall(void)
{
        struct egress_name_key key;
        struct egress_name name;
        int fd = egress.tables.fds[EGRESS_MAP_NAMES];

        ck_assert_int_eq(bpf_map_get_next_key(fd, NULL, &key), 0);
        ck_assert_int_eq(bpf_map_lookup_elem(fd, &key, &name), 0);
        return name;
}

START_TEST(an_address_is_good_as_long_as_the_longest_of_its_names)
{
        const uint64_t second_nsec = UINT64_C(1000000000);
        uint64_t before_nsec, expire_nsec;

        enforce(1, &wild);
        before_nsec = clock_monotonic_nsec();
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        expire_nsec = name_in_wall().expire_nsec;
        /* The clock of names counts microseconds. */
        ck_assert_uint_ge(expire_nsec + 1000, before_nsec + (60 + GRACE_SEC) * second_nsec);
        ck_assert_uint_le(expire_nsec, clock_monotonic_nsec() + (60 + GRACE_SEC) * second_nsec);
        asking_ttl_sec = TTL_MIN_SEC;
        ck_assert_uint_eq(ask_name("b.wild.test"), 0);
        ck_assert_uint_eq(name_in_wall().expire_nsec, expire_nsec);
}
END_TEST

/* Names with some ports each, of which none touch. */
static void name_ports(size_t n_names, unsigned n_ports, struct policy_table *ret_table)
{
        struct policy policy = { .default_action = POLICY_DEFAULT_DENY };
        size_t refused;

        for (size_t i = 0; i < n_names; i++) {
                struct policy_rule rule = { .action = POLICY_ALLOW,
                                            .protocol = POLICY_TCP,
                                            .is_domain = true };

                (void)snprintf(rule.domain, sizeof(rule.domain), "n%zu.test", i);
                for (unsigned k = 0; k < n_ports; k++) {
                        int port = (int)(1000 + 2 * (i * n_ports + k));

                        ck_assert_int_eq(policy_rule_add_ports(&rule, port, port), 0);
                }
                ck_assert_int_eq(policy_add(&policy, &rule), 0);
        }
        ck_assert_int_eq(policy_compile(&policy, ret_table, &refused), 0);
        policy_deinit(&policy);
}

static struct egress_ranges admit_names(size_t n_names, const struct network_policy *policy)
{
        struct named_address address = { .address = policy_address_v4("\x08\x08\x08\x08"),
                                         .n_entries = n_names };

        for (size_t i = 0; i < n_names; i++) {
                (void)snprintf(address.entries[i].name, sizeof(address.entries[i].name),
                               "n%zu.test", i);
                address.entries[i].expire_usec = clock_monotonic_usec() + HOUR_USEC;
        }
        ck_assert_int_eq(dns_service_admit_to_wall(network, policy, &address), 0);
        return name_in_wall().allowed;
}

/* The wall lets through what any of the names allows; the relay judges each for itself. */
START_TEST(ports_of_all_names_of_an_address_are_open_in_the_wall)
{
        struct network_policy policy = { .number = 77 };
        struct egress_ranges allowed;

        name_ports(2, EGRESS_RANGES_MAX / 2, &policy.table);
        allowed = admit_names(2, &policy);
        ck_assert_uint_eq(allowed.n_ranges, EGRESS_RANGES_MAX);
        for (size_t i = 0; i < EGRESS_RANGES_MAX; i++) {
                ck_assert_uint_eq(allowed.ranges[i].low, 1000 + 2 * i);
                ck_assert_uint_eq(allowed.ranges[i].high, 1000 + 2 * i);
                ck_assert_uint_eq(allowed.ranges[i].action, EGRESS_ALLOW);
        }
        policy_table_deinit(&policy.table);

        name_ports(3, EGRESS_RANGES_MAX / 2, &policy.table);
        allowed = admit_names(3, &policy);
        ck_assert_uint_eq(allowed.n_ranges, 1);
        ck_assert_uint_eq(allowed.ranges[0].low, 1);
        ck_assert_uint_eq(allowed.ranges[0].high, UINT16_MAX);
        ck_assert_uint_eq(allowed.ranges[0].action, EGRESS_ALLOW);
        ck_assert_uint_eq(allowed.ranges[0].protocol, IPPROTO_TCP);
        policy_table_deinit(&policy.table);
}
END_TEST

/* What one name denies another one of the same address may allow. */
START_TEST(what_a_name_denies_is_not_closed_for_the_others)
{
        struct network_policy policy = { .number = 77 };
        struct policy rules = { .default_action = POLICY_DEFAULT_DENY };
        struct egress_ranges allowed;
        size_t refused;

        for (size_t i = 0; i < 3; i++) {
                struct policy_rule rule = { .action = i == 2 ? POLICY_DENY : POLICY_ALLOW,
                                            .protocol = POLICY_TCP,
                                            .is_domain = true };

                (void)snprintf(rule.domain, sizeof(rule.domain), "n%d.test", i > 0);
                ck_assert_int_eq(policy_rule_add_ports(&rule, 80, i == 2 ? 80 : 90), 0);
                ck_assert_int_eq(policy_add(&rules, &rule), 0);
        }
        ck_assert_int_eq(policy_compile(&rules, &policy.table, &refused), 0);
        policy_deinit(&rules);
        allowed = admit_names(2, &policy);
        ck_assert_uint_eq(allowed.n_ranges, 1);
        ck_assert_uint_eq(allowed.ranges[0].low, 80);
        ck_assert_uint_eq(allowed.ranges[0].high, 90);
        ck_assert_uint_eq(allowed.ranges[0].action, EGRESS_ALLOW);
        policy_table_deinit(&policy.table);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("network");
        TCase *tests = tcase_create("network");

        tcase_add_checked_fixture(tests, asking_setup, asking_teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, an_update_leaves_nothing_of_the_policy_before);
        tcase_add_test(tests, an_update_that_fails_leaves_nothing_of_itself);
        tcase_add_test(tests, a_network_that_is_removed_leaves_nothing);
        tcase_add_test(tests, names_whose_time_is_over_make_room_in_the_wall_too);
        tcase_add_test(tests, names_whose_time_is_over_are_not_carried_over);
        tcase_add_test(tests, what_is_refused_without_a_policy_is_unavailable);
        tcase_add_test(tests, a_refusal_is_told_before_it_is_answered);
        tcase_add_test(tests, a_name_for_which_there_is_no_room_fails_and_is_told);
        tcase_add_test(tests, a_type_that_is_refused_is_told_with_its_name);
        tcase_add_test(tests, a_type_that_is_allowed_allows_no_other);
        tcase_add_test(tests, what_the_wall_refuses_has_the_name_of_its_address);
        tcase_add_test(tests, the_address_of_a_name_that_is_denied_is_not_let_through);
        tcase_add_test(tests, an_address_is_good_as_long_as_the_longest_of_its_names);
        tcase_add_test(tests, ports_of_all_names_of_an_address_are_open_in_the_wall);
        tcase_add_test(tests, what_a_name_denies_is_not_closed_for_the_others);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
