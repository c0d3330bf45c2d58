#include "runtime/egress/network.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/egress/connection.h"
#include "runtime/egress/dns_service.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/teller.h"

enum {
        ACCEPTS_A_TURN = 32,
        PAUSE_USEC = 100 * 1000,
};

static struct policy_view view_of(const struct network *network)
{
        return (struct policy_view){ .always = &network->egress->always,
                                     .table = &network->policy.table };
}

/* --- events -------------------------------------------------------------------------------------
 */

struct event network_event(const struct network *network, Hotcell__Egress__V1__Source source,
                           Hotcell__Egress__V1__Decision decision)
{
        return (struct event){
                .cgroup_id = network->cgroup_id,
                .source = source,
                .time_usec = time_now_usec(),
                .decision = decision,
                .policy_version = network->has_policy ? network->policy.version : 0,
                .protocol = IPPROTO_TCP,
                .count = 1,
        };
}

uint64_t network_n_probes(const struct network *network)
{
        return network->egress->has_v6 ? 2 : 1;
}

static bool has_proof(const struct network *network)
{
        return network->has_proof4 && (network->has_proof6 || !network->egress->has_v6);
}

bool network_is_proven(const struct network *network)
{
        const uint64_t n_probes = network_n_probes(network);
        struct egress_counts counts;

        return (network->is_inherited || has_proof(network)) &&
               !tables_read_counts(&network->egress->tables, network->cgroup_id, &counts) &&
               counts.n_denied >= n_probes && counts.n_logged >= n_probes;
}

/* --- judging ------------------------------------------------------------------------------------
 */

static void take_ruling(const struct policy_ruling *ruling, struct network_ruling *ret)
{
        static const Hotcell__Egress__V1__Reason reasons[] = {
                [POLICY_VERDICT_DENIED_ALWAYS] = EGRESS_REASON(ALWAYS_DENIED),
                [POLICY_VERDICT_DENIED_RULE] = EGRESS_REASON(RULE),
                [POLICY_VERDICT_DENIED_DEFAULT] = EGRESS_REASON(DEFAULT),
                [POLICY_VERDICT_ALLOWED_RULE] = EGRESS_REASON(UNSPECIFIED),
                [POLICY_VERDICT_ALLOWED_DEFAULT] = EGRESS_REASON(UNSPECIFIED),
        };

        ret->is_allowed = policy_verdict_allows(ruling->verdict);
        ret->reason = reasons[ruling->verdict];
        ret->rule = ruling->rule;
}

/* What the names of an address say: the same in whatever order they were asked for. */
struct names_say {
        const char *allowed; /* one that is; NULL: none */
        const char *denied;  /* by a rule: that of the first of these rules */
        struct policy_ruling denial;
};

static struct names_say ask_names(const struct network *network, const struct named_address *named,
                                  const struct policy_flow *flow)
{
        const struct policy_view view = view_of(network);
        struct names_say say = { 0 };

        for (size_t i = 0; i < named->n_entries; i++) {
                struct policy_flow by_name = *flow;
                struct policy_ruling ruling;

                by_name.name = named->entries[i].name;
                ruling = policy_judge(&view, &by_name);
                if (policy_verdict_allows(ruling.verdict)) {
                        say.allowed = by_name.name;
                } else if (ruling.verdict == POLICY_VERDICT_DENIED_RULE &&
                           (!say.denied || ruling.rule < say.denial.rule)) {
                        say.denied = by_name.name;
                        say.denial = ruling;
                }
        }
        return say;
}

/*
 * Of an address that no rule denies. Which of its names is meant is not known, so a deny beats an
 * allow; but where the name is to be said, that which only a name allows is judged by what it says.
 */
static void judge_names(const struct network *network, const struct named_address *named,
                        const struct policy_flow *flow, struct network_ruling *ret)
{
        const struct names_say say = ask_names(network, named, flow);
        bool is_by_name = !ret->is_allowed && say.allowed;
        const char *name = named->entries[0].name;

        if (say.denied && !(is_by_name && network_must_say_name(flow->port))) {
                take_ruling(&say.denial, ret);
                name = say.denied;
        } else if (is_by_name) {
                *ret = (struct network_ruling){ .is_allowed = true, .is_by_name = true };
                name = say.allowed;
        }
        (void)memcpy(ret->name, name, sizeof(ret->name));
}

bool network_must_say_name(uint16_t port)
{
        return port == NETWORK_PORT_TLS || port == NETWORK_PORT_HTTP;
}

void network_judge(struct network *network, const struct policy_address *address, uint16_t port,
                   struct network_ruling *ret_ruling)
{
        const struct policy_view view = view_of(network);
        const struct policy_flow flow = { .address = address,
                                          .port = port,
                                          .protocol = POLICY_TCP };
        const struct named_address *named;
        struct policy_ruling ruling;

        *ret_ruling = (struct network_ruling){ .reason = EGRESS_REASON(UNAVAILABLE) };
        if (!network->has_policy)
                return;
        named = names_find(&network->names, address, clock_monotonic_usec());
        if (named)
                (void)memcpy(ret_ruling->name, named->entries[0].name, sizeof(ret_ruling->name));
        ruling = policy_judge(&view, &flow);
        take_ruling(&ruling, ret_ruling);
        if (named && (ret_ruling->is_allowed || ruling.verdict == POLICY_VERDICT_DENIED_DEFAULT))
                judge_names(network, named, &flow, ret_ruling);
}

bool network_allows_name(const struct network *network, const struct policy_address *address,
                         uint16_t port, const char *name)
{
        const struct policy_view view = view_of(network);
        const struct policy_flow flow = {
                .address = address, .name = name, .port = port, .protocol = POLICY_TCP
        };
        const struct policy_ruling ruling = policy_judge(&view, &flow);

        return policy_verdict_allows(ruling.verdict);
}

/* --- the policy ---------------------------------------------------------------------------------
 */

static int point_wall_at(const struct network *network, const struct network_policy *policy)
{
        const struct egress_sandbox entry = {
                .policy = policy->number,
                .policy_version = (uint32_t)policy->version,
                .slot = network->slot,
                .relay_port = network->relay_port,
                .direct = network->direct,
                .default_action = policy->table.default_action == POLICY_DEFAULT_ALLOW_PUBLIC
                                          ? EGRESS_ALLOW
                                          : EGRESS_DENY,
        };

        return tables_set_sandbox(&network->egress->tables, network->cgroup_id, &entry);
}

struct carrying {
        const struct network *network;
        const struct network_policy *policy;
};

/* What does not fit is as if it were not known: it has to be asked for again. */
static void carry_name_over(const struct named_address *address, void *userdata)
{
        const struct carrying *carrying = userdata;

        (void)dns_service_admit_to_wall(carrying->network, carrying->policy, address);
}

static void remove_name(const struct named_address *address, void *userdata)
{
        const struct carrying *carrying = userdata;

        tables_remove_name(&carrying->network->egress->tables, carrying->policy->number,
                           &address->address);
}

static void drop_names_from_wall(struct network *network, const struct network_policy *policy)
{
        struct carrying carrying = { network, policy };

        names_for_each(&network->names, 0, remove_name, &carrying);
}

static void drop_policy(struct network *network)
{
        if (!network->has_policy)
                return;
        drop_names_from_wall(network, &network->policy);
        policy_turns_remove(network->egress->turns, &network->policy.table, network->policy.number);
        network->has_policy = false;
}

int network_set_policy(struct network *network, const struct network_policy *policy,
                       size_t *ret_n_cut)
{
        struct carrying carrying = { network, policy };
        int r;

        names_for_each(&network->names, clock_monotonic_usec(), carry_name_over, &carrying);
        r = point_wall_at(network, policy);
        if (r) {
                drop_names_from_wall(network, policy);
                return error_fold(r);
        }
        drop_policy(network);
        network->policy = *policy;
        network->has_policy = true;
        *ret_n_cut = connections_judge_again(network);
        return 0;
}

/* --- its life -----------------------------------------------------------------------------------
 */

static int on_relay(sd_event_source *source, int listen_fd, uint32_t events, void *userdata)
{
        static struct log_quota quota;
        struct network *network = userdata;

        (void)source;
        (void)events;
        for (size_t i = 0; i < ACCEPTS_A_TURN; i++) {
                int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
                        log_warning_of(&quota, "cannot accept: sandbox=%s error=%s",
                                       network->sandbox_id, strerrorname_np(errno));
                        network_rest(network);
                }
                if (fd < 0)
                        break;
                connection_accept(network, fd);
        }
        return 0;
}

void network_hear(struct network *network)
{
        (void)dns_service_on_datagram(NULL, network->sockets[NETWORK_DNS_DATAGRAM], EPOLLIN,
                                      network);
        (void)on_relay(NULL, network->sockets[NETWORK_RELAY], EPOLLIN, network);
}

static void listen_again(struct network *network, int enabled)
{
        (void)sd_event_source_set_enabled(network->sources[NETWORK_RELAY], enabled);
        (void)sd_event_source_set_enabled(network->sources[NETWORK_DNS_STREAM], enabled);
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        listen_again(userdata, SD_EVENT_ON);
        return 0;
}

void network_rest(struct network *network)
{
        listen_again(network, SD_EVENT_OFF);
        (void)sd_event_source_set_time_relative(network->pause, PAUSE_USEC);
        (void)sd_event_source_set_enabled(network->pause, SD_EVENT_ONESHOT);
}

static int make_pause(struct network *network)
{
        int r = sd_event_add_time_relative(network->egress->event, &network->pause, CLOCK_MONOTONIC,
                                           PAUSE_USEC, 0, on_pause_over, network);

        if (r >= 0)
                r = sd_event_source_set_enabled(network->pause, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

static int watch_sockets(struct network *network)
{
        static const sd_event_io_handler_t handlers[] = {
                [NETWORK_RELAY] = on_relay,
                [NETWORK_DNS_DATAGRAM] = dns_service_on_datagram,
                [NETWORK_DNS_STREAM] = dns_service_on_stream,
        };
        static_assert(ARRAY_SIZE(handlers) == _NETWORK_SOCKET_N, "every socket has a row");

        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++) {
                int r = sd_event_add_io(network->egress->event, &network->sources[i],
                                        network->sockets[i], EPOLLIN, handlers[i], network);

                if (r < 0)
                        return error_origin(r);
        }
        return 0;
}

DEFINE_CLEANUP(struct network, network_free)

int network_new(struct egress *egress, const struct network_spec *spec,
                const int sockets[static _NETWORK_SOCKET_N], struct network **ret_network)
{
        _cleanup_(network_freep) struct network *network = calloc(1, sizeof(*network));
        int r;

        if (!network) {
                for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                        (void)close_fd(sockets[i]);
                return error_origin(-ENOMEM);
        }
        network->egress = egress;
        (void)snprintf(network->sandbox_id, sizeof(network->sandbox_id), "%s", spec->sandbox_id);
        network->cgroup_id = spec->cgroup_id;
        network->init_cgroup_id = spec->init_cgroup_id;
        network->slot = spec->slot;
        network->relay_port = spec->relay_port;
        network->direct = spec->direct;
        network->is_inherited = spec->is_inherited;
        network->names.n_all = &egress->n_named;
        LIST_INIT(&network->connections);
        LIST_INIT(&network->dns_streams);
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++)
                network->sockets[i] = sockets[i];
        r = teller_new(&egress->tellers, &network->teller);
        if (!r)
                r = dns_service_start(network);
        if (!r)
                r = make_pause(network);
        if (!r)
                r = watch_sockets(network);
        if (r)
                return r;
        *ret_network = take(network);
        return 0;
}

struct network *network_free(struct network *network)
{
        if (!network)
                return NULL;
        for (size_t i = 0; i < _NETWORK_SOCKET_N; i++) {
                network->sources[i] = sd_event_source_disable_unref(network->sources[i]);
                network->sockets[i] = close_fd(network->sockets[i]);
        }
        network->pause = sd_event_source_disable_unref(network->pause);
        connections_end(network);
        dns_service_stop(network);
        network->teller = teller_end(network->teller);
        drop_policy(network);
        names_deinit(&network->names);
        free(network);
        return NULL;
}
