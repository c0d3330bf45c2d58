/* What is kept of what is over, within its bounds: who has most gives first. Worker thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database;
struct store_retention;

/* One step. Sets *@has_more when another one would find more. *@ret_n_ledger: rows of the ledger
 * that went. */
int owner_bounds_keep(struct database *database, const struct store_retention *retention,
                      bool *has_more, int64_t *ret_n_ledger);

/* The highest amount that each may have so that all together have at most @bound, when those who
 * have less keep what they have. Sorts @amounts. */
int64_t owner_bounds_level(int64_t *amounts, size_t n, int64_t bound);
