#include "test/bpf/direct_world.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"

struct direct_world world;

/* --- the network ------------------------------------------------------------------------------ */

void direct_world_set(const char *path, const char *value)
{
        ck_assert_int_eq(io_write_file(AT_FDCWD, path, value), 0);
}

static struct links_address address_of(const char *text, uint8_t bytes[static 16])
{
        struct links_address address = { strchr(text, ':') != NULL, bytes };

        ck_assert_int_eq(inet_pton(address.is_v6 ? AF_INET6 : AF_INET, text, bytes), 1);
        return address;
}

/* The kernel makes an address of IPv6 its own a little later. */
static void wait_for_own(void)
{
        char text[8192] = "";

        for (unsigned i = 0; i < 10000 && !strstr(text, "26062800021f00000000000000000014 80");
             i++) {
                ck_assert_int_eq(
                        io_read_file(AT_FDCWD, "/proc/net/ipv6_route", text, sizeof(text), NULL),
                        0);
                (void)usleep(1000);
        }
        ck_assert_ptr_nonnull(strstr(text, "26062800021f00000000000000000014 80"));
}

static void make_uplink(void)
{
        static const uint8_t hardware[LINKS_HARDWARE_BYTES] = { 2, 0, 0, 0, 0, 9 };
        const struct links_pair pair = {
                .name = "up0",
                .hardware = hardware,
                .peer_name = "up1",
                .peer_hardware = hardware,
                .peer_netns_fd = world.f.home_fd,
        };
        static const char *const own[] = { HOST4, HOST6 };
        static const char *const gateways[] = { NEAR4, "fe80::9" };
        uint32_t number;

        direct_world_set("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        ck_assert_int_eq(links_create_pair(world.home, &pair), 0);
        number = if_nametoindex("up0");
        ck_assert_int_eq(links_bring_up(world.home, number), 0);
        ck_assert_int_eq(links_bring_up(world.home, if_nametoindex("up1")), 0);
        for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
                uint8_t bytes[16];
                struct links_address address = address_of(own[i], bytes);

                ck_assert_int_eq(links_add_address(world.home, number, &address), 0);
                address = address_of(gateways[i], bytes);
                ck_assert_int_eq(links_add_neighbour(world.home, number, &address, hardware), 0);
                ck_assert_int_eq(links_set_default_route(world.home, number, &address), 0);
        }
        wait_for_own();
}

/* --- the policy ------------------------------------------------------------------------------- */

static const struct {
        enum policy_action action;
        enum policy_protocol protocol;
        const char *cidr;
        uint16_t port; /* zero: all */
} rules[] = {
        { POLICY_ALLOW, POLICY_UDP, "93.184.216.0/24", 53 },
        { POLICY_ALLOW, POLICY_ICMP, "93.184.216.0/24", 0 },
        { POLICY_ALLOW, POLICY_TCP, "93.184.0.0/16", 0 },
        { POLICY_DENY, POLICY_UDP, DENIED4, 0 },
        { POLICY_ALLOW, POLICY_UDP, "2606:2800::/32", 53 },
        { POLICY_ALLOW, POLICY_ICMP, "2606:2800::/32", 0 },
        { POLICY_ALLOW, POLICY_UDP, "93.184.215.0/24", 0 },
        { POLICY_ALLOW, POLICY_UDP, "10.0.0.0/8", 0 },
        { POLICY_ALLOW, POLICY_UDP, "100.64.0.0/10", 0 },
        { POLICY_ALLOW, POLICY_UDP, "ff00::/8", 0 },
        { POLICY_ALLOW, POLICY_UDP, "198.51.100.0/24", 0 },
        { POLICY_ALLOW, POLICY_UDP, "2001:db8:7::/64", 0 },
        { POLICY_ALLOW, POLICY_UDP, "64:ff9b::/96", 0 },
        { POLICY_DENY, POLICY_UDP, "8.8.0.0/16", 0 },
};

/* What is always denied but for the sandboxes' own addresses and NAT64, as an operator may say. */
static void make_always(void)
{
        static const char *const texts[] = { "198.51.100.0/24", "2001:db8:7::/64", "64:ff9b::/96" };
        struct policy_prefix opened[ARRAY_SIZE(texts)];

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                ck_assert_int_eq(policy_parse_cidr(texts[i], &opened[i]), 0);
        ck_assert_int_eq(policy_always_init(&world.always,
                                            &(struct policy_prefixes){ opened, ARRAY_SIZE(opened) },
                                            &(struct policy_prefixes){ 0 }),
                         0);
        ck_assert_int_eq(tables_put_always(&world.tables, &world.always), 0);
}

void direct_world_point_at(uint32_t number)
{
        for (size_t i = 0; i < BOXES; i++) {
                const struct egress_sandbox entry = { .policy = number,
                                                      .policy_version = POLICY_VERSION,
                                                      .slot = (uint32_t)i,
                                                      .default_action = EGRESS_ALLOW,
                                                      .direct = direct_families(world.direct) };

                ck_assert_int_eq(
                        tables_set_sandbox(&world.tables, world.f.boxes[i].group.id, &entry), 0);
        }
}

static void put_policy(void)
{
        struct policy policy = { .default_action = POLICY_DEFAULT_ALLOW_PUBLIC };
        uint32_t number;
        size_t refused;

        for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
                struct policy_rule rule = { .action = rules[i].action,
                                            .protocol = rules[i].protocol };

                ck_assert_int_eq(policy_parse_cidr(rules[i].cidr, &rule.prefix), 0);
                if (rules[i].port)
                        ck_assert_int_eq(policy_rule_add_ports(&rule, rules[i].port, rules[i].port),
                                         0);
                ck_assert_int_eq(policy_add(&policy, &rule), 0);
        }
        ck_assert_int_eq(policy_compile(&policy, &world.table, &refused), 0);
        policy_deinit(&policy);
        number = tables_new_number(&world.tables);
        for (size_t i = 0; i < world.table.n_entries; i++)
                ck_assert_int_eq(tables_put_entry(&world.tables, number, &world.table.entries[i]),
                                 0);
        direct_world_point_at(number);
}

/* --- fixture ---------------------------------------------------------------------------------- */

static void open_tables(void)
{
        int fds[_EGRESS_MAP_N];

        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = fcntl(egress_wall_map_fd(world.f.wall, (enum egress_map)i),
                               F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(tables_init(&world.tables, fds, BOXES), 0);
}

static void make_direct(void)
{
        const struct direct_config config = { .pool = &world.pool,
                                              .wall = world.f.wall,
                                              .run_dir = world.run_dir };

        (void)snprintf(world.run_dir, sizeof(world.run_dir), "/run/hotcell-test-direct-%d",
                       (int)getpid());
        world.pool = (struct direct_pool){ 0 };
        ck_assert_int_eq(direct_pool_add(&world.pool, "198.51.100.0/24"), 0);
        ck_assert_int_eq(direct_pool_add(&world.pool, "2001:db8:7::/64"), 0);
        ck_assert_int_eq(direct_new(&config, &world.direct), 0);
}

void direct_world_setup(void)
{
        ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
        fixture_init(&world.f);
        ck_assert_int_eq(links_open(&world.home), 0);
        ck_assert_int_eq(links_bring_up(world.home, if_nametoindex("lo")), 0);
        direct_world_set("/proc/sys/net/ipv6/conf/all/forwarding", "1");
        make_uplink();
        open_tables();
        make_always();
        make_direct();
        for (size_t i = 0; i < BOXES; i++) {
                ck_assert_int_eq(direct_join(world.direct, &world.f.boxes[i].netns), 0);
                ck_assert_int_eq(direct_bind(&world.f.boxes[i].netns, world.f.boxes[i].group.id),
                                 0);
        }
        put_policy();
}

void direct_world_teardown(void)
{
        policy_table_deinit(&world.table);
        policy_always_deinit(&world.always);
        tables_deinit(&world.tables);
        world.home = links_close(world.home);
        fixture_deinit(&world.f);
        world.direct = direct_free(world.direct);
}
