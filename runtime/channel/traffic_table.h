/*
 * How much the connections of each cgroup carried: a table in memory that hotcell-runtime makes and
 * keeps, and that hotcell-egress counts in while bytes move. So nothing is lost when hotcell-egress
 * is killed, and reading it costs no message.
 *
 * The runtime alone says which cgroup has which place, hotcell-egress alone counts, and neither
 * waits for the other. A hotcell-egress that lies can only make the counts wrong: the runtime knows
 * by itself who has which place, and takes counts that fall for such that did not move.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct traffic_table; /* hidden: who may write to what is an invariant */

enum {
        TRAFFIC_E_FULL = 1, /* no place for this cgroup */
};

enum {
        TRAFFIC_PLACES_MAX = 1 << 18,
        TRAFFIC_PROBES = 64, /* places at which a cgroup can be */
};

/* Counts stop here (8 PiB), so that sums of lies do not overflow. */
#define TRAFFIC_BYTES_MAX ((uint64_t)1 << 53)

struct traffic_count {
        uint64_t sent_bytes; /* by the sandbox */
        uint64_t received_bytes;
        uint64_t n_connections;
};

/* --- the runtime's side ------------------------------------------------------------------------
 */

/* What was counted at a place since it was given, and how far it was seen. */
struct traffic_meter {
        size_t place;
        struct traffic_count seen;
        struct traffic_count count;
};

/* @n_places: at least so many, at most TRAFFIC_PLACES_MAX. */
int traffic_table_new(size_t n_places, struct traffic_table **ret_table);

/* For hotcell-egress: its size is sealed. The table's. */
int traffic_table_fd(const struct traffic_table *table);

/* Before anything runs in the cgroup, whose id is not zero. 0 or TRAFFIC_E_FULL. */
int traffic_table_give(struct traffic_table *table, uint64_t cgroup_id,
                       struct traffic_meter *ret_meter);

/* Brings the meter's count up to date. */
void traffic_table_read(const struct traffic_table *table, struct traffic_meter *meter);

/* Reads once more; what is counted after that is its sandbox's. */
void traffic_table_take_back(struct traffic_table *table, struct traffic_meter *meter);

/* What belonged to no cgroup that has a place, since this was asked last. */
void traffic_table_take_lost(struct traffic_table *table, struct traffic_count *ret_lost);

/* --- hotcell-egress's side ---------------------------------------------------------------------
 */

/* Who is charged for a connection, and where that was last. */
struct traffic_account {
        uint64_t leaf_id;
        uint64_t sandbox_id; /* instead, if the leaf has no place */
        size_t leaf_place;
        size_t sandbox_place;
};

/* Takes the descriptor. -EPROTO when it is no such table. */
int traffic_table_map(int fd, struct traffic_table **ret_table);

/* Counts a connection. */
void traffic_account_open(struct traffic_table *table, uint64_t leaf_id, uint64_t sandbox_id,
                          struct traffic_account *ret_account);

void traffic_account_add(struct traffic_table *table, const struct traffic_account *account,
                         uint64_t sent_bytes, uint64_t received_bytes);

/* --- of both ------------------------------------------------------------------------------------
 */

/* Takes NULL, returns NULL. */
struct traffic_table *traffic_table_free(struct traffic_table *table);
DEFINE_CLEANUP(struct traffic_table, traffic_table_free)
