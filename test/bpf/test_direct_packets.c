/* What the programs at a sandbox's device say of packets that are made by hand. */

#include <arpa/inet.h>
#include <check.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "runtime/base/macros.h"
#include "test/bpf/direct_world.h"
#include "test/lib/suite.h"

enum {
        PASS = 0,
        DROP = 2,
        NOTHING = -1, /* no event */
};

static int find_program(const char *name)
{
        size_t n;
        const uint32_t *ids = egress_wall_program_ids(world.f.wall, &n);

        for (size_t i = 0; i < n; i++) {
                struct bpf_prog_info info = { 0 };
                uint32_t n_info = sizeof(info);
                int fd = bpf_prog_get_fd_by_id(ids[i]);

                ck_assert_int_ge(fd, 0);
                ck_assert_int_eq(bpf_obj_get_info_by_fd(fd, &info, &n_info), 0);
                /* The kernel cuts names to 15 bytes. */
                if (strncmp(info.name, name, BPF_OBJ_NAME_LEN - 1) == 0)
                        return fd;
                (void)close(fd);
        }
        ck_abort_msg("there is no program %s", name);
}

static int run_at(const char *program, uint32_t device, const struct packet *packet)
{
        struct __sk_buff context = { .ifindex = device };
        DECLARE_LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet->bytes,
                            .data_size_in = (uint32_t)packet->n, .ctx_in = &context,
                            .ctx_size_in = sizeof(context), .repeat = 1);
        int fd = find_program(program);

        ck_assert_int_eq(bpf_prog_test_run_opts(fd, &options), 0);
        (void)close(fd);
        return (int)options.retval;
}

static int send_outward(const struct packet *packet)
{
        return run_at("egress_from_sandbox", world.f.boxes[0].netns.device, packet);
}

static int send_inward(const struct packet *packet)
{
        return run_at("egress_to_sandbox", world.f.boxes[0].netns.device, packet);
}

/* As if nothing had happened yet. */
static void forget_counts(void)
{
        const struct egress_counts zeros = { 0 };

        ck_assert_int_eq(bpf_map_update_elem(egress_wall_map_fd(world.f.wall, EGRESS_MAP_COUNTS),
                                             &world.f.boxes[0].group.id, &zeros, BPF_EXIST),
                         0);
}

static bool is_about(const struct egress_event *event, const struct flow *flow)
{
        bool is_v6 = strchr(flow->destination, ':') != NULL;
        uint8_t address[16] = { 0 };

        if (flow->twist == TWIST_VLAN)
                return true;
        (void)inet_pton(is_v6 ? AF_INET6 : AF_INET, flow->destination, address);
        if (event->is_v6 != is_v6 || memcmp(event->address, address, sizeof(address)) != 0)
                return false;
        return flow->twist != TWIST_NONE ||
               (event->protocol == flow->protocol &&
                event->port == (flow->protocol == IPPROTO_UDP ? flow->port : 0));
}

static void expect_event(const char *what, const struct flow *flow, int verdict)
{
        struct egress_counts counts = counts_of(&world.f, &world.f.boxes[0]);
        struct egress_event event;

        ck_assert_msg(counts.n_denied == (verdict == NOTHING ? 0 : 1), "%s", what);
        ck_assert_uint_eq(counts.n_logged, counts.n_denied);
        if (verdict == NOTHING)
                return;
        event = next_event(&world.f);
        ck_assert_msg(event.verdict == verdict, "%s: %d, not %d", what, event.verdict, verdict);
        ck_assert_msg(is_about(&event, flow), "%s", what);
        if (verdict == EGRESS_DENIED_RULE)
                ck_assert_uint_eq(event.rule, strcmp(flow->destination, DENIED4) == 0
                                                      ? DENIED_RULE
                                                      : DENIED_WITHIN_RULE);
        ck_assert_uint_eq(event.cgroup_id, world.f.boxes[0].group.id);
        ck_assert_uint_eq(event.policy_version, POLICY_VERSION);
        ck_assert_uint_eq(event.pid + event.leaf_id, 0);
}

static const struct {
        const char *what;
        struct flow flow;
        int verdict; /* NOTHING: it passes, or is dropped and not told */
        bool passes;
} outward[] = {
        { "UDP by a rule", UDP4(OWN4, ALLOWED4, 53, 0), NOTHING, true },
        { "UDP by a rule, IPv6", UDP6(OWN6, ALLOWED6, 53, 0), NOTHING, true },
        { "ping by a rule", ICMP4(OWN4, ALLOWED4, 8, 0), NOTHING, true },
        { "ping by a rule, IPv6", ICMP6(OWN6, ALLOWED6, 128, 0), NOTHING, true },
        { "a neighbour of the host", UDP4(OWN4, NEAR4, 9, 0), NOTHING, true },
        { "another port", UDP4(OWN4, ALLOWED4, 54, 0), EGRESS_DENIED_DEFAULT, false },
        { "another port, IPv6", UDP6(OWN6, ALLOWED6, 54, 0), EGRESS_DENIED_DEFAULT, false },
        { "no rule, public by default", UDP4(OWN4, BESIDE4, 53, 0), EGRESS_DENIED_DEFAULT, false },
        { "the same, IPv6", UDP6(OWN6, BESIDE6, 53, 0), EGRESS_DENIED_DEFAULT, false },
        { "ping, no rule", ICMP4(OWN4, BESIDE4, 8, 0), EGRESS_DENIED_DEFAULT, false },
        { "ping, no rule, IPv6", ICMP6(OWN6, BESIDE6, 128, 0), EGRESS_DENIED_DEFAULT, false },
        { "denied by a rule", UDP4(OWN4, DENIED4, 53, 0), EGRESS_DENIED_RULE, false },
        { "denied within NAT64", UDP6(OWN6, "64:ff9b::808:808", 53, 0), EGRESS_DENIED_RULE, false },
        { "denied within ISATAP", UDP6(OWN6, "2606:2800:220:1::5efe:808:808", 53, 0),
          EGRESS_DENIED_RULE, false },
        { "private within ISATAP", UDP6(OWN6, "2606:2800:220:1::5efe:a01:203", 53, 0),
          EGRESS_DENIED_ALWAYS, false },
        { "the same, the only one", UDP6(OWN6, "2606:2800:220:1:200:5efe:a01:203", 53, 0),
          EGRESS_DENIED_ALWAYS, false },
        { "ping to metadata within ISATAP", ICMP6(OWN6, "2606:2800:220:1::5efe:a9fe:a9fe", 128, 0),
          EGRESS_DENIED_ALWAYS, false },
        { "denied within 6to4", UDP6(OWN6, "2002:808:808::1", 53, 0), EGRESS_DENIED_RULE, false },
        { "denied, compatible", UDP6(OWN6, "::8.8.8.8", 53, 0), EGRESS_DENIED_RULE, false },
        { "denied within nothing", UDP6(OWN6, "2003:808:808::1", 53, 0), EGRESS_DENIED_DEFAULT,
          false },
        { "metadata, by a rule", UDP4(OWN4, "100.100.100.200", 53, 0), EGRESS_DENIED_ALWAYS,
          false },
        { "private, by a rule", UDP4(OWN4, "10.1.2.3", 53, 0), EGRESS_DENIED_ALWAYS, false },
        { "multicast, IPv6", UDP6(OWN6, "ff02::fb", 5353, 0), EGRESS_DENIED_ALWAYS, false },
        { "the host itself, by a rule", UDP4(OWN4, HOST4, 9, 0), EGRESS_DENIED_ALWAYS, false },
        { "the host itself, IPv6", UDP6(OWN6, HOST6, 53, 0), EGRESS_DENIED_ALWAYS, false },
        { "another sandbox, by a rule", UDP4(OWN4, OTHER4, 9, 0), EGRESS_DENIED_ALWAYS, false },
        { "another sandbox, IPv6", UDP6(OWN6, OTHER6, 9, 0), EGRESS_DENIED_ALWAYS, false },
        { "itself", UDP4(OWN4, OWN4, 9, 0), EGRESS_DENIED_ALWAYS, false },
        { "another sender", UDP4(OTHER4, ALLOWED4, 53, 0), EGRESS_DENIED_SOURCE, false },
        { "another sender, IPv6", UDP6(OTHER6, ALLOWED6, 53, 0), EGRESS_DENIED_SOURCE, false },
        { "no sender", UDP4("0.0.0.0", ALLOWED4, 53, 0), EGRESS_DENIED_SOURCE, false },
        { "no sender, IPv6", UDP6("::", ALLOWED6, 53, 0), EGRESS_DENIED_SOURCE, false },
        { "half of its own sender", UDP6("2001:db8:7::", ALLOWED6, 53, 0), EGRESS_DENIED_SOURCE,
          false },
        { "another one's ping", ICMP4(OTHER4, ALLOWED4, 8, 0), EGRESS_DENIED_SOURCE, false },
        { "a first fragment", UDP4(OWN4, ALLOWED4, 53, TWIST_FIRST_FRAGMENT), EGRESS_DENIED_PACKET,
          false },
        { "a later fragment", UDP4(OWN4, ALLOWED4, 53, TWIST_LATER_FRAGMENT), EGRESS_DENIED_PACKET,
          false },
        { "a fragment, IPv6", UDP6(OWN6, ALLOWED6, 53, TWIST_FRAGMENT6), EGRESS_DENIED_PACKET,
          false },
        { "options", UDP4(OWN4, ALLOWED4, 53, TWIST_OPTIONS), EGRESS_DENIED_PACKET, false },
        { "an extension, IPv6", UDP6(OWN6, ALLOWED6, 53, TWIST_OPTIONS), EGRESS_DENIED_PACKET,
          false },
        { "the other version", UDP4(OWN4, ALLOWED4, 53, TWIST_VERSION), EGRESS_DENIED_PACKET,
          false },
        { "the other version, IPv6", UDP6(OWN6, ALLOWED6, 53, TWIST_VERSION), EGRESS_DENIED_PACKET,
          false },
        { "cut", UDP4(OWN4, ALLOWED4, 53, TWIST_CUT), EGRESS_DENIED_PACKET, false },
        { "cut, IPv6", UDP6(OWN6, ALLOWED6, 53, TWIST_CUT), EGRESS_DENIED_PACKET, false },
        { "nothing behind the head", UDP4(OWN4, ALLOWED4, 53, TWIST_LENGTH), EGRESS_DENIED_PACKET,
          false },
        { "nothing behind, IPv6", UDP6(OWN6, ALLOWED6, 53, TWIST_LENGTH), EGRESS_DENIED_PACKET,
          false },
        { "VLAN", UDP4(OWN4, ALLOWED4, 53, TWIST_VLAN), EGRESS_DENIED_PACKET, false },
        { "TCP, by a rule",
          { OWN4, ALLOWED4, IPPROTO_TCP, 0, 4444, 80, 0 },
          EGRESS_DENIED_PACKET,
          false },
        { "TCP, IPv6",
          { OWN6, ALLOWED6, IPPROTO_TCP, 0, 4444, 53, 0 },
          EGRESS_DENIED_PACKET,
          false },
        { "SCTP", { OWN4, ALLOWED4, IPPROTO_SCTP, 0, 53, 53, 0 }, EGRESS_DENIED_PACKET, false },
        { "UDP-Lite",
          { OWN4, ALLOWED4, IPPROTO_UDPLITE, 0, 53, 53, 0 },
          EGRESS_DENIED_PACKET,
          false },
        { "ICMPv6 within IPv4",
          { OWN4, ALLOWED4, IPPROTO_ICMPV6, 128, 0, 0, 0 },
          EGRESS_DENIED_PACKET,
          false },
        { "ICMP within IPv6",
          { OWN6, ALLOWED6, IPPROTO_ICMP, 8, 0, 0, 0 },
          EGRESS_DENIED_PACKET,
          false },
        { "an echo reply", ICMP4(OWN4, ALLOWED4, 0, 0), EGRESS_DENIED_PACKET, false },
        { "a redirect", ICMP4(OWN4, ALLOWED4, 5, 0), EGRESS_DENIED_PACKET, false },
        { "a request for the time", ICMP4(OWN4, ALLOWED4, 13, 0), EGRESS_DENIED_PACKET, false },
        { "an echo reply, IPv6", ICMP6(OWN6, ALLOWED6, 129, 0), EGRESS_DENIED_PACKET, false },
        { "an extended echo, IPv6", ICMP6(OWN6, ALLOWED6, 160, 0), EGRESS_DENIED_PACKET, false },
        /* By the sandbox's kernel, for it. */
        { "ARP", UDP4(OWN4, ALLOWED4, 53, TWIST_ARP), NOTHING, false },
        { "IGMP", { OWN4, "224.0.0.22", IPPROTO_IGMP, 0x22, 0, 0, TWIST_OPTIONS }, NOTHING, false },
        { "MLD", ICMP6("::", "ff02::16", 143, TWIST_OPTIONS), NOTHING, false },
        { "router solicitation", ICMP6(OWN6, "ff02::2", 133, 0), NOTHING, false },
        { "neighbour solicitation", ICMP6(OWN6, "ff02::1:ff00:1", 135, 0), NOTHING, false },
        { "unreachable", ICMP4(OWN4, ALLOWED4, 3, 0), NOTHING, false },
        { "unreachable, IPv6", ICMP6(OWN6, ALLOWED6, 1, 0), NOTHING, false },
        { "time exceeded", ICMP4(OWN4, ALLOWED4, 11, 0), NOTHING, false },
        { "time exceeded, IPv6", ICMP6(OWN6, ALLOWED6, 3, 0), NOTHING, false },
        { "a problem with parameters", ICMP4(OWN4, ALLOWED4, 12, 0), NOTHING, false },
        { "the same, IPv6", ICMP6(OWN6, ALLOWED6, 4, 0), NOTHING, false },
        { "MLD without options", ICMP6("::", "ff02::16", 143, 0), NOTHING, false },
};

START_TEST(each_packet_of_a_sandbox_is_judged)
{
        for (size_t i = 0; i < ARRAY_SIZE(outward); i++) {
                struct packet packet = packet_make(&outward[i].flow);

                forget_counts();
                ck_assert_msg(send_outward(&packet) == (outward[i].passes ? PASS : DROP), "%s",
                              outward[i].what);
                expect_event(outward[i].what, &outward[i].flow, outward[i].verdict);
        }
}
END_TEST

static const struct {
        const char *what;
        struct flow flow;
        struct flow quoted; /* zeros: none */
        bool passes;
} inward[] = {
        { "an answer", { ALLOWED4, OWN4, IPPROTO_UDP, 0, 53, 4444, 0 }, { 0 }, true },
        { "an answer, IPv6", { ALLOWED6, OWN6, IPPROTO_UDP, 0, 53, 4444, 0 }, { 0 }, true },
        { "an echo reply", ICMP4(ALLOWED4, OWN4, 0, 0), { 0 }, true },
        { "an echo reply, IPv6", ICMP6(ALLOWED6, OWN6, 129, 0), { 0 }, true },
        { "from another port", { ALLOWED4, OWN4, IPPROTO_UDP, 0, 54, 53, 0 }, { 0 }, false },
        { "from another port, IPv6", { ALLOWED6, OWN6, IPPROTO_UDP, 0, 54, 53, 0 }, { 0 }, false },
        { "from elsewhere", { BESIDE4, OWN4, IPPROTO_UDP, 0, 53, 4444, 0 }, { 0 }, false },
        { "from who is denied", { DENIED4, OWN4, IPPROTO_UDP, 0, 53, 4444, 0 }, { 0 }, false },
        { "from who always is", { "10.1.2.3", OWN4, IPPROTO_UDP, 0, 53, 4444, 0 }, { 0 }, false },
        { "to another", { ALLOWED4, OTHER4, IPPROTO_UDP, 0, 53, 4444, 0 }, { 0 }, false },
        { "a fragment",
          { ALLOWED4, OWN4, IPPROTO_UDP, 0, 53, 44, TWIST_FIRST_FRAGMENT },
          { 0 },
          false },
        { "options", { ALLOWED4, OWN4, IPPROTO_UDP, 0, 53, 4444, TWIST_OPTIONS }, { 0 }, false },
        { "an extension", { ALLOWED6, OWN6, IPPROTO_UDP, 0, 53, 44, TWIST_OPTIONS }, { 0 }, false },
        { "cut", { ALLOWED4, OWN4, IPPROTO_UDP, 0, 53, 4444, TWIST_CUT }, { 0 }, false },
        { "TCP", { ALLOWED4, OWN4, IPPROTO_TCP, 0, 80, 22, 0 }, { 0 }, false },
        { "TCP, IPv6", { ALLOWED6, OWN6, IPPROTO_TCP, 0, 53, 22, 0 }, { 0 }, false },
        { "a ping", ICMP4(ALLOWED4, OWN4, 8, 0), { 0 }, false },
        { "a ping, IPv6", ICMP6(ALLOWED6, OWN6, 128, 0), { 0 }, false },
        { "an echo reply from elsewhere", ICMP4(BESIDE4, OWN4, 0, 0), { 0 }, false },
        { "a redirect", ICMP4(ALLOWED4, OWN4, 5, 0), UDP4(OWN4, ALLOWED4, 53, 0), false },
        { "a router's advertisement", ICMP6("fe80::1", OWN6, 134, 0), { 0 }, false },
        { "ARP", UDP4(ALLOWED4, OWN4, 53, TWIST_ARP), { 0 }, false },
        { "unreachable", ICMP4(BESIDE4, OWN4, 3, 0), UDP4(OWN4, ALLOWED4, 53, 0), true },
        { "time exceeded", ICMP4(BESIDE4, OWN4, 11, 0), ICMP4(OWN4, ALLOWED4, 8, 0), true },
        { "unreachable, IPv6", ICMP6(BESIDE6, OWN6, 1, 0), UDP6(OWN6, ALLOWED6, 53, 0), true },
        { "too big, IPv6", ICMP6(BESIDE6, OWN6, 2, 0), UDP6(OWN6, ALLOWED6, 53, 0), true },
        { "time exceeded, IPv6", ICMP6(BESIDE6, OWN6, 3, 0), ICMP6(OWN6, ALLOWED6, 128, 0), true },
        { "about another port", ICMP4(BESIDE4, OWN4, 3, 0), UDP4(OWN4, ALLOWED4, 54, 0), false },
        { "about another one's", ICMP4(BESIDE4, OWN4, 3, 0), UDP4(OTHER4, ALLOWED4, 53, 0), false },
        { "about TCP",
          ICMP4(BESIDE4, OWN4, 3, 0),
          { OWN4, ALLOWED4, IPPROTO_TCP, 0, 4444, 80, 0 },
          false },
        { "about what is denied", ICMP4(BESIDE4, OWN4, 3, 0), UDP4(OWN4, DENIED4, 53, 0), false },
        { "about an echo reply", ICMP4(BESIDE4, OWN4, 3, 0), ICMP4(OWN4, ALLOWED4, 0, 0), false },
        { "about a fragment", ICMP4(BESIDE4, OWN4, 3, 0),
          UDP4(OWN4, ALLOWED4, 53, TWIST_LATER_FRAGMENT), false },
        { "about less than a packet", ICMP4(BESIDE4, OWN4, 3, TWIST_NONE),
          UDP4(OWN4, ALLOWED4, 53, TWIST_CUT), false },
        { "about nothing", ICMP4(BESIDE4, OWN4, 3, 0), { 0 }, false },
        { "a problem with parameters", ICMP4(BESIDE4, OWN4, 12, 0), UDP4(OWN4, ALLOWED4, 53, 0),
          false },
};

START_TEST(only_answers_and_errors_come_in)
{
        for (size_t i = 0; i < ARRAY_SIZE(inward); i++) {
                struct packet packet = inward[i].quoted.source
                                               ? packet_quote(&inward[i].flow, &inward[i].quoted)
                                               : packet_make(&inward[i].flow);
                struct egress_counts counts;

                forget_counts();
                ck_assert_msg(send_inward(&packet) == (inward[i].passes ? PASS : DROP), "%s",
                              inward[i].what);
                counts = counts_of(&world.f, &world.f.boxes[0]);
                ck_assert_uint_eq(counts.n_denied, 0);
                /* The host's kernel sends something of its own now and then. */
                ck_assert(inward[i].passes || counts.n_unasked >= 1);
        }
}
END_TEST

static const struct flow good_out = UDP4(OWN4, ALLOWED4, 53, 0);
static const struct flow good_in = { ALLOWED4, OWN4, IPPROTO_UDP, 0, 53, 4444, 0 };

static void expect_passing(bool passes)
{
        struct packet out = packet_make(&good_out), in = packet_make(&good_in);

        ck_assert_int_eq(send_outward(&out), passes ? PASS : DROP);
        ck_assert_int_eq(send_inward(&in), passes ? PASS : DROP);
}

START_TEST(a_device_that_is_nobodys_carries_nothing)
{
        expect_passing(true);
        egress_wall_forget_device(world.f.wall, world.f.boxes[0].netns.device);
        expect_passing(false);
        ck_assert_uint_eq(counts_of(&world.f, &world.f.boxes[0]).n_denied, 0);
        ck_assert_int_eq(direct_bind(&world.f.boxes[0].netns, world.f.boxes[0].group.id), 0);
        expect_passing(true);
}
END_TEST

/* Zeros are no address that a device has. */
START_TEST(a_device_without_addresses_sends_nothing)
{
        static const struct flow flows[] = { UDP4(OWN4, ALLOWED4, 53, 0),
                                             UDP4("0.0.0.0", ALLOWED4, 53, 0),
                                             UDP6(OWN6, ALLOWED6, 53, 0),
                                             UDP6("::", ALLOWED6, 53, 0) };
        const struct egress_device device = { .cgroup_id = world.f.boxes[0].group.id };

        ck_assert_int_eq(
                egress_wall_bind_device(world.f.wall, world.f.boxes[0].netns.device, &device), 0);
        for (size_t i = 0; i < ARRAY_SIZE(flows); i++) {
                struct packet packet = packet_make(&flows[i]);

                forget_counts();
                ck_assert_int_eq(send_outward(&packet), DROP);
                expect_event(flows[i].source, &flows[i], EGRESS_DENIED_SOURCE);
        }
}
END_TEST

START_TEST(a_sandbox_without_a_policy_or_an_entry_sends_nothing)
{
        direct_world_point_at(EGRESS_POLICY_ALWAYS);
        expect_passing(false);
        egress_wall_forget(world.f.wall, world.f.boxes[0].group.id);
        expect_passing(false);
}
END_TEST

START_TEST(a_policy_holds_from_the_next_packet_on)
{
        expect_passing(true);
        for (size_t i = 0; i < world.table.n_entries; i++)
                tables_remove_entry(&world.tables, world.tables.n_numbers, &world.table.entries[i]);
        expect_passing(false);
        ck_assert_int_eq(next_event(&world.f).verdict, EGRESS_DENIED_DEFAULT);
}
END_TEST

START_TEST(what_the_host_does_not_send_on_is_refused)
{
        struct packet packet = packet_make(&good_out);
        char path[128], name[IFNAMSIZ];

        ck_assert_ptr_nonnull(if_indextoname(world.f.boxes[0].netns.device, name));
        (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/forwarding", name);
        direct_world_set(path, "0");
        ck_assert_int_eq(send_outward(&packet), DROP);
        ck_assert_int_eq(next_event(&world.f).verdict, EGRESS_DENIED_ROUTE);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("direct_packets");
        TCase *tests = tcase_create("direct_packets");

        tcase_add_checked_fixture(tests, direct_world_setup, direct_world_teardown);
        tcase_set_timeout(tests, 60);
        tcase_add_test(tests, each_packet_of_a_sandbox_is_judged);
        tcase_add_test(tests, only_answers_and_errors_come_in);
        tcase_add_test(tests, a_device_that_is_nobodys_carries_nothing);
        tcase_add_test(tests, a_device_without_addresses_sends_nothing);
        tcase_add_test(tests, a_sandbox_without_a_policy_or_an_entry_sends_nothing);
        tcase_add_test(tests, a_policy_holds_from_the_next_packet_on);
        tcase_add_test(tests, what_the_host_does_not_send_on_is_refused);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
