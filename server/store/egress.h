/*
 * What may leave a sandbox, as its record has it: a policy that was checked, packed. It is never
 * changed: all copies of a record share it, and whoever has another policy has another one of
 * these. Holds are taken and let go by the loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct egress {
        unsigned n_holds;
        int32_t default_action; /* a number of the public API */
        bool allows;            /* anything at all */
        uint32_t record_types;  /* a bit for each, by its number in the public API */
        uint8_t sha256[32];     /* of what it means */
        int64_t n_rules;
        size_t n_bytes;
        uint32_t *marks; /* the loop thread's: where some rules begin; NULL: not looked for yet */
        char bytes[]; /* the rules, which mean nothing to the store; none once the sandbox ended */
};

/* With one hold and @n_bytes of zeros to be filled; NULL: no memory. */
struct egress *egress_new(size_t n_bytes);

/* NULL is the default policy, that nothing may leave, and may be held, too. */
struct egress *egress_hold(struct egress *egress);
struct egress *egress_release(struct egress *egress);
DEFINE_CLEANUP(struct egress, egress_release)

/* What it takes of the server's memory. */
size_t egress_memory(const struct egress *egress);

/* The same rules in the same order, the same default and types of records. */
bool egress_is_same(const struct egress *a, const struct egress *b);
