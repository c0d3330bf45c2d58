/* Which records of the ledger: options of `hotcell usage` and `hotcell usage export`. */
#pragma once

#include <stdbool.h>

#include "cli/options.h"
#include "hotcell/v1/usage_service.pb-c.h"

struct client;

struct usage_filter {
        const char *execution;
        const char *owner;
        const char *since;
        const char *until;
        struct option_pairs labels;
};

struct option_group usage_filter_group(struct usage_filter *filter);

/* Sets the fields of @ask; @sandbox may be NULL. Exit code after saying why not, else 0. */
int usage_filter_set(const char *command, const struct usage_filter *filter, const char *sandbox,
                     struct client *client, Hotcell__V1__GetUsageRequest *ask);

/* A time such as `2026-01-31T12:00:00Z` or `2026-01-31`, or so long before @now: `90m`. Seconds
 * since the epoch. */
bool usage_time_parse(const char *text, int64_t now, int64_t *ret_seconds);
