/* What a network leaves in the wall's tables, of its policies and names; and which names it
 * rations. */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/dns_service.h"
#include "test/bpf/egress_loop.h"
#include "test/unit/egress/fake_upstream.h"

#define ADDRESS   "93.184.216.34"
#define HOUR_USEC UINT64_C(3600000000)

enum { NEW_NAMES = 3, DNS_A = 1, REFUSED = 5, QUERY_BUFFER = 512 };

static struct fake_upstream upstream;
static int client_fd; /* of a program in the box */

static void answer_it(const struct asked *asked)
{
        static struct packet packet;

        answer_begin(&packet, asked, 0, 1);
        put_address(&packet, asked->name, 60, ADDRESS);
        answer_send(&packet, asked);
}

static void configure(struct resolver_config *config)
{
        fake_upstream_init(&upstream, egress.event);
        upstream.script = answer_it;
        config->upstream.servers = upstream.server;
        config->new_names.interval_usec = HOUR_USEC;
        config->new_names.burst = NEW_NAMES;
}

static int connect_client(void)
{
        const struct sockaddr_in to = { .sin_family = AF_INET,
                                        .sin_port = htons(53),
                                        .sin_addr.s_addr = inet_addr("127.0.0.53") };
        int fd;

        ck_assert_int_eq(setns(f.boxes[0].netns.fd, CLONE_NEWNET), 0);
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        ck_assert_int_eq(setns(f.home_fd, CLONE_NEWNET), 0);
        ck_assert_int_eq(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
        return fd;
}

static void setup(void)
{
        egress_loop_init(configure);
        client_fd = connect_client();
}

static void teardown(void)
{
        (void)close(client_fd);
        fake_upstream_deinit(&upstream);
        egress_loop_deinit();
}

static bool has_answer(const void *userdata)
{
        (void)userdata;
        return recv(client_fd, NULL, 0, MSG_PEEK | MSG_TRUNC) > 0;
}

/* The answer's code. */
static unsigned ask_name(const char *name)
{
        static struct packet packet;
        uint8_t bytes[QUERY_BUFFER];

        packet = (struct packet){ 0 };
        put_query(&packet, name, DNS_A);
        ck_assert_int_eq(send(client_fd, packet.bytes, packet.n_bytes, 0), packet.n_bytes);
        run_until(has_answer, NULL);
        ck_assert_int_gt(recv(client_fd, bytes, sizeof(bytes), 0), 12);
        return get_rcode(bytes);
}

/* --- what is left ------------------------------------------------------------------------------
 */

static const struct wanted wild = { .n_rules4 = 3, .n_rules6 = 2, .domain = "*.wild.test" };

static void expect_entries(size_t n_prefixes4, size_t n_prefixes6, size_t n_names)
{
        ck_assert_uint_eq(count_entries(EGRESS_MAP_PREFIXES4), n_prefixes4);
        ck_assert_uint_eq(count_entries(EGRESS_MAP_PREFIXES6), n_prefixes6);
        ck_assert_uint_eq(count_entries(EGRESS_MAP_NAMES), n_names);
}

static void enforce(uint64_t request, const struct wanted *wanted)
{
        ask_for(request, wanted);
        expect_answer(request, TO_SERVER_ENFORCED);
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

/* As many as one network may have, whose time is over. */
static void fill_names(void)
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
                named->entries[0].expire_usec = now_usec;
        }
}

START_TEST(names_whose_time_is_over_make_room_in_the_wall_too)
{
        enforce(1, &wild);
        fill_names();
        expect_entries(3, 2, NAMES_ADDRESSES_MAX);
        ck_assert_uint_eq(ask_name("a.wild.test"), 0);
        expect_entries(3, 2, 1);
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

/* --- names that are rationed -------------------------------------------------------------------
 */

static const struct wanted rationed[] = {
        { .domain = "*.wild.test" },
        { .is_public = true },
        { .is_public = true, .domain = "*.wild.test" },
};

/* What a tunnel would be, also where any name is allowed. */
START_TEST(new_labels_are_rationed_where_any_may_be_asked_for)
{
        char name[64];

        enforce(1, &rationed[_i]);
        for (unsigned i = 0; i < NEW_NAMES; i++) {
                (void)snprintf(name, sizeof(name), "%u.wild.test", i);
                ck_assert_uint_eq(ask_name(name), 0);
        }
        ck_assert_uint_eq(upstream.n_udp, NEW_NAMES);
        ck_assert_uint_eq(ask_name("more.wild.test"), REFUSED);
        ck_assert_uint_eq(upstream.n_udp, NEW_NAMES);
        /* One that is not new. */
        ck_assert_uint_eq(ask_name("0.wild.test"), 0);
}
END_TEST

START_TEST(a_name_that_a_rule_has_whole_is_not_rationed)
{
        char name[64];

        enforce(1, &(struct wanted){ .is_public = true, .domain = "exact.test" });
        for (unsigned i = 0; i < NEW_NAMES; i++) {
                (void)snprintf(name, sizeof(name), "%u.wild.test", i);
                ck_assert_uint_eq(ask_name(name), 0);
        }
        ck_assert_uint_eq(ask_name("more.wild.test"), REFUSED);
        ck_assert_uint_eq(ask_name("exact.test"), 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("network");
        TCase *tests = tcase_create("network");
        SRunner *runner;
        int n_failed;

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, an_update_leaves_nothing_of_the_policy_before);
        tcase_add_test(tests, an_update_that_fails_leaves_nothing_of_itself);
        tcase_add_test(tests, a_network_that_is_removed_leaves_nothing);
        tcase_add_test(tests, names_whose_time_is_over_make_room_in_the_wall_too);
        tcase_add_test(tests, what_is_refused_without_a_policy_is_unavailable);
        tcase_add_loop_test(tests, new_labels_are_rationed_where_any_may_be_asked_for, 0,
                            ARRAY_SIZE(rationed));
        tcase_add_test(tests, a_name_that_a_rule_has_whole_is_not_rationed);
        suite_add_tcase(suite, tests);
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
