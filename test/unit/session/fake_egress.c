#include "test/unit/session/fake_egress.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"

#define TO(name)   HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name
#define FROM(name) HOTCELL__EGRESS__V1__FROM_SERVER__BODY_##name

enum { POLICIES_MAX = 512, HELD_MAX = 64, RULE_TEXT = 400, PACKET_MAX = 128 << 10 };

struct held {
        uint64_t request;
        uint8_t sha256[32];
};

struct fake_egress {
        sd_event *loop;
        int fd;
        sd_event_source *source;
        struct fake_egress_script script;
        struct fake_policy policies[POLICIES_MAX];
        size_t n_policies;
        struct held held[HELD_MAX];
        size_t n_held;
        uint64_t held_syncs[HELD_MAX];
        size_t n_held_syncs;
        size_t n_syncs;
        char synced[64];
        size_t n_requests;
        uint64_t acknowledged;
        char (*rules)[RULE_TEXT]; /* of the policy that was set last */
        size_t n_rules;
};

void fake_egress_send(struct fake_egress *egress, const void *bytes, size_t n)
{
        const int fd = egress->script.descriptor;

        ck_assert_int_eq(io_send_packet(egress->fd, bytes, n, &fd, fd > 0), 0);
}

void fake_egress_say(struct fake_egress *egress, const Hotcell__Egress__V1__ToServer *message)
{
        static uint8_t bytes[PACKET_MAX];
        size_t n = hotcell__egress__v1__to_server__get_packed_size(message);

        ck_assert_uint_le(n, sizeof(bytes));
        (void)hotcell__egress__v1__to_server__pack(message, bytes);
        fake_egress_send(egress, bytes, n);
}

static void say_enforced(struct fake_egress *egress, uint64_t request, uint8_t *sha256)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Enforced enforced;
        uint32_t program_ids[64] = { 11, 12 };

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__enforced__init(&enforced);
        if (egress->script.wrong_digest)
                sha256[31] ^= 1;
        enforced.policy_digest.data = sha256;
        enforced.policy_digest.len = egress->script.n_digest ? egress->script.n_digest : 32;
        enforced.program_ids = program_ids;
        enforced.n_program_ids = egress->script.n_program_ids ? egress->script.n_program_ids : 2;
        message.request = request;
        message.body_case = TO(ENFORCED);
        message.enforced = &enforced;
        fake_egress_say(egress, &message);
}

static void say_failure(struct fake_egress *egress, uint64_t request)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Failure failure;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__failure__init(&failure);
        failure.reason = (Hotcell__Egress__V1__FailureReason)egress->script.fail;
        failure.message =
                (char *)(uintptr_t)(egress->script.message ? egress->script.message : "refused");
        message.request = request;
        message.body_case = TO(FAILURE);
        message.failure = &failure;
        fake_egress_say(egress, &message);
}

/* --- policies --- */

static void add_rule(struct fake_egress *egress, const Hotcell__Egress__V1__Rule *message,
                     struct policy *policy)
{
        struct policy_rule rule = { .action = message->is_allow ? POLICY_ALLOW : POLICY_DENY,
                                    .protocol = message->protocol == IPPROTO_UDP    ? POLICY_UDP
                                                : message->protocol == IPPROTO_ICMP ? POLICY_ICMP
                                                                                    : POLICY_TCP };
        char *text = egress->rules[egress->n_rules++];
        int n = snprintf(text, RULE_TEXT, "%s %s", message->is_allow ? "allow" : "deny",
                         rule.protocol == POLICY_UDP    ? "udp "
                         : rule.protocol == POLICY_ICMP ? "icmp "
                                                        : "");

        if (message->destination_case == HOTCELL__EGRESS__V1__RULE__DESTINATION_DOMAIN) {
                rule.is_domain = true;
                n += snprintf(text + n, RULE_TEXT - (size_t)n, "%s", message->domain);
                ck_assert_int_eq(
                        policy_parse_domain(message->domain, &rule.is_wildcard, rule.domain), 0);
        } else {
                n += snprintf(text + n, RULE_TEXT - (size_t)n, "%s", message->cidr);
                ck_assert_int_eq(policy_parse_cidr(message->cidr, &rule.prefix), 0);
        }
        for (size_t i = 0; i < message->n_ports; i++) {
                n += snprintf(text + n, RULE_TEXT - (size_t)n, "%s%u-%u", i ? "," : " ",
                              message->ports[i]->first, message->ports[i]->last);
                ck_assert_int_eq(policy_rule_add_ports(&rule, message->ports[i]->first,
                                                       message->ports[i]->last),
                                 0);
        }
        ck_assert_int_eq(policy_add(policy, &rule), 0);
}

static void read_rules(struct fake_egress *egress, int fd, struct fake_policy *set,
                       struct policy *policy)
{
        const int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
        Hotcell__Egress__V1__Policy *message;
        uint8_t *bytes;

        ck_assert_int_eq(lseek(fd, 0, SEEK_END), set->n_bytes);
        set->is_sealed = fcntl(fd, F_GET_SEALS) == seals;
        bytes = mmap(NULL, set->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        ck_assert_ptr_ne(bytes, MAP_FAILED);
        message = hotcell__egress__v1__policy__unpack(NULL, set->n_bytes, bytes);
        ck_assert_ptr_nonnull(message);
        set->n_rules = message->n_rules;
        free(egress->rules);
        egress->rules = calloc(message->n_rules, sizeof(*egress->rules));
        egress->n_rules = 0;
        for (size_t i = 0; i < message->n_rules; i++)
                add_rule(egress, message->rules[i], policy);
        hotcell__egress__v1__policy__free_unpacked(message, NULL);
        (void)munmap(bytes, set->n_bytes);
}

static struct fake_policy read_policy(struct fake_egress *egress,
                                      const Hotcell__Egress__V1__SetPolicy *message, int fd)
{
        struct fake_policy set = { .version = message->policy_version,
                                   .default_action = (int)message->default_action,
                                   .n_bytes = message->policy_bytes };
        struct policy policy = { .default_action = (enum policy_default)message->default_action };

        for (size_t i = 0; i < message->n_record_types; i++)
                policy.record_types |= BIT(policy_record_type_of(message->record_types[i]));
        set.record_types = policy.record_types;
        if (egress->script.knows_no_types)
                policy.record_types = 0;

        (void)snprintf(set.sandbox_id, sizeof(set.sandbox_id), "%s", message->sandbox_id);
        ck_assert_int_eq(fd >= 0, message->policy_bytes > 0);
        if (fd >= 0)
                read_rules(egress, fd, &set, &policy);
        ck_assert_int_eq(policy_digest(&policy, set.sha256), 0);
        policy_deinit(&policy);
        return set;
}

const struct fake_policy *fake_egress_policy(const struct fake_egress *egress,
                                             const char *sandbox_id)
{
        for (size_t i = 0; i < egress->n_policies; i++)
                if (strcmp(egress->policies[i].sandbox_id, sandbox_id) == 0)
                        return &egress->policies[i];
        return NULL;
}

static void put_in_force(struct fake_egress *egress, const struct fake_policy *set)
{
        const struct fake_policy *known = fake_egress_policy(egress, set->sandbox_id);
        size_t i = known ? (size_t)(known - egress->policies) : egress->n_policies++;

        ck_assert_uint_lt(i, POLICIES_MAX);
        egress->policies[i] = *set;
}

static bool fails(const struct fake_egress *egress, const struct fake_policy *set)
{
        const struct fake_egress_script *script = &egress->script;

        if (!script->fail || (script->fail_for && strcmp(script->fail_for, set->sandbox_id) != 0))
                return false;
        return !script->fail_rules || set->n_rules > 0 ||
               set->default_action == POLICY_DEFAULT_ALLOW_PUBLIC;
}

static void on_set_policy(struct fake_egress *egress, uint64_t request,
                          const Hotcell__Egress__V1__SetPolicy *message, int fd)
{
        struct fake_policy set = read_policy(egress, message, fd);
        bool is_lost = egress->script.lose_in > 0 && --egress->script.lose_in == 0;

        egress->n_requests++;
        if (is_lost && !egress->script.lose_after) {
                fake_egress_disconnect(egress);
                return;
        }
        if (fails(egress, &set)) {
                say_failure(egress, request);
                return;
        }
        put_in_force(egress, &set);
        if (is_lost) {
                fake_egress_disconnect(egress);
        } else if (egress->script.hold) {
                ck_assert_uint_lt(egress->n_held, HELD_MAX);
                egress->held[egress->n_held].request = request;
                memcpy(egress->held[egress->n_held++].sha256, set.sha256, 32);
        } else {
                say_enforced(egress, request, set.sha256);
        }
}

void fake_egress_release(struct fake_egress *egress)
{
        egress->script.hold = false;
        for (size_t i = 0; i < egress->n_held; i++)
                say_enforced(egress, egress->held[i].request, egress->held[i].sha256);
        egress->n_held = 0;
}

/* --- events --- */

Hotcell__Egress__V1__Event fake_egress_event(uint64_t number, uint64_t serial, uint64_t cgroup_id)
{
        static uint8_t address[] = { 192, 0, 2, 1 };
        Hotcell__Egress__V1__Event event;

        hotcell__egress__v1__event__init(&event);
        event.number = number;
        event.serial = serial;
        event.cgroup_id = cgroup_id;
        event.source = HOTCELL__EGRESS__V1__SOURCE__SOURCE_WALL;
        event.time_usec = time_now_usec();
        event.decision = HOTCELL__EGRESS__V1__DECISION__DECISION_DENIED;
        event.reason = HOTCELL__EGRESS__V1__REASON__REASON_DEFAULT;
        event.policy_version = 1;
        event.address.data = address;
        event.address.len = sizeof(address);
        event.port = 443;
        event.protocol = IPPROTO_TCP;
        event.pid = 4711;
        event.command = (char *)(uintptr_t) "curl";
        event.count = 1;
        return event;
}

void fake_egress_tell(struct fake_egress *egress, const Hotcell__Egress__V1__Event *events,
                      size_t n)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Events list;
        Hotcell__Egress__V1__Event **pointers = calloc(n + 1, sizeof(*pointers));

        for (size_t i = 0; i < n; i++)
                pointers[i] = (Hotcell__Egress__V1__Event *)(uintptr_t)&events[i];
        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__events__init(&list);
        list.events = pointers;
        list.n_events = n;
        message.body_case = TO(EVENTS);
        message.events = &list;
        fake_egress_say(egress, &message);
        free(pointers);
}

void fake_egress_count(struct fake_egress *egress, uint64_t cgroup_id, uint64_t n_logged,
                       uint64_t n_dropped)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Counts counts;
        Hotcell__Egress__V1__Count count, *pointer = &count;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__counts__init(&counts);
        hotcell__egress__v1__count__init(&count);
        count.cgroup_id = cgroup_id;
        count.n_logged = n_logged;
        count.n_dropped = n_dropped;
        counts.counts = &pointer;
        counts.n_counts = 1;
        message.body_case = TO(COUNTS);
        message.counts = &counts;
        fake_egress_say(egress, &message);
}

/* --- syncs --- */

static void say_synced(struct fake_egress *egress, uint64_t request)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Synced synced;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__synced__init(&synced);
        message.request = request;
        message.body_case = TO(SYNCED);
        message.synced = &synced;
        fake_egress_say(egress, &message);
}

static void on_sync(struct fake_egress *egress, uint64_t request,
                    const Hotcell__Egress__V1__Sync *message)
{
        ck_assert_uint_gt(request, 0);
        egress->n_syncs++;
        (void)snprintf(egress->synced, sizeof(egress->synced), "%s", message->sandbox_id);
        if (egress->script.refuse_syncs) {
                say_failure(egress, request);
        } else if (egress->script.hold_syncs) {
                ck_assert_uint_lt(egress->n_held_syncs, HELD_MAX);
                egress->held_syncs[egress->n_held_syncs++] = request;
        } else {
                say_synced(egress, request);
        }
}

void fake_egress_release_syncs(struct fake_egress *egress)
{
        egress->script.hold_syncs = false;
        for (size_t i = 0; i < egress->n_held_syncs; i++)
                say_synced(egress, egress->held_syncs[i]);
        egress->n_held_syncs = 0;
}

size_t fake_egress_n_syncs(const struct fake_egress *egress)
{
        return egress->n_syncs;
}

const char *fake_egress_synced(const struct fake_egress *egress)
{
        return egress->synced;
}

/* --- the connection --- */

static void say_pong(struct fake_egress *egress, uint64_t request)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Pong pong;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__pong__init(&pong);
        message.request = request;
        message.body_case = TO(PONG);
        message.pong = &pong;
        fake_egress_say(egress, &message);
}

static void on_message(struct fake_egress *egress, const Hotcell__Egress__V1__FromServer *message,
                       int fd)
{
        if (message->body_case == FROM(SET_POLICY)) {
                ck_assert_uint_gt(message->request, 0);
                on_set_policy(egress, message->request, message->set_policy, fd);
                return;
        }
        if (message->body_case == FROM(PING)) {
                ck_assert_uint_gt(message->request, 0);
                if (egress->script.fail)
                        say_failure(egress, message->request);
                else if (!egress->script.hold)
                        say_pong(egress, message->request);
                return;
        }
        if (message->body_case == FROM(SYNC)) {
                on_sync(egress, message->request, message->sync);
                return;
        }
        ck_assert_int_eq(message->body_case, FROM(ACKNOWLEDGE_EVENTS));
        ck_assert_uint_eq(message->request, 0);
        ck_assert_uint_gt(message->acknowledge_events->number, egress->acknowledged);
        egress->acknowledged = message->acknowledge_events->number;
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        static uint8_t bytes[PACKET_MAX];
        struct fake_egress *egress = userdata;
        Hotcell__Egress__V1__FromServer *message;
        size_t n = sizeof(bytes), n_fds = 1;
        int got = -1;
        int r;

        (void)source;
        (void)events;
        r = io_receive_packet(fd, bytes, &n, &got, &n_fds);
        if (r == -EAGAIN)
                return 0;
        if (r) {
                fake_egress_disconnect(egress);
                return 0;
        }
        message = hotcell__egress__v1__from_server__unpack(NULL, n, bytes);
        ck_assert_ptr_nonnull(message);
        on_message(egress, message, n_fds ? got : -1);
        if (n_fds)
                (void)close(got);
        hotcell__egress__v1__from_server__free_unpacked(message, NULL);
        if (egress->script.deaf && egress->source)
                (void)sd_event_source_set_enabled(egress->source, SD_EVENT_OFF);
        return 0;
}

void fake_egress_listen(struct fake_egress *egress)
{
        egress->script.deaf = false;
        (void)sd_event_source_set_enabled(egress->source, SD_EVENT_ON);
}

void fake_egress_disconnect(struct fake_egress *egress)
{
        egress->source = sd_event_source_disable_unref(egress->source);
        egress->fd = close_fd(egress->fd);
        egress->n_held = 0;
        egress->n_held_syncs = 0;
        egress->acknowledged = 0;
}

int fake_egress_connect(struct fake_egress *egress, sd_event *loop)
{
        int ends[2];

        fake_egress_disconnect(egress);
        ck_assert_int_eq(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        egress->fd = ends[0];
        ck_assert_int_ge(
                sd_event_add_io(loop, &egress->source, egress->fd, EPOLLIN, on_socket, egress), 0);
        if (egress->script.deaf)
                (void)sd_event_source_set_enabled(egress->source, SD_EVENT_OFF);
        return ends[1];
}

void fake_egress_restart(struct fake_egress *egress)
{
        fake_egress_disconnect(egress);
        egress->n_policies = 0;
}

/* --- life --- */

struct fake_egress *fake_egress_new(void)
{
        struct fake_egress *egress = calloc(1, sizeof(*egress));

        ck_assert_ptr_nonnull(egress);
        egress->fd = -1;
        return egress;
}

struct fake_egress *fake_egress_free(struct fake_egress *egress)
{
        if (!egress)
                return NULL;
        fake_egress_disconnect(egress);
        free(egress->rules);
        free(egress);
        return NULL;
}

struct fake_egress_script *fake_egress_script(struct fake_egress *egress)
{
        return &egress->script;
}

const char *fake_egress_rule(const struct fake_egress *egress, size_t i)
{
        ck_assert_uint_lt(i, egress->n_rules);
        return egress->rules[i];
}

size_t fake_egress_n_requests(const struct fake_egress *egress)
{
        return egress->n_requests;
}

size_t fake_egress_n_held(const struct fake_egress *egress)
{
        return egress->n_held;
}

uint64_t fake_egress_acknowledged(const struct fake_egress *egress)
{
        return egress->acknowledged;
}
