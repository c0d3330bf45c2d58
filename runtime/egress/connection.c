/*
 *   looking ──▶ dialling ──▶ relaying ──▶ (freed)
 *      └───────────┴────────────▲
 *
 * A connection that only the name of its address allows is looked into first, on the ports of TLS
 * and HTTP: what it says there must be a name that is allowed. A connection that is refused or
 * fails ends as a reset, since connect() has already succeeded.
 */
#include "runtime/egress/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/fair.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/channel/traffic_table.h"
#include "runtime/egress/dial.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/flow.h"
#include "runtime/egress/http_head.h"
#include "runtime/egress/network.h"
#include "runtime/egress/teller.h"
#include "runtime/egress/tls_hello.h"
#include "runtime/policy/domain.h"

enum {
        LOOK_TIMEOUT_USEC = 10 * 1000000,
        DIAL_TIMEOUT_USEC = 20 * 1000000,
};

/* What was seen of the first bytes, so that none is looked at twice. */
struct looking {
        size_t n_seen;
        union {
                struct tls_hello tls;
                struct http_head http;
        };
};

/* What allows it. */
enum basis {
        BASIS_ADDRESS,
        BASIS_RESOLVED, /* the name that its address was resolved for */
        BASIS_SAID,     /* the name that the program told the other side */
};

struct connection {
        LIST_ENTRY(connection) link;
        struct network *network;
        int inside_fd; /* until it is relayed */
        struct egress_token token;
        int64_t asked_usec; /* when it came */
        struct policy_address address;
        enum basis basis;
        char name[POLICY_DOMAIN_BUFFER];
        struct looking *looking;                /* while looking */
        sd_event_source *readable;              /* likewise */
        sd_event_source *timer;                 /* likewise */
        struct dial *dial;                      /* while dialling */
        struct flow *flow;                      /* while relaying */
        struct traffic_account account;         /* likewise */
        Hotcell__Egress__V1__Reason cut_reason; /* why it is being cut */
};

/* --- events -------------------------------------------------------------------------------------
 */

static struct event new_event(const struct connection *connection,
                              Hotcell__Egress__V1__Decision decision)
{
        struct event event = network_event(connection->network, EGRESS_SOURCE(RELAY), decision);

        event.leaf_cgroup_id = connection->token.leaf_id;
        event.asked_usec = connection->asked_usec;
        event.address = connection->address;
        event.has_address = true;
        event.port = connection->token.port;
        event.pid = connection->token.pid;
        (void)memcpy(event.command, connection->token.command, sizeof(event.command));
        event.command[sizeof(event.command) - 1] = '\0';
        (void)memcpy(event.name, connection->name, sizeof(event.name));
        return event;
}

static void tell_denied(const struct connection *connection, Hotcell__Egress__V1__Reason reason,
                        uint32_t rule)
{
        struct event event = new_event(connection, EGRESS_DECISION(DENIED));

        event.reason = reason;
        event.rule = rule;
        teller_push(connection->network->teller, &event);
}

static void tell_failed(const struct connection *connection, int error)
{
        struct event event = new_event(connection, EGRESS_DECISION(FAILED));

        event.error_number = error;
        teller_push(connection->network->teller, &event);
}

/* --- ends ---------------------------------------------------------------------------------------
 */

static void connection_free(struct connection *connection)
{
        LIST_REMOVE(connection, link);
        connection->network->n_connections--;
        connection->network->egress->n_connections--;
        connection->readable = sd_event_source_disable_unref(connection->readable);
        connection->timer = sd_event_source_disable_unref(connection->timer);
        free(connection->looking);
        connection->dial = dial_free(connection->dial);
        connection->flow = flow_free(connection->flow);
        if (connection->inside_fd >= 0)
                (void)close(connection->inside_fd);
        free(connection);
}

static void refuse(struct connection *connection, Hotcell__Egress__V1__Reason reason, uint32_t rule)
{
        tell_denied(connection, reason, rule);
        connection_free(connection);
}

static void fail(struct connection *connection, int error)
{
        tell_failed(connection, error);
        connection_free(connection);
}

/* --- relaying -----------------------------------------------------------------------------------
 */

static void on_flow_end(struct flow *flow, const struct flow_end *end, void *userdata)
{
        struct connection *connection = userdata;
        struct event event = new_event(connection, EGRESS_DECISION(FLOW_ENDED));

        (void)flow;
        event.reason = end->how == FLOW_URGENT ? EGRESS_REASON(PROTOCOL) : connection->cut_reason;
        event.error_number = end->error;
        event.sent_bytes = end->sent.bytes;
        event.received_bytes = end->received.bytes;
        event.duration_usec = (int64_t)end->duration_usec;
        teller_push(connection->network->teller, &event);
        connection_free(connection);
}

static void on_moved(enum flow_side side, size_t n_bytes, void *userdata)
{
        const struct connection *connection = userdata;

        traffic_account_add(connection->network->egress->traffic, &connection->account,
                            side == FLOW_INSIDE ? n_bytes : 0, side == FLOW_OUTSIDE ? n_bytes : 0);
}

static void relay(struct connection *connection, int outside_fd)
{
        struct network *network = connection->network;
        struct traffic_table *traffic = network->egress->traffic;
        const struct flow_config config = {
                .event = network->egress->event,
                .n_wide = &network->n_wide_pipes,
                .on_moved = traffic ? on_moved : NULL,
                .on_end = on_flow_end,
                .userdata = connection,
        };
        int r;

        if (traffic)
                traffic_account_open(traffic, connection->token.leaf_id, network->cgroup_id,
                                     &connection->account);
        r = flow_new(&config, take_fd(&connection->inside_fd), outside_fd, &connection->flow);

        if (r)
                fail(connection, r < 0 ? -r : EMFILE);
}

/* --- dialling -----------------------------------------------------------------------------------
 */

static void on_dialled(void *userdata, const struct dial_result *result)
{
        struct connection *connection = userdata;

        connection->dial = dial_free(connection->dial);
        switch (result->outcome) {
        case DIAL_CONNECTED:
                relay(connection, result->fd);
                return;
        case DIAL_LOCAL:
        case DIAL_BROADCAST:
        case DIAL_MULTICAST:
                refuse(connection, EGRESS_REASON(ALWAYS_DENIED), 0);
                return;
        case DIAL_FAILED:
        case DIAL_TIMED_OUT:
        case DIAL_NO_ROOM:
                fail(connection, result->error);
                return;
        }
}

static void dial(struct connection *connection)
{
        struct egress *egress = connection->network->egress;
        const struct dial_config config = {
                .event = egress->event,
                .routes = &egress->routes,
                .timeout_usec = DIAL_TIMEOUT_USEC,
                .opened = egress->opened,
                .n_opened = egress->n_opened,
                .on_done = on_dialled,
                .userdata = connection,
        };
        struct endpoint to = { .is_v6 = connection->address.is_v6, .port = connection->token.port };
        int r;

        (void)memcpy(to.bytes, connection->address.bytes, sizeof(to.bytes));
        r = dial_new(&config, &to, &connection->dial);
        if (r)
                fail(connection, -r);
}

/* --- looking ------------------------------------------------------------------------------------
 */

/* The name in the bytes so far. */
enum look {
        LOOK_MORE,
        LOOK_FOUND,
        LOOK_NONE, /* it will not come */
};

static enum look look_at_tls(struct tls_hello *hello, const uint8_t *bytes, size_t n,
                             char name[static HOST_BUFFER])
{
        switch (tls_hello_take(hello, bytes, n)) {
        case TLS_HELLO_NEED_MORE:
                return LOOK_MORE;
        case TLS_HELLO_FOUND:
                (void)memcpy(name, hello->name, HOST_BUFFER);
                return LOOK_FOUND;
        case TLS_HELLO_ABSENT:
        case TLS_HELLO_NOT_TLS:
        case TLS_HELLO_MALFORMED:
        default:
                return LOOK_NONE;
        }
}

static enum look look_at_http(struct http_head *head, const uint8_t *bytes, size_t n,
                              char name[static HOST_BUFFER])
{
        switch (http_head_take(head, bytes, n)) {
        case HTTP_HEAD_NEED_MORE:
                return LOOK_MORE;
        case HTTP_HEAD_FOUND:
                /* Also an address, which is no name that a rule could allow. */
                (void)memcpy(name, head->host.text, HOST_BUFFER);
                return LOOK_FOUND;
        case HTTP_HEAD_ABSENT:
        case HTTP_HEAD_CONNECT:
        case HTTP_HEAD_NOT_HTTP:
        case HTTP_HEAD_MALFORMED:
        default:
                return LOOK_NONE;
        }
}

/* @n: bytes of the connection so far, of which those are new that were not seen. */
static enum look look_at(struct connection *connection, const uint8_t *bytes, size_t n,
                         char name[static HOST_BUFFER])
{
        struct looking *looking = connection->looking;
        const uint8_t *fresh = bytes + looking->n_seen;
        size_t n_fresh = n - looking->n_seen;

        if (n < looking->n_seen)
                return LOOK_NONE;
        looking->n_seen = n;
        return connection->token.port == NETWORK_PORT_TLS
                       ? look_at_tls(&looking->tls, fresh, n_fresh, name)
                       : look_at_http(&looking->http, fresh, n_fresh, name);
}

static void stop_looking(struct connection *connection)
{
        free(connection->looking);
        connection->looking = NULL;
        connection->readable = sd_event_source_disable_unref(connection->readable);
        connection->timer = sd_event_source_disable_unref(connection->timer);
}

static void on_name(struct connection *connection, const char *name)
{
        char said[POLICY_DOMAIN_BUFFER];

        stop_looking(connection);
        if (policy_parse_name(name, said) ||
            !network_allows_name(connection->network, &connection->address, connection->token.port,
                                 said)) {
                (void)snprintf(connection->name, sizeof(connection->name), "%s", name);
                refuse(connection, EGRESS_REASON(NAME_MISMATCH), 0);
                return;
        }
        (void)memcpy(connection->name, said, sizeof(connection->name));
        connection->basis = BASIS_SAID;
        dial(connection);
}

/* The bytes stay in the socket. */
static int on_head(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        static uint8_t bytes[MAX((unsigned)TLS_HELLO_MAX, (unsigned)HTTP_HEAD_MAX)];
        struct connection *connection = userdata;
        char name[HOST_BUFFER];
        enum look look = LOOK_NONE;
        ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_PEEK);

        (void)source;
        if (n < 0 && errno == EAGAIN)
                return 0;
        /* It asked for nothing, and is refused nothing: maybe it wanted to know who listens. */
        if (n == 0 && connection->looking->n_seen == 0) {
                connection_free(connection);
                return 0;
        }
        if (n > 0)
                look = look_at(connection, bytes, (size_t)n, name);
        if (look == LOOK_FOUND) {
                on_name(connection, name);
        } else if (look == LOOK_NONE || (size_t)n == sizeof(bytes) || events & EPOLLRDHUP) {
                refuse(connection, EGRESS_REASON(NAME_ABSENT), 0);
        }
        return 0;
}

static int on_look_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        refuse(userdata, EGRESS_REASON(NAME_ABSENT), 0);
        return 0;
}

static void start_looking(struct connection *connection)
{
        sd_event *event = connection->network->egress->event;
        int r;

        /* By edge: what stays in the socket would be told again and again. A low-water mark does
         * not keep it quiet (urgent data, a full buffer), and setting it tells it anew. */
        connection->looking = calloc(1, sizeof(*connection->looking));
        r = connection->looking
                    ? sd_event_add_io(event, &connection->readable, connection->inside_fd,
                                      EPOLLIN | EPOLLRDHUP | EPOLLET, on_head, connection)
                    : -ENOMEM;
        if (r >= 0)
                r = sd_event_add_time_relative(event, &connection->timer, CLOCK_MONOTONIC,
                                               LOOK_TIMEOUT_USEC, 0, on_look_timeout, connection);
        if (r < 0)
                fail(connection, -r);
}

/* --- arriving -----------------------------------------------------------------------------------
 */

/* The number in the address at which it arrived; false: it is no address of the relay's. */
static bool read_number(int fd, uint32_t *ret_number, unsigned *ret_n_bits)
{
        struct sockaddr_in6 v6 = { 0 };
        struct sockaddr_in v4 = { 0 };
        socklen_t size = sizeof(v6);
        uint32_t word;

        if (getsockname(fd, (struct sockaddr *)&v6, &size) < 0)
                return false;
        (void)memcpy(&v4, &v6, sizeof(v4));
        word = ntohl(v4.sin_addr.s_addr);
        if (v6.sin6_family == AF_INET6) {
                word = ntohl(v6.sin6_addr.s6_addr32[3]);
                *ret_number = word;
                *ret_n_bits = 32;
                if (v6.sin6_addr.s6_addr32[0] == htonl(EGRESS_RELAY6_0) &&
                    v6.sin6_addr.s6_addr32[1] == htonl(EGRESS_RELAY6_1))
                        return true;
                if (!IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
                        return false;
        }
        *ret_number = word & ~EGRESS_RELAY4_MASK;
        *ret_n_bits = EGRESS_RELAY4_BITS;
        return (word & EGRESS_RELAY4_MASK) == EGRESS_RELAY4;
}

/* Each token once, and only those of this sandbox. 0, or why not: see tables.h. */
static int take_token(struct network *network, int fd, struct egress_token *ret_token)
{
        uint32_t number;
        unsigned n_bits;
        uint64_t *taken;
        int r;

        if (!read_number(fd, &number, &n_bits))
                return TABLES_E_FORGED;
        r = tables_find_token(&network->egress->tables, network->slot, network->cgroup_id, number,
                              n_bits, ret_token);
        if (r)
                return r;
        taken = &network->taken[EGRESS_TOKEN_PLACE(number)];
        if (*taken == ret_token->serial)
                return TABLES_E_FORGED;
        *taken = ret_token->serial;
        return 0;
}

/* Nothing is known of it but its sandbox: what it wanted and which process asked was in the token.
 */
static void refuse_without_token(struct connection *connection, int why)
{
        static const Hotcell__Egress__V1__Reason reasons[] = {
                [TABLES_E_FORGED] = EGRESS_REASON(FORGED),
                [TABLES_E_OVERWRITTEN] = EGRESS_REASON(OVERWRITTEN),
                [TABLES_E_TORN] = EGRESS_REASON(TORN),
        };
        struct event event =
                network_event(connection->network, EGRESS_SOURCE(RELAY), EGRESS_DECISION(DENIED));

        event.reason = reasons[why];
        teller_push(connection->network->teller, &event);
        connection_free(connection);
}

static struct connection *connection_new(struct network *network, int fd)
{
        struct connection *connection = calloc(1, sizeof(*connection));

        if (!connection)
                return NULL;
        connection->network = network;
        connection->inside_fd = fd;
        connection->asked_usec = time_now_usec();
        LIST_INSERT_HEAD(&network->connections, connection, link);
        network->n_connections++;
        network->egress->n_connections++;
        return connection;
}

static void judge_and_go_on(struct connection *connection)
{
        struct network_ruling ruling;
        uint16_t port = connection->token.port;

        network_judge(connection->network, &connection->address, port, &ruling);
        (void)memcpy(connection->name, ruling.name, sizeof(connection->name));
        connection->basis = ruling.is_by_name ? BASIS_RESOLVED : BASIS_ADDRESS;
        if (!ruling.is_allowed)
                refuse(connection, ruling.reason, ruling.rule);
        else if (ruling.is_by_name && network_must_say_name(port))
                start_looking(connection);
        else
                dial(connection);
}

static bool has_place(const struct network *network)
{
        const struct egress *egress = network->egress;

        return network->n_connections < NETWORK_CONNECTIONS_MAX &&
               fair_has_room(network->n_connections, egress->n_connections,
                             egress->n_connections_max);
}

void connection_accept(struct network *network, int fd)
{
        struct connection *connection = has_place(network) ? connection_new(network, fd) : NULL;
        int r;

        flow_reset_at_close(fd, true);
        if (!connection) {
                struct event event =
                        network_event(network, EGRESS_SOURCE(RELAY), EGRESS_DECISION(FAILED));

                event.error_number = EMFILE;
                teller_push(network->teller, &event);
                (void)close(fd);
                return;
        }
        r = take_token(network, fd, &connection->token);
        if (r) {
                refuse_without_token(connection, r);
                return;
        }
        connection->address = connection->token.is_v6
                                      ? policy_address_v6(connection->token.address)
                                      : policy_address_v4(connection->token.address);
        judge_and_go_on(connection);
}

/* --- later --------------------------------------------------------------------------------------
 */

/*
 * As a new one with the same name would be: what was said is judged, not what else the address
 * stands for. A name that is known no more does not end what began with it.
 */
static bool is_still_allowed(const struct connection *connection)
{
        const uint16_t port = connection->token.port;
        struct network_ruling ruling;

        if (connection->basis == BASIS_SAID)
                return network_allows_name(connection->network, &connection->address, port,
                                           connection->name);
        network_judge(connection->network, &connection->address, port, &ruling);
        if (ruling.is_allowed)
                return !ruling.is_by_name || connection->basis == BASIS_RESOLVED ||
                       !network_must_say_name(port);
        if (ruling.reason == EGRESS_REASON(RULE))
                return false;
        return connection->basis == BASIS_RESOLVED &&
               network_allows_name(connection->network, &connection->address, port,
                                   connection->name);
}

size_t connections_judge_again(struct network *network)
{
        struct connection *connection = LIST_FIRST(&network->connections);
        size_t n_cut = 0;

        while (connection) {
                struct connection *following = LIST_NEXT(connection, link);

                if (!is_still_allowed(connection)) {
                        n_cut++;
                        connection->cut_reason = EGRESS_REASON(POLICY_CHANGED);
                        if (connection->flow)
                                flow_cut(connection->flow); /* frees it */
                        else
                                refuse(connection, EGRESS_REASON(POLICY_CHANGED), 0);
                }
                connection = following;
        }
        return n_cut;
}

void connections_end(struct network *network)
{
        struct connection *connection;

        while ((connection = LIST_FIRST(&network->connections))) {
                if (connection->flow)
                        flow_cut(connection->flow);
                else
                        connection_free(connection);
        }
}
