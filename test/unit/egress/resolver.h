/*
 * A resolver for a sandbox with a policy of a few names, and an upstream on loopback that does as
 * each test says.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/egress/resolver.h"
#include "test/unit/egress/fake_upstream.h"
#include "test/unit/egress/packet.h"

enum { EVENTS_MAX = 1000, HOUR_USEC = 3600U * 1000000 };

/* What waits for an answer. */
struct waiter {
        struct resolver_request request;
        bool is_answered;
        unsigned n_answers;
        size_t n_bytes;
        uint8_t bytes[DNS_ANSWER_BUFFER];
        void (*on_answered)(struct waiter *waiter);
};

struct event {
        enum resolver_reason reason;
        uint64_t count;
        char name[DNS_NAME_BUFFER];
        unsigned type;
        int rule;
        int error;
        int64_t asked_usec;
        bool has_address;
        struct dns_address address;
};

struct fixture {
        sd_event *loop;
        struct fake_upstream upstream;
        struct resolver_config config;
        struct resolver *resolver;
        struct resolver_client *client;
        /* The policy. */
        bool is_closed;    /* no name is allowed any more */
        uint16_t types[4]; /* that are allowed */
        int admit_result;
        bool is_without_v6; /* the host has no route there */
        /* What was seen. */
        size_t n_events;
        struct event events[EVENTS_MAX];
        unsigned n_admitted;
        size_t n_admitted_addresses;
        uint32_t admitted_ttl_sec;
        char admitted_name[DNS_NAME_BUFFER];
};

extern struct fixture f;
extern struct packet packet;
extern const struct resolver_policy policy;

void setup(void);
void start_with(void (*script)(const struct asked *asked));
void teardown(void);

/* Sends what is in the packet. */
int send_packet(struct waiter *waiter);

void begin(struct waiter *waiter, const char *name, unsigned type);
void run_until(bool (*condition)(const void *userdata), const void *userdata);
bool is_answered(const void *userdata);
void wait_for_queries(unsigned n);
void finish(struct waiter *waiter);

/* Asks and waits: the rcode. */
unsigned ask(struct waiter *waiter, const char *name, unsigned type);

void expect_event(size_t at, enum resolver_reason reason, const char *name, unsigned type);
void expect_sole_event(enum resolver_reason reason, const char *name, unsigned type);

/* What upstreams do. */
void stay_silent(const struct asked *asked);

void give_one_address(const struct asked *asked);
uint64_t sum_of(enum resolver_reason reason);

extern struct asked held;

void hold(const struct asked *asked);
