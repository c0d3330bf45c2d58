/*
 * A client has lookups, one for each name and type that it waits for, and a lookup has the requests
 * that its answer is for: clients ask again when an answer takes long.
 */
#include "runtime/egress/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/egress/known_names.h"
#include "runtime/egress/resolver_events.h"

struct resolver {
        struct resolver_config config;
        struct upstream *upstream;
        struct resolver_events *events;
        uint64_t name_key;
        size_t n_clients;
};

struct resolver_lookup {
        LIST_ENTRY(resolver_lookup) link;
        struct resolver_client *client;
        struct upstream_query *upstream; /* NULL: it was answered */
        TAILQ_HEAD(, resolver_request) requests;
        uint16_t type;
        char name[DNS_NAME_BUFFER];
        int64_t asked_usec; /* when the first request came */
};

struct resolver_client {
        struct resolver *resolver;
        const struct resolver_policy *policy;
        void *userdata;
        LIST_HEAD(, resolver_lookup) lookups;
        size_t n_requests;  /* that wait */
        size_t n_abandoned; /* lookups upstream that nobody waits for any more */
        struct token_bucket queries;
        struct token_bucket new_names;
        struct known_names known_names;
        struct resolver_counts counts;
};

void resolver_config_init(struct resolver_config *ret_config)
{
        *ret_config = (struct resolver_config){
                .upstream = { .timeout_msec = 1500,
                              .n_attempts = 2,
                              .in_flight_max = 8192,
                              .channels_max = 256 },
                .ttl_min_sec = 5,
                .ttl_max_sec = 300,
                .in_flight_max = 64,
                .queries = { .interval_usec = 50000, .burst = 100 },
                .new_names = { .interval_usec = 1000000, .burst = 200 },
        };
}

DEFINE_CLEANUP(struct resolver, resolver_free)

int resolver_new(sd_event *loop, const struct resolver_config *config,
                 struct resolver **ret_resolver)
{
        _cleanup_(resolver_freep) struct resolver *resolver = NULL;
        int r;

        resolver = calloc(1, sizeof(*resolver));
        if (!resolver)
                return error_origin(-ENOMEM);
        resolver->config = *config;
        resolver->config.upstream.servers = NULL; /* not ours, and not needed any more */
        if (getrandom(&resolver->name_key, sizeof(resolver->name_key), 0) < 0)
                return error_origin(-errno);
        r = resolver_events_new(loop, &resolver->events);
        if (r)
                return r;
        r = upstream_new(loop, &config->upstream, &resolver->upstream);
        if (r)
                return r == UPSTREAM_E_SERVERS ? RESOLVER_E_SERVERS : error_fold(r);
        *ret_resolver = take(resolver);
        return 0;
}

struct resolver *resolver_free(struct resolver *resolver)
{
        if (!resolver)
                return NULL;
        assert(resolver->n_clients == 0);
        upstream_free(resolver->upstream);
        resolver_events_free(resolver->events);
        free(resolver);
        return NULL;
}

int resolver_client_new(struct resolver *resolver, const struct resolver_policy *policy,
                        void *userdata, struct resolver_client **ret_client)
{
        struct resolver_client *client = calloc(1, sizeof(*client));

        if (!client)
                return error_origin(-ENOMEM);
        client->resolver = resolver;
        client->policy = policy;
        client->userdata = userdata;
        resolver_counts_init(&client->counts, policy, userdata);
        LIST_INIT(&client->lookups);
        resolver->n_clients++;
        *ret_client = client;
        return 0;
}

/* The request may be freed by this. */
static void end_request(struct resolver_request *request, const uint8_t *bytes, size_t n_bytes)
{
        if (request->lookup) {
                TAILQ_REMOVE(&request->lookup->requests, request, link);
                request->lookup = NULL;
                request->client->n_requests--;
        }
        request->on_answer(request, bytes, n_bytes);
}

static void answer_request(struct resolver_request *request, const struct dns_answer *answer)
{
        uint8_t bytes[DNS_ANSWER_BUFFER];
        size_t n_bytes = dns_answer_encode(&request->query, answer, bytes);

        end_request(request, bytes, n_bytes);
}

static void answer_rcode(struct resolver_request *request, enum dns_rcode rcode)
{
        uint8_t bytes[DNS_ANSWER_BUFFER];
        size_t n_bytes = dns_rcode_encode(&request->query, rcode, bytes);

        end_request(request, bytes, n_bytes);
}

static bool is_abandoned(const struct resolver_lookup *lookup)
{
        return lookup->upstream && TAILQ_EMPTY(&lookup->requests);
}

static void free_lookup(struct resolver_lookup *lookup)
{
        assert(TAILQ_EMPTY(&lookup->requests));
        if (lookup->upstream)
                upstream_forget(lookup->upstream);
        LIST_REMOVE(lookup, link);
        free(lookup);
}

struct resolver_client *resolver_client_free(struct resolver_client *client)
{
        struct resolver_lookup *lookup;

        if (!client)
                return NULL;
        while ((lookup = LIST_FIRST(&client->lookups))) {
                struct resolver_request *request;

                /* As if it was answered: one that is ended may cancel others. */
                if (lookup->upstream)
                        upstream_forget(take(lookup->upstream));
                while ((request = TAILQ_FIRST(&lookup->requests)))
                        end_request(request, NULL, 0);
                free_lookup(lookup);
        }
        assert(client->n_requests == 0);
        resolver_counts_deinit(&client->counts);
        client->resolver->n_clients--;
        free(client);
        return NULL;
}

static void report(struct resolver_client *client, const struct resolver_event *event)
{
        client->policy->report(event, client->userdata);
}

static bool is_denied(const struct resolver_client *client, const struct dns_address *address)
{
        static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

        return (address->is_v6 && memcmp(address->bytes, mapped, sizeof(mapped)) == 0) ||
               client->policy->is_address_denied(address, client->userdata);
}

/* Drops what is always denied; *@ret_first_denied is the first of these. Returns how many. And what
 * has no route. */
static size_t drop_denied(struct resolver_client *client, struct dns_answer *answer,
                          struct dns_address *ret_first_denied)
{
        size_t n_kept = 0;
        size_t n_denied = 0;

        for (size_t i = 0; i < answer->n_addresses; i++) {
                struct dns_address address = answer->addresses[i];

                if (is_denied(client, &address)) {
                        if (n_denied++ == 0)
                                *ret_first_denied = address;
                } else if (!address.is_v6 ||
                           client->policy->has_route(&address, client->userdata)) {
                        answer->addresses[n_kept++] = address;
                }
        }
        answer->n_addresses = n_kept;
        return n_denied;
}

static bool is_type_allowed(const struct resolver_verdict *verdict, uint16_t type)
{
        if (type == DNS_TYPE_A || type == DNS_TYPE_AAAA)
                return true;
        return verdict->is_type_allowed && (type == DNS_TYPE_ANY || dns_type_is_forwarded(type));
}

/* ANY stands for whatever there is: one type of it is enough. */
static uint16_t upstream_type(uint16_t type)
{
        return type == DNS_TYPE_ANY ? DNS_TYPE_A : type;
}

/* Makes of what an upstream said what the sandbox is told, and reports and admits. */
static enum dns_rcode judge_answer(struct resolver_lookup *lookup, struct dns_answer *answer)
{
        struct resolver_client *client = lookup->client;
        const struct resolver_config *config = &client->resolver->config;
        struct resolver_event event = { .count = 1,
                                        .name = lookup->name,
                                        .type = lookup->type,
                                        .rule = -1,
                                        .asked_usec = lookup->asked_usec };
        struct resolver_verdict verdict =
                client->policy->judge(lookup->name, lookup->type, client->userdata);
        struct dns_address denied;

        /* The policy may have been tightened since. */
        if (!verdict.is_allowed || !is_type_allowed(&verdict, lookup->type)) {
                event.reason = verdict.is_allowed ? RESOLVER_TYPE : RESOLVER_NAME;
                event.rule = verdict.is_allowed ? -1 : verdict.rule;
                report(client, &event);
                return DNS_REFUSED;
        }
        if (drop_denied(client, answer, &denied) > 0 && answer->n_addresses == 0) {
                event.reason = RESOLVER_REBINDING;
                event.address = &denied;
                report(client, &event);
                return DNS_REFUSED;
        }
        answer->ttl_sec = MIN(MAX(answer->ttl_sec, config->ttl_min_sec), config->ttl_max_sec);
        if (answer->n_addresses > 0 &&
            client->policy->admit(lookup->name, answer->addresses, answer->n_addresses,
                                  answer->ttl_sec, client->userdata)) {
                event.reason = RESOLVER_NOT_ADMITTED;
                report(client, &event);
                return DNS_SERVFAIL;
        }
        return answer->rcode;
}

/* Requests may be begun and cancelled by the callbacks: not for this lookup, it was answered. */
static void end_lookup(struct resolver_lookup *lookup, const struct dns_answer *answer)
{
        struct resolver_request *request;

        lookup->upstream = NULL;
        while ((request = TAILQ_FIRST(&lookup->requests)))
                answer_request(request, answer);
        free_lookup(lookup);
}

/* @error: with RESOLVER_UPSTREAM. */
static void fail_lookup(struct resolver_lookup *lookup, enum resolver_reason reason, int error)
{
        const struct dns_answer answer = { .rcode = DNS_SERVFAIL };
        const struct resolver_event event = {
                .reason = reason,
                .count = 1,
                .name = lookup->name,
                .type = lookup->type,
                .rule = -1,
                .error = error,
                .asked_usec = lookup->asked_usec,
        };

        lookup->upstream = NULL;
        report(lookup->client, &event);
        end_lookup(lookup, &answer);
}

static void on_upstream_answer(void *userdata, int error, const uint8_t *bytes, size_t n_bytes)
{
        struct resolver_lookup *lookup = userdata;
        struct dns_answer answer;
        enum dns_rcode rcode;

        if (is_abandoned(lookup)) {
                lookup->client->n_abandoned--;
                lookup->upstream = NULL;
                free_lookup(lookup);
                return;
        }
        lookup->upstream = NULL;
        if (!error &&
            dns_answer_decode(bytes, n_bytes, lookup->name, upstream_type(lookup->type), &answer))
                error = EBADMSG;
        else if (!error && answer.rcode == DNS_SERVFAIL)
                error = EREMOTEIO;
        if (error) {
                fail_lookup(lookup, RESOLVER_UPSTREAM, error);
                return;
        }
        rcode = judge_answer(lookup, &answer);
        if (rcode != answer.rcode)
                answer = (struct dns_answer){ .rcode = rcode };
        end_lookup(lookup, &answer);
}

/* @event has the reason and the rule; the rest is of the request. */
static void refuse(struct resolver_client *client, struct resolver_request *request,
                   const struct resolver_event *event, enum dns_rcode rcode)
{
        struct resolver_event whole = *event;

        whole.count = 1;
        whole.asked_usec = time_now_usec();
        whole.name = request->query.name;
        whole.type = request->query.type;
        report(client, &whole);
        answer_rcode(request, rcode);
}

static struct resolver_lookup *find_lookup(struct resolver_client *client,
                                           const struct dns_query *query)
{
        struct resolver_lookup *lookup;

        LIST_FOREACH(lookup, &client->lookups, link)
        {
                if (lookup->upstream && lookup->type == query->type &&
                    strcmp(lookup->name, query->name) == 0)
                        break;
        }
        return lookup;
}

static struct resolver_lookup *add_lookup(struct resolver_client *client,
                                          const struct dns_query *query)
{
        struct resolver_lookup *lookup = calloc(1, sizeof(*lookup));

        if (!lookup)
                return NULL;
        lookup->client = client;
        lookup->type = query->type;
        lookup->asked_usec = time_now_usec();
        memcpy(lookup->name, query->name, sizeof(lookup->name));
        TAILQ_INIT(&lookup->requests);
        LIST_INSERT_HEAD(&client->lookups, lookup, link);
        return lookup;
}

static void wait_for(struct resolver_lookup *lookup, struct resolver_request *request)
{
        lookup->client->n_abandoned -= is_abandoned(lookup);
        TAILQ_INSERT_TAIL(&lookup->requests, request, link);
        request->lookup = lookup;
        request->client->n_requests++;
}

/* The request was judged and may be sent upstream. */
static void look_up(struct resolver_client *client, struct resolver_request *request)
{
        struct resolver_lookup *lookup = find_lookup(client, &request->query);
        int r;

        if (lookup) {
                wait_for(lookup, request);
                return;
        }
        lookup = add_lookup(client, &request->query);
        if (!lookup) {
                refuse(client, request,
                       &(struct resolver_event){ .reason = RESOLVER_BUSY, .rule = -1 },
                       DNS_SERVFAIL);
                return;
        }
        wait_for(lookup, request);
        r = upstream_ask(client->resolver->upstream, lookup->name, upstream_type(lookup->type),
                         on_upstream_answer, lookup, &lookup->upstream);
        if (r)
                fail_lookup(lookup, RESOLVER_BUSY, 0);
}

static bool takes_new_name(struct resolver_client *client, const char *name)
{
        uint64_t hash = known_names_hash(name, client->resolver->name_key);

        if (known_names_has(&client->known_names, hash))
                return true;
        if (token_bucket_take(&client->new_names, &client->resolver->config.new_names,
                              clock_monotonic_usec()) > 0)
                return false;
        known_names_add(&client->known_names, hash);
        return true;
}

static void refuse_counted(struct resolver_client *client, struct resolver_request *request,
                           enum resolver_reason reason)
{
        resolver_count(client->resolver->events, &client->counts, reason, &request->query);
        answer_rcode(request, DNS_REFUSED);
}

/* A well-formed query within the rate. */
static void judge_query(struct resolver_client *client, struct resolver_request *request)
{
        const struct resolver_config *config = &client->resolver->config;
        const struct dns_query *query = &request->query;
        struct resolver_verdict verdict =
                client->policy->judge(query->name, query->type, client->userdata);

        if (!verdict.is_allowed)
                refuse(client, request,
                       &(struct resolver_event){ .reason = RESOLVER_NAME, .rule = verdict.rule },
                       DNS_REFUSED);
        else if (query->type == DNS_TYPE_HTTPS || query->type == DNS_TYPE_SVCB)
                answer_rcode(request, DNS_NOERROR);
        else if (!is_type_allowed(&verdict, query->type))
                refuse(client, request,
                       &(struct resolver_event){ .reason = RESOLVER_TYPE, .rule = -1 },
                       DNS_REFUSED);
        else if (client->n_requests + client->n_abandoned >= config->in_flight_max)
                refuse_counted(client, request, RESOLVER_IN_FLIGHT);
        else if (verdict.is_wildcard && !takes_new_name(client, query->name))
                refuse_counted(client, request, RESOLVER_NEW_NAMES);
        else
                look_up(client, request);
}

int resolver_ask(struct resolver_client *client, enum dns_transport transport, const uint8_t *bytes,
                 size_t n_bytes, struct resolver_request *request)
{
        int refusal = dns_query_decode(transport, bytes, n_bytes, &request->query);
        bool is_too_much = token_bucket_take(&client->queries, &client->resolver->config.queries,
                                             clock_monotonic_usec()) > 0;

        request->client = client;
        request->lookup = NULL;
        if (refusal) {
                resolver_count(client->resolver->events, &client->counts, RESOLVER_MALFORMED,
                               &request->query);
                if (refusal == DNS_E_SILENT)
                        return RESOLVER_E_SILENT;
                answer_rcode(request, (enum dns_rcode)refusal);
        } else if (is_too_much) {
                refuse_counted(client, request, RESOLVER_RATE);
        } else {
                judge_query(client, request);
        }
        return 0;
}

void resolver_cancel(struct resolver_request *request)
{
        struct resolver_lookup *lookup = request->lookup;

        assert(lookup);
        TAILQ_REMOVE(&lookup->requests, request, link);
        request->lookup = NULL;
        request->client->n_requests--;
        /* The question is on its way all the same, and counts until its answer is there: else a
         * client that hangs up after each would have as many as it likes. */
        lookup->client->n_abandoned += is_abandoned(lookup);
}
