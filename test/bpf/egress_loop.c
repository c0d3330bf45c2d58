#include "test/bpf/egress_loop.h"

#include <check.h>
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

#include "runtime/base/clock.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/channel/channel.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/server_link.h"
#include "test/lib/patience.h"

enum { PATIENCE_SEC = 30, PACKET_MAX = 4096 };

static char sandbox_ids[BOXES][3] = { "s1", "s2" };

struct fixture f;
struct egress egress;
struct network *network;
int server_fd;
uint64_t longest_usec;
Hotcell__Egress__V1__ToServer *answer;

/* What was heard last. */
static uint8_t packet[PACKET_MAX];

/* --- its life ----------------------------------------------------------------------------------
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

static int on_sending(sd_event_source *source, void *userdata)
{
        (void)source;
        (void)userdata;
        server_link_send_events(&egress);
        return 0;
}

void connect_server(void)
{
        int ends[2];

        ck_assert_int_eq(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        ck_assert_int_eq(channel_adopt(egress.server, ends[0]), 0);
        server_fd = ends[1];
}

static void make_resolver(void (*configure)(struct resolver_config *config))
{
        struct resolver_config config;

        resolver_config_init(&config);
        config.upstream.servers = "127.0.0.1:9";
        if (configure)
                configure(&config);
        ck_assert_int_eq(resolver_new(egress.event, &config, &egress.resolver), 0);
}

static void make_egress(void (*configure)(struct resolver_config *config))
{
        const struct channel_config config = {
                .peer = "the test",
                .packet_max = PACKET_MAX,
                .queue_bytes_max = 1 << 20,
                .observer = { .on_packet = on_packet, .on_disconnect = on_disconnect },
        };
        const struct policy_prefixes none = { 0 };
        int fds[_EGRESS_MAP_N];

        egress = (struct egress){ .is_started = true, .routes.fd = -1, .n_connections_max = 16 };
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                fds[i] = fcntl(egress_wall_map_fd(f.wall, (enum egress_map)i), F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(tables_init(&egress.tables, fds, BOXES), 0);
        ck_assert_int_ge(sd_event_new(&egress.event), 0);
        ck_assert_int_ge(sd_event_add_defer(egress.event, &egress.sending, on_sending, NULL), 0);
        ck_assert_int_eq(events_init(&egress.events), 0);
        ck_assert_int_eq(
                tellers_init(&egress.tellers, egress.event, &egress.events, egress.sending), 0);
        ck_assert_int_eq(wire_arena_init(&egress.arena, 1 << 20), 0);
        ck_assert_int_eq(policy_always_init(&egress.always, &none, &none), 0);
        make_resolver(configure);
        egress.ring = ring_buffer__new(fds[EGRESS_MAP_EVENTS], NULL, NULL, NULL);
        ck_assert_ptr_nonnull(egress.ring);
        ck_assert_int_eq(policy_turns_new(&egress, &egress.turns), 0);
        ck_assert_int_eq(channel_new(egress.event, &config, &egress.server), 0);
        connect_server();
}

static void count_refusals_of(size_t box, uint64_t n_denied, uint64_t n_logged)
{
        const struct egress_counts counts = { .n_denied = n_denied, .n_logged = n_logged };

        ck_assert_int_eq(bpf_map_update_elem(egress.tables.fds[EGRESS_MAP_COUNTS],
                                             &f.boxes[box].group.id, &counts, BPF_ANY),
                         0);
}

void count_refusals(uint64_t n_denied, uint64_t n_logged)
{
        count_refusals_of(0, n_denied, n_logged);
}

static struct network *make_network_of(size_t i_box)
{
        const struct box *box = &f.boxes[i_box];
        const struct network_spec spec = { .sandbox_id = sandbox_ids[i_box],
                                           .cgroup_id = box->group.id,
                                           .is_inherited = true };
        struct network *made;
        int sockets[_NETWORK_SOCKET_N];

        count_refusals_of(i_box, 2, 2);
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                sockets[i] = fcntl(box->netns.sockets[i], F_DUPFD_CLOEXEC, 0);
        ck_assert_int_eq(network_new(&egress, &spec, sockets, &made), 0);
        ck_assert_int_eq(network_tables_add(&egress.networks, made), 0);
        return made;
}

void make_network(void)
{
        network = make_network_of(0);
}

void make_neighbour(void)
{
        (void)make_network_of(1);
}

void remove_network(void)
{
        policy_turns_forget(egress.turns, network);
        network_tables_remove(&egress.networks, network);
        network = network_free(network);
}

static void drop_answer(void)
{
        if (answer)
                hotcell__egress__v1__to_server__free_unpacked(answer, NULL);
        answer = NULL;
}

void egress_loop_init(void (*configure)(struct resolver_config *config))
{
        fixture_init(&f);
        make_egress(configure);
        make_network();
        longest_usec = 0;
        answer = NULL;
}

void egress_loop_deinit(void)
{
        drop_answer();
        (void)close(server_fd);
        egress_deinit(&egress);
        fixture_deinit(&f);
}

/* --- asking ------------------------------------------------------------------------------------
 */

static Hotcell__Egress__V1__Rule *new_rule(void)
{
        static Hotcell__Egress__V1__Rule rules[POLICY_RULES_MAX];
        static size_t next;
        Hotcell__Egress__V1__Rule *rule = &rules[next++ % ARRAY_SIZE(rules)];

        hotcell__egress__v1__rule__init(rule);
        rule->is_allow = true;
        return rule;
}

/* From 1.0.0.0 and 2001:0: on. */
static Hotcell__Egress__V1__Rule *rule_of_prefix(size_t i, bool is_v6)
{
        static char texts[POLICY_RULES_MAX][POLICY_CIDR_BUFFER];
        static size_t next;
        char *text = texts[next++ % ARRAY_SIZE(texts)];
        Hotcell__Egress__V1__Rule *rule = new_rule();

        if (is_v6)
                (void)snprintf(text, POLICY_CIDR_BUFFER, "2001:%zx::/32", i);
        else
                (void)snprintf(text, POLICY_CIDR_BUFFER, "1.%zu.%zu.0/24", i / 256, i % 256);
        rule->destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_CIDR;
        rule->cidr = text;
        return rule;
}

static Hotcell__Egress__V1__Rule *rule_of_name(const char *domain, bool is_allow)
{
        Hotcell__Egress__V1__Rule *rule = new_rule();

        rule->is_allow = is_allow;
        rule->destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_DOMAIN;
        rule->domain = unconst(domain);
        return rule;
}

/* A memfd with it, and its size. */
static int write_policy(const struct wanted *wanted, uint32_t *ret_n_bytes)
{
        static Hotcell__Egress__V1__Rule *rules[POLICY_RULES_MAX];
        Hotcell__Egress__V1__Policy message;
        uint8_t *bytes;
        int fd = memfd_create("policy", MFD_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        hotcell__egress__v1__policy__init(&message);
        message.rules = rules;
        for (size_t i = 0; i < wanted->n_rules4; i++)
                rules[message.n_rules++] = rule_of_prefix(i, false);
        for (size_t i = 0; i < wanted->n_rules6; i++)
                rules[message.n_rules++] = rule_of_prefix(i, true);
        if (wanted->domain)
                rules[message.n_rules++] = rule_of_name(wanted->domain, true);
        if (wanted->denied)
                rules[message.n_rules++] = rule_of_name(wanted->denied, false);
        *ret_n_bytes = (uint32_t)hotcell__egress__v1__policy__get_packed_size(&message);
        bytes = malloc(*ret_n_bytes + 1);
        ck_assert_ptr_nonnull(bytes);
        (void)hotcell__egress__v1__policy__pack(&message, bytes);
        ck_assert_int_eq(write(fd, bytes, *ret_n_bytes), *ret_n_bytes);
        free(bytes);
        return fd;
}

void ask_for(uint64_t request, const struct wanted *wanted)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__SetPolicy set;
        uint32_t dns_type = wanted->dns_type;
        uint8_t bytes[256];
        int fd;

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__set_policy__init(&set);
        fd = write_policy(wanted, &set.policy_bytes);
        set.sandbox_id = sandbox_ids[wanted->is_neighbours];
        set.policy_version = (int64_t)request;
        set.record_types = &dns_type;
        set.n_record_types = dns_type > 0;
        if (wanted->is_public)
                set.default_action =
                        HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_ALLOW_PUBLIC;
        message.request = request;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_SET_POLICY;
        message.set_policy = &set;
        ck_assert_int_eq(io_send_packet(server_fd, bytes,
                                        hotcell__egress__v1__from_server__pack(&message, bytes),
                                        &fd, 1),
                         0);
        (void)close(fd);
}

void ask(uint64_t request, size_t n_rules4)
{
        ask_for(request, &(struct wanted){ .n_rules4 = n_rules4 });
}

void ping(uint64_t request)
{
        Hotcell__Egress__V1__FromServer message;
        Hotcell__Egress__V1__Ping body;
        uint8_t bytes[64];

        hotcell__egress__v1__from_server__init(&message);
        hotcell__egress__v1__ping__init(&body);
        message.request = request;
        message.body_case = HOTCELL__EGRESS__V1__FROM_SERVER__BODY_PING;
        message.ping = &body;
        ck_assert_int_eq(io_send_packet(server_fd, bytes,
                                        hotcell__egress__v1__from_server__pack(&message, bytes),
                                        NULL, 0),
                         0);
}

bool hear(void)
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

void turn(void)
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

void run_until(bool (*condition)(const void *userdata), const void *userdata)
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

void expect_any_answer(void)
{
        run_until(is_heard, NULL);
}

void expect_answer(uint64_t request, int body_case)
{
        expect_any_answer();
        ck_assert_uint_eq(answer->request, request);
        ck_assert_int_eq((int)answer->body_case, body_case);
}

void put_in_force(uint64_t request, size_t n_rules4)
{
        ask(request, n_rules4);
        expect_answer(request, TO_SERVER_ENFORCED);
}

/* --- looking ----------------------------------------------------------------------------------
 */

size_t count_entries(enum egress_map map)
{
        uint8_t key[64], next[64];
        const void *previous = NULL;
        size_t n = 0;

        while (bpf_map_get_next_key(egress.tables.fds[map], previous, next) == 0) {
                (void)memcpy(key, next, sizeof(key));
                previous = key;
                n++;
        }
        return n;
}

uint32_t policy_in_force(void)
{
        struct egress_sandbox entry;

        ck_assert_int_eq(bpf_map_lookup_elem(egress.tables.fds[EGRESS_MAP_SANDBOXES],
                                             &f.boxes[0].group.id, &entry),
                         0);
        return entry.policy;
}
