#include "runtime/egress/dns_service.h"

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
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/resolver.h"
#include "runtime/egress/route.h"
#include "runtime/egress/server_link.h"
#include "runtime/egress/teller.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/record_types.h"

enum {
        DATAGRAMS_A_TURN = 32,
        STREAM_IDLE_USEC = 10 * 1000000,
        LENGTH_BYTES = 2,
        STREAM_QUERY_MAX = 4096, /* bytes; no query of ours is larger */
        /* Programs keep an address for some time longer than its record. */
        GRACE_USEC = 30 * 1000000,
        EXPIRY_USEC = 1000000,
};

/* --- the policy ---------------------------------------------------------------------------------
 */

static struct resolver_verdict judge(const char *name, uint16_t type, void *userdata)
{
        const struct network *network = userdata;
        const struct policy_view view = { .always = &network->egress->always,
                                          .table = &network->policy.table };
        struct resolver_verdict verdict = { .rule = -1 };
        const struct policy_name *found;
        struct policy_ruling ruling;
        char checked[POLICY_DOMAIN_BUFFER];

        if (!network->has_policy || policy_parse_name(name, checked))
                return verdict;
        ruling = policy_judge_query(&view, checked);
        verdict.is_allowed = policy_verdict_allows(ruling.verdict);
        verdict.is_type_allowed = policy_records_have(network->policy.table.record_types, type);
        if (ruling.verdict == POLICY_VERDICT_DENIED_RULE ||
            ruling.verdict == POLICY_VERDICT_ALLOWED_RULE)
                verdict.rule = (int)ruling.rule;
        found = policy_table_find_name(&network->policy.table, checked);
        verdict.is_wildcard = !found || found->is_wildcard;
        return verdict;
}

static struct policy_address to_policy(const struct dns_address *address)
{
        return address->is_v6 ? policy_address_v6(address->bytes)
                              : policy_address_v4(address->bytes);
}

static bool is_address_denied(const struct dns_address *address, void *userdata)
{
        const struct network *network = userdata;
        const struct policy_address converted = to_policy(address);

        return policy_always_find(&network->egress->always, &converted) != NULL;
}

/* What cannot be asked now is left to who dials. */
static bool has_route(const struct dns_address *address, void *userdata)
{
        const struct network *network = userdata;
        struct endpoint endpoint = { .is_v6 = address->is_v6, .port = NETWORK_PORT_TLS };
        int r;

        (void)memcpy(endpoint.bytes, address->bytes, sizeof(endpoint.bytes));
        r = route_check(&network->egress->routes, &endpoint);
        return r != -ENETUNREACH && r != -EHOSTUNREACH;
}

/* All ports of all names; when they do not fit, all ports: the relay judges for itself. */
static size_t collect_ranges(const struct policy_table *table, const struct named_address *address,
                             struct policy_range ret[static POLICY_ENTRY_RANGES])
{
        struct policy_range all[NAMES_OF_ADDRESS_MAX * POLICY_ENTRY_RANGES];
        size_t n = 0;

        for (size_t i = 0; i < address->n_entries; i++) {
                const struct policy_name *name =
                        policy_table_find_name(table, address->entries[i].name);

                for (size_t j = 0; name && j < name->n_ranges; j++)
                        if (name->ranges[j].action == POLICY_ALLOW)
                                all[n++] = name->ranges[j];
        }
        n = policy_ranges_reduce(all, n, ret);
        if (n <= POLICY_ENTRY_RANGES)
                return n;
        ret[0] = (struct policy_range){
                .low = 1, .high = UINT16_MAX, .action = POLICY_ALLOW, .protocol = POLICY_TCP
        };
        return 1;
}

int dns_service_admit_to_wall(const struct network *network, const struct network_policy *policy_of,
                              const struct named_address *address)
{
        struct policy_range ranges[POLICY_ENTRY_RANGES];
        size_t n = collect_ranges(&policy_of->table, address, ranges);
        uint64_t expire_usec = 0;

        for (size_t i = 0; i < address->n_entries; i++)
                expire_usec = MAX(expire_usec, address->entries[i].expire_usec);
        if (n == 0)
                return 0;
        return tables_put_name(&network->egress->tables, policy_of->number, &address->address,
                               ranges, n, expire_usec * 1000);
}

static void drop_from_wall(const struct named_address *address, void *userdata)
{
        const struct network *network = userdata;

        tables_remove_name(&network->egress->tables, network->policy.number, &address->address);
}

/* An idle sandbox keeps what has expired until somebody wants its place; rarely, since all are
 * looked through. */
static bool expire_all(struct egress *egress, uint64_t now)
{
        struct network *network = NULL;

        if (now < egress->next_expiry_usec)
                return false;
        egress->next_expiry_usec = now + EXPIRY_USEC;
        while ((network = network_tables_next(&egress->networks, network)))
                names_expire(&network->names, now, drop_from_wall, network);
        return true;
}

static int admit_address(struct network *network, const struct policy_address *address,
                         const struct name_entry *entry, uint64_t now)
{
        int r = names_admit(&network->names, address, entry, now, drop_from_wall, network);

        if (r == NAMES_E_FULL && expire_all(network->egress, now))
                r = names_admit(&network->names, address, entry, now, drop_from_wall, network);
        return r;
}

static int admit(const char *name, const struct dns_address *addresses, size_t n_addresses,
                 uint32_t ttl_sec, void *userdata)
{
        struct network *network = userdata;
        uint64_t now = clock_monotonic_usec();
        struct name_entry entry = { .expire_usec = now + (uint64_t)ttl_sec * 1000000 + GRACE_USEC };

        if (policy_parse_name(name, entry.name))
                return -EINVAL;
        for (size_t i = 0; i < n_addresses; i++) {
                const struct policy_address address = to_policy(&addresses[i]);
                int r = admit_address(network, &address, &entry, now);

                if (r)
                        return r < 0 ? r : -ENOSPC;
                r = dns_service_admit_to_wall(network, &network->policy,
                                              names_find(&network->names, &address, now));
                if (r)
                        return error_fold(r);
        }
        return 0;
}

/* As RFC 3597 writes those that have no name here. */
static const char *type_name(uint16_t type, char buffer[static 16])
{
        static const struct {
                uint16_t type;
                const char *name;
        } names[] = {
                { 6, "SOA" },
                { 28, "AAAA" },
                { 43, "DS" },
                { 48, "DNSKEY" },
        };
        const enum policy_record_type known = policy_record_type_of(type);

        if (known)
                return policy_record_name(known);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (names[i].type == type)
                        return names[i].name;
        (void)snprintf(buffer, 16, "TYPE%u", type);
        return buffer;
}

/* With the type, when it is that which is refused. */
static void write_name(const struct resolver_event *reported, char *ret_name, size_t size)
{
        char buffer[16];

        if (reported->reason == RESOLVER_TYPE)
                (void)snprintf(ret_name, size, "%s %s", reported->name,
                               type_name(reported->type, buffer));
        else
                (void)snprintf(ret_name, size, "%s", reported->name);
}

static void report(const struct resolver_event *reported, void *userdata)
{
        static const struct {
                bool is_denied;
                Hotcell__Egress__V1__Reason reason;
                int error;
        } meanings[] = {
                [RESOLVER_NAME] = { true, EGRESS_REASON(DEFAULT), 0 },
                [RESOLVER_TYPE] = { true, EGRESS_REASON(RECORD_TYPE), 0 },
                [RESOLVER_REBINDING] = { true, EGRESS_REASON(REBINDING), 0 },
                [RESOLVER_UPSTREAM] = { false, EGRESS_REASON(UNSPECIFIED), 0 }, /* of its own */
                [RESOLVER_NOT_ADMITTED] = { false, EGRESS_REASON(UNSPECIFIED), ENOSPC },
                [RESOLVER_BUSY] = { false, EGRESS_REASON(UNSPECIFIED), EBUSY },
                [RESOLVER_MALFORMED] = { true, EGRESS_REASON(MALFORMED), 0 },
                [RESOLVER_RATE] = { true, EGRESS_REASON(RATE), 0 },
                [RESOLVER_IN_FLIGHT] = { true, EGRESS_REASON(RATE), 0 },
                [RESOLVER_NEW_NAMES] = { true, EGRESS_REASON(RATE), 0 },
        };
        static_assert(ARRAY_SIZE(meanings) == _RESOLVER_REASON_N, "every reason has a row");
        struct network *network = userdata;
        struct event event =
                network_event(network, EGRESS_SOURCE(RESOLVER),
                              meanings[reported->reason].is_denied ? EGRESS_DECISION(DENIED)
                                                                   : EGRESS_DECISION(FAILED));

        event.reason = meanings[reported->reason].reason;
        event.error_number = reported->error ? reported->error : meanings[reported->reason].error;
        event.protocol = IPPROTO_UDP;
        event.port = 53;
        event.asked_usec = reported->asked_usec;
        event.count = (uint32_t)MIN(reported->count, (uint64_t)UINT32_MAX);
        write_name(reported, event.name, sizeof(event.name));
        if (reported->reason == RESOLVER_NAME && !network->has_policy)
                event.reason = EGRESS_REASON(UNAVAILABLE);
        if (reported->reason == RESOLVER_NAME && reported->rule >= 0) {
                event.reason = EGRESS_REASON(RULE);
                event.rule = (uint32_t)reported->rule;
        }
        if (reported->address) {
                event.address = to_policy(reported->address);
                event.has_address = true;
        }
        teller_push(network->teller, &event);
        /* Before the answer: what a program does next, such as to end, comes after it. */
        server_link_send_events(network->egress);
}

static const struct resolver_policy policy = {
        .judge = judge,
        .is_address_denied = is_address_denied,
        .has_route = has_route,
        .admit = admit,
        .report = report,
};

/* --- datagrams ----------------------------------------------------------------------------------
 */

struct datagram {
        struct resolver_request request;
        struct network *network;
        struct sockaddr_storage from;
        socklen_t n_from;
};

static void on_datagram_answer(struct resolver_request *request, const uint8_t *bytes,
                               size_t n_bytes)
{
        struct datagram *datagram = CONTAINER_OF(request, struct datagram, request);

        /* What the socket does not take, the program asks for again. */
        if (n_bytes > 0)
                (void)sendto(datagram->network->sockets[NETWORK_DNS_DATAGRAM], bytes, n_bytes,
                             MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&datagram->from,
                             datagram->n_from);
        free(datagram);
}

static void ask_by_datagram(struct network *network, const uint8_t *bytes, size_t n_bytes,
                            const struct sockaddr_storage *from, socklen_t n_from)
{
        struct datagram *datagram = calloc(1, sizeof(*datagram));

        if (!datagram)
                return;
        datagram->network = network;
        datagram->request.on_answer = on_datagram_answer;
        datagram->from = *from;
        datagram->n_from = n_from;
        if (resolver_ask(network->resolver, DNS_UDP, bytes, n_bytes, &datagram->request))
                free(datagram);
}

int dns_service_on_datagram(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        static uint8_t bytes[DNS_UDP_QUERY_MAX + 1];

        (void)source;
        (void)events;
        for (size_t i = 0; i < DATAGRAMS_A_TURN; i++) {
                struct sockaddr_storage from;
                socklen_t n_from = sizeof(from);
                ssize_t n = recvfrom(fd, bytes, sizeof(bytes), MSG_DONTWAIT,
                                     (struct sockaddr *)&from, &n_from);

                if (n < 0)
                        break;
                ask_by_datagram(userdata, bytes, (size_t)n, &from, n_from);
        }
        return 0;
}

/* --- streams ------------------------------------------------------------------------------------
 */

/* One query at a time: the next is read when its answer was written. */
struct dns_stream {
        LIST_ENTRY(dns_stream) link;
        struct network *network;
        int fd;
        sd_event_source *source;
        sd_event_source *timer;
        struct resolver_request request;
        bool is_asking;
        size_t n_read;
        uint8_t query[LENGTH_BYTES + STREAM_QUERY_MAX];
        size_t n_answer;
        size_t n_written;
        uint8_t answer[LENGTH_BYTES + DNS_ANSWER_BUFFER];
};

static void stream_free(struct dns_stream *stream)
{
        if (stream->is_asking)
                resolver_cancel(&stream->request);
        LIST_REMOVE(stream, link);
        stream->network->n_dns_streams--;
        stream->source = sd_event_source_disable_unref(stream->source);
        stream->timer = sd_event_source_disable_unref(stream->timer);
        (void)close(stream->fd);
        free(stream);
}

static void stream_wait_for(struct dns_stream *stream, uint32_t events)
{
        (void)sd_event_source_set_io_events(stream->source, events);
        (void)sd_event_source_set_time_relative(stream->timer, STREAM_IDLE_USEC);
}

/* False: it was freed. */
static bool stream_write(struct dns_stream *stream)
{
        while (stream->n_written < stream->n_answer) {
                ssize_t n = send(stream->fd, stream->answer + stream->n_written,
                                 stream->n_answer - stream->n_written, MSG_NOSIGNAL);

                if (n < 0 && errno == EAGAIN) {
                        stream_wait_for(stream, EPOLLOUT);
                        return true;
                }
                if (n < 0 && errno != EINTR) {
                        stream_free(stream);
                        return false;
                }
                stream->n_written += n < 0 ? 0 : (size_t)n;
        }
        stream->n_answer = stream->n_written = 0;
        stream_wait_for(stream, EPOLLIN);
        return true;
}

static void on_stream_answer(struct resolver_request *request, const uint8_t *bytes, size_t n_bytes)
{
        struct dns_stream *stream = CONTAINER_OF(request, struct dns_stream, request);

        stream->is_asking = false;
        if (n_bytes == 0)
                return; /* its network ends, and it with that */
        stream->answer[0] = (uint8_t)(n_bytes >> 8);
        stream->answer[1] = (uint8_t)n_bytes;
        (void)memcpy(stream->answer + LENGTH_BYTES, bytes, n_bytes);
        stream->n_answer = LENGTH_BYTES + n_bytes;
        stream->n_written = 0;
        stream_wait_for(stream, EPOLLOUT);
}

/* Asks when a query is whole. False: the stream was freed. */
static bool stream_ask(struct dns_stream *stream)
{
        size_t n_query;

        if (stream->n_read < LENGTH_BYTES)
                return true;
        n_query = (size_t)stream->query[0] << 8 | stream->query[1];
        if (n_query == 0 || n_query > STREAM_QUERY_MAX) {
                stream_free(stream);
                return false;
        }
        if (stream->n_read < LENGTH_BYTES + n_query)
                return true;
        stream_wait_for(stream, 0);
        stream->is_asking = true;
        if (resolver_ask(stream->network->resolver, DNS_TCP, stream->query + LENGTH_BYTES, n_query,
                         &stream->request)) {
                stream->is_asking = false;
                stream_free(stream);
                return false;
        }
        stream->n_read -= LENGTH_BYTES + n_query;
        (void)memmove(stream->query, stream->query + LENGTH_BYTES + n_query, stream->n_read);
        return true;
}

static int on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct dns_stream *stream = userdata;
        ssize_t n;

        (void)source;
        if (stream->n_answer > 0) {
                if (stream_write(stream) && stream->n_answer == 0)
                        (void)stream_ask(stream);
                return 0;
        }
        if (events & (EPOLLHUP | EPOLLERR) || stream->is_asking) {
                stream_free(stream);
                return 0;
        }
        n = recv(fd, stream->query + stream->n_read, sizeof(stream->query) - stream->n_read, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                stream_free(stream);
                return 0;
        }
        stream->n_read += (size_t)n;
        (void)stream_ask(stream);
        return 0;
}

static int on_stream_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        stream_free(userdata);
        return 0;
}

static void stream_new(struct network *network, int fd)
{
        struct dns_stream *stream = network->n_dns_streams < DNS_SERVICE_STREAMS_MAX
                                            ? calloc(1, sizeof(*stream))
                                            : NULL;
        sd_event *event = network->egress->event;

        if (!stream) {
                (void)close(fd);
                return;
        }
        stream->network = network;
        stream->fd = fd;
        stream->request.on_answer = on_stream_answer;
        LIST_INSERT_HEAD(&network->dns_streams, stream, link);
        network->n_dns_streams++;
        if (sd_event_add_io(event, &stream->source, fd, EPOLLIN, on_stream, stream) < 0 ||
            sd_event_add_time_relative(event, &stream->timer, CLOCK_MONOTONIC, STREAM_IDLE_USEC, 0,
                                       on_stream_idle, stream) < 0)
                stream_free(stream);
}

int dns_service_on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        int stream_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void)source;
        (void)events;
        if (stream_fd >= 0)
                stream_new(userdata, stream_fd);
        else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
                network_rest(userdata);
        return 0;
}

/* --- its life -----------------------------------------------------------------------------------
 */

int dns_service_start(struct network *network)
{
        return resolver_client_new(network->egress->resolver, &policy, network, &network->resolver);
}

void dns_service_stop(struct network *network)
{
        struct dns_stream *stream;

        while ((stream = LIST_FIRST(&network->dns_streams)))
                stream_free(stream);
        if (network->resolver)
                network->resolver = resolver_client_free(network->resolver);
}
