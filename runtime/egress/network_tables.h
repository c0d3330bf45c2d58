/* Networks by the id and by the cgroup of their sandbox: uthash behind functions. */
#pragma once

#include <stdint.h>

struct network;

/* Each is a pointer to its first member, NULL when it is empty. */
struct network_tables {
        struct network *by_id;
        struct network *by_group;
};

struct network *network_tables_find(const struct network_tables *tables, const char *sandbox_id);
struct network *network_tables_find_group(const struct network_tables *tables, uint64_t cgroup_id);

/* The one after @network; NULL: the first one, or that it was the last. */
struct network *network_tables_next(const struct network_tables *tables,
                                    const struct network *network);

/* 0, or -ENOMEM for the first of all: a table that cannot grow goes on as it is. */
int network_tables_add(struct network_tables *tables, struct network *network);
void network_tables_remove(struct network_tables *tables, struct network *network);
