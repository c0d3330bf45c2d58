/* What a hotcell-egress does with the wall's ring when it starts and when networks come and go, and
 * by what a network is proven. */

#include <bpf/libbpf.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <hotcell/egress/v1/egress.pb-c.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/container/egress_probe.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/resolver.h"
#include "runtime/egress/runtime_link.h"
#include "runtime/egress/server_link.h"
#include "runtime/egress/wall_events.h"
#include "test/bpf/fixture.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

enum {
        PATIENCE_SEC = 30,
        PACKET_MAX = 128 << 10,
        NO_LEAF = 1,
        AGO_USEC = 5 * 1000000,
        CLOCK_SLACK_USEC = 1000000, /* between the clocks of the wall's records and of events */
};

#define TO_SERVER(name)    HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name
#define FROM_RUNTIME(name) HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_##name

static char sandbox_id[] = "s1";

static struct fixture f;
static struct egress egress;
static int server_fd = -1; /* hotcelld's end */
static struct events_share others[16];

static uint8_t bytes[PACKET_MAX];
static Hotcell__Egress__V1__ToServer *packet; /* what was heard last */

static void on_packet(void *userdata, const uint8_t *data, size_t n, int *fds, size_t n_fds)
{
        (void)userdata;
        server_link_handle(&egress, data, n, fds, n_fds);
}

static void on_disconnect(void *userdata)
{
        (void)userdata;
}

static int on_sending(sd_event_source *source, void *userdata)
{
        (void)source;
        server_sync_go_on(userdata);
        return 0;
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

        egress = (struct egress){ .routes.fd = -1, .has_v6 = true };
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                egress.tables.fds[i] = -1;
        ck_assert_int_ge(sd_event_new(&egress.event), 0);
        ck_assert_int_ge(sd_event_add_defer(egress.event, &egress.sending, on_sending, &egress), 0);
        ck_assert_int_eq(events_init(&egress.events), 0);
        ck_assert_int_eq(
                tellers_init(&egress.tellers, egress.event, &egress.events, egress.sending), 0);
        ck_assert_int_eq(wire_arena_init(&egress.arena, 1 << 20), 0);
        ck_assert_int_eq(policy_always_init(&egress.always, &none, &none), 0);
        resolver_config_init(&resolver);
        resolver.upstream.servers = "127.0.0.1:9";
        ck_assert_int_eq(resolver_new(egress.event, &resolver, &egress.resolver), 0);
        ck_assert_int_eq(policy_turns_new(&egress, &egress.turns), 0);
        ck_assert_int_eq(server_sync_init(&egress), 0);
        ck_assert_int_eq(channel_new(egress.event, &config, &egress.server), 0);
}

static void setup(void)
{
        log_init("test", LOG_LEVEL_ERROR);
        (void)memset(others, 0, sizeof(others));
        fixture_init(&f);
        make_egress();
        packet = NULL;
}

static void drop_packet(void)
{
        if (packet)
                hotcell__egress__v1__to_server__free_unpacked(packet, NULL);
        packet = NULL;
}

static void teardown(void)
{
        drop_packet();
        (void)close(server_fd);
        egress_deinit(&egress);
        fixture_deinit(&f);
}

/* --- the runtime -------------------------------------------------------------------------------
 */

static void say(const Hotcell__Egress__V1__FromRuntime *message, int *fds, size_t n_fds)
{
        uint8_t packed[256];
        size_t n = hotcell__egress__v1__from_runtime__pack(message, packed);
        int code;

        runtime_link_handle(&egress, packed, n, fds, n_fds);
        ck_assert_int_eq(sd_event_get_exit_code(egress.event, &code), -ENODATA);
}

static void say_start(void)
{
        uint32_t program_ids[EGRESS_PROGRAMS] = { 1 };
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__Start start;
        int fds[_EGRESS_MAP_N];

        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__start__init(&start);
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = fcntl(egress_wall_map_fd(f.wall, (enum egress_map)i), F_DUPFD_CLOEXEC, 0);
        start.n_slots = BOXES;
        start.program_ids = program_ids;
        start.n_program_ids = EGRESS_PROGRAMS;
        message.body_case = FROM_RUNTIME(START);
        message.start = &start;
        say(&message, fds, ARRAY_SIZE(fds));
}

static void say_added(uint64_t init_cgroup_id)
{
        const struct box *box = &f.boxes[0];
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__AddNetwork add;
        int fds[_NETWORK_SOCKET_N];

        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__add_network__init(&add);
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                fds[i] = fcntl(box->netns.sockets[i], F_DUPFD_CLOEXEC, 0);
        add.sandbox_id = sandbox_id;
        add.cgroup_id = box->group.id;
        add.init_cgroup_id = init_cgroup_id;
        message.body_case = FROM_RUNTIME(ADD_NETWORK);
        message.add_network = &add;
        say(&message, fds, ARRAY_SIZE(fds));
}

static void say_removed(void)
{
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__RemoveNetwork remove;

        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__remove_network__init(&remove);
        remove.sandbox_id = sandbox_id;
        message.body_case = FROM_RUNTIME(REMOVE_NETWORK);
        message.remove_network = &remove;
        say(&message, NULL, 0);
}

static void say_server(void)
{
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__ServeServer serve;
        int ends[2];

        ck_assert_int_eq(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__serve_server__init(&serve);
        message.body_case = FROM_RUNTIME(SERVE_SERVER);
        message.serve_server = &serve;
        say(&message, &ends[0], 1);
        server_fd = ends[1];
}

/* --- hotcelld ----------------------------------------------------------------------------------
 */

static void send_message(const Hotcell__Egress__V1__FromServer *message)
{
        uint8_t packed[256];
        size_t n = hotcell__egress__v1__from_server__pack(message, packed);

        ck_assert_int_eq(io_send_packet(server_fd, packed, n, NULL, 0), 0);
}

static void acknowledge(uint64_t number)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__AcknowledgeEvents acknowledged;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__acknowledge_events__init(&acknowledged);
        acknowledged.number = number;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_ACKNOWLEDGE_EVENTS;
        message.acknowledge_events = &acknowledged;
        send_message(&message);
}

static void ask_for_policy(void)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__SetPolicy set;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__set_policy__init(&set);
        set.sandbox_id = sandbox_id;
        set.policy_version = 1;
        message.request = 1;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_SET_POLICY;
        message.set_policy = &set;
        send_message(&message);
}

static void wait_packet(int body)
{
        time_t end = time(NULL) + (time_t)PATIENCE_SEC * test_patience();

        do {
                ssize_t n;

                while ((n = recv(server_fd, bytes, sizeof(bytes), MSG_DONTWAIT)) <= 0) {
                        ck_assert_int_ge(sd_event_run(egress.event, 1000), 0);
                        ck_assert_int_lt(time(NULL), end);
                }
                drop_packet();
                packet = hotcell__egress__v1__to_server__unpack(NULL, (size_t)n, bytes);
                ck_assert_ptr_nonnull(packet);
        } while (packet->body_case == TO_SERVER(COUNTS));
        ck_assert_int_eq((int)packet->body_case, body);
}

static void settle(void)
{
        while (sd_event_run(egress.event, 0) > 0)
                ;
}

/* --- in the box --------------------------------------------------------------------------------
 */

static void refuse(int n)
{
        refuse_in_box(&f.boxes[0], n);
}

static int probe(const void *data)
{
        (void)data;
        return -egress_probe();
}

static void prove(void)
{
        ck_assert_int_eq(in_box(&f.boxes[0], probe, NULL), 0);
}

/* --- the ring ----------------------------------------------------------------------------------
 */

START_TEST(what_was_refused_before_it_knew_its_networks_is_told)
{
        refuse(3);
        say_start();
        settle();
        say_added(NO_LEAF);
        settle();
        say_server();
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 3);
        ck_assert_uint_eq(packet->events->events[0]->port, REFUSED_PORT);
        /* It has no policy yet. */
        ck_assert_int_eq((int)packet->events->events[0]->reason, EGRESS_REASON(UNAVAILABLE));
}
END_TEST

START_TEST(what_was_told_of_a_network_is_not_told_of_the_next)
{
        const int64_t then_usec = time_now_usec() - AGO_USEC;
        const struct egress_event record = { .cgroup_id = f.boxes[0].group.id,
                                             .time_nsec = clock_monotonic_nsec() -
                                                          UINT64_C(1000) * AGO_USEC,
                                             .verdict = EGRESS_DENIED_DEFAULT };
        const Hotcell__Egress__V1__Event *first;

        say_start();
        settle();
        for (int i = 0; i < 3; i++)
                wall_event_push(&egress, &record);
        say_added(NO_LEAF);
        say_removed();
        say_added(NO_LEAF);
        settle();
        say_server();
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 3);
        first = packet->events->events[0];
        ck_assert_int_ge(first->time_usec, then_usec - CLOCK_SLACK_USEC);
        ck_assert_int_le(first->time_usec, time_now_usec() - AGO_USEC + CLOCK_SLACK_USEC);
        ck_assert_uint_eq(egress.events.n_pushed, first->number + 2);
}
END_TEST

/* The oldest are forgotten; what is left is told in its order. */
START_TEST(what_came_before_its_network_is_told_in_its_order)
{
        enum { N = 10 };
        struct egress_event record = { .cgroup_id = 1, .verdict = EGRESS_DENIED_DEFAULT };

        say_start();
        for (size_t i = 0; i < WALL_UNCLAIMED_MAX - N / 2; i++)
                wall_event_push(&egress, &record);
        record.cgroup_id = f.boxes[0].group.id;
        for (record.port = 1; record.port <= N; record.port++)
                wall_event_push(&egress, &record);
        say_added(NO_LEAF);
        say_server();
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, N);
        for (uint32_t i = 0; i < N; i++)
                ck_assert_uint_eq(packet->events->events[i]->port, 1 + i);
}
END_TEST

START_TEST(a_network_that_goes_before_there_is_a_server_has_told_all)
{
        refuse(3);
        say_start();
        say_added(NO_LEAF);
        say_removed();
        say_server();
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 3);
}
END_TEST

/* As when hotcelld does not record. */
START_TEST(a_network_that_goes_with_a_full_queue_loses_nothing_of_the_ring)
{
        const struct event event = { .cgroup_id = 1, .count = 1 };
        const Hotcell__Egress__V1__Event *last;

        say_start();
        say_added(NO_LEAF);
        say_server();
        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                while (events_push(&egress.events, &others[i], &event))
                        ;
        refuse(3);
        say_removed();
        ck_assert_ptr_null(network_tables_find(&egress.networks, sandbox_id));
        server_link_send_events(&egress);
        do {
                wait_packet(TO_SERVER(EVENTS));
                last = packet->events->events[packet->events->n_events - 1];
                acknowledge(last->number);
        } while (last->port != REFUSED_PORT);
        ck_assert_uint_eq(last->cgroup_id, f.boxes[0].group.id);
        ck_assert_uint_eq(last->count, 3);
}
END_TEST

START_TEST(a_network_that_went_is_forgotten_when_its_events_are_recorded)
{
        say_start();
        say_added(NO_LEAF);
        say_server();
        refuse(1);
        say_removed();
        wait_packet(TO_SERVER(EVENTS));
        ck_assert(!LIST_EMPTY(&egress.tellers.busy));
        acknowledge(packet->events->events[0]->number);
        settle();
        ck_assert(LIST_EMPTY(&egress.tellers.busy));
}
END_TEST

static void push_records(uint64_t cgroup_id, size_t n)
{
        const struct egress_event told = { .cgroup_id = cgroup_id,
                                           .verdict = EGRESS_DENIED_DEFAULT };

        for (size_t i = 0; i < n; i++)
                wall_event_push(&egress, &told);
}

START_TEST(records_that_nobody_claimed_are_counted_as_lost)
{
        const uint64_t nobody = f.boxes[0].group.id + 1;
        const uint64_t n_pushed = egress.events.n_pushed;

        say_start();
        push_records(f.boxes[0].group.id, 2);
        push_records(nobody, WALL_UNCLAIMED_MAX - 2);
        ck_assert_uint_eq(egress.events.n_lost, 0);
        say_added(NO_LEAF);
        ck_assert_uint_eq(egress.events.n_pushed, n_pushed + 2);
        /* In place of those that were claimed. */
        push_records(nobody, 2);
        ck_assert_uint_eq(egress.events.n_lost, 0);
        push_records(nobody, 3);
        ck_assert_uint_eq(egress.events.n_lost, 3);
        /* One whose network is known needs no place. */
        push_records(f.boxes[0].group.id, 1);
        ck_assert_uint_eq(egress.events.n_lost, 3);
        ck_assert_uint_eq(egress.events.n_pushed, n_pushed + 3);
}
END_TEST

/* --- the proof ---------------------------------------------------------------------------------
 */

/* The event comes before the network is known, since the probe is what a sandbox begins with. */
START_TEST(the_event_of_the_probe_proves_a_network)
{
        say_start();
        say_server();
        prove();
        settle();
        say_added(f.boxes[0].leaf.id);
        ask_for_policy();
        wait_packet(TO_SERVER(ENFORCED));
        /* It is nothing that a program did. */
        ck_assert_uint_eq(egress.events.n_pushed, egress.events.n_sent);
        ck_assert_uint_eq(egress.events.n_pushed, egress.events.n_recorded);
}
END_TEST

START_TEST(the_event_of_the_probe_may_still_be_in_the_ring)
{
        say_start();
        say_server();
        say_added(f.boxes[0].leaf.id);
        settle();
        prove();
        ask_for_policy();
        wait_packet(TO_SERVER(ENFORCED));
}
END_TEST

/* The counts say that the probe was refused. Each row takes so many of its events away. */
START_TEST(without_the_events_of_the_probe_no_policy_is_enforced)
{
        say_start();
        say_server();
        prove();
        for (int i = 0; i <= _i; i++)
                (void)next_event(&f);
        say_added(f.boxes[0].leaf.id);
        ask_for_policy();
        wait_packet(TO_SERVER(FAILURE));
        ck_assert_int_eq((int)packet->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_NOT_PROVEN);
}
END_TEST

START_TEST(one_family_is_enough_where_there_is_no_other)
{
        egress.has_v6 = false;
        say_start();
        say_server();
        prove();
        say_added(f.boxes[0].leaf.id);
        egress_consume(&egress);
        network_tables_find(&egress.networks, sandbox_id)->has_proof6 = false;
        ask_for_policy();
        wait_packet(TO_SERVER(ENFORCED));
}
END_TEST

/* What its init was refused is no program's doing, and what a program is refused proves nothing. */
START_TEST(what_programs_are_refused_proves_nothing)
{
        say_start();
        say_server();
        prove();
        say_added(NO_LEAF);
        ask_for_policy();
        wait_packet(TO_SERVER(FAILURE));
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 2);
}
END_TEST

/* hotcelld ends its sandbox then, or has not made it. */
START_TEST(a_network_that_was_left_out_is_not_found)
{
        say_start();
        say_server();
        ask_for_policy();
        wait_packet(TO_SERVER(FAILURE));
        ck_assert_int_eq((int)packet->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_NOT_FOUND);
}
END_TEST

START_TEST(a_network_of_a_hotcell_egress_before_is_proven_by_its_counts)
{
        prove();
        for (size_t i = 0; i < 2; i++)
                (void)next_event(&f);
        say_start();
        say_added(f.boxes[0].leaf.id);
        say_server();
        ask_for_policy();
        wait_packet(TO_SERVER(ENFORCED));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("runtime_link");
        TCase *tests = tcase_create("runtime_link");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, what_was_refused_before_it_knew_its_networks_is_told);
        tcase_add_test(tests, what_was_told_of_a_network_is_not_told_of_the_next);
        tcase_add_test(tests, what_came_before_its_network_is_told_in_its_order);
        tcase_add_test(tests, a_network_that_goes_before_there_is_a_server_has_told_all);
        tcase_add_test(tests, a_network_that_goes_with_a_full_queue_loses_nothing_of_the_ring);
        tcase_add_test(tests, a_network_that_went_is_forgotten_when_its_events_are_recorded);
        tcase_add_test(tests, records_that_nobody_claimed_are_counted_as_lost);
        tcase_add_test(tests, the_event_of_the_probe_proves_a_network);
        tcase_add_test(tests, the_event_of_the_probe_may_still_be_in_the_ring);
        tcase_add_loop_test(tests, without_the_events_of_the_probe_no_policy_is_enforced, 0, 2);
        tcase_add_test(tests, one_family_is_enough_where_there_is_no_other);
        tcase_add_test(tests, what_programs_are_refused_proves_nothing);
        tcase_add_test(tests, a_network_that_was_left_out_is_not_found);
        tcase_add_test(tests, a_network_of_a_hotcell_egress_before_is_proven_by_its_counts);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
