/*
 * The tables of the egress wall, as the relay writes them: what the BPF programs decide by. They
 * are a convenience (a refused program learns it at once); the relay judges for itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/egress.h"
#include "runtime/policy/always.h"
#include "runtime/policy/compile.h"

struct tables {
        int fds[_EGRESS_MAP_N];
        uint32_t n_slots;
        const struct egress_token *tokens; /* mapped: EGRESS_TOKENS for each slot */
        uint32_t n_numbers;                /* of policies, given out so far */
};

/* Takes the descriptors in any case. */
int tables_init(struct tables *tables, const int fds[static _EGRESS_MAP_N], uint32_t n_slots);
void tables_deinit(struct tables *tables);

/*
 * Takes out what a hotcell-egress before wrote: its numbers mean nothing any more. No sandbox has a
 * policy after this, so nothing leaves.
 */
int tables_sweep(const struct tables *tables);

/* What is denied to all. -E2BIG: the tables are full; as below. */
int tables_put_always(const struct tables *tables, const struct policy_always *always);

/* Of a policy that is to be written, entry by entry: no sandbox has it until all are. */
uint32_t tables_new_number(struct tables *tables);
int tables_put_entry(const struct tables *tables, uint32_t number,
                     const struct policy_entry *entry);
void tables_remove_entry(const struct tables *tables, uint32_t number,
                         const struct policy_entry *entry);

/* One write: each connect() sees the old entry or the new one. */
int tables_set_sandbox(const struct tables *tables, uint64_t cgroup_id,
                       const struct egress_sandbox *entry);

/* Until @expire_nsec (CLOCK_MONOTONIC) the address stands for a name, for these ports. */
int tables_put_name(const struct tables *tables, uint32_t number,
                    const struct policy_address *address, const struct policy_range *ranges,
                    size_t n_ranges, uint64_t expire_nsec);
void tables_remove_name(const struct tables *tables, uint32_t number,
                        const struct policy_address *address);

int tables_read_counts(const struct tables *tables, uint64_t cgroup_id,
                       struct egress_counts *ret_counts);

enum {
        TABLES_E_FORGED = 1,  /* the wall gave no connection of the sandbox this number */
        TABLES_E_OVERWRITTEN, /* it did, but the place belongs to a later one by now */
        TABLES_E_TORN,        /* the place was being given to another one all the time */
};

/*
 * Where a connection of a sandbox (a cgroup's id) wanted to go that came to the relay with @number
 * in its address; of the number only so many bits are there. 0 or an outcome above.
 */
int tables_find_token(const struct tables *tables, uint32_t slot, uint64_t cgroup_id,
                      uint32_t number, unsigned n_number_bits, struct egress_token *ret_token);
