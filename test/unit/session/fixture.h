/*
 * A session on a real store in a folder of its own, a fake runtime, and one loop. Calls here wait
 * for their answer by running the loop; nothing sleeps.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <systemd/sd-event.h>

#include "server/session/egress_rules.h"
#include "server/session/session.h"
#include "server/store/store.h"
#include "test/unit/session/fake_runtime.h"
#include "test/unit/session/seen.h"

struct fixture {
        sd_event *loop;
        char home[64];   /* has all folders */
        char folder[96]; /* of the database */
        char socket_path[96];
        struct fake_runtime *runtime;
        struct fake_egress *egress; /* NULL: there is none */
        struct store *store;
        struct session *session;
        struct session_config config;
};

/* The last answer of any call. */
struct answer {
        bool is_done;
        struct session_result result;
        struct sandbox_record sandbox; /* without what it owned */
        struct execution_record execution;
        struct context_record context;
        enum context_state context_state;
        bool created;
        size_t n;
};

void fixture_setup(void);
void fixture_teardown(void);
extern struct fixture f;

/* Runs the loop until @condition holds; fails the test after ten seconds. */
void run_until(bool (*condition)(void *userdata), void *userdata);
void run_until_true(const bool *flag);
void run_turns(unsigned n);

void start_session(void);

/* Starts the session anew, with hotcell-egress beside the runtime. */
void start_with_egress(void);
void stop_session(void);

/* As if the server and, with new ids of its processes, the runtime were killed: their memory is
 * gone, only the database is left. A new runtime listens; start_session comes next. */
void crash(void);
/*
 * As if the server alone were killed at this moment: nothing that it had begun goes on, what it had
 * committed is there, and so are the runtime, its processes and what it keeps. start_session comes
 * next.
 */
void crash_server(void);
bool session_serves(void *userdata);

/* Defaults for requests. */
struct sandbox_request sandbox_request(void);
struct execute_request execute_request(const char *sandbox_id, const char *code);

/* A policy as the API makes it. */
struct egress *make_egress(int32_t default_action, const struct egress_rule *rules, size_t n_rules);

struct answer create_sandbox(const struct sandbox_request *request);
struct answer new_sandbox(void);
struct answer get_sandbox(const char *sandbox_id);
struct answer update_sandbox(const char *sandbox_id, const struct sandbox_update *update);
struct answer delete_sandbox(const char *sandbox_id);
struct answer delete_sandbox_if(const char *sandbox_id, const char *etag);
struct answer get_execution(const char *execution_id);
struct answer create_context(const char *sandbox_id, const char *language, const char *directory);
struct answer restart_context(const char *sandbox_id, const char *context_id);
struct answer delete_context(const char *sandbox_id, const char *context_id);
struct answer list_contexts(const char *sandbox_id);

/* What the ledger has of a sandbox: rows of each type, of which some are incomplete. */
struct books {
        size_t n_executions, n_sandboxes, n_ends;
        size_t n_incomplete;
        int64_t cpu_usec;         /* of all together */
        int64_t cpu_usec_sandbox; /* of those of the sandbox alone */
        int64_t wall_usec_sandbox;
        struct usage_record last;
};

/* Also checks that their numbers have no holes. */
struct books read_books(const char *sandbox_id);

/* Executes; @seen is attached from the first event on. */
struct answer execute(const struct execute_request *request, struct seen *seen);

/* As one goes: executes in @sandbox_id and waits for the end. */
struct seen run_code(const char *sandbox_id, const char *code);

void on_sandbox_answer(void *userdata, const struct session_result *result,
                       const struct sandbox_record *record, bool created);
void on_execution_answer(void *userdata, const struct session_result *result,
                         const struct execution_record *record);
void on_contexts_answer(void *userdata, const struct session_result *result,
                        const struct context_view *views, size_t n);

int run_suite(const char *name, const void *tests, size_t n_tests);
