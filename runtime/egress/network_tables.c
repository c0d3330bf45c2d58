/* What uthash's macros expand to is not for clang-tidy to judge. */
#include "runtime/base/hash.h"

#include "runtime/egress/network_tables.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/egress/network.h"

/* NOLINTBEGIN(readability-function-size, clang-analyzer-core.NullDereference): see above */

struct network *network_tables_find(const struct network_tables *tables, const char *sandbox_id)
{
        struct network *found;

        HASH_FIND(by_id, tables->by_id, sandbox_id, strlen(sandbox_id), found);
        return found;
}

struct network *network_tables_find_group(const struct network_tables *tables, uint64_t cgroup_id)
{
        struct network *found;

        HASH_FIND(by_group, tables->by_group, &cgroup_id, sizeof(cgroup_id), found);
        return found;
}

struct network *network_tables_next(const struct network_tables *tables,
                                    const struct network *network)
{
        return network ? network->by_id.next : tables->by_id;
}

int network_tables_add(struct network_tables *tables, struct network *network)
{
        HASH_ADD_IF_ROOM(
                by_id, tables->by_id, network,
                HASH_ADD(by_id, tables->by_id, sandbox_id, strlen(network->sandbox_id), network));
        if (!network->by_id.tbl)
                return error_origin(-ENOMEM);
        HASH_ADD_IF_ROOM(by_group, tables->by_group, network,
                         HASH_ADD(by_group, tables->by_group, cgroup_id, sizeof(network->cgroup_id),
                                  network));
        if (network->by_group.tbl)
                return 0;
        HASH_DELETE(by_id, tables->by_id, network);
        return error_origin(-ENOMEM);
}

void network_tables_remove(struct network_tables *tables, struct network *network)
{
        HASH_DELETE(by_id, tables->by_id, network);
        HASH_DELETE(by_group, tables->by_group, network);
}

/* NOLINTEND(readability-function-size, clang-analyzer-core.NullDereference) */
