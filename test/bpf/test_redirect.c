/*
 * What the egress wall allows: where it goes, what is said of it, and that tables, ranges, names
 * and the default decide in their order.
 */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "test/bpf/fixture.h"
#include "test/lib/suite.h"

enum {
        POLICY = 7,
        VERSION = 3,
        RULE = 5,
};

static struct fixture f;

static void set_sandbox(uint32_t policy, enum egress_action default_action, bool has_relay)
{
        const struct egress_sandbox entry = {
                .policy = policy,
                .policy_version = VERSION,
                .relay_port = has_relay ? f.boxes[0].netns.relay_port : 0,
                .default_action = (uint8_t)default_action,
        };

        ck_assert_int_eq(egress_wall_admit(f.wall, f.boxes[0].group.id, &entry), 0);
}

static void setup(void)
{
        fixture_init(&f);
        set_sandbox(POLICY, EGRESS_DENY, true);
}

static void teardown(void)
{
        fixture_deinit(&f);
}

/* The address as events and tokens have it. */
static bool parse_address(const char *text, uint8_t ret_bytes[static EGRESS_ADDRESS_BYTES])
{
        (void)memset(ret_bytes, 0, EGRESS_ADDRESS_BYTES);
        if (inet_pton(AF_INET, text, ret_bytes) == 1)
                return false;
        ck_assert_int_eq(inet_pton(AF_INET6, text, ret_bytes), 1);
        return true;
}

static void add_prefix(uint32_t policy, const char *text, uint32_t n_bits,
                       const struct egress_ranges *ranges)
{
        uint8_t address[EGRESS_ADDRESS_BYTES];

        if (parse_address(text, address)) {
                struct egress_prefix6 key = { .prefix_bits = 32 + n_bits, .policy = policy };

                (void)memcpy(key.address, address, sizeof(key.address));
                ck_assert_int_eq(
                        bpf_map_update_elem(egress_wall_map_fd(f.wall, EGRESS_MAP_PREFIXES6), &key,
                                            ranges, BPF_ANY),
                        0);
        } else {
                struct egress_prefix4 key = { .prefix_bits = 32 + n_bits, .policy = policy };

                (void)memcpy(key.address, address, sizeof(key.address));
                ck_assert_int_eq(
                        bpf_map_update_elem(egress_wall_map_fd(f.wall, EGRESS_MAP_PREFIXES4), &key,
                                            ranges, BPF_ANY),
                        0);
        }
}

static struct egress_ranges one_range(enum egress_action action, uint16_t low, uint16_t high)
{
        return (struct egress_ranges){
                .n_ranges = 1,
                .ranges = { { low, high, (uint8_t)action, 0, RULE } },
        };
}

static void add_rule(const char *text, uint32_t n_bits, enum egress_action action)
{
        const struct egress_ranges ranges = one_range(action, 1, 65535);

        add_prefix(POLICY, text, n_bits, &ranges);
}

static void add_name(const char *text, int64_t seconds, uint16_t port)
{
        struct egress_name name = { .allowed = one_range(EGRESS_ALLOW, port, port) };
        struct egress_name_key key = { .policy = POLICY };
        struct timespec now;

        if (!parse_address(text, key.address)) {
                (void)memcpy(key.address + 12, key.address, 4);
                (void)memset(key.address, 0, 10);
                (void)memset(key.address + 10, 0xff, 2);
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        name.expire_nsec = (uint64_t)(now.tv_sec + seconds) * 1000000000;
        ck_assert_int_eq(bpf_map_update_elem(egress_wall_map_fd(f.wall, EGRESS_MAP_NAMES), &key,
                                             &name, BPF_ANY),
                         0);
}

struct target {
        const char *address;
        uint16_t port;
        bool is_mapped;  /* IPv4 through a socket of IPv6 */
        bool is_v6_only; /* a socket that takes no mapped addresses */
};

static socklen_t address_of(const struct target *target, struct sockaddr_storage *storage)
{
        return fill_address(target->address, target->port, target->is_mapped, storage);
}

/* 0: connected, and the socket believes that it is where it wanted to go. */
static int connect_to(const void *data)
{
        const struct target *target = data;
        struct sockaddr_storage wanted;
        struct sockaddr_storage peer;
        socklen_t size = address_of(target, &wanted);
        const int yes = target->is_v6_only;
        int fd = socket(wanted.ss_family, SOCK_STREAM, 0);

        (void)memset(&peer, 0, sizeof(peer));
        if (target->is_v6_only)
                (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
        if (connect(fd, (struct sockaddr *)&wanted, size) < 0)
                return errno;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
                return errno;
        return memcmp(&peer, &wanted, size) == 0 ? 0 : UNEXPECTED;
}

/* What the relay finds: the number in the address at which it was reached. */
static uint32_t accept_token(void)
{
        struct pollfd ready = { .fd = f.boxes[0].netns.sockets[NETNS_RELAY], .events = POLLIN };
        struct sockaddr_in6 address;
        socklen_t size = sizeof(address);
        _cleanup_(closep) int fd = -1;
        uint32_t word;

        ck_assert_int_eq(poll(&ready, 1, 10000), 1);
        fd = accept(ready.fd, NULL, NULL);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
        word = ntohl(address.sin6_addr.s6_addr32[3]);
        if (IN6_IS_ADDR_V4MAPPED(&address.sin6_addr)) {
                ck_assert_uint_eq(word & EGRESS_RELAY4_MASK, EGRESS_RELAY4);
                return word & ~EGRESS_RELAY4_MASK;
        }
        ck_assert_uint_eq(ntohl(address.sin6_addr.s6_addr32[0]), EGRESS_RELAY6_0);
        ck_assert_uint_eq(ntohl(address.sin6_addr.s6_addr32[1]), EGRESS_RELAY6_1);
        return word;
}

static struct egress_token read_token(uint32_t number)
{
        uint32_t place = EGRESS_TOKEN_PLACE(number);
        struct egress_token token;

        ck_assert_int_eq(
                bpf_map_lookup_elem(egress_wall_map_fd(f.wall, EGRESS_MAP_TOKENS), &place, &token),
                0);
        return token;
}

static void expect_redirected(const struct target *target, enum egress_verdict verdict)
{
        uint8_t address[EGRESS_ADDRESS_BYTES];
        struct egress_token token;
        uint32_t number;

        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, target), 0);
        number = accept_token();
        token = read_token(number);
        ck_assert_uint_eq(token.serial, EGRESS_TOKEN_SERIAL(number));
        ck_assert_uint_eq(token.cgroup_id, f.boxes[0].group.id);
        ck_assert_uint_eq(token.leaf_id, f.boxes[0].leaf.id);
        ck_assert_uint_eq(token.policy_version, VERSION);
        ck_assert_uint_eq(token.port, target->port);
        ck_assert_uint_eq(token.verdict, verdict);
        ck_assert_uint_eq(token.is_v6, parse_address(target->address, address));
        ck_assert_mem_eq(token.address, address, sizeof(address));
        ck_assert_uint_ne(token.pid, 0);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 0);
}

static void expect_refused(const struct target *target, enum egress_verdict verdict)
{
        struct egress_event event;

        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, target), EPERM);
        event = next_event(&f);
        ck_assert_uint_eq(event.verdict, verdict);
        ck_assert_uint_eq(event.policy_version, VERSION);
        if (verdict == EGRESS_DENIED_RULE)
                ck_assert_uint_eq(event.rule, RULE);
}

static const struct target allowed[] = {
        { "203.0.113.9", 443, false, false },
        { "203.0.113.9", 443, true, false },
        { "2001:db8:1::9", 443, false, false },
        { "2001:db8:1::9", 443, false, true },
};

START_TEST(what_a_rule_allows_goes_to_the_relay)
{
        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 48, EGRESS_ALLOW);
        expect_redirected(&allowed[_i], EGRESS_ALLOWED_RULE);
}
END_TEST

START_TEST(what_no_rule_allows_is_refused)
{
        add_rule("203.0.113.0", 29, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 125, EGRESS_ALLOW);
        expect_refused(&allowed[_i], EGRESS_DENIED_DEFAULT);
}
END_TEST

START_TEST(what_the_default_allows_goes_to_the_relay)
{
        set_sandbox(POLICY, EGRESS_ALLOW, true);
        expect_redirected(&allowed[_i], EGRESS_ALLOWED_DEFAULT);
}
END_TEST

START_TEST(the_longest_prefix_decides)
{
        set_sandbox(POLICY, EGRESS_ALLOW, true);
        add_rule("203.0.0.0", 16, EGRESS_ALLOW);
        add_rule("203.0.113.0", 24, EGRESS_DENY);
        add_rule("2001:db8::", 32, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 64, EGRESS_DENY);
        expect_refused(&allowed[_i], EGRESS_DENIED_RULE);
}
END_TEST

START_TEST(what_is_always_denied_is_denied_to_all)
{
        const struct egress_ranges never = one_range(EGRESS_DENY, 0, 65535);

        set_sandbox(POLICY, EGRESS_ALLOW, true);
        add_rule("203.0.113.9", 32, EGRESS_ALLOW);
        add_rule("2001:db8:1::9", 128, EGRESS_ALLOW);
        add_prefix(EGRESS_POLICY_ALWAYS, "203.0.0.0", 16, &never);
        add_prefix(EGRESS_POLICY_ALWAYS, "2001:db8::", 32, &never);
        expect_refused(&allowed[_i], EGRESS_DENIED_ALWAYS);
}
END_TEST

/* As the relay writes them: an entry that denies nothing. */
static void open_always(void)
{
        const struct egress_ranges never = one_range(EGRESS_DENY, 0, 65535);

        add_prefix(EGRESS_POLICY_ALWAYS, "203.0.0.0", 16, &never);
        add_prefix(EGRESS_POLICY_ALWAYS, "203.0.113.0", 24, &(struct egress_ranges){ 0 });
        add_prefix(EGRESS_POLICY_ALWAYS, "2001:db8::", 32, &never);
        add_prefix(EGRESS_POLICY_ALWAYS, "2001:db8:1::", 48, &(struct egress_ranges){ 0 });
        set_sandbox(POLICY, EGRESS_ALLOW, true);
}

START_TEST(the_default_does_not_lead_to_what_was_opened)
{
        open_always();
        expect_refused(&allowed[_i], EGRESS_DENIED_DEFAULT);
}
END_TEST

START_TEST(rules_lead_to_what_was_opened)
{
        open_always();
        add_rule("203.0.113.9", 32, EGRESS_ALLOW);
        add_rule("2001:db8:1::9", 128, EGRESS_ALLOW);
        expect_redirected(&allowed[_i], EGRESS_ALLOWED_RULE);
}
END_TEST

START_TEST(without_a_relay_nothing_leaves)
{
        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 48, EGRESS_ALLOW);
        set_sandbox(POLICY, EGRESS_ALLOW, false);
        expect_refused(&allowed[_i], EGRESS_DENIED_DEFAULT);
}
END_TEST

START_TEST(without_a_policy_nothing_leaves)
{
        add_prefix(EGRESS_POLICY_ALWAYS, "203.0.113.0", 24, &(struct egress_ranges){ 0 });
        set_sandbox(EGRESS_POLICY_ALWAYS, EGRESS_ALLOW, true);
        expect_refused(&allowed[_i], EGRESS_DENIED_UNREADY);
}
END_TEST

START_TEST(the_address_of_a_name_is_allowed_as_long_as_it_is_good)
{
        const struct target other_port = { allowed[_i].address, 444, allowed[_i].is_mapped, false };

        add_name("203.0.113.9", 60, 443);
        add_name("2001:db8:1::9", 60, 443);
        expect_refused(&other_port, EGRESS_DENIED_DEFAULT);
        set_sandbox(POLICY, EGRESS_DENY, true);
        expect_redirected(&allowed[_i], EGRESS_ALLOWED_NAME);
        add_name("203.0.113.9", -1, 443);
        add_name("2001:db8:1::9", -1, 443);
        expect_refused(&allowed[_i], EGRESS_DENIED_DEFAULT);
}
END_TEST

START_TEST(a_rule_denies_also_the_address_of_a_name)
{
        add_name("203.0.113.9", 60, 443);
        add_name("2001:db8:1::9", 60, 443);
        add_rule("203.0.113.0", 24, EGRESS_DENY);
        add_rule("2001:db8:1::", 48, EGRESS_DENY);
        expect_refused(&allowed[_i], EGRESS_DENIED_RULE);
}
END_TEST

/* Eight ranges, of which those that deny come anywhere. */
START_TEST(ranges_of_ports_decide)
{
        static const struct {
                uint16_t port;
                bool is_allowed;
        } ports[] = { { 79, false },   { 80, true },   { 81, false },   { 1000, true },
                      { 1500, false }, { 2000, true }, { 65535, true }, { 65534, false } };
        const struct egress_ranges ranges = { .n_ranges = 8,
                                              .ranges = {
                                                      { 80, 80, EGRESS_ALLOW, 0, RULE },
                                                      { 1000, 2000, EGRESS_ALLOW, 0, RULE },
                                                      { 3, 3, EGRESS_ALLOW, 0, RULE },
                                                      { 4, 4, EGRESS_ALLOW, 0, RULE },
                                                      { 1500, 1500, EGRESS_DENY, 0, RULE },
                                                      { 5, 5, EGRESS_ALLOW, 0, RULE },
                                                      { 6, 6, EGRESS_ALLOW, 0, RULE },
                                                      { 65535, 65535, EGRESS_ALLOW, 0, RULE } } };
        const struct target target = { "203.0.113.9", ports[_i].port, false, false };

        add_prefix(POLICY, "203.0.113.0", 24, &ranges);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, &target),
                         ports[_i].is_allowed ? 0 : EPERM);
}
END_TEST

static int send_datagram(const void *data)
{
        const struct target *target = data;
        struct sockaddr_storage address;
        socklen_t size = address_of(target, &address);
        int fd = socket(address.ss_family, SOCK_DGRAM, 0);

        if (sendto(fd, "x", 1, 0, (struct sockaddr *)&address, size) >= 0)
                return 0;
        if (errno != EPERM)
                return errno;
        return connect(fd, (struct sockaddr *)&address, size) < 0 ? errno : 0;
}

START_TEST(datagrams_are_refused_whatever_the_rules_say)
{
        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 48, EGRESS_ALLOW);
        set_sandbox(POLICY, EGRESS_ALLOW, true);
        ck_assert_int_eq(in_box(&f.boxes[0], send_datagram, &allowed[_i]), EPERM);
        ck_assert_uint_eq(next_event(&f).verdict, EGRESS_DENIED_PROTOCOL);
}
END_TEST

static int connect_datagram(const void *data)
{
        const struct target *target = data;
        struct sockaddr_storage address;
        socklen_t size = address_of(target, &address);
        int fd = socket(address.ss_family, SOCK_DGRAM, 0);

        return connect(fd, (struct sockaddr *)&address, size) < 0 ? errno : 0;
}

/* As getaddrinfo() does with the addresses that it found. */
START_TEST(a_datagram_socket_that_only_looks_is_refused_in_silence)
{
        const struct target no_port = { allowed[_i].address, 0, allowed[_i].is_mapped, false };

        add_name("203.0.113.9", 60, 443);
        add_name("2001:db8:1::9", 60, 443);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_datagram, &allowed[_i]), EPERM);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_datagram, &no_port), EPERM);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 0);
        set_sandbox(POLICY + 1, EGRESS_ALLOW, true); /* and begins to count anew */
        ck_assert_int_eq(in_box(&f.boxes[0], connect_datagram, &allowed[_i]), EPERM);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 0);
        set_sandbox(POLICY + 1, EGRESS_DENY, true);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_datagram, &allowed[_i]), EPERM);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 1);
}
END_TEST

/* A token's place is used again; its serial number tells the old from the new. */
START_TEST(tokens_of_one_place_differ)
{
        uint32_t first;
        uint32_t last = 0;

        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, &allowed[0]), 0);
        first = accept_token();
        for (size_t i = 0; i < EGRESS_TOKENS; i++) {
                ck_assert_int_eq(in_box(&f.boxes[0], connect_to, &allowed[0]), 0);
                last = accept_token();
        }
        ck_assert_uint_eq(EGRESS_TOKEN_PLACE(first), EGRESS_TOKEN_PLACE(last));
        ck_assert_uint_ne(EGRESS_TOKEN_SERIAL(first), EGRESS_TOKEN_SERIAL(last));
        ck_assert_uint_eq(read_token(last).serial, EGRESS_TOKEN_SERIAL(last));
}
END_TEST

/* As of one that went, whose slot is given to another: nothing of its token is left. */
START_TEST(a_token_is_wholly_that_of_who_has_the_place_last)
{
        const struct egress_sandbox entry = { .policy = POLICY,
                                              .policy_version = VERSION + 1,
                                              .relay_port = f.boxes[1].netns.relay_port,
                                              .default_action = EGRESS_DENY };
        struct egress_token token;
        uint32_t number;

        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 48, EGRESS_ALLOW);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, &allowed[2]), 0);
        number = accept_token();
        ck_assert_uint_eq(read_token(number).cgroup_id, f.boxes[0].group.id);
        ck_assert_int_eq(egress_wall_admit(f.wall, f.boxes[1].group.id, &entry), 0);
        ck_assert_int_eq(in_box(&f.boxes[1], connect_to, &allowed[0]), 0);
        token = read_token(number);
        ck_assert_uint_eq(token.cgroup_id, f.boxes[1].group.id);
        ck_assert_uint_eq(token.leaf_id, f.boxes[1].leaf.id);
        ck_assert_uint_eq(token.policy_version, VERSION + 1);
        ck_assert_uint_eq(token.is_v6, 0);
}
END_TEST

/* Such a socket would be at the relay with the token that it is bound to. */
static int connect_bound_to_token(const void *data)
{
        const uint32_t number = *(const uint32_t *)data;
        struct sockaddr_in at = { .sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(EGRESS_RELAY4 | number) };
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(443) };
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
                return UNEXPECTED;
        return connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;
}

START_TEST(a_token_is_not_chosen_by_where_a_socket_is_bound)
{
        const uint32_t number = EGRESS_TOKENS;
        struct egress_event event;

        ck_assert_int_eq(in_box(&f.boxes[0], connect_bound_to_token, &number), EPERM);
        event = next_event(&f);
        ck_assert_uint_eq(event.verdict, EGRESS_DENIED_RELAY);
}
END_TEST

START_TEST(tokens_of_a_sandbox_are_in_its_own_slot)
{
        const struct egress_sandbox entry = { .policy = POLICY,
                                              .policy_version = VERSION,
                                              .slot = 1,
                                              .relay_port = f.boxes[0].netns.relay_port,
                                              .default_action = EGRESS_DENY };
        struct egress_token token;
        uint32_t number, place;

        ck_assert_int_eq(egress_wall_admit(f.wall, f.boxes[0].group.id, &entry), 0);
        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, &allowed[0]), 0);
        number = accept_token();
        ck_assert_uint_eq(read_token(number).serial, 0); /* of the other's slot */
        place = EGRESS_TOKENS + EGRESS_TOKEN_PLACE(number);
        ck_assert_int_eq(
                bpf_map_lookup_elem(egress_wall_map_fd(f.wall, EGRESS_MAP_TOKENS), &place, &token),
                0);
        ck_assert_uint_eq(token.serial, EGRESS_TOKEN_SERIAL(number));
        ck_assert_uint_eq(token.cgroup_id, f.boxes[0].group.id);
}
END_TEST

/* A listener of the box itself. */
static int listen_at(const char *address, struct sockaddr_storage *ret_address)
{
        socklen_t size = fill_address(address, 0, false, ret_address);
        int fd = socket(ret_address->ss_family, SOCK_STREAM, 0);

        if (bind(fd, (struct sockaddr *)ret_address, size) < 0 || listen(fd, 1) < 0 ||
            getsockname(fd, (struct sockaddr *)ret_address, &size) < 0)
                _exit(UNEXPECTED);
        return fd;
}

/* 0: there, and it says so. */
static int reconnect(int fd, const struct sockaddr_storage *wanted, socklen_t size)
{
        const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
        struct sockaddr_storage peer;

        (void)memset(&peer, 0, sizeof(peer));
        if (connect(fd, &nowhere, sizeof(nowhere)) < 0 ||
            connect(fd, (const struct sockaddr *)wanted, size) < 0 ||
            getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
                return errno;
        return memcmp(&peer, wanted, size) == 0 ? 0 : UNEXPECTED;
}

struct route {
        struct target first, second;
        const char *local;
};

static int connect_again(const void *data)
{
        const struct route *route = data;
        struct sockaddr_storage wanted;
        socklen_t size = address_of(&route->first, &wanted);
        int fd = socket(wanted.ss_family, SOCK_STREAM, 0);
        int r = reconnect(fd, &wanted, size);

        if (r)
                return r;
        (void)address_of(&route->second, &wanted);
        r = reconnect(fd, &wanted, size);
        if (r)
                return r;
        (void)listen_at(route->local, &wanted);
        return reconnect(fd, &wanted, size);
}

static const struct route routes[] = {
        { { "203.0.113.9", 443, false, false }, { "203.0.113.10", 80, false, false }, "127.0.0.1" },
        { { "2001:db8:1::9", 443, false, false }, { "2001:db8:1::10", 80, false, false }, "::1" },
};

/* Also when it was somewhere else before. */
START_TEST(a_socket_believes_that_it_is_where_it_was_connected_last)
{
        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        add_rule("2001:db8:1::", 48, EGRESS_ALLOW);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_again, &routes[_i]), 0);
}
END_TEST

/* The neighbour has the same number of policy, but not the same entry. */
START_TEST(a_neighbour_has_its_own_policy)
{
        add_rule("203.0.113.0", 24, EGRESS_ALLOW);
        ck_assert_int_eq(in_box(&f.boxes[1], connect_to, &allowed[0]), EPERM);
        ck_assert_int_eq(in_box(&f.boxes[0], connect_to, &allowed[0]), 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("redirect");
        TCase *tests = tcase_create("redirect");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 60);
        tcase_add_loop_test(tests, what_a_rule_allows_goes_to_the_relay, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, what_no_rule_allows_is_refused, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, what_the_default_allows_goes_to_the_relay, 0,
                            ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, the_longest_prefix_decides, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, what_is_always_denied_is_denied_to_all, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, the_default_does_not_lead_to_what_was_opened, 0,
                            ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, rules_lead_to_what_was_opened, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, without_a_relay_nothing_leaves, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, without_a_policy_nothing_leaves, 0, ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, the_address_of_a_name_is_allowed_as_long_as_it_is_good, 0,
                            ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, a_rule_denies_also_the_address_of_a_name, 0,
                            ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, ranges_of_ports_decide, 0, 8);
        tcase_add_loop_test(tests, datagrams_are_refused_whatever_the_rules_say, 0,
                            ARRAY_SIZE(allowed));
        tcase_add_loop_test(tests, a_datagram_socket_that_only_looks_is_refused_in_silence, 0,
                            ARRAY_SIZE(allowed));
        tcase_add_test(tests, tokens_of_one_place_differ);
        tcase_add_test(tests, a_token_is_wholly_that_of_who_has_the_place_last);
        tcase_add_test(tests, a_token_is_not_chosen_by_where_a_socket_is_bound);
        tcase_add_test(tests, tokens_of_a_sandbox_are_in_its_own_slot);
        tcase_add_loop_test(tests, a_socket_believes_that_it_is_where_it_was_connected_last, 0,
                            ARRAY_SIZE(routes));
        tcase_add_test(tests, a_neighbour_has_its_own_policy);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
