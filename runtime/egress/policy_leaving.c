#include "runtime/egress/policy_leaving.h"

#include <stdlib.h>

#include "runtime/egress/policy_turns.h"
#include "runtime/egress/tables.h"

struct leaving_table {
        STAILQ_ENTRY(leaving_table) link;
        struct policy_table table;
        uint32_t number;
        size_t n_left; /* entries that are still in the tables */
};

void policy_leaving_init(struct policy_leaving *leaving, struct tables *tables)
{
        leaving->tables = tables;
        STAILQ_INIT(&leaving->all);
}

static void free_first(struct policy_leaving *leaving)
{
        struct leaving_table *first = STAILQ_FIRST(&leaving->all);

        STAILQ_REMOVE_HEAD(&leaving->all, link);
        policy_table_deinit(&first->table);
        free(first);
}

void policy_leaving_deinit(struct policy_leaving *leaving)
{
        while (!STAILQ_EMPTY(&leaving->all))
                free_first(leaving);
}

static void take_out(struct policy_leaving *leaving, struct leaving_table *from, size_t n)
{
        for (; n > 0 && from->n_left > 0; n--)
                tables_remove_entry(leaving->tables, from->number,
                                    &from->table.entries[--from->n_left]);
}

bool policy_leaving_add(struct policy_leaving *leaving, struct policy_table *table, uint32_t number,
                        size_t n_written)
{
        struct leaving_table here = { .table = *table, .number = number, .n_left = n_written };
        struct leaving_table *later =
                n_written > POLICY_TURN_ENTRIES ? malloc(sizeof(*later)) : NULL;

        *table = (struct policy_table){ 0 };
        if (!later) {
                /* They are few, or there is no memory to do it later. */
                take_out(leaving, &here, n_written);
                policy_table_deinit(&here.table);
                return false;
        }
        *later = here;
        STAILQ_INSERT_TAIL(&leaving->all, later, link);
        return true;
}

bool policy_leaving_go_on(struct policy_leaving *leaving)
{
        struct leaving_table *first = STAILQ_FIRST(&leaving->all);

        if (!first)
                return false;
        take_out(leaving, first, POLICY_TURN_ENTRIES);
        if (first->n_left == 0)
                free_first(leaving);
        return true;
}

bool policy_leaving_is_empty(const struct policy_leaving *leaving)
{
        return STAILQ_EMPTY(&leaving->all);
}
