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

/* What a reader saw, as text: `queued started stdout:abc result:text/plain=2 ended`. */
struct seen {
        char text[16384];
        size_t n_text;
        int64_t stdout_bytes;
        int64_t stderr_bytes;
        int64_t part_bytes;
        int64_t gap_events;
        int64_t gap_stdout_bytes;
        int64_t last_sequence;
        int64_t n_events;
        int64_t n_egress;            /* denials and failures, all that they stand for */
        struct egress_record egress; /* the last of them */
        bool is_over;                /* `ended` was read, or it was closed */
        bool is_closed;
        struct execution_record ended;
        struct execution_reader *reader;
        bool is_paused; /* does not read */
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

/* Executes; @seen is attached from the first event on. */
struct answer execute(const struct execute_request *request, struct seen *seen);

/* As one goes: executes in @sandbox_id and waits for the end. */
struct seen run_code(const char *sandbox_id, const char *code);
void attach(const char *execution_id, int64_t after_sequence, struct seen *seen);
void detach(struct seen *seen);
void wait_for_end(struct seen *seen);
void wait_for_text(struct seen *seen, const char *text);
void read_all(struct seen *seen);
void see(struct seen *seen, const struct execution_event *event); /* one that was read */

void on_sandbox_answer(void *userdata, const struct session_result *result,
                       const struct sandbox_record *record, bool created);
void on_execution_answer(void *userdata, const struct session_result *result,
                         const struct execution_record *record);
void on_contexts_answer(void *userdata, const struct session_result *result,
                        const struct context_view *views, size_t n);

int run_suite(const char *name, const void *tests, size_t n_tests);
