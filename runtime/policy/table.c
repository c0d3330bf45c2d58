#include <stdlib.h>
#include <string.h>

#include "runtime/policy/compile.h"

void policy_table_deinit(struct policy_table *table)
{
        free(table->entries);
        policy_index_deinit(&table->index);
        free(table->names);
        *table = (struct policy_table){ 0 };
}

const struct policy_entry *policy_table_find(const struct policy_table *table,
                                             const struct policy_address *address)
{
        uint32_t found = policy_index_find(&table->index, address);

        return found == POLICY_INDEX_NONE ? NULL : &table->entries[found];
}

struct name_key {
        const char *domain;
        size_t length;
        bool is_wildcard;
};

/* In the order in which they were compiled. */
static int compare(const void *left, const void *right)
{
        const struct name_key *key = left;
        const struct policy_name *name = right;
        int order;

        if (key->length != name->length)
                return key->length < name->length ? -1 : 1;
        order = memcmp(key->domain, name->domain, key->length);
        return order ? order : (int)key->is_wildcard - (int)name->is_wildcard;
}

static const struct policy_name *search(const struct policy_table *table, const char *domain,
                                        bool is_wildcard)
{
        const struct name_key key = { domain, strlen(domain), is_wildcard };

        if (table->n_names == 0)
                return NULL;
        return bsearch(&key, table->names, table->n_names, sizeof(*table->names), compare);
}

const struct policy_name *policy_table_find_name(const struct policy_table *table, const char *name)
{
        const struct policy_name *found = search(table, name, false);

        return found ? found : policy_table_find_wildcard(table, name);
}

const struct policy_name *policy_table_find_wildcard(const struct policy_table *table,
                                                     const char *name)
{
        const struct policy_name *found = NULL;

        for (const char *dot = strchr(name, '.'); dot && !found; dot = strchr(dot + 1, '.'))
                found = search(table, dot + 1, true);
        return found;
}
