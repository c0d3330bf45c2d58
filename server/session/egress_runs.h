/*
 * Which execution ran when, and in which leaf: by that, what is told of the network is found to be
 * an execution's.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "server/store/records.h"

struct egress_run;

enum { EGRESS_RUNS_MAX = 32 }; /* of a sandbox, that are over; then the oldest is forgotten */

/* Those of a sandbox that are over. All zeros is empty. */
struct egress_runs {
        struct egress_run *runs; /* room for EGRESS_RUNS_MAX; NULL: none yet */
        size_t n;                /* ever */
};

/* It is over, and what it asked for may still be on its way: what reaches hotcell-egress later than
 * its end is its, too, where nothing else ran by then. Without memory nothing will be found to be
 * its. */
void egress_runs_note(struct egress_runs *runs, uint64_t leaf_cgroup_id,
                      const struct execution_record *record);

/* By now all has reached it. */
void egress_runs_note_heard(struct egress_runs *runs, const char *execution_id,
                            int64_t heard_time_usec);

void egress_runs_deinit(struct egress_runs *runs);

/* A search for the execution that asked at a time. */
struct egress_search {
        uint64_t leaf_cgroup_id; /* of the process; zero: not known */
        int64_t time_usec;
        const char *within; /* what ran then; private, as all that follows */
        const char *behind;
        size_t n_within;
        size_t n_behind;
};

/* Looks at those that are over, and at one that runs. */
void egress_search_runs(struct egress_search *search, const struct egress_runs *runs);
void egress_search_running(struct egress_search *search, uint64_t leaf_cgroup_id,
                           const struct execution_record *record);

/* The only one that it can be, or NULL. Good as long as what was looked at. */
const char *egress_search_found(const struct egress_search *search);
