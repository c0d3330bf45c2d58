/*
 * The database: one SQLite file, written and read by one worker thread.
 *
 * Every function but open and close queues a job and returns; its callback comes once, later, on
 * the loop thread, in the order of the calls, never before the call returns. What a call is given
 * is copied. Results: 0, a STORE_E_ outcome, or a negative errno (I/O: the store is
 * then unhealthy until a write succeeds; -EAGAIN: too many jobs are queued; -EEXIST: the id is
 * there already).
 *
 * What was told as done survives the death of any process. The end of a sandbox, new keys and
 * their revocations also survive a loss of power at once, everything else after at most about a
 * second.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "server/store/records.h"

struct store;

enum {
        /* Of store_open: */
        STORE_E_CORRUPT = 1, /* the file is damaged or no database of ours; it was left as it is */
        STORE_E_NEWER,       /* its schema is newer than this program */
        STORE_E_READ_ONLY,   /* the folder or the file cannot be written */
        STORE_E_BUSY,        /* another process has it open */
        /* Of jobs: */
        STORE_E_NAME_IN_USE,   /* a living sandbox of the same owner has the name; a good key has it
                                */
        STORE_E_NOT_FOUND,     /* the object, or what a new one belongs to */
        STORE_E_TOKEN_EXPIRED, /* events after there are not all kept */
        STORE_E_MORE,
        STORE_E_FULL,         /* the disk is full: what there is room for is for what runs to end */
        STORE_E_NO_EXECUTION, /* the sandbox has none of that id */
};

/* Opens and, if need be, creates or migrates `<directory>/hotcell.db`. @ret_message: a sentence for
 * people on an outcome. */
int store_open(sd_event *loop, const char *directory, struct store **ret_store,
               char ret_message[static MESSAGE_BUFFER]);

/* Finishes the queued jobs (callbacks are not called any more), closes. */
struct store *store_close(struct store *store);

/* The database's file, for operators to look at. */
const char *store_path(const struct store *store);

/* From now on keeps @bytes of the disk for the ends of what runs. Once a write needed them new work
 * is refused with STORE_E_FULL, until there is as much room again; the store finds out by itself.
 */
void store_keep_spare(struct store *store, int64_t bytes);

/* New work is refused. */
bool store_is_full(const struct store *store);

/* False after a failed write until one succeeds; while it is false, the store itself tries one
 * every second. */
bool store_is_healthy(const struct store *store);

/* Called on every change of store_is_healthy and store_is_full. */
typedef void (*store_on_health_change)(void *userdata);
void store_set_on_health_change(struct store *store, store_on_health_change on_change,
                                void *userdata);

/* What is kept of what is over. Zero: no bound. Above a bound, the oldest of those owners go who
 * have most. */
struct store_retention {
        int64_t kept_usec; /* ended sandboxes and executions, deleted contexts, events of both
                              kinds */
        int64_t sandboxes_max;
        int64_t executions_max;
        int64_t events_max;
        int64_t events_bytes_max;
        int64_t egress_events_max;
        int64_t egress_events_bytes_max;
        int64_t requests_kept_usec;
        int64_t requests_max;      /* of each owner */
        int64_t outputs_kept_usec; /* of ended executions */
        int64_t outputs_max_bytes; /* of all together */
        int64_t ledger_kept_usec;  /* rows of the ledger, whatever becomes of what they tell of */
        int64_t ledger_rows_max;   /* of all together; of who has most the oldest go */
};

enum {
        /* Ended executions and events of sandboxes: after so many more, bounds are kept again. */
        STORE_ROWS_WORTH_PRUNING = 4096,
};

/* From now on prunes every few minutes, in small steps, and at once when much was added, in rows or
 * in bytes; an owner's oldest requests at once. Without it nothing is pruned. */
int store_set_retention(struct store *store, const struct store_retention *retention);

typedef void (*store_on_done)(void *userdata, int result);

/* One step of pruning, as of @now_usec; STORE_E_MORE: another one would find more. */
void store_prune(struct store *store, const struct store_retention *retention, int64_t now_usec,
                 store_on_done on_done, void *userdata);

/* Bytes that mean nothing to the store. Borrowed. */
struct store_blob {
        const void *data;
        size_t n;
};

/* Sandboxes. A change and its event are one transaction. @event 0: none. */
void store_insert_sandbox(struct store *store, const struct sandbox_record *record,
                          store_on_done on_done, void *userdata);
void store_update_sandbox(struct store *store, const struct sandbox_record *record,
                          enum sandbox_event event, store_on_done on_done, void *userdata);

/* It has ended. @total: what all its rows of the ledger add up to; NULL unless @result is 0. */
typedef void (*store_on_sandbox_end)(void *userdata, int result, const struct usage *total);
void store_end_sandbox(struct store *store, const struct sandbox_record *record,
                       store_on_sandbox_end on_done, void *userdata);

/* Contexts and executions. */
void store_insert_context(struct store *store, const struct context_record *record,
                          store_on_done on_done, void *userdata);
void store_update_context(struct store *store, const struct context_record *record,
                          store_on_done on_done, void *userdata);
/* Whether the sandbox has or had that context: 0 or STORE_E_NOT_FOUND. */
void store_find_context(struct store *store, const char *owner, const char *sandbox_id,
                        const char *context_id, store_on_done on_done, void *userdata);

void store_insert_execution(struct store *store, const struct execution_record *record,
                            store_on_done on_done, void *userdata);

/* It has ended. @output: what it said, kept for a while; empty: nothing. */
void store_end_execution(struct store *store, const struct execution_record *record,
                         const struct store_blob *output, store_on_done on_done, void *userdata);
void store_update_execution(struct store *store, const struct execution_record *record,
                            store_on_done on_done, void *userdata);

/*
 * Requests with a request_id. One is remembered in the transaction of the change that it asked for
 * (the functions above, with _for; @request NULL is the same as without), or by itself when there
 * is none. What was pruned is STORE_E_NOT_FOUND.
 */
void store_update_sandbox_for(struct store *store, const struct request_record *request,
                              const struct sandbox_record *record, enum sandbox_event event,
                              store_on_done on_done, void *userdata);
void store_insert_context_for(struct store *store, const struct request_record *request,
                              const struct context_record *record, store_on_done on_done,
                              void *userdata);

/* @kept (may be NULL): what it was asked to do, for whoever must go on with it; until its end. */
void store_insert_execution_for(struct store *store, const struct request_record *request,
                                const struct execution_record *record,
                                const struct store_blob *kept, store_on_done on_done,
                                void *userdata);
void store_remember_request(struct store *store, const struct request_record *request,
                            store_on_done on_done, void *userdata);

/* For one whose change was taken back; succeeds also when it is not remembered. */
void store_forget_request(struct store *store, const struct request_record *request,
                          store_on_done on_done, void *userdata);

/* Finds what is remembered under owner, method and request_id of @request. */
typedef void (*store_on_request)(void *userdata, int result, const struct request_record *known);
void store_get_request(struct store *store, const struct request_record *request,
                       store_on_request on_done, void *userdata);

/* Results of reads are only good during the callback. @owner NULL: of all owners. */
typedef void (*store_on_sandbox)(void *userdata, int result, const struct sandbox_record *record);
void store_get_sandbox(struct store *store, const char *owner, const char *sandbox_id,
                       store_on_sandbox on_done, void *userdata);

typedef void (*store_on_execution)(void *userdata, int result,
                                   const struct execution_record *record);
void store_get_execution(struct store *store, const char *owner, const char *execution_id,
                         store_on_execution on_done, void *userdata);

/* Newest first by (create_time_usec, id), strictly after the cursor if there is one. */
struct store_cursor {
        int64_t create_time_usec; /* zero: from the newest */
        char id[ID_BUFFER];
};

struct sandbox_query {
        const char *owner;
        unsigned states; /* BIT(enum sandbox_state) of those wanted; zero: all but ENDED */
        const struct pairs *labels; /* all must match; may be NULL */
        const char *name;           /* NULL: any */
        struct store_cursor cursor;
        size_t limit; /* at most 1,000 */
};

/* Records without environment and egress policy. */
/* A page of sandboxes or of their events also ends, with `more`, before it would take a message of
 * STORE_PAGE_BYTES; one record always fits. */
enum { STORE_PAGE_BYTES = 900 << 10 };

struct sandbox_list {
        const struct sandbox_record *records;
        size_t n;
        bool more;
        int64_t watch_sequence; /* of the newest event in the same snapshot */
};

typedef void (*store_on_sandboxes)(void *userdata, int result, const struct sandbox_list *list);
void store_list_sandboxes(struct store *store, const struct sandbox_query *query,
                          store_on_sandboxes on_done, void *userdata);

struct execution_query {
        const char *owner;
        const char *sandbox_id; /* NULL: any */
        const char *context_id; /* NULL: any */
        unsigned states;        /* BIT(enum execution_state); zero: all */
        struct store_cursor cursor;
        size_t limit;
};

struct execution_list {
        const struct execution_record *records;
        size_t n;
        bool more;
};

typedef void (*store_on_executions)(void *userdata, int result, const struct execution_list *list);
void store_list_executions(struct store *store, const struct execution_query *query,
                           store_on_executions on_done, void *userdata);

/* What happened to sandboxes, oldest first, strictly after @after_sequence. */
struct sandbox_event_record {
        int64_t sequence;
        int64_t event_time_usec;
        enum sandbox_event event;
        struct sandbox_record sandbox; /* as it was then, without environment and policy */
};

struct sandbox_event_list {
        const struct sandbox_event_record *records;
        size_t n;
        int64_t last_sequence; /* go on after this one (also when n is 0) */
        bool more;
};

struct sandbox_event_query {
        const char *owner;
        const char *sandbox_id; /* NULL: all of the owner's */
        int64_t after_sequence; /* negative: only tell last_sequence */
        size_t limit;
};

typedef void (*store_on_sandbox_events)(void *userdata, int result,
                                        const struct sandbox_event_list *list);
void store_list_sandbox_events(struct store *store, const struct sandbox_event_query *query,
                               store_on_sandbox_events on_done, void *userdata);

/* Egress events. All of a batch are inserted, but for those that are known already and those whose
 * sandbox is not; new work, so none of it on a full disk. At most EGRESS_BATCH_MAX. */
enum { EGRESS_BATCH_MAX = 256 };
void store_insert_egress_events(struct store *store, const struct egress_record *records, size_t n,
                                store_on_done on_done, void *userdata);

struct egress_query {
        const char *owner;
        const char *sandbox_id;   /* STORE_E_NOT_FOUND: there is none of the owner's */
        const char *execution_id; /* NULL: any; else STORE_E_NO_EXECUTION likewise */
        unsigned types;           /* BIT(enum egress_event_type); zero: all */
        int64_t after_sequence;
        size_t limit; /* at most 1,000 */
};

/* Oldest first. */
struct egress_list {
        const struct egress_record *records;
        size_t n;
        bool more;
};

typedef void (*store_on_egress_events)(void *userdata, int result, const struct egress_list *list);
void store_list_egress_events(struct store *store, const struct egress_query *query,
                              store_on_egress_events on_done, void *userdata);

/*
 * The ledger. A row of an execution is inserted with its end (store_end_execution()), the last one
 * of a sandbox with its end; so each is there once whatever is killed or told again.
 */

struct used_so_far {
        char execution_id[ID_BUFFER];
        struct usage usage;
};

struct sandbox_bill {
        const char *sandbox_id;
        int64_t end_time_usec;
        struct usage total;             /* all that it used until then, but for the runs' part */
        const struct used_so_far *runs; /* what will be in rows of these */
        size_t n_runs;
};

/* A row with what of the total is in no row yet; none if that is nothing, or if it has ended. What
 * the runs used is noted in their records: if they are lost it is what is known of them. New work:
 * on a full disk it waits for the next one. */
void store_bill_sandbox(struct store *store, const struct sandbox_bill *bill, store_on_done on_done,
                        void *userdata);

struct usage_query {
        const char *owner;      /* NULL: of all */
        const char *sandbox_id; /* NULL: of any, as the others */
        const char *execution_id;
        const struct pairs *labels; /* all must match; may be NULL */
        int64_t start_time_usec;    /* those that end then or later */
        int64_t end_time_usec;      /* those that end before; zero: all */
        int64_t after_time_usec;    /* of lists: those that came after that */
        int64_t after_id;          /* of sums: those after this one, in the order of their coming */
        const char *after_sandbox; /* likewise, where they go by sandboxes; NULL: all */
        size_t limit;              /* at most 1,000 */
};

/* Oldest first. There may be more after a page that is not full, or empty: a step does not look at
 * more than some thousand rows, or fewer the more labels are wanted. */
struct usage_list {
        const struct usage_record *records;
        size_t n;
        bool more;
        int64_t last_time_usec; /* if there are more: go on after that */
        uint64_t cost_usec;     /* how long the step held up others, as below */
};

typedef void (*store_on_usage)(void *userdata, int result, const struct usage_list *list);
void store_list_usage(struct store *store, const struct usage_query *query, store_on_usage on_done,
                      void *userdata);

/* What some hundred rows, or sandboxes with all of their rows, add up to that come after after_id
 * and after_sandbox: one step, which holds up others for about a millisecond. The caller goes on
 * after last_id and last_sandbox while there are more. Wall time and throttling are those of rows
 * of sandboxes, for executions overlap with them; but if one execution is asked for wall time is
 * that one's. */
struct usage_sums {
        struct usage usage;
        struct usage_gaps gaps;
        int64_t n;
        uint64_t cost_usec;
        bool more;
        int64_t last_id;
        char last_sandbox[ID_BUFFER];
};

typedef void (*store_on_usage_sums)(void *userdata, int result, const struct usage_sums *sums);
void store_sum_usage(struct store *store, const struct usage_query *query,
                     store_on_usage_sums on_done, void *userdata);

/* What there is of what is asked for. Ids are known as long as there is a row or a record,
 * owners also as long as there is a key. */
struct usage_scope {
        bool is_owner_known, is_sandbox_known, is_execution_known; /* or none is asked for */
        int64_t complete_until_usec; /* all that was used before is in rows; zero: nothing lives */
        uint64_t cost_usec;
};

typedef void (*store_on_usage_scope)(void *userdata, int result, const struct usage_scope *scope);
void store_find_usage_scope(struct store *store, const struct usage_query *query,
                            store_on_usage_scope on_done, void *userdata);

/* Where connections of a sandbox, or of an execution, went that are over; those with most bytes
 * first, at most 1,000. */
struct usage_destinations {
        const struct usage_destination *items;
        size_t n;
        uint64_t cost_usec;
};

typedef void (*store_on_usage_destinations)(void *userdata, int result,
                                            const struct usage_destinations *destinations);
void store_list_usage_destinations(struct store *store, const char *owner, const char *sandbox_id,
                                   const char *execution_id, store_on_usage_destinations on_done,
                                   void *userdata);

/* All that is not over, of all owners: for the start of the server. */
struct living {
        const struct sandbox_record *sandboxes;
        size_t n_sandboxes;
        const struct context_record *contexts; /* existing ones of these sandboxes */
        size_t n_contexts;
        const struct execution_record *executions; /* not ended ones, oldest first */
        const struct store_blob *requests;         /* of each of them; empty: none was kept */
        size_t n_executions;
};

typedef void (*store_on_living)(void *userdata, int result, const struct living *living);
void store_load_living(struct store *store, store_on_living on_done, void *userdata);

/* Ended executions whose output is kept: those that ended at @end_time_usec or later, at most
 * @bytes_max of output, the newest first to be chosen; told oldest first. */
struct execution_output {
        struct execution_record record;
        struct store_blob output;
};

typedef void (*store_on_outputs)(void *userdata, int result, const struct execution_output *outputs,
                                 size_t n);
void store_load_outputs(struct store *store, int64_t end_time_usec, int64_t bytes_max,
                        store_on_outputs on_done, void *userdata);

/* Keys. */
enum {
        STORE_KEYS_MAX = 1000, /* the oldest that are revoked or expired make room for new ones */
};

typedef void (*store_on_keys)(void *userdata, int result, const struct key_record *records,
                              size_t n);
void store_insert_key(struct store *store, const struct key_record *record, store_on_done on_done,
                      void *userdata);
void store_list_keys(struct store *store, store_on_keys on_done, void *userdata);
void store_revoke_key(struct store *store, const char *key_id, int64_t revoke_time_usec,
                      store_on_done on_done, void *userdata);

/* Of all keys that share the owner of this one: those in @set (BIT(enum key_quota)).
 * STORE_E_NOT_FOUND. */
void store_set_quotas(struct store *store, const char *key_id, unsigned set,
                      const struct key_quotas *quotas, store_on_done on_done, void *userdata);

/* Notes that a key was used; unlike other changes of keys, a loss of power may undo it. */
void store_touch_key(struct store *store, const char *key_id, int64_t used_time_usec,
                     store_on_done on_done, void *userdata);
