/* How the ledger is written, within the transaction of the change that a row tells of. */
#pragma once

#include <stdint.h>

#include "server/store/records.h"

struct database;
struct store_retention;

/* What a row adds to what is used in all: what an execution used while it ran is a part of its
 * sandbox's time, not more of it, and throttling is the sandbox's to tell. */
struct usage ledger_share(const struct usage_record *record);

/* Before the execution's row is changed: one that has ended already is not added again. */
int ledger_end_execution(struct database *database, const struct execution_record *record);

/* Before the sandbox's row is changed: likewise. @ret_total: what all rows of it add up to. */
int ledger_end_sandbox(struct database *database, const struct sandbox_record *record,
                       struct usage *ret_total);

/* Deletes of what is older. Adds to *@n_full if there may be more of it. */
int ledger_prune(struct database *database, const struct store_retention *retention,
                 int64_t now_usec, int *n_full);

/* The first row that came at @time_usec or later, or the one after the last. */
int ledger_find_time(struct database *database, int64_t time_usec, int64_t *ret_record_id);

/* When row @record_id came, which is there. No two came at one time. */
int ledger_read_time(struct database *database, int64_t record_id, int64_t *ret_time_usec);
