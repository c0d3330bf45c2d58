/* What WatchUsage told last, and at which rates things are used: differences to what it told
 * before.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "hotcell/v1/usage_service.pb-c.h"

enum top_sort { TOP_SORT_CPU = 0, TOP_SORT_MEMORY, TOP_SORT_NAME };

/* What is used each second. */
struct top_rates {
        bool are_known;
        double cpus;       /* seconds of CPU */
        double waiting;    /* threads that were ready and had no CPU */
        bool has_waiting;  /* that can be measured there */
        double sent_bytes; /* and so can these, if has_traffic */
        double received_bytes;
        bool has_traffic;
};

struct top_execution {
        const Hotcell__V1__ExecutionUsageNow *now;
        struct top_rates rates;
};

struct top_sandbox {
        const Hotcell__V1__SandboxUsageNow *now;
        struct top_rates rates;
        struct top_execution *executions;
};

/* Zeroed is empty. */
struct top_view {
        enum top_sort sort;
        bool is_paused;
        Hotcell__V1__WatchUsageResponse *coming; /* of which more is to come */
        Hotcell__V1__WatchUsageResponse *held;   /* came last, while paused */
        Hotcell__V1__WatchUsageResponse *before;
        Hotcell__V1__WatchUsageResponse *now;
        struct top_sandbox *sandboxes; /* of now, sorted */
        bool has_rates;                /* there is a measurement before */
};

void top_view_deinit(struct top_view *view);

/* Takes @message over. True: a measurement is whole, and shown from now on. */
bool top_view_take(struct top_view *view, Hotcell__V1__WatchUsageResponse *message);

/* The connection was lost: what is not whole will never be. */
void top_view_forget_coming(struct top_view *view);

void top_view_sort(struct top_view *view, enum top_sort sort);
