/* Before uthash.h. */
#include "runtime/base/hash.h"

#include "runtime/egress/names.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/fair.h"

/* NOLINTBEGIN(readability-function-size, clang-analyzer-core.NullDereference): uthash's macros */

static void drop_address(struct names *names, struct named_address *address)
{
        HASH_DEL(names->addresses, address);
        names->n_addresses--;
        (*names->n_all)--;
        free(address);
}

void names_deinit(struct names *names)
{
        struct named_address *address;
        struct named_address *following;

        HASH_ITER(hh, names->addresses, address, following)
        {
                drop_address(names, address);
        }
}

static void drop_expired_names(struct named_address *address, uint64_t now_usec)
{
        size_t n = 0;

        for (size_t i = 0; i < address->n_entries; i++)
                if (address->entries[i].expire_usec > now_usec)
                        address->entries[n++] = address->entries[i];
        address->n_entries = n;
}

void names_expire(struct names *names, uint64_t now_usec, names_drop *drop, void *userdata)
{
        struct named_address *address;
        struct named_address *following;

        HASH_ITER(hh, names->addresses, address, following)
        {
                drop_expired_names(address, now_usec);
                if (address->n_entries > 0)
                        continue;
                drop(address, userdata);
                drop_address(names, address);
        }
}

static bool has_room(const struct names *names)
{
        return names->n_addresses < NAMES_ADDRESSES_MAX &&
               fair_has_room(names->n_addresses, *names->n_all, NAMES_ADDRESSES_ALL);
}

static struct named_address *find(struct names *names, const struct policy_address *address)
{
        struct named_address *found;

        HASH_FIND(hh, names->addresses, address, sizeof(*address), found);
        return found;
}

static struct named_address *add(struct names *names, const struct policy_address *address)
{
        struct named_address *added = calloc(1, sizeof(*added));

        if (!added)
                return NULL;
        added->address = *address;
        HASH_ADD_IF_ROOM(hh, names->addresses, added,
                         HASH_ADD(hh, names->addresses, address, sizeof(added->address), added));
        if (!added->hh.tbl) {
                free(added);
                return NULL;
        }
        names->n_addresses++;
        (*names->n_all)++;
        return added;
}

static struct name_entry *place_for(struct named_address *address, const char *name)
{
        struct name_entry *first = &address->entries[0];

        for (size_t i = 0; i < address->n_entries; i++) {
                if (strcmp(address->entries[i].name, name) == 0)
                        return &address->entries[i];
                if (address->entries[i].expire_usec < first->expire_usec)
                        first = &address->entries[i];
        }
        return address->n_entries < NAMES_OF_ADDRESS_MAX ? &address->entries[address->n_entries++]
                                                         : first;
}

int names_admit(struct names *names, const struct policy_address *address,
                const struct name_entry *entry, uint64_t now_usec, names_drop *drop, void *userdata)
{
        struct named_address *found = find(names, address);

        if (!found && !has_room(names))
                names_expire(names, now_usec, drop, userdata);
        if (!found && !has_room(names))
                return NAMES_E_FULL;
        if (!found)
                found = add(names, address);
        if (!found)
                return error_origin(-ENOMEM);
        drop_expired_names(found, now_usec);
        *place_for(found, entry->name) = *entry;
        return 0;
}

const struct named_address *names_find(struct names *names, const struct policy_address *address,
                                       uint64_t now_usec)
{
        struct named_address *found = find(names, address);

        if (!found)
                return NULL;
        drop_expired_names(found, now_usec);
        return found->n_entries > 0 ? found : NULL;
}

void names_for_each(struct names *names, uint64_t now_usec,
                    void (*visit)(const struct named_address *address, void *userdata),
                    void *userdata)
{
        struct named_address *address;
        struct named_address *following;

        HASH_ITER(hh, names->addresses, address, following)
        {
                drop_expired_names(address, now_usec);
                if (address->n_entries > 0 || now_usec == 0)
                        visit(address, userdata);
        }
}

/* NOLINTEND(readability-function-size, clang-analyzer-core.NullDereference) */
