/* A store for each test with a sandbox in it, whose use is written, read and pruned. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "test/unit/store/fixture.h"

enum { N_AMOUNTS = 19, ROWS_MAX = 1000 };
static_assert(offsetof(struct usage, missing) == N_AMOUNTS * sizeof(int64_t), "all are amounts");

extern struct fixture fixture;
extern struct usage_record rows[ROWS_MAX]; /* of the last list */
extern int n_sum_steps;                    /* of the last sum */

/* With the first sandbox, of uid:1000, whose label team is blue. */
void set_up(void);
void tear_down(void);

/* Of the database. */
const char *path(void);

/* Each is good until four more were asked for. */
const char *sandbox_id(int number);

/* @label: its team, or NULL. */
void add_sandbox(int number, const char *owner, const char *label);

/* Every amount differs from the others and from zero. */
struct usage make_usage(int64_t base);
void check_usage(const struct usage *is, const struct usage *should_be);

/* An execution as it is made, and as it is when it has ended. */
struct execution_record make_run(int number, int sandbox);
struct execution_record ended(int number, int sandbox, int64_t time_usec,
                              const struct usage *usage);
int end_execution(const struct execution_record *record);

/* One that has ended at @time_usec. */
struct execution_record run(int number, int sandbox, int64_t time_usec, const struct usage *usage);
int bill(int sandbox, int64_t time_usec, const struct usage *total);

/* Keeps owner and labels. */
int end_sandbox(int number, int64_t time_usec, const struct usage *total, bool is_incomplete);

struct listing {
        int n_calls;
        size_t n;
        bool more;
        int64_t last_time_usec;
        uint64_t cost_usec;
};
struct listing list(const struct usage_query *query);
void on_list(void *userdata, int result, const struct usage_list *list);
size_t list_of(int sandbox);

/* In all steps. */
struct usage_sums sum(const struct usage_query *query);

/* What accounts and what rows say of it. */
void check_sums(struct usage_query query, int64_t n);

/* In all steps: so many. */
int prune(const struct store_retention *retention, int64_t now_usec);

/* An ended sandbox of one row for each second from @first to @last. */
void fill_ledger_of(const char *owner, int first, int last);
void fill_ledger(int n);
