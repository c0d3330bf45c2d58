/*
 * The resolver of all sandboxes: answers by the policy of the sandbox that asks.
 *
 *   - A name that no rule allows is REFUSED at once and never leaves the host.
 *   - A and AAAA are asked for upstream; HTTPS and SVCB have no data (their hints would be
 * addresses that nobody checked); all other types are REFUSED unless the policy allows them and
 * their data can be passed on. Who may ask for ANY gets the A records (RFC 8482, 4.1).
 *   - Addresses that are always denied are dropped from answers, and with them, whatever the policy
 *     says, IPv4 addresses that are written as IPv6 ones. If none is left the answer is REFUSED.
 *   - Addresses of IPv6 to which the host has no route are dropped, too: programs would try them
 *     first, and are told that connections succeed before they do, so they would not go on to IPv4.
 *   - Addresses are admitted before the answer is given out, so that a connection that follows at
 *     once finds them. The names of a CNAME chain are not judged: only addresses can be reached.
 *   - Nobody waits for long: what is too much is REFUSED at once, what gets no answer is SERVFAIL.
 *
 * What a sandbox can still do is to tell something to whoever serves a name that it is allowed, by
 * the labels that it asks for below an allowed wildcard. That is in the nature of a wildcard. It is
 * bounded, not prevented: by the rate of queries, and by the rate of names below wildcards that
 * were not asked for lately (KNOWN_NAMES_MAX); a name has some 250 bytes. Capital letters, flags
 * and options of a query do not go upstream. There is no cache, and no sandbox's query waits on
 * that of another, so that none sees by the time it takes what another asks.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "runtime/base/token_bucket.h"
#include "runtime/egress/dns_message.h"
#include "runtime/egress/upstream.h"

enum {
        RESOLVER_E_SILENT = 1, /* no query: there will be no answer */
        RESOLVER_E_SERVERS,    /* the configured servers are no list of addresses */
};

struct resolver_config {
        struct upstream_config upstream;
        uint32_t ttl_min_sec; /* of answers, and so of what is admitted */
        uint32_t ttl_max_sec;
        size_t in_flight_max;      /* queries of a sandbox, also those that it does not wait for any
                                      more;      those of all are upstream's */
        struct token_rate queries; /* of a sandbox */
        struct token_rate new_names; /* of a sandbox, below wildcards */
};

/* What a policy says of a name and a type. */
struct resolver_verdict {
        bool is_allowed;
        bool is_type_allowed; /* says nothing of A, AAAA, HTTPS and SVCB, for which it counts not */
        bool is_wildcard;     /* by a rule for all names below one: new names are rationed */
        int rule;             /* the rule that decided; -1: none, the default did */
};

enum resolver_reason {
        RESOLVER_NAME,         /* refused: the policy does not allow it */
        RESOLVER_TYPE,         /* refused: the policy does not allow this type */
        RESOLVER_REBINDING,    /* refused: all its addresses are always denied */
        RESOLVER_UPSTREAM,     /* failed: no answer, a broken one, or a failure upstream */
        RESOLVER_NOT_ADMITTED, /* failed: the addresses could not be admitted */
        RESOLVER_BUSY,         /* failed: no memory, or too many queries of all sandboxes */
        RESOLVER_MALFORMED,    /* refused: no query, or one that no client would send */
        RESOLVER_RATE,         /* refused: more queries than the rate */
        RESOLVER_IN_FLIGHT,    /* refused: more queries at the same time than allowed */
        RESOLVER_NEW_NAMES,    /* refused: more new names below wildcards than the rate */
        _RESOLVER_REASON_N,
};

/*
 * Something was not answered. One event each up to RESOLVER_BUSY, which queries.rate bounds. Of the
 * others the first is an event at once, and then those of each second are one, with their number
 * and the last name; the sum of @count is exact.
 */
struct resolver_event {
        enum resolver_reason reason;
        uint64_t count;                    /* at least 1 */
        const char *name;                  /* "" if it has none; until report returns */
        uint16_t type;                     /* a DNS type */
        int rule;                          /* with RESOLVER_NAME; -1: the default */
        int error;                         /* with RESOLVER_UPSTREAM: as upstream.h says */
        int64_t asked_usec;                /* when (the last one) came, since the epoch */
        const struct dns_address *address; /* with RESOLVER_REBINDING the first one, else NULL */
};

/* How the resolver asks for a sandbox. From none may a client or the resolver be freed. */
struct resolver_policy {
        /* Asked before a query goes upstream and again when its answer is there. */
        struct resolver_verdict (*judge)(const char *name, uint16_t type, void *userdata);
        bool (*is_address_denied)(const struct dns_address *address, void *userdata);
        /* Whether the host has a route to it. */
        bool (*has_route)(const struct dns_address *address, void *userdata);
        /* For so long the addresses may be reached by this name. 0, or why not: it fails then. */
        int (*admit)(const char *name, const struct dns_address *addresses, size_t n_addresses,
                     uint32_t ttl_sec, void *userdata);
        void (*report)(const struct resolver_event *event, void *userdata);
};

struct resolver;
struct resolver_client;

/* Embed it in what waits for an answer; it must stay where it is until then. */
struct resolver_request {
        /*
         * The bytes are good until it returns; none: the client is gone and nothing is to be sent.
         * May free the request and begin or cancel others; may not free the client.
         */
        void (*on_answer)(struct resolver_request *request, const uint8_t *bytes, size_t n_bytes);
        TAILQ_ENTRY(resolver_request) link; /* private, as all that follows */
        struct resolver_client *client;
        struct resolver_lookup *lookup;
        struct dns_query query;
};

/* 5 s to 300 s; 20 queries a second, 100 at once, 64 in flight; a new name a second, 200 at once.
 */
void resolver_config_init(struct resolver_config *ret_config);

int resolver_new(sd_event *loop, const struct resolver_config *config,
                 struct resolver **ret_resolver);

/* When it has no clients any more. */
struct resolver *resolver_free(struct resolver *resolver);

/* A sandbox. @policy must outlive it. */
int resolver_client_new(struct resolver *resolver, const struct resolver_policy *policy,
                        void *userdata, struct resolver_client **ret_client);

/* Reports what was counted, and ends its requests. */
struct resolver_client *resolver_client_free(struct resolver_client *client);

/*
 * Answers what the sandbox sent. 0: @request->on_answer is called once, maybe before this returns.
 * Else RESOLVER_E_SILENT, and it is not. The bytes are not needed any more when this returns.
 */
int resolver_ask(struct resolver_client *client, enum dns_transport transport, const uint8_t *bytes,
                 size_t n_bytes, struct resolver_request *request);

/* For one that waits: on_answer is not called. Its connection is gone, say. What was asked upstream
 * for it counts as in flight until it is answered there. */
void resolver_cancel(struct resolver_request *request);
