/* A network in the loop of hotcell-egress whose programs ask for names, and an upstream that has an
 * address for each of them. */
#pragma once

#include <stdint.h>

#include "test/bpf/egress_loop.h"
#include "test/unit/egress/fake_upstream.h"

enum {
        ASKING_NEW_NAMES = 3, /* below wildcards, an hour */
        DNS_A = 1,
        DNS_MX = 15,
        DNS_TXT = 16,
        SERVFAIL = 2,
        REFUSED = 5,
        TTL_MIN_SEC = 5,
};

extern struct fake_upstream asking_upstream;

/* Of what the upstream answers. */
extern uint32_t asking_ttl_sec;

/* Some prefixes and a wildcard. */
extern const struct wanted wild;

void asking_setup(void);
void asking_teardown(void);

/* A socket of a program in the box, to the resolver. */
int connect_client(int type);

/* The answer's code. */
unsigned ask_type(const char *name, unsigned type);
unsigned ask_name(const char *name);

void enforce(uint64_t request, const struct wanted *wanted);

const struct event *last_event(void);
