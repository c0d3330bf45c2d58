/*
 * How the relay takes connections: by a token, which is good once and only for its own sandbox, and
 * only as many as leave room for others. The test comes to the relay's addresses from outside of
 * the groups, where no wall is; to a program that would be refused.
 */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/bpf/egress_loop.h"
#include "test/lib/suite.h"

enum {
        PLACE = 3,
        SERIAL = 5,
        NUMBER = SERIAL * EGRESS_TOKENS + PLACE,
        PORT = 443, /* where a name must be said */
        LEAF = 99,
        PID = 4711,
        PLACES = 16, /* of all networks; see egress_loop.c */
        LOOK_TIMEOUT_USEC = 10 * 1000000,
};

#define ADDRESS "93.184.216.34"
#define LATE    "93.184.216.35" /* of a name whose time is over */

/* What the next token is for. */
static const char *wanted_address;
static uint16_t wanted_port;

/* The address of a name that the policy allows: what comes for it is looked into, and stays. */
static void know_name(const char *text, uint64_t now_usec, uint64_t expire_usec)
{
        const struct name_entry entry = { .name = "a.wild.test", .expire_usec = expire_usec };
        struct policy_address address;
        uint32_t bytes = inet_addr(text);

        address = policy_address_v4(&bytes);
        ck_assert_int_eq(names_admit(&network->names, &address, &entry, now_usec, NULL, NULL), 0);
}

static void setup(void)
{
        egress_loop_init(NULL);
        ask_for(1, &(struct wanted){ .domain = "*.wild.test" });
        expect_answer(1, TO_SERVER_ENFORCED);
        know_name(ADDRESS, clock_monotonic_usec(), UINT64_MAX);
        know_name(LATE, 1, 2);
        wanted_address = ADDRESS;
        wanted_port = PORT;
}

static void teardown(void)
{
        egress_loop_deinit();
}

/* As the wall writes it. */
static void write_token(uint32_t place, uint64_t serial, uint64_t cgroup_id)
{
        struct egress_token token = { .serial = serial,
                                      .cgroup_id = cgroup_id,
                                      .leaf_id = LEAF,
                                      .pid = PID,
                                      .port = wanted_port,
                                      .command = "curl" };
        uint32_t bytes = inet_addr(wanted_address);

        (void)memcpy(token.address, &bytes, sizeof(bytes));
        ck_assert_int_eq(
                bpf_map_update_elem(egress.tables.fds[EGRESS_MAP_TOKENS], &place, &token, BPF_ANY),
                0);
}

static int connect_with(uint32_t number, bool is_v6)
{
        struct sockaddr_storage to = { 0 };
        struct sockaddr_in *v4 = (struct sockaddr_in *)&to;
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&to;
        in_port_t port = htons(f.boxes[0].netns.relay_port);
        int fd;

        if (is_v6)
                *v6 = (struct sockaddr_in6){
                        .sin6_family = AF_INET6,
                        .sin6_port = port,
                        .sin6_addr.s6_addr32 = { htonl(EGRESS_RELAY6_0), htonl(EGRESS_RELAY6_1), 0,
                                                 htonl(number) },
                };
        else
                *v4 = (struct sockaddr_in){ .sin_family = AF_INET,
                                            .sin_port = port,
                                            .sin_addr.s_addr = htonl(EGRESS_RELAY4 | number) };
        ck_assert_int_eq(setns(f.boxes[0].netns.fd, CLONE_NEWNET), 0);
        fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(setns(f.home_fd, CLONE_NEWNET), 0);
        ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, is_v6 ? sizeof(*v6) : sizeof(*v4)), 0);
        return fd;
}

static bool are_connections(const void *userdata)
{
        return network->n_connections == *(const size_t *)userdata;
}

static void wait_for_connections(size_t n)
{
        run_until(are_connections, &n);
}

static bool is_told(const void *userdata)
{
        return egress.events.n_pushed >= *(const uint64_t *)userdata;
}

/* The next event after @n. */
static const struct event *wait_for_event(uint64_t n)
{
        n++;
        run_until(is_told, &n);
        ck_assert_uint_eq(egress.events.n_pushed, n);
        return &egress.events.ring[n % EVENTS_MAX].event;
}

/* Comes with a token of its own, which is at the place @place. */
static int come(uint32_t place)
{
        write_token(place, SERIAL, f.boxes[0].group.id);
        return connect_with(SERIAL * EGRESS_TOKENS + place, false);
}

START_TEST(a_token_is_good_once)
{
        const bool is_v6 = _i == 1;
        const uint64_t n = egress.events.n_pushed;
        const struct event *event;
        int fds[3];

        write_token(PLACE, SERIAL, f.boxes[0].group.id);
        fds[0] = connect_with(NUMBER, is_v6);
        wait_for_connections(1);
        ck_assert_uint_eq(egress.events.n_pushed, n);
        fds[1] = connect_with(NUMBER, is_v6);
        event = wait_for_event(n);
        ck_assert_int_eq(event->decision, EGRESS_DECISION(DENIED));
        ck_assert_int_eq(event->reason, EGRESS_REASON(FORGED));
        ck_assert_uint_eq(network->n_connections, 1);
        /* The place is used again. */
        write_token(PLACE, SERIAL + 1, f.boxes[0].group.id);
        fds[2] = connect_with(NUMBER + EGRESS_TOKENS, is_v6);
        wait_for_connections(2);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                (void)close(fds[i]);
}
END_TEST

static const struct {
        uint64_t serial;
        bool is_others;
        Hotcell__Egress__V1__Reason reason;
} useless[] = {
        { SERIAL, true, EGRESS_REASON(FORGED) },
        { SERIAL - 1, false, EGRESS_REASON(FORGED) },
        { SERIAL + 1, false, EGRESS_REASON(OVERWRITTEN) },
        { 0, false, EGRESS_REASON(TORN) },
};

START_TEST(what_comes_without_a_token_of_its_own_is_reset)
{
        const uint64_t n = egress.events.n_pushed;
        const struct event *event;
        char byte;
        int fd;

        write_token(PLACE, useless[_i].serial, f.boxes[useless[_i].is_others ? 1 : 0].group.id);
        fd = connect_with(NUMBER, false);
        event = wait_for_event(n);
        ck_assert_int_eq(event->decision, EGRESS_DECISION(DENIED));
        ck_assert_int_eq(event->reason, useless[_i].reason);
        ck_assert_uint_eq(event->cgroup_id, f.boxes[0].group.id);
        ck_assert(!event->has_address);
        ck_assert_uint_eq(event->pid, 0);
        ck_assert_uint_eq(network->n_connections, 0);
        ck_assert_uint_eq(egress.n_connections, 0);
        ck_assert_int_eq(recv(fd, &byte, 1, 0), -1);
        ck_assert_int_eq(errno, ECONNRESET);
        (void)close(fd);
}
END_TEST

static const uint8_t begun[] = { 0x16, 3, 1 }; /* a record of TLS */

/* Half of what others leave; what ends gives its place back. */
START_TEST(places_are_left_for_others)
{
        const size_t n_others = _i ? PLACES / 2 : 0;
        const size_t n_max = (PLACES - n_others) / 2;
        const int64_t before_usec = time_now_usec();
        const struct event *event;
        int fds[PLACES / 2], fd;
        uint64_t n;

        egress.n_connections += n_others;
        for (size_t i = 0; i < n_max; i++) {
                fds[i] = come((uint32_t)i);
                wait_for_connections(i + 1);
        }
        n = egress.events.n_pushed;
        fd = come(PLACES);
        event = wait_for_event(n++);
        ck_assert_int_eq(event->decision, EGRESS_DECISION(FAILED));
        ck_assert_int_eq(event->error_number, EMFILE);
        ck_assert_uint_eq(network->n_connections, n_max);
        (void)close(fd);

        /* It begins to say a name, and does not end. */
        ck_assert_int_eq(send(fds[0], begun, sizeof(begun), 0), sizeof(begun));
        (void)close(fds[0]);
        event = wait_for_event(n);
        ck_assert_int_eq(event->reason, EGRESS_REASON(NAME_ABSENT));
        ck_assert_uint_eq(event->leaf_cgroup_id, LEAF);
        ck_assert_uint_eq(event->pid, PID);
        ck_assert_uint_eq(event->port, PORT);
        ck_assert_str_eq(event->command, "curl");
        ck_assert_str_eq(event->name, "a.wild.test");
        ck_assert_int_eq(event->policy_version, 1);
        ck_assert_int_ge(event->asked_usec, before_usec);
        ck_assert_int_le(event->asked_usec, event->time_usec);
        wait_for_connections(n_max - 1);
        ck_assert_uint_eq(egress.n_connections, n_others + n_max - 1);
        fds[0] = come(PLACES + 1);
        wait_for_connections(n_max);
        for (size_t i = 0; i < n_max; i++)
                (void)close(fds[i]);
        wait_for_connections(0);
        egress.n_connections -= n_others;
        ck_assert_uint_eq(egress.n_connections, 0);
}
END_TEST

START_TEST(a_name_whose_time_is_over_allows_nothing)
{
        const uint64_t n = egress.events.n_pushed;
        const struct event *event;
        int fd;

        wanted_address = LATE;
        fd = come(PLACE);
        event = wait_for_event(n);
        ck_assert_int_eq(event->decision, EGRESS_DECISION(DENIED));
        ck_assert_int_eq(event->reason, EGRESS_REASON(DEFAULT));
        (void)close(fd);
}
END_TEST

/* What is read of the first bytes is read once, however they come. */
START_TEST(a_name_is_read_in_pieces)
{
        static const char head[] = "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        const uint64_t n = egress.events.n_pushed;
        const struct event *event;
        int fd;

        wanted_port = 80;
        fd = come(PLACE);
        wait_for_connections(1);
        for (size_t i = 0; i < sizeof(head) - 1; i++) {
                ck_assert_int_eq(send(fd, head + i, 1, 0), 1);
                turn();
        }
        event = wait_for_event(n);
        ck_assert_int_eq(event->reason, EGRESS_REASON(NAME_MISMATCH));
        ck_assert_str_eq(event->name, "evil.test");
        (void)close(fd);
}
END_TEST

static bool is_listening(void)
{
        int enabled;

        ck_assert_int_ge(sd_event_source_get_enabled(network->sources[NETWORK_RELAY], &enabled), 0);
        return enabled != SD_EVENT_OFF;
}

static bool is_resting(const void *userdata)
{
        (void)userdata;
        return !is_listening();
}

/* The loop is not kept busy by who cannot be accepted, and who waits is accepted once that can be.
 */
START_TEST(a_want_of_descriptors_passes)
{
        struct rlimit limit, none;
        int fd = come(PLACE);

        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        none = (struct rlimit){ .rlim_cur = 3, .rlim_max = limit.rlim_max };
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
        run_until(is_resting, NULL);
        ck_assert_uint_eq(network->n_connections, 0);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        wait_for_connections(1);
        ck_assert(is_listening());
        (void)close(fd);
}
END_TEST

/* Not only when the time to say a name is over. */
START_TEST(who_ends_without_a_whole_name_is_refused_at_once)
{
        const uint64_t n = egress.events.n_pushed;
        const struct event *event;
        int fd = come(PLACE);

        wait_for_connections(1);
        ck_assert_int_eq(send(fd, begun, sizeof(begun), 0), sizeof(begun));
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        event = wait_for_event(n);
        ck_assert_int_eq(event->reason, EGRESS_REASON(NAME_ABSENT));
        ck_assert_int_lt(event->time_usec, event->asked_usec + LOOK_TIMEOUT_USEC);
        (void)close(fd);
}
END_TEST

/* As one does who only looks whether somebody listens. */
START_TEST(who_asks_for_nothing_is_refused_nothing)
{
        const uint64_t n = egress.events.n_pushed;
        int fd = come(PLACE);

        wait_for_connections(1);
        (void)close(fd);
        wait_for_connections(0);
        ck_assert_uint_eq(egress.events.n_pushed, n);
}
END_TEST

START_TEST(who_says_nothing_is_refused_in_time)
{
        const uint64_t n = egress.events.n_pushed;
        const struct event *event;
        int fd = come(PLACE);

        wait_for_connections(1);
        event = wait_for_event(n);
        ck_assert_int_eq(event->decision, EGRESS_DECISION(DENIED));
        ck_assert_int_eq(event->reason, EGRESS_REASON(NAME_ABSENT));
        ck_assert_int_ge(event->time_usec + 1000, event->asked_usec + LOOK_TIMEOUT_USEC);
        ck_assert_uint_eq(network->n_connections, 0);
        (void)close(fd);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("connection");
        TCase *tests = tcase_create("connection");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_loop_test(tests, a_token_is_good_once, 0, 2);
        tcase_add_loop_test(tests, what_comes_without_a_token_of_its_own_is_reset, 0,
                            ARRAY_SIZE(useless));
        tcase_add_loop_test(tests, places_are_left_for_others, 0, 2);
        tcase_add_test(tests, a_name_whose_time_is_over_allows_nothing);
        tcase_add_test(tests, a_name_is_read_in_pieces);
        tcase_add_test(tests, a_want_of_descriptors_passes);
        tcase_add_test(tests, who_says_nothing_is_refused_in_time);
        tcase_add_test(tests, who_ends_without_a_whole_name_is_refused_at_once);
        tcase_add_test(tests, who_asks_for_nothing_is_refused_nothing);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
