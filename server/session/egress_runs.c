#include "server/session/egress_runs.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"

struct egress_run {
        char execution_id[ID_BUFFER];
        uint64_t leaf_cgroup_id;
        int64_t start_time_usec;
        int64_t end_time_usec;
        int64_t heard_time_usec; /* not before the end; INT64_MAX: not all yet */
};

static size_t count(const struct egress_runs *runs)
{
        return MIN(runs->n, (size_t)EGRESS_RUNS_MAX);
}

void egress_runs_note(struct egress_runs *runs, uint64_t leaf_cgroup_id,
                      const struct execution_record *record)
{
        struct egress_run *run;

        if (!runs->runs)
                runs->runs = calloc(EGRESS_RUNS_MAX, sizeof(*runs->runs));
        if (!runs->runs)
                return;
        run = &runs->runs[runs->n++ % EGRESS_RUNS_MAX];
        (void)snprintf(run->execution_id, sizeof(run->execution_id), "%s", record->execution_id);
        run->leaf_cgroup_id = leaf_cgroup_id;
        run->start_time_usec = record->start_time_usec;
        run->end_time_usec = record->end_time_usec;
        run->heard_time_usec = INT64_MAX;
}

void egress_runs_note_heard(struct egress_runs *runs, const char *execution_id,
                            int64_t heard_time_usec)
{
        for (size_t i = 0; i < count(runs); i++) {
                struct egress_run *run = &runs->runs[i];

                if (strcmp(run->execution_id, execution_id) == 0)
                        run->heard_time_usec = MAX(run->end_time_usec, heard_time_usec);
        }
}

void egress_runs_deinit(struct egress_runs *runs)
{
        free(runs->runs);
        *runs = (struct egress_runs){ 0 };
}

static bool is_elsewhere(const struct egress_search *search, uint64_t leaf_cgroup_id)
{
        return search->leaf_cgroup_id > 0 && search->leaf_cgroup_id != leaf_cgroup_id;
}

void egress_search_runs(struct egress_search *search, const struct egress_runs *runs)
{
        for (size_t i = 0; i < count(runs); i++) {
                const struct egress_run *run = &runs->runs[i];

                if (is_elsewhere(search, run->leaf_cgroup_id) ||
                    search->time_usec < run->start_time_usec ||
                    search->time_usec > run->heard_time_usec)
                        continue;
                if (search->time_usec <= run->end_time_usec) {
                        search->within = run->execution_id;
                        search->n_within++;
                } else {
                        search->behind = run->execution_id;
                        search->n_behind++;
                }
        }
}

void egress_search_running(struct egress_search *search, uint64_t leaf_cgroup_id,
                           const struct execution_record *record)
{
        if (is_elsewhere(search, leaf_cgroup_id) || search->time_usec < record->start_time_usec)
                return;
        search->within = record->execution_id;
        search->n_within++;
}

const char *egress_search_found(const struct egress_search *search)
{
        if (search->n_within > 0)
                return search->n_within == 1 ? search->within : NULL;
        return search->n_behind == 1 ? search->behind : NULL;
}
