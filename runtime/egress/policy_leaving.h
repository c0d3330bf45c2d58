/*
 * Policies that nobody has any more, on their way out of the wall's tables. There may be thousands
 * of entries: some are taken out in each turn of the loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "runtime/policy/compile.h"

struct leaving_table;
struct tables;

struct policy_leaving {
        struct tables *tables; /* borrowed */
        STAILQ_HEAD(, leaving_table) all;
};

void policy_leaving_init(struct policy_leaving *leaving, struct tables *tables);

/* What is still in the tables is for the next process to sweep. */
void policy_leaving_deinit(struct policy_leaving *leaving);

/*
 * Only the first @n_written entries of @table are there. Takes it, and it is empty afterwards.
 * True: there is something to do in later turns.
 */
bool policy_leaving_add(struct policy_leaving *leaving, struct policy_table *table, uint32_t number,
                        size_t n_written);

/* Takes some out. False: there was nothing. */
bool policy_leaving_go_on(struct policy_leaving *leaving);

bool policy_leaving_is_empty(const struct policy_leaving *leaving);
