/* When a sync is answered, and which counts are told, with a wall whose ring has real refusals. */

#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <hotcell/egress/v1/egress.pb-c.h>
#include <netinet/in.h>
#include <stdlib.h>
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
#include "test/lib/suite.h"

enum { PATIENCE_SEC = 30, PACKET_MAX = 128 << 10, CLOCKS_USEC = 1000000 };

#define TO_SERVER(name) HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name

static char sandbox_id[] = "s1";

static struct fixture f;
static struct egress egress;
static struct network *network;
static int server_fd; /* hotcelld's end */

static struct events_share others[16]; /* of the queue */

static uint8_t bytes[PACKET_MAX];
static Hotcell__Egress__V1__ToServer *packet; /* what was heard last */

static int on_told(void *userdata, void *data, size_t size)
{
        ck_assert_uint_eq(size, sizeof(struct egress_event));
        wall_event_push(userdata, data);
        server_sync_count_soon(userdata);
        return 0;
}

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
        struct resolver_config resolver;
        int fds[_EGRESS_MAP_N];

        egress = (struct egress){ .is_started = true, .routes.fd = -1, .has_v6 = true };
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = fcntl(egress_wall_map_fd(f.wall, (enum egress_map)i), F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(tables_init(&egress.tables, fds, BOXES), 0);
        ck_assert_int_ge(sd_event_new(&egress.event), 0);
        ck_assert_int_ge(sd_event_add_defer(egress.event, &egress.sending, on_sending, &egress), 0);
        ck_assert_int_eq(events_init(&egress.events), 0);
        ck_assert_int_eq(
                tellers_init(&egress.tellers, egress.event, &egress.events, egress.sending), 0);
        ck_assert_int_eq(wire_arena_init(&egress.arena, 1 << 20), 0);
        resolver_config_init(&resolver);
        resolver.upstream.servers = "127.0.0.1:9";
        ck_assert_int_eq(resolver_new(egress.event, &resolver, &egress.resolver), 0);
        egress.ring = ring_buffer__new(fds[EGRESS_MAP_EVENTS], on_told, &egress, NULL);
        ck_assert_ptr_nonnull(egress.ring);
        ck_assert_int_eq(policy_turns_new(&egress, &egress.turns), 0);
        ck_assert_int_eq(server_sync_init(&egress), 0);
        ck_assert_int_eq(channel_new(egress.event, &config, &egress.server), 0);
        connect_server();
}

static int probe(const void *data)
{
        (void)data;
        return -egress_probe();
}

static void setup(void)
{
        const struct box *box;
        struct network_spec spec = { .sandbox_id = sandbox_id };
        int sockets[_NETWORK_SOCKET_N];

        log_init("test", LOG_LEVEL_ERROR);
        fixture_init(&f);
        box = &f.boxes[0];
        ck_assert_int_eq(in_box(box, probe, NULL), 0);
        make_egress();
        (void)ring_buffer__consume(egress.ring); /* of nobody yet */
        spec.cgroup_id = box->group.id;
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                sockets[i] = fcntl(box->netns.sockets[i], F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(network_new(&egress, &spec, sockets, &network), 0);
        ck_assert_int_eq(network_tables_add(&egress.networks, network), 0);
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

/* --- in the box --- */

static void refuse(int n)
{
        refuse_in_box(&f.boxes[0], n);
}

/* --- asking --- */

static void send_message(const Hotcell__Egress__V1__FromServer *message)
{
        uint8_t packed[256];
        size_t n = hotcell__egress__v1__from_server__pack(message, packed);

        ck_assert_int_eq(io_send_packet(server_fd, packed, n, NULL, 0), 0);
}

static void ask(uint64_t request, const char *id)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__Sync sync;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__sync__init(&sync);
        sync.sandbox_id = (char *)(uintptr_t)id;
        message.request = request;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_SYNC;
        message.sync = &sync;
        send_message(&message);
}

static void acknowledge(uint64_t number)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__AcknowledgeEvents events;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__acknowledge_events__init(&events);
        events.number = number;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_ACKNOWLEDGE_EVENTS;
        message.acknowledge_events = &events;
        send_message(&message);
}

static bool hear(void)
{
        ssize_t n = recv(server_fd, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n <= 0)
                return false;
        drop_packet();
        packet = hotcell__egress__v1__to_server__unpack(NULL, (size_t)n, bytes);
        ck_assert_ptr_nonnull(packet);
        return true;
}

static void wait_any(void)
{
        time_t end = time(NULL) + PATIENCE_SEC;

        while (!hear()) {
                ck_assert_int_ge(sd_event_run(egress.event, 1000), 0);
                ck_assert_int_lt(time(NULL), end);
        }
}

static void wait_packet(int body)
{
        wait_any();
        ck_assert_int_eq(packet->body_case, body);
}

static void settle(void)
{
        while (sd_event_run(egress.event, 0) > 0)
                ;
}

static void expect_count(uint64_t n_logged, uint64_t n_dropped)
{
        ck_assert_uint_eq(packet->request, 0);
        ck_assert_uint_eq(packet->counts->n_counts, 1);
        ck_assert_uint_eq(packet->counts->counts[0]->cgroup_id, f.boxes[0].group.id);
        ck_assert_uint_eq(packet->counts->counts[0]->n_logged, n_logged);
        ck_assert_uint_eq(packet->counts->counts[0]->n_dropped, n_dropped);
}

/* --- */

START_TEST(the_answer_comes_behind_what_was_in_the_ring)
{
        const int64_t before_usec = time_now_usec();

        refuse(3);
        ask(7, sandbox_id);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 3);
        ck_assert_uint_eq(packet->events->events[2]->port, REFUSED_PORT);
        /* When it was refused, by two clocks that are not read at once. */
        ck_assert_int_ge(packet->events->events[0]->time_usec, before_usec - CLOCKS_USEC);
        ck_assert_int_le(packet->events->events[2]->time_usec, time_now_usec() + CLOCKS_USEC);
        wait_packet(TO_SERVER(COUNTS));
        expect_count(3, 0);
        wait_packet(TO_SERVER(SYNCED));
        ck_assert_uint_eq(packet->request, 7);
        /* What is known is not told again. */
        ask(8, sandbox_id);
        wait_packet(TO_SERVER(SYNCED));
        ck_assert_uint_eq(packet->request, 8);
}
END_TEST

START_TEST(a_sandbox_that_is_not_there_has_told_all)
{
        ask(7, "other");
        wait_packet(TO_SERVER(SYNCED));
        ck_assert_uint_eq(packet->request, 7);
}
END_TEST

static void push_many(size_t n)
{
        const struct event event = { .cgroup_id = 1, .count = 1 };

        for (size_t i = 0; i < n; i++)
                ck_assert(events_push(&egress.events, &others[0], &event));
}

/* So that there is no room for another network. */
static void fill_queue(void)
{
        const struct event event = { .cgroup_id = 1, .count = 1 };

        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                while (events_push(&egress.events, &others[i], &event))
                        ;
}

/* The proof of the wall comes from the sandbox's init, before anything of it runs. */
START_TEST(what_init_is_refused_is_no_event)
{
        uint64_t n = egress.events.n_pushed;

        network->init_cgroup_id = f.boxes[0].leaf.id;
        refuse(2);
        egress_consume(&egress);
        ck_assert_uint_eq(egress.events.n_pushed, n);
        network->init_cgroup_id++;
        refuse(1);
        egress_consume(&egress);
        ck_assert_uint_eq(egress.events.n_pushed, n + 1);
}
END_TEST

/* As the runtime says it, who counted last. */
static void say_gone(uint64_t n_logged, uint64_t n_dropped)
{
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__RemoveNetwork gone;
        uint8_t packed[256];

        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__remove_network__init(&gone);
        gone.sandbox_id = sandbox_id;
        gone.n_logged = n_logged;
        gone.n_dropped = n_dropped;
        message.body_case = HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_REMOVE_NETWORK;
        message.remove_network = &gone;
        runtime_link_handle(&egress, packed,
                            hotcell__egress__v1__from_runtime__pack(&message, packed), NULL, 0);
}

/* What is in the ring when a network goes is of that network: later nobody would know it. */
START_TEST(what_a_sandbox_was_refused_last_is_told)
{
        refuse(3);
        say_gone(5, 1);
        ck_assert_ptr_null(egress.networks.by_id);
        wait_packet(TO_SERVER(COUNTS));
        expect_count(3, 1);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 3);
        ck_assert_uint_eq(packet->events->events[2]->cgroup_id, f.boxes[0].group.id);
}
END_TEST

/* Of a name that nothing allows, by a program that ends with it. */
static int ask_for_name(const void *data)
{
        static const uint8_t query[] = "\0\1\1\0\0\1\0\0\0\0\0\0\4evil\4test\0\0\1\0"
                                       "\1"; /* and the NUL of C's, which is not sent */
        const struct sockaddr_in to = { .sin_family = AF_INET,
                                        .sin_port = htons(53),
                                        .sin_addr.s_addr = htonl(0x7f000035) };
        int fd = socket(AF_INET, SOCK_DGRAM, 0);

        (void)data;
        return sendto(fd, query, sizeof(query) - 1, 0, (const struct sockaddr *)&to, sizeof(to)) < 0
                       ? errno
                       : 0;
}

/* What waits in the sandbox's sockets came before. */
START_TEST(the_answer_comes_behind_what_was_asked_for)
{
        ck_assert_int_eq(in_box(&f.boxes[0], ask_for_name, NULL), 0);
        server_sync_begin(&egress, 7, sandbox_id);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_str_eq(packet->events->events[0]->name, "evil.test");
        wait_packet(TO_SERVER(COUNTS));
        wait_packet(TO_SERVER(SYNCED));
}
END_TEST

/* Hotcelld has recorded nothing for so long that no more may be sent. */
START_TEST(the_answer_waits_until_the_events_before_it_may_be_sent)
{
        push_many(EVENTS_IN_FLIGHT_MAX);
        refuse(1);
        ask(7, sandbox_id);
        ask(8, sandbox_id);
        for (size_t i = 0; i < EVENTS_IN_FLIGHT_MAX / EVENTS_BATCH_MAX; i++)
                wait_packet(TO_SERVER(EVENTS));
        settle();
        ck_assert(!hear());
        acknowledge(packet->events->events[0]->number);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->events[0]->port, REFUSED_PORT);
        wait_packet(TO_SERVER(COUNTS));
        for (uint64_t request = 7; request <= 8; request++) {
                wait_packet(TO_SERVER(SYNCED));
                ck_assert_uint_eq(packet->request, request);
        }
}
END_TEST

/* What there is no room for is summed up, and told before the answer. */
START_TEST(the_answer_waits_until_the_queue_has_room)
{
        uint32_t count = 0; /* of the last event */

        fill_queue();
        refuse(3);
        ask(7, sandbox_id);
        for (size_t i = 0; i < EVENTS_IN_FLIGHT_MAX / EVENTS_BATCH_MAX; i++)
                wait_packet(TO_SERVER(EVENTS));
        settle();
        ck_assert(!hear());
        acknowledge(egress.events.n_sent);
        for (wait_any(); packet->body_case != TO_SERVER(COUNTS); wait_any()) {
                const Hotcell__Egress__V1__Event *last;

                ck_assert_int_eq(packet->body_case, TO_SERVER(EVENTS));
                last = packet->events->events[packet->events->n_events - 1];
                count = last->port == REFUSED_PORT ? last->count : 0;
                acknowledge(last->number);
        }
        ck_assert_uint_eq(count, 3);
        expect_count(3, 0);
        wait_packet(TO_SERVER(SYNCED));
        ck_assert_uint_eq(packet->request, 7);
}
END_TEST

/* More than its share of the queue: the last three are summed up. */
static void exceed_share(void)
{
        const struct event event = { .cgroup_id = network->cgroup_id,
                                     .source = EGRESS_SOURCE(WALL),
                                     .count = 1 };

        for (size_t i = 0; i < EVENTS_MAX / 2 + 3; i++)
                teller_push(network->teller, &event);
        ck_assert(!teller_flush(network->teller));
}

START_TEST(who_waits_for_room_keeps_no_other_waiting)
{
        exceed_share();
        ask(7, sandbox_id);
        ask(8, "other");
        settle();
        /* For which nobody has to wait who asked before. */
        fill_queue();
        for (wait_any(); packet->body_case == TO_SERVER(EVENTS); wait_any())
                acknowledge(packet->events->events[packet->events->n_events - 1]->number);
        ck_assert_int_eq((int)packet->body_case, TO_SERVER(SYNCED));
        ck_assert_uint_eq(packet->request, 8);
        ck_assert_uint_eq(egress.sync.n_waiting, 1);
        for (wait_any(); packet->body_case != TO_SERVER(SYNCED); wait_any())
                if (packet->body_case == TO_SERVER(EVENTS))
                        acknowledge(egress.events.n_sent);
        ck_assert_uint_eq(packet->request, 7);
        ck_assert_uint_eq(egress.sync.n_waiting, 0);
}
END_TEST

/* The one that asked is gone, and its successor asked for nothing. */
START_TEST(another_hotcelld_hears_no_answer_of_the_ones_before)
{
        uint64_t last;

        push_many(EVENTS_IN_FLIGHT_MAX);
        refuse(1);
        ask(7, sandbox_id);
        for (size_t i = 0; i < EVENTS_IN_FLIGHT_MAX / EVENTS_BATCH_MAX; i++)
                wait_packet(TO_SERVER(EVENTS));
        settle();
        last = egress.events.n_sent;
        (void)close(server_fd);
        connect_server();
        server_sync_restart(&egress);
        wait_packet(TO_SERVER(COUNTS));
        acknowledge(last);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->events[0]->port, REFUSED_PORT);
        settle();
        ck_assert(!hear());
}
END_TEST

/* As the runtime hands over the socket of another hotcelld. */
static void serve_another(void)
{
        Hotcell__Egress__V1__FromRuntime message;
        Hotcell__Egress__V1__ServeServer serve;
        uint8_t packed[64];
        int ends[2];

        (void)close(server_fd);
        ck_assert_int_eq(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        server_fd = ends[1];
        hotcell__egress__v1__from_runtime__init(&message);
        hotcell__egress__v1__serve_server__init(&serve);
        message.body_case = HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_SERVE_SERVER;
        message.serve_server = &serve;
        runtime_link_handle(&egress, packed,
                            hotcell__egress__v1__from_runtime__pack(&message, packed), ends, 1);
}

START_TEST(what_was_not_recorded_is_told_to_the_next_hotcelld)
{
        uint64_t first;

        refuse(2);
        egress_consume(&egress);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 2);
        first = packet->events->events[0]->number;
        acknowledge(first);
        settle();
        serve_another();
        wait_packet(TO_SERVER(COUNTS));
        expect_count(2, 0);
        wait_packet(TO_SERVER(EVENTS));
        ck_assert_uint_eq(packet->events->n_events, 1);
        ck_assert_uint_eq(packet->events->events[0]->number, first + 1);
}
END_TEST

START_TEST(too_many_are_refused)
{
        push_many(EVENTS_IN_FLIGHT_MAX + 1);
        server_link_send_events(&egress);
        while (hear())
                ;
        for (uint64_t i = 1; i <= SYNCS_MAX; i++)
                server_sync_begin(&egress, i, sandbox_id);
        ck_assert(!hear());
        ask(SYNCS_MAX + 1, sandbox_id);
        wait_packet(TO_SERVER(FAILURE));
        ck_assert_uint_eq(packet->request, SYNCS_MAX + 1);
}
END_TEST

START_TEST(counts_are_told_within_a_second_and_to_the_next)
{
        refuse(200);
        egress_consume(&egress);
        wait_packet(TO_SERVER(EVENTS));
        while (packet->body_case == TO_SERVER(EVENTS))
                wait_packet(egress.events.n_sent < egress.events.n_pushed ? TO_SERVER(EVENTS)
                                                                          : TO_SERVER(COUNTS));
        ck_assert_uint_eq(
                packet->counts->counts[0]->n_logged + packet->counts->counts[0]->n_dropped, 200);
        ck_assert_uint_gt(packet->counts->counts[0]->n_dropped, 0);
        (void)close(server_fd);
        connect_server();
        server_sync_restart(&egress);
        wait_packet(TO_SERVER(COUNTS));
        ck_assert_uint_eq(
                packet->counts->counts[0]->n_logged + packet->counts->counts[0]->n_dropped, 200);
}
END_TEST

START_TEST(the_last_counts_are_those_of_who_read_them_last)
{
        server_sync_tell_last(network, 12, 5);
        wait_packet(TO_SERVER(COUNTS));
        expect_count(10, 5);
        server_sync_tell_last(network, 0, 0); /* they could not be read */
        settle();
        ck_assert(!hear());
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("server_sync");
        TCase *tests = tcase_create("server_sync");

        tcase_set_timeout(tests, 60);
        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, the_answer_comes_behind_what_was_in_the_ring);
        tcase_add_test(tests, what_init_is_refused_is_no_event);
        tcase_add_test(tests, what_a_sandbox_was_refused_last_is_told);
        tcase_add_test(tests, the_answer_comes_behind_what_was_asked_for);
        tcase_add_test(tests, another_hotcelld_hears_no_answer_of_the_ones_before);
        tcase_add_test(tests, what_was_not_recorded_is_told_to_the_next_hotcelld);
        tcase_add_test(tests, a_sandbox_that_is_not_there_has_told_all);
        tcase_add_test(tests, the_answer_waits_until_the_events_before_it_may_be_sent);
        tcase_add_test(tests, the_answer_waits_until_the_queue_has_room);
        tcase_add_test(tests, who_waits_for_room_keeps_no_other_waiting);
        tcase_add_test(tests, too_many_are_refused);
        tcase_add_test(tests, counts_are_told_within_a_second_and_to_the_next);
        tcase_add_test(tests, the_last_counts_are_those_of_who_read_them_last);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
