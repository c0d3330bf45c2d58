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

/* Says so if none fits. That is no failure, as an empty list is none. */
void usage_filter_say_none(const char *command, const Hotcell__V1__GetUsageRequest *ask,
                           const Hotcell__V1__GetUsageResponse *first);

/* Since the epoch. */
struct usage_time {
        int64_t seconds;
        int32_t nanos;
};

/* A time such as `2026-01-31` or (RFC 3339) `2026-01-31T12:00:00.5+01:00`, or so long before @now,
 * in seconds: `90m`. */
bool usage_time_parse(const char *text, int64_t now, struct usage_time *ret_time);
