/*
 * Policies come into the wall's tables in turns of the loop and are in force once they are whole;
 * what does not come in leaves the one before in force, and nothing behind.
 */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/channel/channel.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/resolver.h"
#include "runtime/egress/server_link.h"
#include "test/bpf/fixture.h"
#include "test/lib/patience.h"

enum {
        PATIENCE_SEC = 30,
        RULES = 10 * POLICY_TURN_ENTRIES + 7,
        PACKET_MAX = 4096,
        TO_SERVER_ENFORCED = HOTCELL__EGRESS__V1__TO_SERVER__BODY_ENFORCED,
        TO_SERVER_FAILURE = HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE,
};

static char sandbox_id[] = "s1";

static struct fixture f;
static struct egress egress;
static struct network *network;
static int server_fd; /* hotcelld's end */
static uint64_t longest_usec;

/* What was heard last. */
static uint8_t packet[PACKET_MAX];
static Hotcell__Egress__V1__ToServer *answer;

/* --- a hotcell-egress without its process ------------------------------------------------------
 */

static void on_packet(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds, size_t n_fds)
{
        (void)userdata;
        server_link_handle(&egress, bytes, n_bytes, fds, n_fds);
}

static void on_disconnect(void *userdata)
{
        (void)userdata;
}

static void connect_server(void)
{
        int ends[2];

        ck_assert_int_eq(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        ck_assert_int_eq(channel_adopt(egress.server, ends[0]), 0);
        server_fd = ends[1];
}

static void make_egress(void)
{
        const struct channel_config config = {
                .peer = "the test",
                .packet_max = PACKET_MAX,
                .queue_bytes_max = 1 << 20,
                .observer = { .on_packet = on_packet, .on_disconnect = on_disconnect },
        };
        const struct policy_prefixes none = { 0 };
        struct resolver_config resolver;
        int fds[_EGRESS_MAP_N];

        egress = (struct egress){ .is_started = true, .routes.fd = -1, .n_connections_max = 16 };
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = fcntl(egress_wall_map_fd(f.wall, (enum egress_map)i), F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(tables_init(&egress.tables, fds, BOXES), 0);
        ck_assert_int_ge(sd_event_new(&egress.event), 0);
        ck_assert_int_eq(events_init(&egress.events), 0);
        ck_assert_int_eq(wire_arena_init(&egress.arena, 1 << 20), 0);
        ck_assert_int_eq(policy_always_init(&egress.always, &none, &none), 0);
        resolver_config_init(&resolver);
        resolver.upstream.servers = "127.0.0.1:9";
        ck_assert_int_eq(resolver_new(egress.event, &resolver, &egress.resolver), 0);
        egress.ring = ring_buffer__new(fds[EGRESS_MAP_EVENTS], NULL, NULL, NULL);
        ck_assert_ptr_nonnull(egress.ring);
        ck_assert_int_eq(policy_turns_new(&egress, &egress.turns), 0);
        ck_assert_int_eq(channel_new(egress.event, &config, &egress.server), 0);
        connect_server();
}

static void make_network(const struct box *box)
{
        const struct egress_counts proven = { .n_denied = 2, .n_logged = 2 };
        const struct network_spec spec = { .sandbox_id = sandbox_id, .cgroup_id = box->group.id };
        int sockets[_NETWORK_SOCKET_N];

        ck_assert_int_eq(bpf_map_update_elem(egress.tables.fds[EGRESS_MAP_COUNTS], &box->group.id,
                                             &proven, BPF_ANY),
                         0);
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                sockets[i] = fcntl(box->netns.sockets[i], F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(network_new(&egress, &spec, sockets, &network), 0);
        ck_assert_int_eq(network_tables_add(&egress.networks, network), 0);
}

static void setup(void)
{
        fixture_init(&f);
        make_egress();
        make_network(&f.boxes[0]);
        longest_usec = 0;
        answer = NULL;
}

static void drop_answer(void)
{
        if (answer)
                hotcell__egress__v1__to_server__free_unpacked(answer, NULL);
        answer = NULL;
}

/* As runtime_link does. */
static void remove_network(void)
{
        policy_turns_forget(egress.turns, network);
        network_tables_remove(&egress.networks, network);
        network = network_free(network);
}

static void teardown(void)
{
        drop_answer();
        (void)close(server_fd);
        egress_deinit(&egress);
        fixture_deinit(&f);
}

/* --- asking ------------------------------------------------------------------------------------
 */

/* A memfd with @n rules for addresses from 1.0.0.0 on, and its size. */
static int write_rules(size_t n, uint32_t *ret_n_bytes)
{
        static char texts[POLICY_RULES_MAX][POLICY_CIDR_BUFFER];
        static Hotcell__Egress__V1__Rule rules[POLICY_RULES_MAX];
        static Hotcell__Egress__V1__Rule *pointers[POLICY_RULES_MAX];
        Hotcell__Egress__V1__Policy message;
        uint8_t *bytes;
        int fd = memfd_create("policy", MFD_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        for (size_t i = 0; i < n; i++) {
                (void)snprintf(texts[i], sizeof(texts[i]), "1.%zu.%zu.0/24", i / 256, i % 256);
                hotcell__egress__v1__rule__init(&rules[i]);
                rules[i].is_allow = true;
                rules[i].destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_CIDR;
                rules[i].cidr = texts[i];
                pointers[i] = &rules[i];
        }
        hotcell__egress__v1__policy__init(&message);
        message.rules = pointers;
        message.n_rules = n;
        *ret_n_bytes = (uint32_t)hotcell__egress__v1__policy__get_packed_size(&message);
        bytes = malloc(*ret_n_bytes + 1);
        ck_assert_ptr_nonnull(bytes);
        (void)hotcell__egress__v1__policy__pack(&message, bytes);
        ck_assert_int_eq(write(fd, bytes, *ret_n_bytes), *ret_n_bytes);
        free(bytes);
        return fd;
}

static void ask(uint64_t request, size_t n_rules)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__SetPolicy set;
        uint8_t bytes[256];
        int fd;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__set_policy__init(&set);
        fd = write_rules(n_rules, &set.policy_bytes);
        set.sandbox_id = sandbox_id;
        set.policy_version = (int64_t)request;
        message.request = request;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_SET_POLICY;
        message.set_policy = &set;
        ck_assert_int_eq(io_send_packet(server_fd, bytes,
                                        hotcell__egress__v1__from_server__pack(&message, bytes),
                                        &fd, 1),
                         0);
        (void)close(fd);
}

static bool hear(void)
{
        ssize_t n = recv(server_fd, packet, sizeof(packet), MSG_DONTWAIT);

        if (n <= 0)
                return false;
        drop_answer();
        answer = hotcell__egress__v1__to_server__unpack(NULL, (size_t)n, packet);
        ck_assert_ptr_nonnull(answer);
        if (answer->body_case == HOTCELL__EGRESS__V1__TO_SERVER__BODY_COUNTS) {
                drop_answer(); /* answers nothing */
                return hear();
        }
        return true;
}

/* One turn of the loop; how long it took is noted. */
static void turn(void)
{
        uint64_t start_usec;

        ck_assert_int_ge(sd_event_prepare(egress.event), 0);
        if (sd_event_get_state(egress.event) == SD_EVENT_ARMED)
                ck_assert_int_ge(sd_event_wait(egress.event, 100000), 0);
        start_usec = clock_monotonic_usec();
        if (sd_event_get_state(egress.event) == SD_EVENT_PENDING)
                ck_assert_int_ge(sd_event_dispatch(egress.event), 0);
        longest_usec = MAX(longest_usec, clock_monotonic_usec() - start_usec);
}

static void run_until(bool (*condition)(const void *userdata), const void *userdata)
{
        time_t end = time(NULL) + (time_t)PATIENCE_SEC * test_patience();

        while (!condition(userdata)) {
                turn();
                ck_assert_msg(time(NULL) < end, "waited for too long");
        }
}

static bool is_heard(const void *userdata)
{
        (void)userdata;
        return hear();
}

static void expect_answer(uint64_t request, int body_case)
{
        run_until(is_heard, NULL);
        ck_assert_uint_eq(answer->request, request);
        ck_assert_int_eq((int)answer->body_case, body_case);
}

static void put_in_force(uint64_t request, size_t n_rules)
{
        ask(request, n_rules);
        expect_answer(request, TO_SERVER_ENFORCED);
}

/* --- looking ----------------------------------------------------------------------------------
 */

static size_t count(void)
{
        struct egress_prefix4 key, next;
        const void *previous = NULL;
        size_t n = 0;

        while (bpf_map_get_next_key(egress.tables.fds[EGRESS_MAP_PREFIXES4], previous, &next) ==
               0) {
                key = next;
                previous = &key;
                n++;
        }
        return n;
}

static bool has_entries(const void *userdata)
{
        return count() == *(const size_t *)userdata;
}

static bool has_any(const void *userdata)
{
        (void)userdata;
        return count() > 0;
}

static uint32_t policy_in_force(void)
{
        struct egress_sandbox entry;

        ck_assert_int_eq(bpf_map_lookup_elem(egress.tables.fds[EGRESS_MAP_SANDBOXES],
                                             &f.boxes[0].group.id, &entry),
                         0);
        return entry.policy;
}

START_TEST(a_large_policy_comes_in_turns_and_is_in_force_when_it_is_whole)
{
        size_t n_before, n = 3;
        unsigned n_turns = 0;
        uint32_t old;

        put_in_force(1, n);
        old = policy_in_force();
        ask(2, RULES);
        while (!hear()) {
                n_before = n;
                ck_assert_uint_eq(policy_in_force(), old);
                turn();
                n = count();
                ck_assert_uint_le(n, n_before + POLICY_TURN_ENTRIES);
                n_turns += n > n_before;
        }
        ck_assert_int_eq((int)answer->body_case, TO_SERVER_ENFORCED);
        ck_assert_uint_ge(n_turns, RULES / POLICY_TURN_ENTRIES);
        ck_assert_uint_ne(policy_in_force(), old);
        ck_assert_uint_eq(count(), RULES);
        ck_assert_int_eq(network->policy.version, 2);
}
END_TEST

START_TEST(a_large_policy_goes_in_turns_too)
{
        size_t n_before, n;

        put_in_force(1, RULES);
        put_in_force(2, 3);
        for (n = count(); n > 3; n = count()) {
                n_before = n;
                turn();
                ck_assert_uint_ge(count() + POLICY_TURN_ENTRIES, n_before);
        }
        put_in_force(3, RULES);
        remove_network();
        n = 0;
        run_until(has_entries, &n);
}
END_TEST

/* The wall's own tables are large: here are smaller ones. */
static void shrink_tables(uint32_t n_entries)
{
        LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
        int *fd = &egress.tables.fds[EGRESS_MAP_PREFIXES4];

        (void)close(*fd);
        *fd = bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "small", sizeof(struct egress_prefix4),
                             sizeof(struct egress_ranges), n_entries, &options);
        ck_assert_int_ge(*fd, 0);
}

START_TEST(full_tables_refuse_a_policy_and_leave_the_one_before_in_force)
{
        size_t n_first = 2 * POLICY_TURN_ENTRIES;
        uint32_t first;

        shrink_tables(5 * POLICY_TURN_ENTRIES);
        put_in_force(1, n_first);
        first = policy_in_force();
        ask(2, 4 * POLICY_TURN_ENTRIES);
        expect_answer(2, TO_SERVER_FAILURE);
        ck_assert_int_eq((int)answer->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_EXHAUSTED);
        ck_assert_ptr_nonnull(strstr(answer->failure->message, "the tables of the wall are full"));
        ck_assert_uint_eq(policy_in_force(), first);
        ck_assert_int_eq(network->policy.version, 1);
        run_until(has_entries, &n_first);
        /* What fits still comes in. */
        put_in_force(3, 3 * POLICY_TURN_ENTRIES);
        ck_assert_uint_ne(policy_in_force(), first);
}
END_TEST

START_TEST(a_network_that_goes_takes_its_policy_with_it)
{
        const size_t none = 0;

        ask(1, RULES);
        run_until(has_any, NULL);
        remove_network();
        expect_answer(1, TO_SERVER_FAILURE);
        ck_assert_int_eq((int)answer->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_NOT_FOUND);
        ck_assert_uint_eq(policy_in_force(), EGRESS_POLICY_ALWAYS);
        run_until(has_entries, &none);
        make_network(&f.boxes[0]);
        put_in_force(2, RULES);
}
END_TEST

/* Also while its policy is with the thread. */
START_TEST(a_network_may_go_before_its_policy_is_made)
{
        ask(1, RULES);
        turn();
        ck_assert_uint_eq(count(), 0);
        remove_network();
        expect_answer(1, TO_SERVER_FAILURE);
        make_network(&f.boxes[0]);
        put_in_force(2, 3);
        ck_assert_uint_eq(count(), 3);
}
END_TEST

START_TEST(another_hotcelld_hears_no_answer_that_it_did_not_ask_for)
{
        ask(1, RULES);
        run_until(has_any, NULL);
        (void)close(server_fd);
        connect_server();
        put_in_force(2, 3);
        ck_assert_uint_eq(answer->request, 2);
}
END_TEST

START_TEST(what_is_asked_meanwhile_is_answered_in_its_order)
{
        ask(1, RULES);
        ask(2, 3);
        ask(3, RULES);
        for (uint64_t i = 1; i <= 3; i++)
                expect_answer(i, TO_SERVER_ENFORCED);
        ck_assert_int_eq(network->policy.version, 3);
}
END_TEST

/* A figure for people. */
START_TEST(the_longest_policy_and_its_longest_turn)
{
        uint64_t start_usec = clock_monotonic_usec();
        size_t n = POLICY_RULES_MAX;

        put_in_force(1, POLICY_RULES_MAX);
        printf("# %d rules: %.1f ms in all, the longest turn of the loop %.1f ms\n",
               POLICY_RULES_MAX, (double)(clock_monotonic_usec() - start_usec) / 1000,
               (double)longest_usec / 1000);
        put_in_force(2, POLICY_RULES_MAX);
        run_until(has_entries, &n);
        printf("# and again: the longest turn %.1f ms\n", (double)longest_usec / 1000);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("policy_turns");
        TCase *tests = tcase_create("policy_turns");
        SRunner *runner;
        int n_failed;

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, a_large_policy_comes_in_turns_and_is_in_force_when_it_is_whole);
        tcase_add_test(tests, a_large_policy_goes_in_turns_too);
        tcase_add_test(tests, full_tables_refuse_a_policy_and_leave_the_one_before_in_force);
        tcase_add_test(tests, a_network_that_goes_takes_its_policy_with_it);
        tcase_add_test(tests, a_network_may_go_before_its_policy_is_made);
        tcase_add_test(tests, another_hotcelld_hears_no_answer_that_it_did_not_ask_for);
        tcase_add_test(tests, what_is_asked_meanwhile_is_answered_in_its_order);
        tcase_add_test(tests, the_longest_policy_and_its_longest_turn);
        suite_add_tcase(suite, tests);
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
