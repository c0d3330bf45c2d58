/* Direct mode's devices, and what sockets learn of it. */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/bpf/direct_world.h"
#include "test/lib/suite.h"

/* --- the hooks of sockets --------------------------------------------------------------------- */

static socklen_t parse(const char *text, uint16_t port, struct sockaddr_storage *ret)
{
        struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

        memset(ret, 0, sizeof(*ret));
        if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
                v4->sin_family = AF_INET;
                v4->sin_port = htons(port);
                return sizeof(*v4);
        }
        (void)inet_pton(AF_INET6, text, &v6->sin6_addr);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof(*v6);
}

static int send_udp(const void *data)
{
        const struct flow *flow = data;
        struct sockaddr_storage to;
        socklen_t size = parse(flow->destination, flow->port, &to);
        int fd = socket(to.ss_family, SOCK_DGRAM, 0);

        if (fd < 0 || sendto(fd, "x", 1, 0, (struct sockaddr *)&to, size) < 0)
                return errno;
        return connect(fd, (struct sockaddr *)&to, size) < 0 ? errno : 0;
}

static const struct {
        struct flow flow;
        int error;
} sends[] = {
        { UDP4(OWN4, ALLOWED4, 53, 0), 0 },     { UDP6(OWN6, ALLOWED6, 53, 0), 0 },
        { UDP4(OWN4, ALLOWED4, 54, 0), EPERM }, { UDP6(OWN6, ALLOWED6, 54, 0), EPERM },
        { UDP4(OWN4, DENIED4, 53, 0), EPERM },  { UDP4(OWN4, "10.1.2.3", 53, 0), EPERM },
};

START_TEST(sockets_learn_at_once_what_would_be_dropped)
{
        for (size_t i = 0; i < ARRAY_SIZE(sends); i++)
                ck_assert_int_eq(in_box(&world.f.boxes[0], send_udp, &sends[i].flow),
                                 sends[i].error);
}
END_TEST

static int connect_udp(const void *data)
{
        const struct flow *flow = data;
        struct sockaddr_storage to;
        socklen_t size = parse(flow->destination, flow->port, &to);
        int fd = socket(to.ss_family, SOCK_DGRAM, 0);

        return connect(fd, (struct sockaddr *)&to, size) < 0 ? errno : 0;
}

/* TCP may go to both: who only looks which address could be reached is not told, but for what a
 * rule says. */
START_TEST(what_a_rule_denies_is_told_also_when_nothing_is_sent)
{
        static const struct flow by_default = UDP4(OWN4, BESIDE4, 53, 0);
        static const struct flow by_rule = UDP4(OWN4, DENIED4, 53, 0);
        struct egress_event event;

        ck_assert_int_eq(in_box(&world.f.boxes[0], connect_udp, &by_default), EPERM);
        ck_assert_uint_eq(counts_of(&world.f, &world.f.boxes[0]).n_denied, 0);
        ck_assert_int_eq(in_box(&world.f.boxes[0], connect_udp, &by_rule), EPERM);
        ck_assert_uint_eq(counts_of(&world.f, &world.f.boxes[0]).n_denied, 1);
        event = next_event(&world.f);
        ck_assert_uint_eq(event.verdict, EGRESS_DENIED_RULE);
        ck_assert_uint_eq(event.rule, DENIED_RULE);
}
END_TEST

/* The families of the device, of which each allows a ping socket. */
static int make_sockets(const void *data)
{
        const uint8_t *direct = data;
        static const struct {
                int family, type, protocol;
                uint8_t needs; /* zero: what nobody may have */
        } kinds[] = {
                { AF_INET, SOCK_DGRAM, IPPROTO_ICMP, EGRESS_DIRECT4 },
                { AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6, EGRESS_DIRECT6 },
                { AF_INET, SOCK_RAW, IPPROTO_ICMP, 0 },
                { AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, 0 },
                { AF_INET, SOCK_RAW, IPPROTO_UDP, 0 },
                { AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                bool is_made = socket(kinds[i].family, kinds[i].type, kinds[i].protocol) >= 0;

                if (is_made != ((kinds[i].needs & *direct) != 0))
                        return (int)i + 1;
        }
        return 0;
}

START_TEST(ping_sockets_are_for_those_who_have_a_device)
{
        struct egress_sandbox entry = { .policy = world.tables.n_numbers, .slot = 1 };
        const uint8_t both = EGRESS_DIRECT4 | EGRESS_DIRECT6;

        ck_assert_int_eq(in_box(&world.f.boxes[0], make_sockets, &both), 0);
        for (entry.direct = 0; entry.direct <= both; entry.direct++) {
                ck_assert_int_eq(
                        tables_set_sandbox(&world.tables, world.f.boxes[1].group.id, &entry), 0);
                ck_assert_int_eq(in_box(&world.f.boxes[1], make_sockets, &entry.direct), 0);
        }
}
END_TEST

/* --- the devices ------------------------------------------------------------------------------ */

static int look_inside(const void *data)
{
        static const char *const own[] = { OWN4, OWN6 };
        struct if_nameindex *devices = if_nameindex();
        size_t n = 0;

        (void)data;
        while (devices[n].if_index)
                n++;
        for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
                struct sockaddr_storage address;
                socklen_t size = parse(own[i], 99, &address);
                int fd = socket(address.ss_family, SOCK_DGRAM, 0);

                if (bind(fd, (struct sockaddr *)&address, size) < 0)
                        return errno;
        }
        return n == 2 && if_nametoindex("eth0") ? 0 : 255;
}

START_TEST(a_network_has_its_device_and_addresses)
{
        char name[IFNAMSIZ];

        ck_assert_int_eq(in_box(&world.f.boxes[0], look_inside, NULL), 0);
        ck_assert_ptr_nonnull(if_indextoname(world.f.boxes[0].netns.device, name));
        ck_assert_int_eq(strncmp(name, "hc", 2), 0);
}
END_TEST

START_TEST(no_address_is_given_out_twice)
{
        struct direct_pool small = { 0 };
        const struct direct_config config = { .pool = &small,
                                              .wall = world.f.wall,
                                              .run_dir = "/run/hotcell-test-small" };
        struct netns networks[3] = { NETNS_NONE, NETNS_NONE, NETNS_NONE };
        struct direct *other;

        ck_assert_int_eq(direct_pool_add(&small, "192.0.2.0/30"), 0);
        ck_assert_uint_eq(direct_pool_size(&small), 2);
        ck_assert_int_eq(direct_new(&config, &other), 0);
        for (size_t i = 0; i < ARRAY_SIZE(networks); i++) {
                ck_assert_int_eq(netns_make(world.f.home_fd, false, &networks[i]), 0);
                ck_assert_int_eq(direct_join(other, &networks[i]), i < 2 ? 0 : DIRECT_E_BUSY);
        }
        ck_assert_uint_ne(networks[0].address, networks[1].address);
        for (size_t i = 0; i < ARRAY_SIZE(networks); i++)
                netns_close(&networks[i]);
        (void)direct_free(other);
}
END_TEST

START_TEST(what_a_runtime_left_is_swept_and_nothing_else)
{
        char mine[IFNAMSIZ], others[IFNAMSIZ];
        unsigned n;

        ck_assert_ptr_nonnull(if_indextoname(world.f.boxes[0].netns.device, mine));
        (void)snprintf(others, sizeof(others), "%.9sx", mine);
        ck_assert_int_eq(links_create_pair(world.home,
                                           &(struct links_pair){
                                                   .name = others,
                                                   .hardware = (uint8_t[]){ 2, 0, 0, 0, 0, 7 },
                                                   .peer_name = "peer",
                                                   .peer_hardware = (uint8_t[]){ 2, 0, 0, 0, 0, 8 },
                                                   .peer_netns_fd = world.f.home_fd }),
                         0);
        ck_assert_int_eq(links_set_alias(world.home, if_nametoindex(others),
                                         "hotcell-runtime /run/of-another"),
                         0);
        ck_assert_int_eq(direct_sweep("/run/of-nobody", &n), 0);
        ck_assert_uint_eq(n, 0);
        ck_assert_int_eq(direct_sweep(world.run_dir, &n), 0);
        ck_assert_uint_eq(n, BOXES);
        ck_assert_uint_eq(if_nametoindex(mine), 0);
        ck_assert_uint_ne(if_nametoindex(others), 0);
        ck_assert_uint_ne(if_nametoindex("up0"), 0);
        ck_assert_int_eq(direct_sweep(world.run_dir, &n), 0);
        ck_assert_uint_eq(n, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("direct");
        TCase *tests = tcase_create("direct");

        tcase_add_checked_fixture(tests, direct_world_setup, direct_world_teardown);
        tcase_set_timeout(tests, 60);
        tcase_add_test(tests, sockets_learn_at_once_what_would_be_dropped);
        tcase_add_test(tests, what_a_rule_denies_is_told_also_when_nothing_is_sent);
        tcase_add_test(tests, ping_sockets_are_for_those_who_have_a_device);
        tcase_add_test(tests, a_network_has_its_device_and_addresses);
        tcase_add_test(tests, no_address_is_given_out_twice);
        tcase_add_test(tests, what_a_runtime_left_is_swept_and_nothing_else);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
