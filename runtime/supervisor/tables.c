/* What uthash's macros expand to is not for clang-tidy to judge. */
#include "runtime/base/hash.h"

#include "runtime/supervisor/tables.h"

#include <string.h>

#include "runtime/supervisor/process.h"
#include "runtime/supervisor/reaper.h"
#include "runtime/supervisor/sandbox.h"

/* NOLINTBEGIN(readability-function-size, clang-analyzer-core.NullDereference): see above */

struct sandbox *sandbox_table_find(struct sandbox *table, const char *id)
{
        struct sandbox *found;

        HASH_FIND_STR(table, id, found);
        return found;
}

void sandbox_table_add(struct sandbox **table, struct sandbox *sandbox)
{
        HASH_ADD_SURELY(*table, sandbox, HASH_ADD_STR(*table, id, sandbox));
}

void sandbox_table_remove(struct sandbox **table, struct sandbox *sandbox)
{
        HASH_DEL(*table, sandbox);
}

static int by_id(const struct sandbox *a, const struct sandbox *b)
{
        return strcmp(a->id, b->id);
}

void sandbox_table_sort(struct sandbox **table)
{
        HASH_SORT(*table, by_id);
}

struct process *process_table_find(struct process *table, const char *id)
{
        struct process *found;

        HASH_FIND_STR(table, id, found);
        return found;
}

void process_table_add(struct process **table, struct process *process)
{
        HASH_ADD_SURELY(*table, process, HASH_ADD_STR(*table, id, process));
}

void process_table_remove(struct process **table, struct process *process)
{
        HASH_DEL(*table, process);
}

struct child *child_table_find(struct child *table, pid_t pid)
{
        struct child *found;

        HASH_FIND_INT(table, &pid, found);
        return found;
}

void child_table_add(struct child **table, struct child *child)
{
        HASH_ADD_SURELY(*table, child, HASH_ADD_INT(*table, pid, child));
}

void child_table_remove(struct child **table, struct child *child)
{
        HASH_DEL(*table, child);
}

/* NOLINTEND(readability-function-size, clang-analyzer-core.NullDereference) */
