/*
 * The addresses that the resolver gave to one sandbox, and for which names: so that a connection to
 * an address can be judged by the name that the program asked for.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "bpf/egress_abi.h"
#include "runtime/policy/policy.h"

enum {
        NAMES_ADDRESSES_MAX = 1024, /* of one sandbox */
        NAMES_OF_ADDRESS_MAX = 4,   /* several names may share an address */
        /* Of all sandboxes: the wall has each twice while a policy is replaced. */
        NAMES_ADDRESSES_ALL = EGRESS_NAMES_MAX / 2,
        NAMES_E_FULL = 1,
};

struct name_entry {
        char name[POLICY_DOMAIN_BUFFER]; /* in the form of policy_parse_name() */
        uint64_t expire_usec;            /* CLOCK_MONOTONIC */
};

struct named_address {
        UT_hash_handle hh;
        struct policy_address address;
        struct name_entry entries[NAMES_OF_ADDRESS_MAX];
        size_t n_entries;
};

struct names {
        struct named_address *addresses; /* a hash table; NULL: empty */
        size_t n_addresses;
        size_t *n_all; /* of all sandboxes; outlives this */
};

void names_deinit(struct names *names);

/* What is dropped to make room, before it is gone. */
typedef void names_drop(const struct named_address *address, void *userdata);

/*
 * The address stands for the name until @expire_usec. When it has as many names already, that which
 * would expire first goes. 0, -ENOMEM, or NAMES_E_FULL: all of the sandbox's addresses are still
 * good and as many as it may have, which is up to half of what the others leave.
 */
int names_admit(struct names *names, const struct policy_address *address,
                const struct name_entry *entry, uint64_t now_usec, names_drop *drop,
                void *userdata);

/* Drops those whose names have all expired. */
void names_expire(struct names *names, uint64_t now_usec, names_drop *drop, void *userdata);

/* Without the names that have expired; NULL: it stands for none. Good until the next call. */
const struct named_address *names_find(struct names *names, const struct policy_address *address,
                                       uint64_t now_usec);

/* Each address with names that are good, in any order; at the time zero all, also those that have
 * none any more. */
void names_for_each(struct names *names, uint64_t now_usec,
                    void (*visit)(const struct named_address *address, void *userdata),
                    void *userdata);
